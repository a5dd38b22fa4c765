"""Contenders of `evaluate catalog`: composers as they serve, baselines, and the settings swept for them.

Settings are swept on queries for choosing. The vectors that are reported come from the model as it serves
(`Vectorizer.compose`), so that a figure is that of a query that a shop can send; only the centred sum and the spherical
interpolation, which no composer offers, are computed here.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.catalog.objects import Objects
from cir_vectorizer.evaluate.catalog.queries import Answers, MadeQuery
from cir_vectorizer.query import ComposedQuery, Fusion, Options
from cir_vectorizer.query.takes import Takes

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer

Vectors = npt.NDArray[np.float32]
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))
"""Weights of the picture that are swept for sums; the text has the rest."""
FUSIONS = tuple(
    Fusion(a=a, b=b, c=c)
    for a, b, c in product(
        (0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0), (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), (0.8, 1.0, 1.2, 1.4, 1.7, 2.0)
    )
    if (a == 1 or b < 1) and (c == 1 or b > 0)  # a does nothing where b is 1, and c where b is 0
)
LEAST_GAIN = 0.01
FUSED = ", fused"
"""End of the name of a composer's row with the best fusion."""
_BATCH = 64


@dataclass(frozen=True)
class Contender:
    """Query vectors of one composer and its settings.

    Attributes:
        name: as reports show it.
        settings: model, composer and options that give these vectors, or the formula of a baseline.
        vectors: (queries, dim), of the queries for reporting.
        score: on the queries for choosing.
        milliseconds: mean time for composing a query.
        served: whether a model serves it; else it is a baseline that was computed here.
    """

    name: str
    settings: Mapping[str, Any]
    vectors: Vectors
    score: float
    milliseconds: float | None = None
    served: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Options of a query that asks for it."""
        return dict(self.settings.get("options", {}))


class Bench:
    """Queries for choosing and the objects that they search: scores of settings, from similarities or vectors.

    A score is the mean of R@1 and R@10.
    """

    def __init__(self, objects: Objects, answers: Answers) -> None:
        self.index = objects.vectors
        self._references = answers.references
        self._wanted = answers.wanted[:, answers.group]
        self._wanted[np.arange(len(self._wanted)), self._references] = False

    def similarities(self, vectors: Vectors) -> Vectors:
        """Return (queries, objects) dot products."""
        found: Vectors = vectors @ self.index.T
        return found

    def values(self, similarities: Vectors) -> metrics.Values:
        """Return each query's score: the mean of its hits at 1 and at 10."""
        best = np.where(self._wanted, similarities, -np.inf).max(axis=1, keepdims=True)
        above = similarities > best
        above[np.arange(len(above)), self._references] = False
        ranks = above.sum(axis=1)
        values: metrics.Values = ((ranks < 1).astype(np.float64) + (ranks < 10)) / 2
        return values

    def score(self, vectors: Vectors) -> float:
        """Return the mean score of query vectors."""
        return float(self.values(self.similarities(vectors)).mean())


@dataclass(frozen=True)
class Asked:
    """Queries as models get them, with the unit vectors of their pictures and of their words. (queries, dim) each"""

    queries: Sequence[Mapping[str, Any]]
    pictures: Vectors
    texts: Vectors

    @classmethod
    def of(cls, queries: Sequence[MadeQuery], objects: Objects, model: "Vectorizer") -> "Asked":
        """Return made queries with the objects' own vectors as pictures."""
        asked = [{"image": objects.reference(query.reference), "text": query.text} for query in queries]
        pictures = objects.vectors[[query.reference for query in queries]]
        return cls(asked, pictures, model.embed_texts([query.text for query in queries]))

    @property
    def sample(self) -> ComposedQuery:
        """One of the queries."""
        return ComposedQuery.parse(self.queries[0])

    def compose(self, model: "Vectorizer", composer: str, options: Mapping[str, Any]) -> tuple[Vectors, float]:
        """Compose the queries.

        Returns:
            (queries, dim) unit vectors, and the mean milliseconds a query.
        """
        asked = [{**query, "composer": composer, "options": dict(options)} for query in self.queries]
        began = time.monotonic()
        parts = [model.compose(asked[at : at + _BATCH]).vectors for at in range(0, len(asked), _BATCH)]
        return np.concatenate(parts), 1000 * (time.monotonic() - began) / len(asked)


