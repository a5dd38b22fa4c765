"""Qdrant's entry in the core's registry: ports, the server's version and key, and a function to open a collection."""

from cir_vectorizer.collections import Address, Database, Lack, OpenOptions
from cir_vectorizer.errors import AddressError, CollectionError
from cir_vectorizer_qdrant.collection import QdrantCollection
from cir_vectorizer_qdrant.connection import QdrantConnection


def open_collection(address: Address, options: OpenOptions = OpenOptions()) -> QdrantCollection:
    """Open a collection; it connects at its first call.

    Raises:
        AddressError: the address asks for TLS on an embedded collection.
        CollectionError: the options name a tenant.
    """
    if address.path is not None and address.scheme == "qdrants":
        raise AddressError(f"{address} asks for TLS on an embedded collection; write qdrant:{address.path}/…")
    if options.tenant is not None:
        raise CollectionError(
            f"{address} is a Qdrant collection, which has no tenants; leave out --tenant, and give each tenant a "
            "collection or a payload column to filter by"
        )
    return QdrantCollection(address, options, QdrantConnection(address, options, QDRANT))


QDRANT = Database(
    name="Qdrant",
    open=open_collection,
    ports={"qdrant": 6333, "qdrants": 6333},
    key_variable="QDRANT_API_KEY",
    key_header=("api-key", "{}"),
    version_path="/",
    container_setting="QDRANT__INFERENCE__ADDRESS",
    lacks=(
        Lack((1, 10), "problem", "the query interface, so no search works"),
        Lack((1, 15), "warning", "maximal marginal relevance, so --diversity is refused"),
        Lack((1, 16), "warning", "metadata of collections, so only the records in the objects tell the model"),
    ),
)
"""Qdrant, as `open_collection` finds it by the scheme of an address."""
