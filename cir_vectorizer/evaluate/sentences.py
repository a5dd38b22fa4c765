"""Numbers and sentences of a report, as its page, its Markdown form and the terminal show them: fractions as percent."""

import math
from collections.abc import Iterator, Sequence

from cir_vectorizer.evaluate.metrics import Estimate
from cir_vectorizer.evaluate.report import Comparison, Confusion, Report

NONE = "–"
"""Stands where a row has no such figure."""


def percent(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """Return a fraction in percent, without the sign %."""
    if value is None or not math.isfinite(value):
        return NONE
    rounded = round(100 * value, digits) + 0.0  # no minus before zero
    return f"{rounded:{'+' if sign and rounded else ''}.{digits}f}".replace("-", "−")


def interval(estimate: Estimate, digits: int = 1, sign: bool = False) -> str:
    """Return the ends of an estimate's 95 % interval, in percent."""
    between = " to " if sign or estimate.low < 0 else "–"
    return f"{percent(estimate.low, digits, sign)}{between}{percent(estimate.high, digits, sign)}"


def chance(p: float | None) -> str:
    """Return the p of a comparison, "" if it has none."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def milliseconds(time: float | None) -> str:
    """Return a time in milliseconds with two or three significant digits."""
    if time is None or not math.isfinite(time):
        return NONE
    return f"{time:,.0f}" if time >= 100 else f"{time:.1f}" if time >= 1 else f"{time:.2f}"


def overview(report: Report) -> str:
    """Return the size of an evaluation in one line."""
    parts = [
        f"{report.queries:,} {'query' if report.queries == 1 else 'queries'}",
        f"{report.gallery:,} {'picture' if report.gallery == 1 else 'pictures'} searched",
    ]
    if report.missing_count:
        parts.append(f"{report.missing_count:,} missing")
    return " · ".join(parts)


def verdict(comparison: Comparison, lower_is_better: Sequence[str] = ()) -> str:
    """Return a comparison's leading figure as a sentence, "" if it has none."""
    name = next(iter(comparison.differences), None)
    if name is None:
        return ""
    found = comparison.differences[name]
    numbers = f"95 % interval {interval(found, sign=True)}" + (f", {chance(found.p)}" if found.p is not None else "")
    row, other = comparison.row, comparison.other
    if not found.clear:
        difference = percent(found.value, sign=True)
        return f"On {name}, {row} and {other} cannot be told apart: {difference} points ({numbers})."
    better = (found.value > 0) != (name in lower_is_better)
    points = percent(abs(found.value))
    return f"{row} is {'better' if better else 'worse'} than {other} by {points} points of {name} ({numbers})."


def mistakes(confusion: Confusion) -> Iterator[tuple[int, int, str, str]]:
    """Yield what was found instead of what was asked for, the most frequent first.

    Yields:
        Number of queries, number of all queries that asked for the value, the value asked for, the value found.
    """
    wrong = [
        (count, sum(counts), asked, found)
        for asked, counts in zip(confusion.values, confusion.counts, strict=True)
        for found, count in zip(confusion.found, counts, strict=True)
        if count and asked != found
    ]
    yield from sorted(wrong, key=lambda each: (-each[0], each[1]))


def mistake(count: int, total: int, asked: str, found: str) -> str:
    """Return one entry of `mistakes` as a sentence."""
    return f"Asked for {asked}, found {found}: {count:,} of {total:,} queries ({percent(count / total, 0)} %)."
