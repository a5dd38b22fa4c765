"""Qdrant collections for cir-vectorizer (on a server or embedded in a directory), and composed queries for clients."""

from cir_vectorizer import extras

extras.require("qdrant", "Qdrant")

from cir_vectorizer_qdrant.collection import QdrantCollection  # noqa: E402
from cir_vectorizer_qdrant.database import QDRANT  # noqa: E402
from cir_vectorizer_qdrant.fusing import composed_query  # noqa: E402
from cir_vectorizer_qdrant.inference import composed, refused_points  # noqa: E402

__all__ = ["QDRANT", "QdrantCollection", "composed", "composed_query", "refused_points"]
