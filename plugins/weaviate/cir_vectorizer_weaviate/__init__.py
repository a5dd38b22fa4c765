"""Weaviate as a collection of cir-vectorizer, and composed queries for `near_text` of the stock client."""

from cir_vectorizer_weaviate.collection import WeaviateCollection
from cir_vectorizer_weaviate.database import WEAVIATE
from cir_vectorizer_weaviate.inference import composed

__all__ = ["WEAVIATE", "WeaviateCollection", "composed"]
