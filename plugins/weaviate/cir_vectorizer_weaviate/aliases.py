"""Aliases of Weaviate collections (servers from 1.32 on)."""

from weaviate import WeaviateClient
from weaviate.exceptions import WeaviateUnsupportedFeatureError


def behind(client: WeaviateClient, name: str) -> str | None:
    """Return the collection that a name or an alias stands for; None if there is none."""
    try:
        alias = client.alias.get(alias_name=name)
    except WeaviateUnsupportedFeatureError:  # servers before 1.32
        alias = None
    if alias is not None:
        return str(alias.collection)
    return name if client.collections.exists(name) else None


def switch(client: WeaviateClient, name: str, old: str | None, new: str) -> None:
    """Make `name` an alias of `new` instead of `old`, and remove `old` if no other alias points to it."""
    aliases = client.alias.list_all()  # fails on a server without aliases, before anything is removed
    if old is None or old == name:
        for each in [alias.alias for alias in aliases.values() if alias.collection == old]:
            client.alias.update(alias_name=each, new_target_collection=new)
        client.collections.delete(name)
        client.alias.create(alias_name=name, target_collection=new)
        return
    client.alias.update(alias_name=name, new_target_collection=new)
    if not client.alias.list_all(collection=old):
        client.collections.delete(old)
