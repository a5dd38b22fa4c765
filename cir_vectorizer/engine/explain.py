"""Parts of a composed query, each with the query without it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cir_vectorizer.errors import QueryError
from cir_vectorizer.models import Vectorizer
from cir_vectorizer.models.vectorizer import Vectors
from cir_vectorizer.models.work import Work
from cir_vectorizer.query import ComposedQuery

MAX_WORDS = 40
"""Largest number of words of a text that are left out in turn; later words are not."""


@dataclass(frozen=True)
class Part:
    """A part of a query, and the query without it."""

    field: str
    word: str | None
    without: ComposedQuery


def parts_of(query: ComposedQuery) -> Iterator[Part]:
    """Yield each picture, each word of the text and each negative text, if the rest is still a query."""
    words = (query.text or "").split()
    for i in range(len(query.image)):
        left = query.image[:i] + query.image[i + 1 :]
        if left or words:
            yield Part(f"image.{i}", None, _without(query, image=left, template=None))
    for i, word in enumerate(words[:MAX_WORDS]):
        text = " ".join(words[:i] + words[i + 1 :]) or None
        if text:
            yield Part("text", word, _without(query, text=text))
        elif query.image:
            yield Part("text", word, _without(query, text=None, template=None))
    unwanted = query.unwanted
    for i, said in enumerate(unwanted):
        others = unwanted[:i] + unwanted[i + 1 :] or None
        yield Part("negative_text", said if others else None, _without(query, negative_text=others))


def works_of_parts(
    vectorizer: Vectorizer, query: ComposedQuery, allow_paths: bool = False
) -> tuple[list[Work], list[Part]]:
    """Plan the whole query, and the query without each of its parts, all with the composer of the whole query.

    A part that the composer needs is left out.
    """
    works = [vectorizer.plan(query, allow_paths)]
    by = {"composer": works[0].composer_name}
    parts = []
    for part in parts_of(query):
        with contextlib.suppress(QueryError):
            works.append(vectorizer.plan(part.without.model_copy(update=by), allow_paths))
            parts.append(part)
    return works, parts


def moved(whole: Vectors, without: Vectors) -> float:
    """Return how far a part moves the query's vector: 1 less the cosine to the vector without it, at least 0."""
    return max(0.0, 1.0 - float(np.dot(whole, without)))


def _without(query: ComposedQuery, **changes: object) -> ComposedQuery:
    return query.model_copy(update=changes)
