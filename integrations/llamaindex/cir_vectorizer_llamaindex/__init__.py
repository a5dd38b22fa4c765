"""LlamaIndex: multi-modal embeddings, also of composed queries, and a retriever that searches a collection with them."""

from cir_vectorizer import extras

extras.require("llamaindex", __name__)

from cir_vectorizer_llamaindex.embedding import ComposedEmbedding  # noqa: E402
from cir_vectorizer_llamaindex.retriever import ComposedRetriever  # noqa: E402

__all__ = ["ComposedEmbedding", "ComposedRetriever"]
