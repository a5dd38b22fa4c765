"""Searches with a second score: an object's text beside its picture, and words that results must or must not show.

One vector cannot say "not", and CLIP's vector of a picture knows little of what only the shop's text says. So the
candidates of a search, its first K by picture and by text, are scored again:

    s = (1 − weight) · cos(query, picture) + weight · cos(query, text)
    score = (s − mean) · Π (1 − n)^strength · Π w^strength

The mean is that of s over the collection, as a sample of it shows. n and w are the same sum for the words of
`negative_text` and `must_text`, scaled, since cosines to words differ too little, and from word to word, to be used as they
are: n is 0 for objects that are no nearer to the words than the mean, and 1 for the nearest candidate; w is 0 for the
candidate that is farthest from the words, and 1 for the nearest. `benchmarks/second_signals.py` compares other forms.

CLIP's texts lie apart from its pictures. So where an object has no text, its cosine to the picture counts for both, moved
and stretched so that it is as many standard deviations from the mean cosine to texts as from that to pictures. And
`min_score` is no cosine but a standard score: the number of standard deviations by which s exceeds its mean over the
collection. It means the same for composers whose vectors lie among the pictures and for those whose vectors lie among the
texts.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections.protocol import Ask, Collection, Signal, TextShare
from cir_vectorizer.collections.records import Hit, Vector, best_of_groups
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
    """

    pictures: npt.NDArray[np.float32]
    texts: npt.NDArray[np.float32]

    @classmethod
    def of(cls, collection: Collection, dim: int, with_texts: bool) -> "Background":
        """Read the vectors of some objects of a collection, or return those that were read a short time ago.

        Args:
            with_texts: read them again if none had a text.
        """
        known = _READ.get(collection)
        if known is None or time.monotonic() - known[0] > SAMPLE_SECONDS or (with_texts and not len(known[1].texts)):
            known = time.monotonic(), cls._read(collection, dim)
            _READ[collection] = known
        return known[1]

    @classmethod
    def _read(cls, collection: Collection, dim: int) -> "Background":
        points = collection.sample(SAMPLE)
        return cls(*(_stack([getattr(each, name) for each in points], dim) for name in ("vector", "text_vector")))

    def usual(self, vector: Vector, weight: float) -> tuple[float, float]:
        """Return the mean and the standard deviation of a query's scores over the collection.

        Args:
            weight: weight of texts; 0 if there are none.
        """
        mean, spread = _usual(self.pictures @ vector)
        if weight and len(self.texts):
            text_mean, text_spread = _usual(self.texts @ vector)
            mean += weight * (text_mean - mean)
            # a typical object's two cosines hardly depend on each other, so their variances add
            spread = float(np.hypot((1 - weight) * spread, weight * text_spread))
        return mean, spread

    def share(self, vector: Vector, weight: float) -> TextShare:
        """Return the share of texts in the scores of a query."""
        if min(len(self.pictures), len(self.texts)) < 2:
            return TextShare(weight)
        (mean, spread), (text_mean, text_spread) = _usual(self.pictures @ vector), _usual(self.texts @ vector)
        slope = text_spread / spread if spread > 0 else 1.0
        return TextShare(weight, slope, text_mean - slope * mean)


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
    share, background = ask.texts, Background.of(collection, len(vector), ask.texts is not None)
    weight = share.weight if share else 0.0
    vectors = (vector, *words.unwanted, *words.wanted)
    rankings = [Signal(vector)] + ([Signal(vector, "text")] if share else [])
    signals = [Signal(each, of) for each in vectors for of in (("picture", "text") if share else ("picture",))]
    # without words and groups, the best by picture and text are the hits
    shown = ask.offset + ask.limit if share and not words and ask.group_by is None else 0
    found = collection.score(rankings, signals, ask, ask.candidates if words else ask.pool, shown)
    if not found.ids:
        return []
    cosines = found.cosines.reshape(len(found.ids), len(vectors), -1)
    if share:
        shares = [share, *(background.share(each, weight) for each in vectors[1:])]
        fused = np.stack([each.fused(cosines[:, i]) for i, each in enumerate(shares)], axis=1)
    else:
        fused = cosines[..., 0]
    base, end = fused[:, 0], 1 + len(words.unwanted)
    scores = behind = base
    if words:
        usual = np.array([background.usual(each, weight)[0] for each in vectors])
        unwanted = scaled(fused[:, 1:end], usual[1:end])
        wanted = scaled(fused[:, end:], fused[:, end:].min(axis=0), flat=1.0)
        scores = combined(base - usual[0], unwanted, wanted, words.strength)
        # in a small collection many candidates lie below the mean: they score 0, but the words order them too
        behind = combined(base - base.min(), unwanted, wanted, words.strength)
    order = [int(i) for i in np.lexsort((-behind, -scores)) if base[i] >= least]

    def hits(lot: Sequence[int]) -> Iterator[Hit]:
        ids = [found.ids[i] for i in lot]
        payloads = {**found.payloads}
        if missing := [id_ for id_ in ids if id_ not in payloads]:
            payloads |= collection.payloads(missing)
        for i, id_ in zip(lot, ids, strict=True):
            if id_ in payloads:  # else it was removed meanwhile
                yield Hit(id_, float(scores[i]), payloads[id_], signals_of(i))

    def signals_of(i: int) -> dict[str, float]:
        said = {"picture": cosines[i, 0, 0]}
        if share and not np.isnan(cosines[i, 0, 1]):
            said["text"] = cosines[i, 0, 1]
        if words.unwanted:
            said["unwanted"] = unwanted[i].max()
        if words.wanted:
            said["wanted"] = wanted[i].min()
        return {name: float(value) for name, value in said.items()}

    if ask.group_by is None:
        return list(hits(order[ask.offset : ask.offset + ask.limit]))
    pages = (hits(order[at : at + PAGE]) for at in range(0, len(order), PAGE))
    end = ask.offset + ask.limit
    return best_of_groups(chain.from_iterable(pages), parse_column(ask.group_by), end)[ask.offset :]


def combined(base: Floats, unwanted: Floats, wanted: Floats, strength: float) -> Floats:
    """Return the scores of candidates, (n,).

    Args:
        base: (n,) scores before the words change them; those below 0 count as 0.
        unwanted, wanted: (n, number of texts), from 0 to 1.
    """
    factors: Floats = np.prod(1 - unwanted, axis=1) * np.prod(wanted, axis=1)
    return np.maximum(base, 0.0) * factors**strength


def scaled(cosines: Floats, low: Floats, flat: float = 0.0) -> Floats:
    """Return the columns of (n, m) scaled from 0 at `low`, (m,), and below, to 1 at the largest value of each.

    Args:
        flat: value of a column without a value above `low`.
    """
    spread = cosines.max(axis=0) - low
    return np.where(spread > 0, np.clip((cosines - low) / np.where(spread > 0, spread, 1), 0, 1), flat)


def _usual(cosines: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return mean and standard deviation; 0 if there is nothing."""
    return (float(cosines.mean()), float(cosines.std())) if len(cosines) else (0.0, 0.0)


def _stack(vectors: Sequence[Vector | None], dim: int) -> npt.NDArray[np.float32]:
    kept = [each for each in vectors if each is not None and each.size == dim]
    return np.stack(kept).astype(np.float32) if kept else np.empty((0, dim), np.float32)
