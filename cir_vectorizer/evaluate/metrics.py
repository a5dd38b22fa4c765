"""Figures of rankings: pure functions over arrays with one row a query, and intervals and tests over their values.

A function of rankings takes `relevance`, (queries, ranks) bool: whether the result at each rank, from the best one on, is
right. It returns one value for each query, (queries,) float64; the mean of these values is the figure. Nothing here draws
at random without a fixed seed, and ties are broken by position, so that the same input gives the same output.

Sources: CIRCO's average precision (Baldrati et al., ICCV 2023), PinPoint's NegRecall and sensitivity to wording (CVPR 2026).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Relevance = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.integer[Any]]
Values = npt.NDArray[np.float64]
DRAWS = 10_000
"""Number of resamples for an interval or a test; fewer, but at least `_FEWEST_DRAWS`, for over 2,000 queries."""
_FEWEST_DRAWS = 2000
_MOST_DRAWN = 20_000_000
_BLOCK = 1_000_000
"""Values that are drawn in all, and at a time: they bound the time and the memory of an interval or a test."""
_FEW = 64
"""Number of different values up to which a resample is drawn as counts of these values."""


@dataclass(frozen=True)
class Estimate:
    """A mean and the ends of its 95 % interval; `p`, in a comparison, is that of no difference, two-sided."""

    value: float
    low: float
    high: float
    p: float | None = None

    @property
    def clear(self) -> bool:
        """True for a difference that is not by chance: its interval leaves out 0, and its p, if it has one, is below 0.05."""
        return not self.low <= 0 <= self.high and (self.p is None or self.p < 0.05)


def top(scores: npt.NDArray[np.floating[Any]], count: int) -> npt.NDArray[np.intp]:
    """Return the columns of the `count` highest scores of each row, the highest first; of equal ones the first column first.

    Args:
        scores: (queries, items); −inf leaves an item to the end, and NaN comes after that.

    Returns:
        (queries, count), or (queries, items) if there are fewer.
    """
    items = scores.shape[1]
    count = min(count, items)
    best = np.empty((len(scores), count), np.intp)
    for row, found in zip(scores, best, strict=True):
        distances = -row
        columns = np.arange(items)
        if 0 < count < items:  # sorting the candidates alone is faster than sorting all items
            columns = np.flatnonzero(~(distances > np.partition(distances, count - 1)[count - 1]))
        found[:] = columns[np.argsort(distances[columns], kind="stable")[:count]]
    return best


def hits(relevance: Relevance, k: int) -> Values:
    """Return 1 for each query with a right result among the first k, else 0: R@k where one right result is enough."""
    return np.minimum(_found(relevance, k), 1)


def recall(relevance: Relevance, k: int, totals: Counts) -> Values:
    """Return the share of the right items that the first k results hold; 0 where there are none.

    Args:
        totals: (queries,), number of right items of each query.
    """
    return _found(relevance, k) / np.maximum(totals, 1)


def precision(relevance: Relevance, k: int) -> Values:
    """Return the share of right results among the first k; missing results are wrong ones."""
    return _found(relevance, k) / k


def average_precision(relevance: Relevance, k: int, totals: Counts) -> Values:
    """Return AP@k: Σ_{i≤k} precision@i · rel(i) / min(k, number of right items); 0 where there are none.

    Args:
        totals: (queries,), number of right items of each query.
    """
    first = relevance[:, :k]
    precisions = np.cumsum(first, axis=1) / np.arange(1, first.shape[1] + 1)
    total: Values = (precisions * first).sum(axis=1)
    return total / np.maximum(np.minimum(totals, k), 1)


def unwanted_recall(unwanted: Relevance, k: int, totals: Counts) -> Values:
    """Return NegRecall@k: unwanted results among the first k / min(k, number of unwanted items); 0 where there are none.

    Args:
        unwanted: (queries, ranks), whether each result is unwanted.
        totals: (queries,), number of unwanted items of each query.
    """
    return _found(unwanted, k) / np.maximum(np.minimum(totals, k), 1)


def without(relevance: Relevance, dropped: Relevance) -> Relevance:
    """Return the rankings with the dropped results taken out and the others moved up; wrong results fill the end."""
    order = np.argsort(dropped, axis=1, kind="stable")
    kept: Relevance = np.take_along_axis(relevance & ~dropped, order, axis=1)
    return kept


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
    value = float(np.mean(values))
    low, high = np.quantile(_means(np.asarray(values, np.float64), draws), (0.025, 0.975))
    return Estimate(value, min(float(low), value), max(float(high), value))  # despite rounding


def paired(ours: Values, theirs: Values, draws: int = DRAWS) -> Estimate:
    """Return the mean difference of two lists of values over the same queries, its 95 % bootstrap interval and its p.

    `p` is that of a randomisation test: the share of random swaps of the two values within the queries whose mean
    difference is at least as large as the one found.

    Raises:
        ValueError: there are no values, or the lists differ in length.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} values cannot be compared query by query")
    difference = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    found = estimate(difference, draws)
    random = np.random.default_rng(1)
    total = difference.sum()
    extreme = drawn = 0
    for count in _blocks(len(difference), draws):
        swapped = random.integers(0, 2, (count, len(difference)), dtype=np.bool_) @ difference
        extreme += int((np.abs(total - 2 * swapped) >= abs(total) * (1 - 1e-9)).sum())
        drawn += count
    return Estimate(found.value, found.low, found.high, (extreme + 1) / (drawn + 1))


def _found(relevance: Relevance, k: int) -> Values:
    """Return the number of right results among the first k of each query, (queries,)."""
    found: Values = relevance[:, :k].sum(axis=1, dtype=np.float64)
    return found


def estimates(values: Mapping[str, Values]) -> dict[str, Estimate]:
    """Return the mean of each figure's values with its interval, by the figure's name."""
    return {name: estimate(each) for name, each in values.items()}


def differences(ours: Mapping[str, Values], theirs: Mapping[str, Values]) -> dict[str, Estimate]:
    """Return the paired difference of each figure, by its name; `theirs` has all figures of `ours`."""
    return {name: paired(each, theirs[name]) for name, each in ours.items()}


def _means(values: Values, draws: int) -> Values:
    """Return the means of resamples of the values."""
    random = np.random.default_rng(0)
    kinds, counts = np.unique(values, return_counts=True)
    if len(kinds) <= _FEW:
        sums: Values = random.multinomial(len(values), counts / len(values), draws) @ kinds
        return sums / len(values)
    blocks = _blocks(len(values), draws)
    return np.concatenate([values[random.integers(0, len(values), (n, len(values)))].mean(axis=1) for n in blocks])


def _blocks(queries: int, draws: int) -> list[int]:
    """Return the numbers of resamples to draw one after the other."""
    draws = min(draws, max(_MOST_DRAWN // queries, _FEWEST_DRAWS))
    size = max(_BLOCK // queries, 1)
    return [min(size, draws - start) for start in range(0, draws, size)]


def typical(rows: Sequence[int], counts: Sequence[npt.NDArray[np.int_]], among: Collection[int] | None = None) -> int:
    """Return the query whose counts are nearest to their medians, the first one if several are.

    Args:
        rows: indices of queries, over which the medians are taken.
        counts: (queries,) each.
        among: queries to choose from; `rows` if None.
    """
    medians = [np.floor(np.median(count[list(rows)])) for count in counts]
    chosen = [row for row in rows if among is None or row in among]
    return min(
        chosen, key=lambda row: sum(abs(count[row] - usual) for count, usual in zip(counts, medians, strict=True))
    )
