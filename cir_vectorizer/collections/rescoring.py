"""Searches with a second score: an object's text beside its picture, and words that results must or must not show.

One vector cannot say "not", and CLIP's vector of a picture knows little of what only the shop's text says. So the
candidates of a search, its first K by picture and by text, are scored again:

    s = (1 − weight) · cos(query, picture) + weight · cos(query, text)
    score = s · Π (1 − n)^strength · Π w^strength

n and w are the same sum for the words of `negative_text` and `must_text`, scaled so that the candidates range from 0 to 1:
cosines to words differ too little, and from word to word, to be used as they are.

CLIP's texts lie apart from its pictures. So where an object has no text, its cosine to the picture counts for both, moved by
the difference between the collection's mean text and its mean picture; and `min_score` is no cosine but a standard score:
the number of standard deviations by which s exceeds its mean over the collection. It means the same for composers whose
vectors lie among the pictures and for those whose vectors lie among the texts.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections.protocol import Ask, Collection, Signal, TextShare
from cir_vectorizer.collections.records import Hit, Vector, values_at
from cir_vectorizer.query.filters import parse_column

STRENGTH = 2.0
"""Usual exponent of the second score."""
TEXT_WEIGHT = 0.3
"""Usual weight of texts, for collections for which none was chosen."""
SAMPLE = 256
"""Objects whose vectors stand for a collection."""
SAMPLE_SECONDS = 60.0
"""Time for which they are kept."""
PAGE = 100
"""Objects whose columns are read at once to find groups."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Background:
    """Vectors of some objects, which tell how a query scores a typical object of the collection.

    Attributes:
        pictures: (n, dim).
        texts: (m, dim), of those that have a text.
        gap: (dim,), mean text minus mean picture; zero if there are no texts.
    """

    pictures: npt.NDArray[np.float32]
    texts: npt.NDArray[np.float32]
    gap: Vector

    @classmethod
    def of(cls, collection: Collection, dim: int) -> "Background":
        """Read the vectors of some objects of a collection, or return those that were read a short time ago."""
        known = _READ.get(collection)
        if known is None or time.monotonic() - known[0] > SAMPLE_SECONDS:
            known = time.monotonic(), cls._read(collection, dim)
            _READ[collection] = known
        return known[1]

    @classmethod
    def _read(cls, collection: Collection, dim: int) -> "Background":
        points = collection.sample(SAMPLE)
        pictures = _stack([point.vector for point in points], dim)
        texts = _stack([point.text_vector for point in points], dim)
        gap = texts.mean(axis=0) - pictures.mean(axis=0) if len(texts) and len(pictures) else np.zeros(dim, np.float32)
        return cls(pictures, texts, gap.astype(np.float32))

    def share(self, vector: Vector, weight: float) -> TextShare:
        """Return the share of texts in the scores of a query."""
        return TextShare(weight, float(self.gap @ vector))

    def spread(self, vector: Vector, weight: float) -> tuple[float, float] | None:
        """Return mean and standard deviation of a query's scores; None if the collection has fewer than two objects."""
        if len(self.pictures) < 2:
            return None
        scores = self.pictures @ vector
        mean, spread = scores.mean(), scores.std()
        if weight and len(self.texts):
            # a typical object's two cosines hardly depend on each other, so their spreads add
            said = self.texts @ vector
            mean = (1 - weight) * mean + weight * said.mean()
            spread = np.hypot((1 - weight) * spread, weight * said.std())
        return float(mean), float(spread)


_READ: "WeakKeyDictionary[Collection, tuple[float, Background]]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Words:
    """Vectors of the words that results must not and must show, and the exponent of their scores."""

    unwanted: tuple[Vector, ...] = ()
    wanted: tuple[Vector, ...] = ()
    strength: float = STRENGTH

    def __bool__(self) -> bool:
        return bool(self.unwanted or self.wanted)


