"""Composers: how picture embeddings and words become one query vector.

A composer is an entry point of the group `cir_vectorizer.composers`: a subclass of `Composer` that says what it takes and
has `load`, `prepare` and `compose`.
"""

from cir_vectorizer.composers.base import Composer, Plan
from cir_vectorizer.query.takes import Takes

__all__ = ["Composer", "Plan", "Takes"]
