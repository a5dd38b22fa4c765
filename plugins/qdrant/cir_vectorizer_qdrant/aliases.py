"""Aliases of Qdrant collections."""

from qdrant_client import QdrantClient, models


def behind(client: QdrantClient, name: str) -> str | None:
    """Return the collection that a name or an alias stands for; None if there is none."""
    aliases = {each.alias_name: each.collection_name for each in client.get_aliases().aliases}
    if name in aliases:
        return aliases[name]
    return name if client.collection_exists(name) else None


def switch(client: QdrantClient, name: str, old: str | None, new: str) -> None:
    """Make `name` an alias of `new` instead of `old`, and remove `old` if no other alias points to it."""
    if old == name:
        others = [each.alias_name for each in client.get_collection_aliases(old).aliases]
        client.delete_collection(old)
        client.update_collection_aliases([_make(each, new) for each in (name, *others)])
        return
    leave = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name))
    client.update_collection_aliases([leave, _make(name, new)] if old else [_make(name, new)])
    if old and not client.get_collection_aliases(old).aliases:
        client.delete_collection(old)


def _make(alias: str, collection: str) -> models.CreateAliasOperation:
    return models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))
