"""Qdrant as a collection of cir-vectorizer (a server, or embedded in a directory), and composed queries for its client."""

from cir_vectorizer_qdrant.collection import QdrantCollection
from cir_vectorizer_qdrant.database import QDRANT
from cir_vectorizer_qdrant.inference import composed

__all__ = ["QDRANT", "QdrantCollection", "composed"]
