"""Output of the commands that end in a report."""

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
    """Write a report into the folder `out`, and print it: as JSON, or else as Markdown if there is no folder.

    Raises:
        SourceError: the folder cannot be written.
    """
    from cir_vectorizer.evaluate.markdown import markdown
    from cir_vectorizer.evaluate.report import write

    if out is not None:
        write(report, out)
        click.echo(f"Report: {out / 'report.html'}", err=True)
    if as_json:
        click.echo(json.dumps(report.to_json(), ensure_ascii=False))
    elif out is None:
        click.echo(markdown(report), nl=False)


def counting(items: str) -> Callable[[int, int], None]:
    """Return a function that is called with the numbers of items done and of all, and prints them now and then."""
    last = time.monotonic()

    def count(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_EVERY_S:
            last = time.monotonic()
            click.echo(f"{done:,} of {total:,} {items}", err=True)

    return count
