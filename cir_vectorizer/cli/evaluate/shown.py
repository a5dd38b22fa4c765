"""A report in the terminal: its answer in sentences, and its main table."""

import sys
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from cir_vectorizer.evaluate.report import Report
from cir_vectorizer.evaluate.sentences import NONE, milliseconds, overview, percent

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from cir_vectorizer.evaluate.metrics import Estimate

_FIGURE, _GAP = 9, 2
"""Width of a figure, and between two columns, in characters."""


def show(report: Report, folder: Path | None = None) -> None:
    """Print a report's title, summary and main table on stdout.

    Args:
        folder: where the report was written; it is named on stderr.
    """
    from rich.console import Console

    console = Console(file=sys.stdout, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # lines are not wrapped in a pipe
    console.print(report.title, style="bold")
    console.print(overview(report), style="dim")
    for sentence in report.summary:
        console.print(sentence)
    if report.rows:
        console.print()
        console.print(table(report, console.width))
    if folder is not None:
        click.echo(f"Report: {folder / 'report.html'}", err=True)


def table(report: Report, width: int) -> "Table":
    """Return the main table, with as many figures as fit: percent, and half the length of the 95 % interval.

    Args:
        width: characters of a line.
    """
    from rich.table import Table

    names = report.figure_names
    timed = any(row.milliseconds is not None for row in report.rows)
    widest = min(max(len(row.name) for row in report.rows), 3 * width // 8)
    heads = {name: wrap(name, _FIGURE, break_long_words=False) for name in names}
    columns = [max(_FIGURE, *map(len, heads[name])) + _GAP for name in names]
    left = width - widest - (_FIGURE + _GAP if timed else 0)
    shown = [name for i, name in enumerate(names) if i == 0 or sum(columns[: i + 1]) <= left]
    hidden = len(names) - len(shown)
    caption = f"in %, ± half of the 95 % interval{f'; {hidden} more in report.md' if hidden else ''}"
    made = Table(box=None, padding=(0, _GAP, 0, 0), caption=caption, caption_justify="left", pad_edge=False)
    made.add_column("", max_width=widest, overflow="fold")
    for name in shown:
        made.add_column("\n".join(heads[name]), justify="right", no_wrap=True)
    if timed:
        made.add_column("ms a query", justify="right", no_wrap=True)
    best = {name: report.best(name) for name in shown}
    for row in report.rows:
        figures = [_cell(row.figures.get(name), best[name]) for name in shown]
        made.add_row(row.name, *figures, *([milliseconds(row.milliseconds)] if timed else []))
    return made


def _cell(estimate: "Estimate | None", best: float | None) -> "Text":
    from rich.text import Text

    if estimate is None:
        return Text(NONE)
    half = percent((estimate.high - estimate.low) / 2)
    style = "bold" if round(estimate.value, 3) == best else ""
    return Text.assemble((percent(estimate.value), style), (f" ±{half}", "dim"))
