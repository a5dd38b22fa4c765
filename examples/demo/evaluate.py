"""Composed retrieval on the drawn shop: each composer and the swept sum, judged with `cir_vectorizer.evaluate.metrics`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cir_vectorizer.evaluate import metrics
from cir_vectorizer.models import Vectorizer
from examples.demo.catalog import HELD_OUT, Product, Query, Transition, changes, full_caption

Vectors = npt.NDArray[np.float32]
KS = (1, 10)


@dataclass(frozen=True)
class Hits:
    """Hits of queries: `at[k]`, (queries,), is 1 where a hit is among the first k results, else 0; for k of 1 and 10."""

    at: Mapping[int, metrics.Values]

    def recall(self, rows: Sequence[int] | None = None) -> dict[str, float]:
        """Return `{"R@1": …, "R@10": …}`, one entry for each k, over all queries or those in `rows`."""
        return {f"R@{k}": round(float(np.mean(hits if rows is None else hits[rows])), 4) for k, hits in self.at.items()}


@dataclass(frozen=True)
class BestSum:
    """The weighted sum that did best on the validation queries."""

    image_weight: float
    text_weight: float
    unit: bool
    prompted: bool
    validation: float


def unit(vectors: Vectors) -> Vectors:
    """(n, dim) -> the same directions with length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def rank(vectors: Vectors, references: Sequence[int], index: Vectors, count: int) -> npt.NDArray[np.intp]:
    """Return the nearest `count` pictures for each query, without its reference. (queries, count)"""
    similarities = unit(vectors) @ index.T
    similarities[np.arange(len(references)), references] = -np.inf
    return metrics.top(similarities, count)


def score(
    vectors: Vectors, queries: Sequence[Query], products: Sequence[Product], index: Vectors, ks: Sequence[int] = KS
) -> Hits:
    """Rank the catalog for each query vector, without the reference, and return the hits.

    A hit is any other picture with exactly the target's attributes.

    Args:
        vectors: (queries, dim).
        index: (products, dim) unit vectors.
        ks: numbers of first results in which hits are looked for.
    """
    ranking = rank(vectors, [query.reference for query in queries], index, max(ks))
    right = np.array([[products[i] == query.target for i in row] for row, query in zip(ranking, queries, strict=True)])
    return Hits({k: metrics.hits(right, k) for k in ks})


def text_vectors(vectorizer: Vectorizer, queries: Sequence[Query], prompted: bool) -> Vectors:
    """Return unnormalised embeddings of the queries' texts, bare or as "a photo that …". (queries, dim)"""
    encoder = vectorizer.backbone.text
    texts = [f"a photo that {query.text}" if prompted else query.text for query in queries]
    rows = [encoder.tokenizer.row(text) for text in texts]
    return np.asarray(encoder.encode_text(rows).cpu().numpy())


def sum_vectors(images: Vectors, texts: Vectors, best: BestSum) -> Vectors:
    """Return the weighted sum of picture and text embeddings, both raw or both of length 1. (queries, dim)"""
    parts = (unit(images), unit(texts)) if best.unit else (images, texts)
    return best.image_weight * parts[0] + best.text_weight * parts[1]


def sweep_sum(
    vectorizer: Vectorizer, raw_index: Vectors, queries: Sequence[Query], products: Sequence[Product]
) -> BestSum:
    """Find the best sum: image weights w from -1 to 1 in steps of 0.05 (text weight 1 - |w|), raw and unit, bare and prompted.

    Args:
        raw_index: (products, dim) unnormalised picture embeddings.
        queries: the validation queries.
    """
    images, index = raw_index[[query.reference for query in queries]], unit(raw_index)
    found = []
    for prompted in (False, True):
        texts = text_vectors(vectorizer, queries, prompted)
        for weight in np.round(np.arange(-1, 1.0001, 0.05), 2):
            for as_unit in (False, True):
                trial = BestSum(float(weight), float(round(1 - abs(weight), 2)), as_unit, prompted, 0.0)
                hits = score(sum_vectors(images, texts, trial), queries, products, index, ks=(1,))
                found.append(replace(trial, validation=float(np.mean(hits.at[1]))))
    return max(found, key=lambda trial: trial.validation)


