"""Contenders of `evaluate catalog`: composers as they serve, baselines, and the settings swept for them.

Settings are swept on queries for choosing. The vectors that are reported come from the model as it serves
(`Vectorizer.compose`), so that a figure is that of a query that a shop can send; only the centred sum and the spherical
interpolation, which no composer offers, are computed here.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections.rescoring import TEXT_WEIGHT
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
TEXT_WEIGHTS = tuple(round(0.1 * step, 1) for step in range(11))
"""Weights of objects' texts that are swept; their pictures have the rest."""
LEAST_GAIN = 0.01
FUSED = ", fused"
"""End of the name of a composer's row with the best fusion."""
TEXTS = ", texts "
"""Between the name of a row and the weight of texts that it was searched with."""
_BATCH = 64
_MOST_SIMILARITIES = 16_000_000


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
        text_weight: weight of objects' texts in its searches.
        plain: whether it mixes the encoder's own vectors, as searches do without a trained composer.
    """

    name: str
    settings: Mapping[str, Any]
    vectors: Vectors
    score: float
    milliseconds: float | None = None
    served: bool = False
    text_weight: float = 0.0
    plain: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Options of a query that asks for it."""
        return dict(self.settings.get("options", {}))


class Bench:
    """Queries for choosing and the objects that they search: scores of settings, which are mixes of similarities.

    A score is the mean of R@1 and R@10. Memory is bounded: similarities are computed for some of the queries at a time.
    """

    def __init__(self, objects: Objects, answers: Answers) -> None:
        self.objects = objects
        self.answers = answers

    def score(self, vectors: Vectors) -> float:
        """Return the mean score of query vectors. (queries, dim)"""
        return float(self.sweep([vectors], [lambda similarities: similarities]).mean())

    def sweep(
        self, parts: Sequence[Vectors], mixes: Sequence[Callable[..., Vectors]], with_texts: bool = False
    ) -> metrics.Values:
        """Return the scores of mixes of vectors, mixed by their similarities. (mixes, queries)

        Args:
            parts: (queries, dim) each.
            mixes: linear functions of one array for each part; the length of a query's vector does not change its ranking.
            with_texts: the similarities of the first part to the texts are one more array.
        """
        values = np.empty((len(mixes), len(self.answers.references)))
        for rows in blocks(len(self.answers.references), len(self.objects)):
            similarities = [part[rows] @ self.objects.vectors.T for part in parts]
            if with_texts:
                similarities.append(self.objects.said(parts[0][rows], similarities[0]))
            wanted = self.answers.wanted[rows][:, self.answers.group]
            references = self.answers.references[rows]
            own = np.arange(len(references)), references
            wanted[own] = False
            for number, mix in enumerate(mixes):
                mixed = mix(*similarities)
                above = mixed > np.where(wanted, mixed, -np.inf).max(axis=1, keepdims=True)
                above[own] = False
                ranks = above.sum(axis=1)
                values[number, rows] = ((ranks < 1).astype(np.float64) + (ranks < 10)) / 2
        return values


