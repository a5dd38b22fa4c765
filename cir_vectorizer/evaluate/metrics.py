"""Figures of rankings: pure functions over arrays with one row a query, and intervals and tests over their values.

A function of rankings takes `relevance`, (queries, ranks) bool: whether the result at each rank, from the best one on, is
right. It returns one value for each query, (queries,) float64; the mean of these values is the figure. Nothing here draws
at random without a fixed seed, and ties are broken by position, so that the same input gives the same output.

Sources: CIRCO's average precision (Baldrati et al., ICCV 2023), PinPoint's NegRecall and sensitivity to wording (CVPR 2026).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Relevance = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.integer[Any]]
Values = npt.NDArray[np.float64]
DRAWS = 10_000
"""Number of resamples for an interval or a test."""
_BLOCK = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean and the ends of its 95 % interval; `p`, in a comparison, is that of no difference, two-sided."""

    value: float
    low: float
    high: float
    p: float | None = None


def top(scores: npt.NDArray[Any], count: int) -> npt.NDArray[np.intp]:
    """Return the columns of the `count` highest scores of each row, the highest first; of equal ones the first column first.

    Args:
        scores: (queries, items); −inf leaves an item to the end.

    Returns:
        (queries, count), or (queries, items) if there are fewer.
    """
    count = min(count, scores.shape[1])
    if count == 1:  # faster than sorting, with the same result
        return scores.argmax(axis=1)[:, None]
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def hits(relevance: Relevance, k: int) -> Values:
    """Return 1 for each query with a right result among the first k, else 0: R@k where one right result is enough."""
    return relevance[:, :k].any(axis=1).astype(np.float64)


def recall(relevance: Relevance, k: int, totals: Counts) -> Values:
    """Return the share of the right items that the first k results hold; 0 where there are none.

    Args:
        totals: (queries,), number of right items of each query.
    """
    return relevance[:, :k].sum(axis=1) / np.maximum(totals, 1)


def precision(relevance: Relevance, k: int) -> Values:
    """Return the share of right results among the first k; missing results are wrong ones."""
    return relevance[:, :k].sum(axis=1) / k


def average_precision(relevance: Relevance, k: int, totals: Counts) -> Values:
    """Return AP@k: Σ_{i≤k} precision@i · rel(i) / min(k, number of right items); 0 where there are none.

    Args:
        totals: (queries,), number of right items of each query.
    """
    first = relevance[:, :k]
    precisions = np.cumsum(first, axis=1) / np.arange(1, first.shape[1] + 1)
    return (precisions * first).sum(axis=1) / np.maximum(np.minimum(totals, k), 1)


def unwanted_recall(unwanted: Relevance, k: int, totals: Counts) -> Values:
    """Return NegRecall@k: unwanted results among the first k / min(k, number of unwanted items); 0 where there are none.

    Args:
        unwanted: (queries, ranks), whether each result is unwanted.
        totals: (queries,), number of unwanted items of each query.
    """
    return unwanted[:, :k].sum(axis=1) / np.maximum(np.minimum(totals, k), 1)


def without(relevance: Relevance, dropped: Relevance) -> Relevance:
    """Return the rankings with the dropped results taken out and the others moved up; wrong results fill the end."""
    order = np.argsort(dropped, axis=1, kind="stable")
    return np.take_along_axis(relevance & ~dropped, order, axis=1)


def ndcg(gains: npt.NDArray[Any], k: int, ideal: npt.NDArray[Any]) -> Values:
    """Return NDCG@k: Σ_{i≤k} gain_i / log2(i + 1), as a share of that of the ideal order; 0 where no item has a gain.

    Args:
        gains: (queries, ranks), gain of each result, 0 for one that was not judged.
        ideal: (queries, items), gains of all judged items of each query, filled up with 0, in any order.
    """

    def discounted(rows: npt.NDArray[Any]) -> Values:
        first = rows[:, :k].astype(np.float64)
        total: Values = (first / np.log2(np.arange(2, first.shape[1] + 2))).sum(axis=1)
        return total

    best = discounted(-np.sort(-ideal.astype(np.float64), axis=1))
    return np.divide(discounted(gains), best, out=np.zeros(len(gains)), where=best > 0)


def spread(values: Values, groups: Sequence[object]) -> tuple[Values, Values]:
    """Return, for each group, the range (largest − smallest value) and the standard deviation of its queries' values.

    Args:
        values: (queries,), for example precision@10.
        groups: (queries,), the group of each query: its reference picture, where wordings of one query are compared.

    Returns:
        Two arrays (groups,), in the order in which groups appear. The deviation divides by the number of values.
    """
    numbers: dict[object, int] = {}
    owner = np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.intp)
    highest, lowest = np.full(len(numbers), -np.inf), np.full(len(numbers), np.inf)
    np.maximum.at(highest, owner, values)
    np.minimum.at(lowest, owner, values)
    counts = np.bincount(owner, minlength=len(numbers))
    means = np.bincount(owner, values, len(numbers)) / np.maximum(counts, 1)
    squares = np.bincount(owner, (values - means[owner]) ** 2, len(numbers)) / np.maximum(counts, 1)
    return highest - lowest, np.sqrt(squares)


def estimate(values: Values, draws: int = DRAWS) -> Estimate:
    """Return the mean of values and its 95 % bootstrap interval over the queries.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("no values to estimate a mean of")
    low, high = np.quantile(_means(np.asarray(values, np.float64), draws), (0.025, 0.975))
    return Estimate(float(np.mean(values)), float(low), float(high))


def paired(ours: Values, theirs: Values, draws: int = DRAWS) -> Estimate:
    """Return the mean difference of two lists of values over the same queries, its 95 % bootstrap interval and its p.

    `p` is that of a randomisation test: the share of random swaps of the two values within the queries whose mean
    difference is at least as large as the one found.
    """
    difference = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    found = estimate(difference, draws)
    random = np.random.default_rng(1)
    extreme = 0
    for start in range(0, draws, _BLOCK):
        signs = random.choice((-1.0, 1.0), (min(_BLOCK, draws - start), len(difference)))
        extreme += int((np.abs(signs @ difference) >= abs(difference.sum()) - 1e-12).sum())
    return Estimate(found.value, found.low, found.high, (extreme + 1) / (draws + 1))


def _means(values: Values, draws: int) -> Values:
    """Return the means of `draws` resamples, drawn in blocks so that memory stays bounded."""
    random = np.random.default_rng(0)
    means = np.empty(draws)
    for start in range(0, draws, _BLOCK):
        stop = min(start + _BLOCK, draws)
        means[start:stop] = values[random.integers(0, len(values), (stop - start, len(values)))].mean(axis=1)
    return means
