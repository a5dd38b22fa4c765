"""Weaviate's entry in the core's registry: ports, the server's version and key, and a function to open a collection."""

from cir_vectorizer.collections import Address, Database, Lack, OpenOptions
from cir_vectorizer.errors import AddressError
from cir_vectorizer_weaviate.collection import WeaviateCollection
from cir_vectorizer_weaviate.connection import WeaviateConnection
from cir_vectorizer_weaviate.schema import capitalised


def open_collection(address: Address, options: OpenOptions = OpenOptions()) -> WeaviateCollection:
    """Open a collection; it connects at its first call.

    Raises:
        AddressError: the address names a directory, or Weaviate refuses the collection's name.
    """
    if address.path is not None:
        raise AddressError(
            f"{address} names a directory, and Weaviate runs as a server alone; write weaviate://HOST:PORT/COLLECTION"
        )
    return WeaviateCollection(address, options, WeaviateConnection(address, options, WEAVIATE))


WEAVIATE = Database(
    name="Weaviate",
    open=open_collection,
    ports={"weaviate": 8080, "weaviates": 443},
    key_variable="WEAVIATE_API_KEY",
    version_path="/v1/meta",
    container_setting="CLIP_INFERENCE_API",
    lacks=(
        Lack((1, 27), "problem", "what the client needs, so nothing works"),
        Lack((1, 32), "warning", "aliases, so sync --reembed cannot switch"),
        Lack((1, 37), "warning", "maximal marginal relevance, so --diversity is refused"),
    ),
    spell=capitalised,
)
"""Weaviate, as `open_collection` finds it by the scheme of an address."""