def blocks(queries: int, objects: int) -> Iterator[slice]:
    """Yield slices of queries, each of at most about `_MOST_SIMILARITIES` similarities to all objects."""
    step = max(1, _MOST_SIMILARITIES // objects)
    yield from (slice(at, at + step) for at in range(0, queries, step))


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
        return cls(asked, pictures, embed_texts(model, [query.text for query in queries]))

    def compose(self, model: "Vectorizer", composer: str, options: Mapping[str, Any]) -> tuple[Vectors, float]:
        """Compose the queries.

        Returns:
            (queries, dim) unit vectors, and the mean milliseconds a query.
        """
        asked = [{**query, "composer": composer, "options": dict(options)} for query in self.queries]
        began = time.monotonic()
        parts = [model.compose(asked[at : at + _BATCH]).vectors for at in range(0, len(asked), _BATCH)]
        return np.concatenate(parts), 1000 * (time.monotonic() - began) / len(asked)


def embed_texts(model: "Vectorizer", texts: Sequence[str]) -> Vectors:
    """Embed texts some at a time. (texts, dim)"""
    return np.concatenate([model.embed_texts(texts[at : at + _BATCH]) for at in range(0, len(texts), _BATCH)])


def contenders(
    models: Mapping[str, "Vectorizer"],
    bench: Bench,
    choosing: Asked,
    reported: Asked,
    progress: Callable[[str], None] = lambda _: None,
    today: Mapping[str, Any] = {},
) -> list[Contender]:
    """Return all contenders, their settings swept on the queries for choosing.

    Args:
        models: over one backbone, by name.
        bench: for the queries for choosing; if its objects have texts, each served contender is there with and without.
        progress: told what runs.
        today: settings that are the default now, which are a contender too.
    """
    found = _baselines(bench, choosing, reported)
    sample = ComposedQuery.parse(reported.queries[0])
    for number, (name, model) in enumerate(models.items()):
        bare = model.without_defaults()
        for composer, takes in model.takes.items():
            if takes.refused(sample) or takes.missing(sample):
                continue
            plain = not (takes.reads("image") and takes.reads("text")) or _sums(takes)
            if plain and number:
                continue  # these are the same for every model over the backbone
            shown = composer if plain or len(models) == 1 else f"{name}: {composer}"
            progress(shown)
            set_now = model.defaults.get(composer)
            for label, options, score in _settings(bare, composer, takes, bench, choosing, set_now):
                vectors, milliseconds = reported.compose(bare, composer, options)
                settings = {"model": name, "composer": composer, "options": options}
                entry = Contender(f"{shown}{label}", settings, vectors, score, milliseconds, served=True, plain=plain)
                if bench.objects.texts is None:
                    found.append(entry)
                else:
                    found += weighed(entry, choosing.compose(bare, composer, options)[0], bench, today)
    return found


def weighed(entry: Contender, vectors: Vectors, bench: Bench, today: Mapping[str, Any]) -> Iterator[Contender]:
    """Yield a contender without texts, with a chosen weight, and with their weight today if it is today's setting.

    Chosen is the weight nearest to the usual one that is not surely worse than the best one: texts often name what right
    answers are made of, so that the best weight is too high for queries of another kind.

    Args:
        vectors: (queries, dim), of the queries for choosing.
    """
    also = [today["text_weight"]] if {**today, **entry.settings} == today else []
    weights = list(dict.fromkeys((*TEXT_WEIGHTS, *also)))
    mixes = [partial(weighted, weight=1 - weight) for weight in weights]
    values = bench.sweep([vectors], mixes, with_texts=True)
    best = values[int(values[: len(TEXT_WEIGHTS)].mean(axis=1).argmax())]
    good = [each for each, own in zip(weights, values, strict=True) if metrics.estimate(best - own).low <= 0]
    chosen = min(good, key=lambda weight: (round(abs(weight - TEXT_WEIGHT), 9), weight))
    for weight in dict.fromkeys((0.0, chosen, *also)):
        yield replace(
            entry,
            name=f"{entry.name}{TEXTS}{weight:g}" if weight else entry.name,
            settings={**entry.settings, "text_weight": weight},
            score=float(values[weights.index(weight)].mean()),
            text_weight=weight,
        )


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
        weight, score = _best_weight(bench, choosing.pictures, choosing.texts)
        options = {"weights": {"image": weight, "text": round(1 - weight, 2)}}
        if options != now:
            yield ", swept", options, score
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


def _best_weight(bench: Bench, pictures: Vectors, texts: Vectors) -> tuple[float, float]:
    """Return the picture's weight in the best sum with the text, which has the rest; and the score."""
    mixes = [partial(weighted, weight=weight) for weight in WEIGHTS]
    scores = bench.sweep([pictures, texts], mixes).mean(axis=1)
    return WEIGHTS[int(scores.argmax())], float(scores.max())


def weighted(pictures: Vectors, texts: Vectors, weight: float) -> Vectors:
    """Return weight · pictures + (1 − weight) · texts: vectors, or similarities to them."""
    return weight * pictures + (1 - weight) * texts


def _baselines(bench: Bench, choosing: Asked, reported: Asked) -> list[Contender]:
    """Return the sums that no composer serves, with their weights swept."""
    index_mean, text_mean = bench.objects.vectors.mean(axis=0), choosing.texts.mean(axis=0)
    weight, score = _best_weight(bench, choosing.pictures - index_mean, choosing.texts - text_mean)
    centred = weighted(reported.pictures - index_mean, reported.texts - text_mean, weight)
    scores = {share: bench.score(slerp(choosing.texts, choosing.pictures, share)) for share in WEIGHTS}
    share = max(scores, key=scores.__getitem__)
    return [
        Contender("sum, centred", {"formula": "sum of centred vectors", "picture's weight": weight}, centred, score, plain=True),
        Contender(
            "slerp", {"formula": "spherical interpolation", "picture's share": share},
            slerp(reported.texts, reported.pictures, share), scores[share], plain=True,
        ),
    ]  # fmt: skip


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

    mixes = [partial(mix, fusion=fusion) for fusion in (*FUSIONS, Fusion())]
    values = bench.sweep([composed, wordless, pictures], mixes)
    scores = values[:-1].mean(axis=1)
    best = int(scores.argmax())
    surely = metrics.paired(values[best], values[-1]).low > LEAST_GAIN
    return (FUSIONS[best], float(scores[best])) if surely else None