def evaluate(
    vectorizer: Vectorizer,
    published: Vectorizer,
    raw_index: Vectors,
    products: Sequence[Product],
    validation: Sequence[Query],
    queries: Sequence[Query],
    ks: Sequence[int] = KS,
) -> tuple[dict[str, Hits], BestSum]:
    """Return the hits of image only, text only, the best sum, LinCIR, CompoDiff and the true caption; and the best sum.

    Args:
        vectorizer: the model with edit-aware LinCIR and CompoDiff.
        published: the model whose LinCIR was trained as published.
        ks: as for `score`.
    """
    index = unit(raw_index)
    references = [query.reference for query in queries]
    best = sweep_sum(vectorizer, raw_index, validation, products)
    composers = {
        "lincir_published": (published, "lincir"),
        "lincir": (vectorizer, "lincir"),
        "compodiff": (vectorizer, "compodiff"),
    }
    by_composers = {
        name: composed_vectors(model, raw_index, queries, composer) for name, (model, composer) in composers.items()
    }
    vectors = {
        "image_only": raw_index[references],
        "text_only": text_vectors(vectorizer, queries, prompted=False),
        "best_sum": sum_vectors(raw_index[references], text_vectors(vectorizer, queries, best.prompted), best),
        **by_composers,
        "true_caption": vectorizer.embed_texts([full_caption(query.target) for query in queries]),
    }
    return {name: score(rows, queries, products, index, ks) for name, rows in vectors.items()}, best


def composed_vectors(vectorizer: Vectorizer, raw_index: Vectors, queries: Sequence[Query], composer: str) -> Vectors:
    """Compose the queries, with their pictures given as indexed embeddings. (queries, dim)"""
    return composed(
        vectorizer,
        [{"image": {"vector": raw_index[q.reference].tolist()}, "text": q.text, "composer": composer} for q in queries],
    )


def composed(vectorizer: Vectorizer, asked: Sequence[Mapping[str, Any]]) -> Vectors:
    """Compose queries, 128 at a time. (queries, dim)"""
    return np.concatenate([vectorizer.compose(asked[at : at + 128]).vectors for at in range(0, len(asked), 128)])


def embed_drawn(vectorizer: Vectorizer, drawn: Iterable[Image.Image]) -> Vectors:
    """Embed drawn pictures, 256 at a time, unnormalised. (pictures, dim)"""
    held = list(drawn)
    return np.concatenate([vectorizer.embed_images(held[at : at + 256]) for at in range(0, len(held), 256)])


def blank_edit(
    vectorizer: Vectorizer, raw_index: Vectors, products: Sequence[Product], queries: Sequence[Query]
) -> dict[str, float]:
    """Return LinCIR's R@1 with the queries' words removed: that of the target, and that of the picture's own product.

    A hit of the own product is another picture with the same category, colour and pattern.
    """
    vectors = composed_vectors(vectorizer, raw_index, [replace(query, text="") for query in queries], "lincir")
    own = [replace(query, target=products[query.reference]) for query in queries]
    target_hits, own_hits = (score(vectors, asked, products, unit(raw_index), ks=(1,)) for asked in (queries, own))
    return {"R@1": target_hits.recall()["R@1"], "own_product": own_hits.recall()["R@1"]}


def slices(queries: Sequence[Query]) -> dict[str, list[int]]:
    """Return the indices of queries by the kind of change, and of those whose target is a held-out combination."""
    rows = {
        change: [i for i, q in enumerate(queries) if q.change == change] for change in ("colour", "pattern", "category")
    }
    rows["held_out"] = [i for i, query in enumerate(queries) if query.target in HELD_OUT]
    return rows


@dataclass(frozen=True)
class Part:
    """Queries with one wording, and how many of their changes CompoDiff's triplets contained.

    Attributes:
        rows: indices of the queries.
        transitions: number of different changes (attribute, old and new value) that they ask for.
        known: number of these changes that the triplets contained, in other wordings.
        held_out: number of queries whose target is a combination that no training saw.
    """

    rows: list[int]
    transitions: int
    known: int
    held_out: int


def by_wording(queries: Sequence[Query], products: Sequence[Product], known: Collection[Transition]) -> dict[str, Part]:
    """Group the queries by their wording, as "colour: is …"; no composer was trained on any of the wordings.

    Args:
        known: the transitions that CompoDiff's triplets contained.
    """
    rows: dict[str, list[int]] = {}
    for i, query in enumerate(queries):
        rows.setdefault(f"{query.change}: {query.wording.format(v='…', a='a')}", []).append(i)
    return {wording: _part(found, queries, products, known) for wording, found in sorted(rows.items())}


def _part(
    rows: list[int], queries: Sequence[Query], products: Sequence[Product], known: Collection[Transition]
) -> Part:
    asked = {change for i in rows for change in changes(products[queries[i].reference], queries[i].target)}
    held_out = sum(queries[i].target in HELD_OUT for i in rows)
    return Part(rows, len(asked), sum(change in known for change in asked), held_out)


def paired_bootstrap(ours: metrics.Values, theirs: metrics.Values) -> tuple[float, float, float]:
    """Return `metrics.paired` as a tuple: the mean difference and the ends of its 95 % interval."""
    found = metrics.paired(ours, theirs)
    return found.value, found.low, found.high
