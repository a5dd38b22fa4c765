"""The sections of the page that are tables of figures: means, cost, comparisons, parts and published figures."""

from collections.abc import Iterator, Mapping, Sequence

from cir_vectorizer.evaluate.metrics import Estimate
from cir_vectorizer.evaluate.page.drawings import COLOURS, Curve, bar, chart, whisker
from cir_vectorizer.evaluate.page.markup import cell, escaped, folded, heading, items, name, panels, table
from cir_vectorizer.evaluate.report import Comparison, Figures, Report, Row
from cir_vectorizer.evaluate.sentences import NONE, chance, interval, milliseconds, percent, verdict

MOST_ROWS = 12
"""Largest number of rows of which all times and parts are shown; report.md holds all."""
MOST_PARTS = 40
"""Largest number of parts that a table shows; report.md holds all."""
_SENTENCES = 6


def _leaders(report: Report, count: int) -> Sequence[Row]:
    """Return the rows that do best on the leading figure, in the report's order."""
    leading = report.figure_names[0]
    sign = 1 if leading in report.lower_is_better else -1

    def rank(i: int) -> float:
        return sign * report.rows[i].figures[leading].value if leading in report.rows[i].figures else float("inf")

    best = sorted(range(len(report.rows)), key=rank)[:count]
    return [report.rows[i] for i in sorted(best)]


def _left_out(report: Report, shown: Sequence[Row]) -> str:
    if len(shown) == len(report.rows):
        return ""
    leading = escaped(report.figure_names[0])
    return f"<p>The {len(shown)} of {len(report.rows)} that do best on {leading}; report.md has all.</p>"


def figures(report: Report) -> str:
    """Return the main table: the figures of each row with their intervals, the best of each column marked."""
    names = report.figure_names
    axes = {each: _axis([row.figures[each] for row in report.rows if each in row.figures]) for each in names}
    best = {each: report.best(each) if len(report.rows) > 1 else None for each in names}
    rows = [
        [name(row.name), *(_figure(row.figures.get(each), axes[each], best[each]) for each in names)]
        for row in report.rows
    ]
    lower = [each for each in names if each in report.lower_is_better]
    note = "Means over the queries in percent, with 95&nbsp;% bootstrap intervals"
    note += "; the best of each column is bold." if len(report.rows) > 1 else "."
    note += f" Of {escaped(', '.join(lower))}, less is better." if lower else ""
    head = ["<th></th>", *map(heading, names)]
    return f"<p>{note}</p>" + table("Figures of each row", head, rows, "figures")


