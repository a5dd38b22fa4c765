"""Rankings of a benchmark's galleries by a model's composers, asked through the public door, a `Vectorizer`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cir_vectorizer.evaluate.benchmarks.base import Benchmark, Query, Rankings, Task
from cir_vectorizer.evaluate.benchmarks.embeddings import Embeddings, Progress
from cir_vectorizer.evaluate.metrics import top

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer

Vectors = npt.NDArray[np.float32]
_BATCH = 64
"""Queries that are composed, and whose scores are in memory, at a time."""
_Ask = tuple[tuple[str, ...], tuple[str, ...]]
"""References and texts: the parts of a query that its vector depends on."""


@dataclass(frozen=True)
class Ranked:
    """Rankings by one composer.

    Attributes:
        composer: its name.
        rankings: by task name; the ranking of a query whose reference cannot be read is empty.
        milliseconds: mean time for composing a query.
    """

    composer: str
    rankings: Mapping[str, Rankings]
    milliseconds: float


def composers_of(vectorizer: "Vectorizer", benchmark: Benchmark, asked: Sequence[str]) -> list[str]:
    """Return the names of the composers to judge: those asked for, else all that read or ignore a picture and a text.

    Raises:
        QueryError: the model has no composer of this name.
    """
    for name in asked:
        vectorizer.composer(name)
    most = max(len(query.references) for task in benchmark.tasks for query in task.queries)
    fitting = [
        name
        for name, takes in vectorizer.takes.items()
        if "refused" not in (takes.image, takes.text) and takes.most_images >= most and not takes.required("mask")
    ]
    return list(dict.fromkeys(asked)) or sorted(fitting, key=lambda name: name != vectorizer.default_composer)


def rank(
    benchmark: Benchmark,
    vectorizer: "Vectorizer",
    composer: str,
    pictures: Embeddings,
    progress: Progress | None = None,
) -> Ranked:
    """Rank every query's gallery; pictures that could not be read are in no ranking.

    References are given to the composer as embeddings, so that each picture is read once.

    Args:
        progress: called with the numbers of queries composed and of all.

    Raises:
        QueryError: the composer refuses a query.
    """
    asks = list(
        dict.fromkeys(
            _ask(query)
            for task in benchmark.tasks
            for query in task.queries
            if all(name in pictures.rows for name in query.references)
        )
    )
    vectors = np.empty((len(asks), vectorizer.dim), np.float32)
    if asks:
        _compose(asks[:1], vectorizer, composer, pictures)  # the first call is slower: it is not timed
    started = time.perf_counter()
    for start in range(0, len(asks), _BATCH):
        batch = asks[start : start + _BATCH]
        vectors[start : start + len(batch)] = _compose(batch, vectorizer, composer, pictures)
        if progress is not None:
            progress(start + len(batch), len(asks))
    elapsed = time.perf_counter() - started
    rows = {ask: i for i, ask in enumerate(asks)}
    rankings = {task.name: _rank_task(task, rows, vectors, pictures) for task in benchmark.tasks}
    return Ranked(composer, rankings, 1000 * elapsed / max(len(asks), 1))


def _ask(query: Query) -> _Ask:
    return query.references, query.texts


def _compose(asks: Sequence[_Ask], vectorizer: "Vectorizer", composer: str, pictures: Embeddings) -> Vectors:
    """Return the query vectors, (queries, dim); of a query with several texts, the mean of their vectors."""
    queries: list[dict[str, Any]] = []
    for references, texts in asks:
        embeddings = [pictures.vectors[pictures.rows[name]] for name in references]
        images = [{"vector": each.tolist(), "norm": float(np.linalg.norm(each))} for each in embeddings]
        queries += [{"image": images, "text": text, "composer": composer} for text in texts]
    composed = vectorizer.compose(queries).vectors
    owners = np.repeat(np.arange(len(asks)), [len(texts) for _, texts in asks])
    vectors = np.zeros((len(asks), vectorizer.dim), np.float32)
    np.add.at(vectors, owners, composed)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


def _rank_task(task: Task, rows: Mapping[_Ask, int], vectors: Vectors, pictures: Embeddings) -> Rankings:
    """Return the first results of each query of a task."""
    rankings: list[list[str]] = [[] for _ in task.queries]
    shared = []
    for i, query in enumerate(task.queries):
        if _ask(query) not in rows:
            continue
        if query.gallery is None:
            shared.append(i)
        else:
            rankings[i] = _own_ranking(query, vectors[rows[_ask(query)]], pictures)
    names = [name for name in task.gallery if name in pictures.rows]
    if not (shared and names):
        return rankings
    gallery = pictures.vectors[[pictures.rows[name] for name in names]]
    gallery /= np.sqrt(np.einsum("ij,ij->i", gallery, gallery))[:, None]  # the norm without a copy of the gallery
    places = {name: at for at, name in enumerate(names)}
    for start in range(0, len(shared), _BATCH):
        block = shared[start : start + _BATCH]
        scores = vectors[[rows[_ask(task.queries[i])] for i in block]] @ gallery.T
        for row, i in zip(scores, block, strict=True):
            row[[places[name] for name in task.queries[i].excluded if name in places]] = -np.inf
        for row, best, i in zip(scores, top(scores, task.depth), block, strict=True):
            rankings[i] = [names[at] for at in best if row[at] > -np.inf]
    return rankings


def _own_ranking(query: Query, vector: Vectors, pictures: Embeddings) -> list[str]:
    """Return the query's own gallery, the best first."""
    names = [name for name in query.gallery or () if name in pictures.rows and name not in query.excluded]
    if not names:
        return []
    gallery = pictures.vectors[[pictures.rows[name] for name in names]]
    scores = (gallery * vector).sum(axis=1) / np.linalg.norm(
        gallery, axis=1
    )  # not BLAS, in which equal rows may differ
    return [names[at] for at in top(scores[None], len(names))[0]]
