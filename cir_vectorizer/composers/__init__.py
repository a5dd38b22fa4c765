"""Composers: how picture embeddings and words become one query vector.

A composer is an entry point of the group `cir_vectorizer.composers`: a class with
`load(record, folder, backbone) -> Composer`, where `record` is its part of model.json.
"""

from cir_vectorizer.composers.base import Composer, Plan

__all__ = ["Composer", "Plan"]