def rescored(collection: Collection, vector: Vector, words: Words, ask: Ask, least: float = -np.inf) -> list[Hit]:
    """Search for a vector and score the candidates again by words.

    Args:
        vector: the query, (dim,) of length 1.
        ask: the options of the search; with `texts`, an object's text counts too, for the words as for the query.
        least: smallest score, before the words change it.

    Returns:
        The best hits, with the signals `picture`, `text`, `unwanted` and `wanted`.
    """
    share = ask.texts
    vectors = (vector, *words.unwanted, *words.wanted)
    rankings = [Signal(vector)] + ([Signal(vector, "text")] if share else [])
    signals = [Signal(each, of) for each in vectors for of in (("picture", "text") if share else ("picture",))]
    found = collection.score(rankings, signals, ask, ask.candidates)
    if not found:
        return []
    cosines = np.array([each.cosines for each in found], dtype=np.float64).reshape(len(found), len(vectors), -1)
    if share:
        offsets = np.array([share.offset, *(Background.of(collection, len(vector)).gap @ each for each in vectors[1:])])
        pictures, texts = cosines[..., 0], cosines[..., 1]
        texts = np.where(np.isnan(texts), pictures + offsets, texts)
        fused = (1 - share.weight) * pictures + share.weight * texts
    else:
        fused = cosines[..., 0]
    base, about = fused[:, 0], _scaled(fused[:, 1:])
    unwanted, wanted = about[:, : len(words.unwanted)], about[:, len(words.unwanted) :]
    scores = combined(base, unwanted, wanted, words.strength)
    order = [int(i) for i in np.lexsort((-base, -scores)) if base[i] >= least]

    def hits() -> "Iterator[Hit]":
        for at in range(0, len(order), PAGE):
            lot = order[at : at + PAGE]
            payloads = {point.id: point.payload for point in collection.get([found[i].id for i in lot])}
            for i in lot:
                if found[i].id in payloads:  # else it was removed meanwhile
                    yield Hit(found[i].id, float(scores[i]), payloads[found[i].id], _signals(i))

    def _signals(i: int) -> dict[str, float]:
        said = {"picture": cosines[i, 0, 0]}
        if share and not np.isnan(cosines[i, 0, 1]):
            said["text"] = cosines[i, 0, 1]
        if words.unwanted:
            said["unwanted"] = unwanted[i].max()
        if words.wanted:
            said["wanted"] = wanted[i].min()
        return {name: float(value) for name, value in said.items()}

    return _page(hits(), ask)


def combined(base: Floats, unwanted: Floats, wanted: Floats, strength: float) -> Floats:
    """Return the scores of candidates, (n,).

    Args:
        base: (n,) scores before the words change them. If some are negative, all are raised until the least is 0: the
            words would otherwise draw those the wrong way.
        unwanted, wanted: (n, number of texts), from 0 to 1.
    """
    factors: Floats = np.prod(1 - unwanted, axis=1) * np.prod(wanted, axis=1)
    return (base - min(0.0, float(base.min(initial=0.0)))) * factors**strength


def _scaled(cosines: Floats) -> Floats:
    """Return each column scaled so that it ranges from 0 to 1; 0.5 everywhere if all its values are equal."""
    low, high = cosines.min(axis=0), cosines.max(axis=0)
    spread = high - low
    return np.where(spread > 0, (cosines - low) / np.where(spread > 0, spread, 1), 0.5)


def _page(hits: Iterator[Hit], ask: Ask) -> list[Hit]:
    """Return the asked page of hits, or of the best hit for each value of `group_by`."""
    end = ask.offset + ask.limit
    if ask.group_by is None:
        first = [hit for hit, _ in zip(hits, range(end), strict=False)]
        return first[ask.offset :]
    column = parse_column(ask.group_by)
    best: dict[tuple[type, object], Hit] = {}
    for hit in hits:
        for value in values_at(hit.payload, column):
            if isinstance(value, str | int) and not isinstance(value, bool):
                best.setdefault((type(value), value), hit)
        if len(best) >= end:
            break
    return list(best.values())[ask.offset : end]


def _stack(vectors: Sequence[Vector | None], dim: int) -> npt.NDArray[np.float32]:
    kept = [each for each in vectors if each is not None and each.size == dim]
    return np.stack(kept).astype(np.float32) if kept else np.empty((0, dim), np.float32)
