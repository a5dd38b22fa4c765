"""Figures of rankings against counts with plain Python loops, and intervals and tests on values with a known answer."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cir_vectorizer.evaluate import metrics

KS = (1, 2, 3, 5, 10, 50)


@st.composite
def rankings(draw):
    """Rankings of items by number, cut at some rank, with right, unwanted and graded items for each query."""
    items = draw(st.integers(1, 12))
    ranks = draw(st.integers(0, items))
    some = st.sets(st.integers(0, items - 1))
    queries = draw(st.integers(0, 4))
    return [
        {
            "ranking": draw(st.permutations(range(items)))[:ranks],
            "right": draw(some),
            "unwanted": draw(some),
            "gains": draw(st.dictionaries(st.integers(0, items - 1), st.sampled_from([0.5, 1, 2, 3]))),
        }
        for _ in range(queries)
    ], ranks


def marks(queries, ranks, kind):
    """Return (queries, ranks) bool: whether each result is in the query's set `kind`."""
    rows = [[item in query[kind] for item in query["ranking"]] for query in queries]
    return np.array(rows, bool).reshape(len(queries), ranks)


def totals(queries, kind):
    return np.array([len(query[kind]) for query in queries], int)


def counted_average_precision(ranking, right, k):
    if not right:
        return 0.0
    total = 0.0
    for i in range(min(k, len(ranking))):
        if ranking[i] in right:
            total += len([item for item in ranking[: i + 1] if item in right]) / (i + 1)
    return total / min(k, len(right))


def close(found, expected):
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float64
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


@given(rankings(), st.sampled_from(KS))
def test_figures_of_right_results_equal_a_count(drawn, k):
    queries, ranks = drawn
    right, number = marks(queries, ranks, "right"), totals(queries, "right")
    first = [[item for item in query["ranking"][:k] if item in query["right"]] for query in queries]
    close(metrics.hits(right, k), [1.0 if found else 0.0 for found in first])
    close(metrics.precision(right, k), [len(found) / k for found in first])
    shares = [len(f) / len(q["right"]) if q["right"] else 0 for f, q in zip(first, queries, strict=True)]
    close(metrics.recall(right, k, number), shares)
    expected = [counted_average_precision(q["ranking"], q["right"], k) for q in queries]
    close(metrics.average_precision(right, k, number), expected)


@given(rankings(), st.sampled_from(KS))
def test_figures_of_unwanted_results_equal_a_count(drawn, k):
    queries, ranks = drawn
    unwanted = marks(queries, ranks, "unwanted")
    shares = []
    for query in queries:
        found = [item for item in query["ranking"][:k] if item in query["unwanted"]]
        shares.append(len(found) / min(k, len(query["unwanted"])) if query["unwanted"] else 0)
    close(metrics.unwanted_recall(unwanted, k, totals(queries, "unwanted")), shares)

    kept = metrics.without(marks(queries, ranks, "right"), unwanted)
    assert kept.shape == unwanted.shape
    expected = []
    for query in queries:
        ranking = [item for item in query["ranking"] if item not in query["unwanted"]]
        expected.append(counted_average_precision(ranking, query["right"], k))
    close(metrics.average_precision(kept, k, totals(queries, "right")), expected)


@given(rankings(), st.sampled_from(KS))
def test_ndcg_equals_a_count(drawn, k):
    queries, ranks = drawn
    rows = [[query["gains"].get(item, 0) for item in query["ranking"]] for query in queries]
    gains = np.array(rows, float).reshape(len(queries), ranks)
    ideal = np.zeros((len(queries), 12))
    for row, query in zip(ideal, queries, strict=True):
        row[: len(query["gains"])] = list(query["gains"].values())
    expected = []
    for query in queries:
        found = sum(query["gains"].get(x, 0) / math.log2(i + 2) for i, x in enumerate(query["ranking"][:k]))
        best = sorted(query["gains"].values(), reverse=True)[:k]
        most = sum(gain / math.log2(i + 2) for i, gain in enumerate(best))
        expected.append(found / most if most else 0)
    close(metrics.ndcg(gains, k, ideal), expected)


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcd")), max_size=20))
def test_spread_equals_a_count(pairs):
    by_group = {}
    for value, group in pairs:
        by_group.setdefault(group, []).append(value)
    ranges, deviations = metrics.spread(np.array([v for v, _ in pairs], float), [g for _, g in pairs])
    close(ranges, [max(values) - min(values) for values in by_group.values()])
    expected = []
    for values in by_group.values():
        mean = sum(values) / len(values)
        expected.append(math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)))
    close(deviations, expected)


@given(
    st.lists(st.lists(st.sampled_from([-math.inf, -1.5, 0.0, 0.25, 1.0]), min_size=9, max_size=9), max_size=4),
    st.integers(0, 12),
)
def test_the_highest_scores_come_first_and_equal_ones_in_order(rows, count):
    scores = np.array(rows, np.float32).reshape(len(rows), 9)
    found = metrics.top(scores, count)
    assert found.shape == (len(rows), min(count, 9))
    expected = [sorted(range(9), key=lambda column: (-row[column], column))[:count] for row in rows]
    assert found.tolist() == expected


