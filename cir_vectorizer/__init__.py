"""Composed image retrieval: a picture and words become one query vector in the CLIP space of an index.

>>> import cir_vectorizer
>>> vectorizer = cir_vectorizer.load("tiny")
>>> vectorizer.compose([{"image": Path("dress.jpg"), "text": "is red"}]).vectors
"""

from typing import TYPE_CHECKING, Any

from cir_vectorizer.errors import CirError
from cir_vectorizer.query import ComposedQuery, ImageRef

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer, load

__all__ = ["CirError", "ComposedQuery", "ImageRef", "Vectorizer", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for."""
    if name in ("Vectorizer", "load"):
        from cir_vectorizer import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
