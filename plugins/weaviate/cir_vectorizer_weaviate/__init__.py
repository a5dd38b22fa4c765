"""Weaviate collections for cir-vectorizer, and composed queries for `near_text` of the stock client."""

import warnings

from cir_vectorizer import extras

extras.require("weaviate", "Weaviate")

with warnings.catch_warnings():  # the client's import switches on Python's warnings for the whole process
    import weaviate  # noqa: F401

from cir_vectorizer_weaviate.collection import WeaviateCollection  # noqa: E402
from cir_vectorizer_weaviate.database import WEAVIATE  # noqa: E402
from cir_vectorizer_weaviate.fusing import composed_targets  # noqa: E402
from cir_vectorizer_weaviate.inference import composed  # noqa: E402

__all__ = ["WEAVIATE", "WeaviateCollection", "composed", "composed_targets"]