def test_a_score_that_is_no_number_comes_last():
    scores = np.array([[math.nan, 1, math.nan, -math.inf]])
    assert [metrics.top(scores, count).tolist() for count in (1, 2, 3)] == [[[1]], [[1, 3]], [[1, 3, 0]]]


def test_no_items_and_no_queries_give_empty_rankings():
    assert metrics.top(np.zeros((3, 0)), 5).shape == (3, 0)
    assert metrics.top(np.zeros((0, 4)), 1).shape == (0, 1)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=100))
def test_an_interval_holds_the_mean_and_lies_within_the_values(values):
    found = metrics.estimate(np.array(values), draws=200)
    assert found.value == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert found.low <= found.value <= found.high
    assert min(values) - 1e-9 <= found.low
    assert found.high <= max(values) + 1e-9
    assert found == metrics.estimate(np.array(values), draws=200)
    assert found.p is None


@pytest.mark.parametrize("kind", ["hits", "shares"])
def test_about_95_of_100_intervals_hold_the_true_mean(kind):
    random = np.random.default_rng(7)
    held = 0
    for _ in range(200):
        values = random.random(80)
        values = (values < 0.3).astype(float) if kind == "hits" else values
        found = metrics.estimate(values, draws=500)
        held += found.low <= (0.3 if kind == "hits" else 0.5) <= found.high
    assert 178 <= held <= 198


def test_counts_of_few_values_give_the_interval_that_drawing_gives():
    values = (np.random.default_rng(0).random(400) < 0.2).astype(float)
    counted = metrics.estimate(values)
    drawn = metrics.estimate(values + np.random.default_rng(1).normal(0, 1e-9, 400))  # 400 different values
    assert (counted.low, counted.high) == pytest.approx((drawn.low, drawn.high), abs=4e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1.0])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_equal_values_give_an_interval_without_width(value, size):
    found = metrics.estimate(np.full(size, value))
    assert (found.low, found.high) == pytest.approx((value, value), abs=1e-12)
    same = metrics.paired(np.full(size, value), np.full(size, value))
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_one_and_two_queries_never_show_a_difference():
    one = metrics.paired(np.array([1.0]), np.array([0.0]))
    assert (one.value, one.low, one.high, one.p) == (1, 1, 1, 1)
    two = metrics.paired(np.array([1.0, 0.9]), np.array([0.0, 0.1]))
    assert two.value == pytest.approx(0.9)
    assert two.p == pytest.approx(0.5, abs=0.02)  # both swaps, or none, out of four ways to swap


def test_a_clear_difference_has_a_small_p_and_none_a_large_one():
    random = np.random.default_rng(3)
    easy = random.random(200)
    better = np.clip(easy + random.normal(0.1, 0.05, 200), 0, 1)
    clear = metrics.paired(better, easy)
    assert clear.low > 0.05
    assert clear.p is not None
    assert clear.p < 0.001
    assert metrics.paired(easy, better).value == -clear.value
    assert metrics.paired(easy, better).p == clear.p
    noise = metrics.paired(easy + random.normal(0, 0.2, 200), easy)
    assert noise.low < 0 < noise.high
    assert noise.p is not None
    assert noise.p > 0.05


def test_p_is_the_exact_share_of_swaps():
    differences = [0.5, 0.25, 0.25, -0.25, 1.0, 0.0]
    sums = [sum(d if swap >> i & 1 else -d for i, d in enumerate(differences)) for swap in range(2 ** len(differences))]
    exact = sum(abs(total) >= abs(sum(differences)) for total in sums) / len(sums)
    found = metrics.paired(np.array(differences), np.zeros(6))
    assert found.p == pytest.approx(exact, abs=0.015)


def test_no_values_and_lists_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="no values"):
        metrics.estimate(np.array([]))
    with pytest.raises(ValueError, match="no values"):
        metrics.paired(np.array([]), np.array([]))
    with pytest.raises(ValueError, match="3 and 2 values"):
        metrics.paired(np.zeros(3), np.zeros(2))


def test_the_memory_of_an_interval_does_not_grow_with_the_draws():
    values = np.random.default_rng(0).random(8000)
    tracemalloc.start()
    try:
        metrics.paired(values, values[::-1])
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 100e6


def test_the_typical_query_is_the_first_one_nearest_to_the_medians():
    ours, theirs = np.array([5, 0, 4, 4, 5]), np.array([1, 9, 1, 2, 2])
    assert metrics.typical([0, 2, 3, 4], [ours, theirs]) == 2  # medians 4 and 1
    assert metrics.typical([0, 2, 3, 4], [ours, theirs], among={3, 4}) == 3
