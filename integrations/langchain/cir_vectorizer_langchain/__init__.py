"""LangChain: embeddings of texts, pictures and composed queries, and a retriever that searches a collection with them."""

from cir_vectorizer import extras

extras.require("langchain", __name__)

from cir_vectorizer_langchain.embeddings import ComposedEmbeddings  # noqa: E402
from cir_vectorizer_langchain.retriever import ComposedRetriever  # noqa: E402

__all__ = ["ComposedEmbeddings", "ComposedRetriever"]
