"""Composed image retrieval: a picture and words become one query vector in the CLIP space of an index.

>>> import cir_vectorizer
>>> vectorizer = cir_vectorizer.load("tiny")
>>> vectorizer.compose([{"image": Path("dress.jpg"), "text": "is red"}]).vectors
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cir_vectorizer.errors import CirError

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer, load
    from cir_vectorizer.query import ComposedQuery, ImageRef

__all__ = ["CirError", "ComposedQuery", "ImageRef", "Vectorizer", "load"]
__version__ = "0.2.0"

_HOMES = {
    "ComposedQuery": "cir_vectorizer.query",
    "ImageRef": "cir_vectorizer.query",
    "Vectorizer": "cir_vectorizer.models",
    "load": "cir_vectorizer.models",
}


def __getattr__(name: str) -> Any:
    """Import slow modules, torch above all, only when one of their names is used."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
