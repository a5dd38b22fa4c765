"""Weaviate as a collection of cir-vectorizer, and composed queries for `near_text` of the stock client."""

from cir_vectorizer import extras

extras.require("weaviate", "Weaviate")

from cir_vectorizer.collections import Address, OpenOptions  # noqa: E402
from cir_vectorizer_weaviate.collection import WeaviateCollection  # noqa: E402
from cir_vectorizer_weaviate.inference import composed  # noqa: E402

__all__ = ["WeaviateCollection", "composed", "open_collection"]


def open_collection(address: Address, options: OpenOptions = OpenOptions()) -> WeaviateCollection:
    """What the entry points `weaviate` and `weaviates` name: a collection that connects at its first call.

    Raises:
        AddressError: it names a directory, or a name that Weaviate refuses.
    """
    return WeaviateCollection(address, options)