def _axis(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Return the ends of an axis that holds zero and the intervals."""
    return min(0.0, *(each.low for each in estimates)), max(0.0, *(each.high for each in estimates))


def _figure(estimate: Estimate | None, axis: tuple[float, float], best: float | None) -> str:
    if estimate is None:
        return cell(NONE, "number")
    kind = "best" if best is not None and round(estimate.value, 3) == best else ""
    number = f"<b>{percent(estimate.value)}</b> <small>{interval(estimate)}</small>"
    return cell(number + whisker(estimate, *axis), f"figure {kind}".strip())


def cost(report: Report) -> str:
    """Return the time of each row beside its leading figure; "" if no time was measured."""
    leading = report.figure_names[0]
    timed = [
        (row, row.milliseconds, row.figures[leading])
        for row in report.rows
        if row.milliseconds is not None and leading in row.figures
    ]
    if not timed:
        return ""
    sign = -1 if leading in report.lower_is_better else 1
    slowest = max(time for _, time, _ in timed) or 1.0
    axis = _axis([found for _, _, found in timed])
    shown: list[list[str]] = []
    others: list[list[str]] = []
    for row, time, found in sorted(timed, key=lambda each: each[1]):
        beaten = any(
            quicker <= time
            and sign * other.value >= sign * found.value
            and (quicker, other.value) != (time, found.value)
            for _, quicker, other in timed
        )
        (others if beaten and len(timed) > MOST_ROWS else shown).append(
            [
                name(row.name),
                cell(milliseconds(time), "number"),
                cell(bar(time / slowest), "drawing"),
                cell(f"<b>{percent(found.value)}</b>" if not beaten else percent(found.value), "number"),
                cell(whisker(found, *axis, "" if not beaten else "quiet"), "drawing"),
            ]
        )
    head = ["<th></th>", heading("ms"), "<th></th>", heading(leading), "<th></th>"]
    note = "Mean time to compose one query, in milliseconds, from the fastest row to the slowest. "
    note += "Bold: no other row is at least as fast and as good."
    about = f"Time and {leading} of each row"
    more = f"{len(others):,} more, slower or worse than one of these"
    folds = folded(more, table(about, head, others, "cost")) if others else ""
    return f"<p>{note}</p>{table(about, head, shown, 'cost')}{folds}"


def comparisons(report: Report) -> str:
    """Return the paired differences, in words and as tables, one for each figure."""
    said = [sentence for each in report.comparisons if (sentence := verdict(each, report.lower_is_better))]
    words = items(said[:_SENTENCES])
    if said[_SENTENCES:]:
        words += folded(f"{len(said) - _SENTENCES:,} more", items(said[_SENTENCES:]))
    names = dict.fromkeys(each for comparison in report.comparisons for each in comparison.differences)
    return words + panels("Figure", [(each, _differences(report, each)) for each in names])


def _differences(report: Report, figure: str) -> str:
    found: list[tuple[Comparison, Estimate]] = [
        (each, each.differences[figure]) for each in report.comparisons if figure in each.differences
    ]
    first, labels = _labels([each for each, _ in found])
    end = max(max(abs(each.low), abs(each.high)) for _, each in found) or 1.0
    rows = []
    for label, (_, each) in zip(labels, found, strict=True):
        better = (each.value > 0) != (figure in report.lower_is_better)
        kind = ("good" if better else "bad") if each.clear else "quiet"
        rows.append(
            [
                name(label),
                cell(f"<b>{percent(each.value, sign=True)}</b>", "number"),
                cell(whisker(each, -end, end, kind), "drawing"),
                cell(interval(each, sign=True), "number"),
                cell(chance(each.p) or NONE, "number"),
            ]
        )
    sides = "better · worse" if figure in report.lower_is_better else "worse · better"
    head = [
        f'<th scope="col" class="first">{escaped(first)}</th>',
        *map(heading, ("points", sides, "95 % interval", "paired test")),
    ]
    return table(f"Differences of {figure}", head, rows, "differences")


def _labels(each: Sequence[Comparison]) -> tuple[str, list[str]]:
    """Return the head of the first column and its names; the head names the side that all comparisons share."""
    rows, others = [one.row for one in each], [one.other for one in each]
    if len(set(rows)) == 1:
        return f"{rows[0]} against", others
    if len(set(others)) == 1:
        return f"against {others[0]}", rows
    return "", [f"{row} − {other}" for row, other in zip(rows, others, strict=True)]


def curves(report: Report) -> str:
    """Return a chart for each figure that has curves; "" if none has."""
    shown = _leaders(report, COLOURS)
    charts = []
    for figure in dict.fromkeys(each for row in shown for each in row.curves):
        lines = [
            Curve(row.name, style, [(k, value) for k, value in sorted(row.curves[figure]) if k >= 1])
            for style, row in enumerate(shown)
            if figure in row.curves
        ]
        if lines := [line for line in lines if line.points]:
            charts.append((f"{figure}@k", chart(f"{figure} over the number of results k", lines)))
    if not charts:
        return ""
    return f"<p>In percent, over the number of results k.</p>{_left_out(report, shown)}" + panels("Figure", charts)


def parts(report: Report) -> str:
    """Return the figures over some of the queries, shaded from the lowest to the highest; "" if there are none."""
    shown = _leaders(report, MOST_ROWS)
    tables = []
    for division in dict.fromkeys(each for row in shown for each in row.parts):
        rows = [row for row in shown if division in row.parts]
        names = dict.fromkeys(each for row in rows for part in row.parts[division].values() for each in part)
        for figure in names:
            tables.append((f"{figure} by {division}", _shaded(report, rows, division, figure)))
    return _left_out(report, shown) + panels("Figure and division", tables) if tables else ""


def _shaded(report: Report, rows: Sequence[Row], division: str, figure: str) -> str:
    found: dict[str, list[Figures]] = {}
    for part in dict.fromkeys(part for row in rows for part in row.parts[division]):
        each = [row.parts[division].get(part, {}) for row in rows]
        if any(figure in known for known in each):
            found[part] = each
    values = [known[figure].value for each in found.values() for known in each if figure in known]
    low, high = min(values), max(values)

    def cells(part: str, each: Sequence[Figures]) -> Iterator[str]:
        best = report.best(figure, (division, part)) if len(each) > 1 else None
        for known in each:
            if (estimate := known.get(figure)) is None:
                yield cell(NONE, "number")
                continue
            shade = (estimate.value - low) / (high - low) if high > low else 0
            number = percent(estimate.value)
            number = f"<b>{number}</b>" if round(estimate.value, 3) == best else number
            yield cell(number, "shade", f"--shade: {shade:.2f}", f"95 % interval {interval(estimate)}")

    lines = [[name(part), *cells(part, each)] for part, each in list(found.items())[:MOST_PARTS]]
    left = len(found) - MOST_PARTS
    more = f"<p>The first {MOST_PARTS} of {len(found):,}; report.md has all.</p>" if left > 0 else ""
    head = ["<th></th>", *(heading(row.name) for row in rows)]
    return table(f"{figure} by {division}", head, lines, "parts") + more


def published(report: Report) -> str:
    """Return the published figures of the same split and setting, and ours in the same columns."""
    names = list(dict.fromkeys(each for paper in report.published for each in paper.figures))

    def line(who: str, known: Mapping[str, float], source: str) -> list[str]:
        numbers = (cell(percent(known.get(each), 2), "number") for each in names)
        return [name(who), *numbers, cell(escaped(source), "source")]

    ours = [
        line(row.name, known, "this report")
        for row in report.rows
        if (known := {each: row.figures[each].value for each in names if each in row.figures})
    ]
    theirs = [line(paper.method, paper.figures, paper.source) for paper in report.published]
    head = ["<th></th>", *map(heading, names), '<th scope="col" class="source">source</th>']
    note = "<p>Figures that papers report on the same split and setting, and those of this report, in percent.</p>"
    return note + table("Published figures and ours", head, [*theirs, *ours], "published")
