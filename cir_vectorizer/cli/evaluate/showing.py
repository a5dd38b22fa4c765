"""Output of the commands that end in a report, and their progress."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cir_vectorizer.evaluate.report import Report

_LINE_EVERY_S = 5


def show(report: "Report", out: Path | None, as_json: bool) -> None:
    """Write a report into the folder `out`, if there is one, and print it: as JSON, or its summary and main table.

    Raises:
        SourceError: the folder cannot be written.
    """
    from cir_vectorizer.cli.evaluate import shown
    from cir_vectorizer.evaluate.report import write

    if out is not None:
        write(report, out)
    if as_json:
        click.echo(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        shown.show(report)
    if out is not None:
        click.echo(f"Report: {out / 'report.html'}", err=True)


def counting(items: str) -> Callable[[int, int], None]:
    """Return a function that is called with the numbers of items done and of all, and prints them now and then."""
    last = time.monotonic()

    def count(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_EVERY_S:
            last = time.monotonic()
            click.echo(f"{done:,} of {total:,} {items}", err=True)

    return count