def contenders(
    models: Mapping[str, "Vectorizer"],
    bench: Bench,
    choosing: Asked,
    reported: Asked,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Contender]:
    """Return all contenders, their settings swept on the queries for choosing.

    Args:
        models: over one backbone, by name.
        bench: for the queries for choosing.
        progress: told what runs.
    """
    found = _baselines(bench, choosing, reported)
    for number, (name, model) in enumerate(models.items()):
        for composer, takes in model.takes.items():
            if takes.refused(reported.sample) or takes.missing(reported.sample):
                continue
            plain = not (takes.reads("image") and takes.reads("text")) or _sums(takes)
            if plain and number:
                continue  # these are the same for every model over the backbone
            shown = composer if plain or len(models) == 1 else f"{name}: {composer}"
            progress(shown)
            set_now = model.defaults.get(composer)
            bare = model.without_defaults()
            for label, options, score in _settings(bare, composer, takes, bench, choosing, set_now):
                vectors, milliseconds = reported.compose(bare, composer, options)
                settings = {"model": name, "composer": composer, "options": options}
                found.append(Contender(f"{shown}{label}", settings, vectors, score, milliseconds, served=True))
    return found


def _sums(takes: Takes) -> bool:
    return {"weights.image", "weights.text"} <= set(takes.options)


def _settings(
    model: "Vectorizer", composer: str, takes: Takes, bench: Bench, choosing: Asked, set_now: Options | None
) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Yield a composer's settings with their labels and scores: its own, those of the model folder, and others, swept."""
    plain, _ = choosing.compose(model, composer, {})
    yield "", {}, bench.score(plain)
    now = None if set_now is None else set_now.to_json()
    if now is not None:
        yield ", as set now", now, bench.score(choosing.compose(model, composer, now)[0])
    if _sums(takes):
        scores = {w: bench.score(w * choosing.pictures + (1 - w) * choosing.texts) for w in WEIGHTS}
        weight = max(scores, key=scores.__getitem__)
        options = {"weights": {"image": weight, "text": round(1 - weight, 2)}}
        if options != now:
            yield ", swept", options, scores[weight]
    elif takes.fuses:
        wordless, _ = choosing.compose(model, composer, {"fusion": {"b": 1.0, "c": 0.0}})
        if (swept := _swept_fusion(plain, wordless, choosing.pictures, bench)) is not None:
            fusion, score = swept
            if (options := {"fusion": fusion.model_dump()}) != now:
                yield FUSED, options, score
    if "adapter" in takes.options:
        without, _ = choosing.compose(model, composer, {"adapter": False})
        if not np.allclose(without, plain, atol=1e-6):
            yield " without adapter", {"adapter": False}, bench.score(without)


def _baselines(bench: Bench, choosing: Asked, reported: Asked) -> list[Contender]:
    """Return the sums that no composer serves, with their weights swept."""
    index_mean, text_mean = bench.index.mean(axis=0), choosing.texts.mean(axis=0)
    forms: dict[str, Callable[[Asked, float], Vectors]] = {
        "sum, centred": lambda asked, w: w * (asked.pictures - index_mean) + (1 - w) * (asked.texts - text_mean),
        "slerp": lambda asked, w: slerp(asked.texts, asked.pictures, w),
    }
    found = []
    for name, form in forms.items():
        scores = {weight: bench.score(form(choosing, weight)) for weight in WEIGHTS}
        weight = max(scores, key=scores.__getitem__)
        settings = {"formula": name, "picture's weight": weight}
        found.append(Contender(name, settings, form(reported, weight), scores[weight]))
    return found


def slerp(start: Vectors, end: Vectors, share: float) -> Vectors:
    """Return the spherical interpolation of unit vectors, at a share of the way from `start` to `end`. (n, dim)"""
    angle = np.arccos(np.clip((start * end).sum(axis=1, keepdims=True), -1 + 1e-6, 1 - 1e-6))
    turned: Vectors = (np.sin((1 - share) * angle) * start + np.sin(share * angle) * end) / np.sin(angle)
    return turned.astype(np.float32)


def _swept_fusion(composed: Vectors, wordless: Vectors, pictures: Vectors, bench: Bench) -> tuple[Fusion, float] | None:
    """Return the fusion with the best score, and the score; None if it is not surely better than the composer.

    The best of many settings looks better than it is, so the whole interval must lie above `LEAST_GAIN`.
    """
    from cir_vectorizer.composers.fusion import mix

    # similarities mix as vectors do, and the length of a query's vector does not change its ranking
    parts = [bench.similarities(each) for each in (composed, wordless, pictures)]

    def values(fusion: Fusion) -> metrics.Values:
        return bench.values(mix(parts[0], parts[1], parts[2], fusion))

    scores = {number: float(values(fusion).mean()) for number, fusion in enumerate(FUSIONS)}
    best = max(scores, key=scores.__getitem__)
    surely = metrics.paired(values(FUSIONS[best]), values(Fusion())).low > LEAST_GAIN
    return (FUSIONS[best], scores[best]) if surely else None
