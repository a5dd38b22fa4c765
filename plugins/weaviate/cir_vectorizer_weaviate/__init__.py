"""Weaviate with cir-vectorizer: composed queries for `near_text` of the stock client."""

from cir_vectorizer_weaviate.inference import composed

__all__ = ["composed"]
