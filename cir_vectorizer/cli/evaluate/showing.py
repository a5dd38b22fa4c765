"""Output of the commands that end in a report: its files, its answer and main table in the terminal; and their progress."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from cir_vectorizer.cli.common import echo_json
from cir_vectorizer.cli.printing import terminal

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from cir_vectorizer.evaluate.metrics import Estimate
    from cir_vectorizer.evaluate.report import Report

_FIGURE, _GAP = 9, 2
"""Width of a figure, and between two columns, in characters."""
_LINE_EVERY_S = 5


def show(report: "Report", out: Path | None = None, as_json: bool = False, sheet: Path | None = None) -> None:
    """Write a report into the folder `out` and its samples to `sheet`, if these are given, and print it: as JSON, or its
    title, summary and main table.

    Raises:
        SourceError: the folder or the sheet cannot be written.
    """
    from cir_vectorizer.evaluate.report import write

    if out is not None:
        write(report, out)
    if sheet is not None:
        from cir_vectorizer.cli.sheet import report_sheet
        from cir_vectorizer.sheets import write_sheet

        write_sheet(sheet, report_sheet(report))
    if as_json:
        echo_json(report.to_json())
    else:
        _print(report)
    if out is not None:
        click.echo(f"Report: {out / 'report.html'}", err=True)
    if sheet is not None:
        click.echo(f"Sheet: {sheet}", err=True)


def check_out(folder: Path | None) -> None:
    """Check, before the work is done, that a report can be written into a folder, which need not exist yet.

    Raises:
        SourceError: it cannot.
    """
    from cir_vectorizer.errors import SourceError

    if folder is None:
        return
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.exists(each))
    if not there.is_dir():
        raise SourceError(f"no report can be written into {folder}, because {there} is a file; give another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SourceError(
            f"no report can be written into {folder}, because you may not write into {there}; give another --out"
        )


def _print(report: "Report") -> None:
    from cir_vectorizer.evaluate.sentences import overview

    console = terminal()
    console.print(report.title, style="bold")
    console.print(overview(report), style="dim")
    for sentence in report.summary:
        console.print(sentence)
    if report.rows:
        console.print()
        console.print(table(report, console.width))


def table(report: "Report", width: int) -> "Table":
    """Return the main table, with as many figures as fit: percent, and half the length of the 95 % interval.

    Args:
        width: characters of a line.
    """
    from rich.table import Table

    from cir_vectorizer.evaluate.sentences import milliseconds

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

    from cir_vectorizer.evaluate.sentences import NONE, percent

    if estimate is None:
        return Text(NONE)
    half = percent((estimate.high - estimate.low) / 2)
    style = "bold" if round(estimate.value, 3) == best else ""
    return Text.assemble((percent(estimate.value), style), (f" ±{half}", "dim"))


def counting(items: str) -> Callable[[int, int], None]:
    """Return a function that is called with the numbers of items done and of all, and prints them now and then."""
    last = time.monotonic()

    def count(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_EVERY_S:
            last = time.monotonic()
            click.echo(f"{done:,} of {total:,} {items}", err=True)

    return count
