"""Qdrant as a collection of cir-vectorizer (a server, or embedded in a directory), and composed queries for its client."""

from cir_vectorizer import extras

extras.require("qdrant", "Qdrant")

from cir_vectorizer.collections import Address, OpenOptions  # noqa: E402
from cir_vectorizer_qdrant.collection import QdrantCollection  # noqa: E402
from cir_vectorizer_qdrant.inference import composed  # noqa: E402

__all__ = ["QdrantCollection", "composed", "open_collection"]


def open_collection(address: Address, options: OpenOptions = OpenOptions()) -> QdrantCollection:
    """What the entry points `qdrant` and `qdrants` name: a collection that connects at its first call.

    Raises:
        AddressError: TLS was asked for an embedded collection.
        CollectionError: a tenant was asked for.
    """
    return QdrantCollection(address, options)
