"""Objects of a collection, read for an evaluation: their vectors, columns and pictures, at most a fixed number of them."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections import RECORD_KEY, Collection, Id, SyncRecord
from cir_vectorizer.collections.rescoring import SAMPLE, Background
from cir_vectorizer.errors import CollectionError
from cir_vectorizer.query import ImageRef

Floats = npt.NDArray[np.float32]
LEAST = 20
"""Smallest number of objects that can be judged."""
_PAGE = 256
_T = TypeVar("_T")


@dataclass(frozen=True)
class Objects:
    """Objects of a collection.

    Attributes:
        vectors: (objects, dim) float32, of length 1.
        norms: length of each picture's embedding before it was normalised; None where it is not known.
        columns: the user's columns of each object.
        pictures: file or address of each object's picture, as sync recorded it; "" if it is not known.
        total: number of objects of the collection; more than were read if it is large.
        texts: (objects, dim), vectors of their texts, 0 for an object without one; None if texts do not score.
    """

    ids: Sequence[Id]
    vectors: Floats
    norms: Sequence[float | None]
    columns: Sequence[dict[str, Any]]
    pictures: Sequence[str]
    total: int
    texts: Floats | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def reference(self, row: int) -> ImageRef:
        """Return an object as the reference picture of a query."""
        return ImageRef(vector=self.vectors[row].tolist(), norm=self.norms[row])

    @property
    def having_text(self) -> npt.NDArray[np.bool_]:
        """Tells which objects have a text. (objects,)"""
        return np.zeros(len(self), np.bool_) if self.texts is None else np.asarray(self.texts.any(axis=1))

    def without_texts(self) -> "Objects":
        """Return the same objects, whose texts do not score."""
        return replace(self, texts=None)

    def scores(self, vectors: Floats, text_weight: float = 0.0) -> Floats:
        """Return the scores of queries, as searches with this weight of texts give them. (queries, dim) -> (queries, objects)"""
        pictures = vectors @ self.vectors.T
        return (1 - text_weight) * pictures + text_weight * self.said(vectors, pictures) if text_weight else pictures

    def said(self, vectors: Floats, pictures: Floats) -> Floats:
        """Return the cosines of queries to the texts, and what stands for them where there is no text. (queries, objects)

        Args:
            vectors: (queries, dim).
            pictures: (queries, objects), the cosines to the pictures.
        """
        assert self.texts is not None
        cosines: Floats = vectors @ self.texts.T
        lacking = ~self.having_text
        for row, vector in enumerate(vectors if lacking.any() else ()):
            cosines[row, lacking] = self._background.share(vector, 1.0).stand_in(pictures[row, lacking])
        return cosines

    @cached_property
    def _background(self) -> Background:
        assert self.texts is not None
        rows = np.linspace(0, len(self) - 1, min(SAMPLE, len(self)), dtype=np.intp)
        return Background(self.vectors[rows], self.texts[rows][self.having_text[rows]])


def read_objects(
    collection: Collection, most: int, seed: int = 0, progress: Callable[[str], None] = lambda _: None
) -> Objects:
    """Read the objects of a collection, or `most` of them drawn at random; memory does not grow with the collection.

    Args:
        progress: told now and then how far it is.

    Raises:
        CollectionError: the collection cannot be read, or holds too few objects with a vector.
    """
    total = 0

    def seen() -> Iterable[Id]:
        nonlocal total
        for id_, _ in collection.scan():
            total += 1
            if total % 100_000 == 0:
                progress(f"{total:,} objects listed")
            yield id_

    chosen = _sample(seen(), most, random.Random(f"objects/{seed}"))
    points = []
    for at in range(0, len(chosen), _PAGE):
        points += [
            point
            for point in collection.get(chosen[at : at + _PAGE])
            if point.vector is not None and point.vector.any()
        ]
    if len(points) < LEAST:
        raise CollectionError(
            f"{collection.address} holds {len(points)} objects with a vector, and {LEAST} are needed to judge searches; "
            "sync more pictures into it first"
        )
    points.sort(key=lambda point: str(point.id))  # databases return them in any order
    records = [SyncRecord.read(point.payload) for point in points]
    vectors = np.stack([point.vector for point in points if point.vector is not None])
    blank = np.zeros_like(vectors[0])
    texts = np.stack([blank if point.text_vector is None else point.text_vector for point in points])
    return Objects(
        [point.id for point in points],
        vectors,
        [None if record is None or not record.norm else record.norm for record in records],
        [{key: value for key, value in point.payload.items() if key != RECORD_KEY} for point in points],
        ["" if record is None else record.path for record in records],
        total,
        texts if texts.any() else None,
    )


def _sample(items: Iterable[_T], most: int, draw: random.Random) -> list[_T]:
    """Return up to `most` items, each equally likely (reservoir sampling)."""
    kept: list[_T] = []
    for number, item in enumerate(items):
        if len(kept) < most:
            kept.append(item)
        elif (place := draw.randrange(number + 1)) < most:
            kept[place] = item
    return kept
