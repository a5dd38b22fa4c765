"""A report as Markdown: tables that read well as plain text, in pull requests and in notes."""

import json
from collections.abc import Iterator, Mapping, Sequence

from cir_vectorizer.evaluate.metrics import Estimate
from cir_vectorizer.evaluate.report import Example, Figures, Report, Row, Shown
from cir_vectorizer.evaluate.sentences import (
    NONE,
    chance,
    interval,
    milliseconds,
    mistake,
    mistakes,
    overview,
    percent,
    verdict,
)

_DIGITS = 2
_MARKS = {True: " ✓", False: "", None: ""}


def markdown(report: Report) -> str:
    """Return a report as Markdown, with every figure in percent."""
    lines = [f"# {_line(report.title)}", "", overview(report), ""]
    lines += [f"- {_line(sentence)}" for sentence in report.summary]
    sections = (
        ("Figures", _figures(report)),
        ("Comparisons", _comparisons(report)),
        ("Published figures", _published(report)),
        ("Curves", _curves(report.rows)),
        ("Figures by part", _parts(report)),
        ("Confusions", _confusions(report)),
        ("Queries", _examples(report.examples)),
        ("Choices", _choices(report)),
        ("Missing pictures", _missing(report)),
    )
    for title, content in sections:
        if section := list(content):
            lines += ["", f"## {title}", "", *section]
    return "\n".join(lines) + "\n"


def _line(text: object) -> str:
    """Return a text as one line that Markdown shows as it is."""
    line = " ".join(str(text).split())
    return "".join(f"\\{each}" if each in "\\`*_[]<>|#~" else each for each in line)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table; every cell except the first of each row is a number."""
    yield f"| {' | '.join(head)} |"
    yield "|".join(["", " --- ", *[" ---: "] * (len(head) - 1), ""])
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _cell(estimate: Estimate | None) -> str:
    return NONE if estimate is None else f"{percent(estimate.value, _DIGITS)} ({interval(estimate, _DIGITS)})"


def _figures(report: Report) -> Iterator[str]:
    if not report.rows:
        return
    names = report.figure_names
    timed = any(row.milliseconds is not None for row in report.rows)
    yield "Means over the queries in percent, with their 95 % bootstrap intervals" + (
        "; time to compose one query in milliseconds." if timed else "."
    )
    yield ""
    rows = []
    for row in report.rows:
        cells = [_cell(row.figures.get(name)) for name in names]
        rows.append([_line(row.name), *cells, *([milliseconds(row.milliseconds)] if timed else [])])
    yield from _table(["", *map(_line, names), *(["ms"] if timed else [])], rows)


def _comparisons(report: Report) -> Iterator[str]:
    if not report.comparisons:
        return
    yield from (
        f"- {_line(sentence)}" for each in report.comparisons if (sentence := verdict(each, report.lower_is_better))
    )
    yield ""
    yield from _table(
        ["difference", "figure", "points", "95 % interval", "p"],
        [
            [
                f"{_line(each.row)} − {_line(each.other)}",
                _line(name),
                percent(found.value, _DIGITS, sign=True),
                interval(found, _DIGITS, sign=True),
                chance(found.p).removeprefix("p ").removeprefix("= ") or NONE,
            ]
            for each in report.comparisons
            for name, found in each.differences.items()
        ],
    )


def _published(report: Report) -> Iterator[str]:
    if not report.published:
        return
    names = list(dict.fromkeys(name for each in report.published for name in each.figures))
    rows = [
        [_line(each.method), *(percent(each.figures.get(name), _DIGITS) for name in names), _line(each.source)]
        for each in report.published
    ]
    rows += [
        [_line(row.name), *(percent(_value(row.figures, name), _DIGITS) for name in names), "this report"]
        for row in report.rows
        if any(name in row.figures for name in names)
    ]
    yield from _table(["", *map(_line, names), "source"], rows)


def _value(figures: Figures, name: str) -> float | None:
    return figures[name].value if name in figures else None


def _curves(rows: Sequence[Row]) -> Iterator[str]:
    for figure in dict.fromkeys(name for row in rows for name in row.curves):
        points = {row.name: dict(row.curves[figure]) for row in rows if figure in row.curves}
        ks = sorted({k for each in points.values() for k in each})
        yield from _table(
            ["", *(f"{_line(figure)}@{k}" for k in ks)],
            [[_line(name), *(percent(each.get(k), _DIGITS) for k in ks)] for name, each in points.items()],
        )
        yield ""


def _parts(report: Report) -> Iterator[str]:
    for division in dict.fromkeys(name for row in report.rows for name in row.parts):
        rows = [row for row in report.rows if division in row.parts]
        parts = dict.fromkeys(part for row in rows for part in row.parts[division])
        figures = dict.fromkeys(name for row in rows for each in row.parts[division].values() for name in each)
        for name in figures:
            yield f"### {_line(name)} by {_line(division)}"
            yield ""
            yield from _table(
                ["", *(_line(row.name) for row in rows)],
                [[_line(part), *(_cell(_of(row.parts[division], part, name)) for row in rows)] for part in parts],
            )
            yield ""


def _of(parts: Mapping[str, Figures], part: str, name: str) -> Estimate | None:
    return parts[part].get(name) if part in parts else None


def _confusions(report: Report) -> Iterator[str]:
    for each in report.confusions:
        yield f"### {_line(each.attribute)}, {_line(each.row)}"
        yield ""
        yield from (f"- {_line(mistake(*found))}" for found, _ in zip(mistakes(each), range(5), strict=False))
        yield ""
        rows = [[_line(value), *map(str, counts)] for value, counts in zip(each.values, each.counts, strict=True)]
        yield from _table([r"asked \ found", *map(_line, each.found)], rows)
        yield ""


def _examples(examples: Sequence[Example]) -> Iterator[str]:
    for example in examples:
        references = ", ".join(_line(each.caption) for each in example.references)
        yield f"- {_line(example.verdict)}: “{_line(example.text)}”" + (f" to {references}" if references else "")
        for row, shown in example.results.items():
            yield f"  - {_line(row)}: {', '.join(map(_shown, shown)) or NONE}"


def _shown(each: Shown) -> str:
    return f"{_line(each.caption)}{_MARKS[each.right]}"


def _choices(report: Report) -> Iterator[str]:
    yield from (f"- {_line(name)}: {_line(value)}" for name, value in report.choices)
    for row in report.rows:
        if row.settings:
            settings = json.dumps(row.settings, ensure_ascii=False, default=str)
            yield f"- {_line(row.name)}: `{' '.join(settings.split()).replace('`', chr(39))}`"


def _missing(report: Report) -> Iterator[str]:
    if report.missing_count:
        more = report.missing_count - len(report.missing)
        named = ", ".join(map(_line, report.missing)) + (f" and {more:,} more" if more > 0 and report.missing else "")
        yield f"{report.missing_count:,} could not be read{f': {named}' if named else ''}."
