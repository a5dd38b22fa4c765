"""Composed image retrieval: a picture and words become one query vector in the CLIP space of an index.

Examples:
    >>> import cir_vectorizer
    >>> vectorizer = cir_vectorizer.load("tiny")
    >>> vectorizer.compose([{"image": Path("dress.jpg"), "text": "is red"}]).vectors
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cir_vectorizer.errors import CirError

if TYPE_CHECKING:
    from cir_vectorizer.client import ServedModel
    from cir_vectorizer.collections import Collection
    from cir_vectorizer.collections.searching import Found
    from cir_vectorizer.models import Vectorizer, load
    from cir_vectorizer.query import ComposedQuery, ImageRef

__all__ = ["CirError", "ComposedQuery", "ImageRef", "Vectorizer", "load", "search"]
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


def search(
    collection: "Collection | str",
    query: "ComposedQuery | Mapping[str, Any] | str | None" = None,
    *,
    model: "Vectorizer | ServedModel | str" = "tiny",
    **options: Any,
) -> "Found":
    """Search a collection with pictures and words: `search("qdrant:./index/shop", {"image": …, "text": "is red"})`.

    Args:
        collection: an opened collection, or its address, which is then opened and closed again.
        query: as `ComposedQuery.parse` reads it; `{"image": {"id": …}}` names an object of the collection.
        model: the model that composes the query, or a name for `load`. Give a loaded one if there are many searches.
        options: the fields of `cir_vectorizer.collections.searching.Search`: `like`, `unlike`, `where` (a filter as text),
            `limit`, `offset`, `hybrid`, `group_by`, `include_reference`, `text_weight`, `strength`, `diversity`,
            `min_score`, `exact`.

    Returns:
        The hits, nearest first, as a sequence; also with `notes` and the query's `vector`, (dim,).

    Raises:
        QueryError: names the field at fault.
        ImageError: a picture is rejected.
        ModelError, BackboneMismatch, CollectionError: the model cannot be loaded, did not make the collection, or the
            collection cannot be read.
        ServiceError: the service of a served model does not answer.
    """
    from contextlib import closing

    from cir_vectorizer.searcher import Searcher

    with closing(Searcher(collection, model)) as searcher:
        return searcher.search(query, **options)
