"""Progress of a sync, on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cir_vectorizer.sync import Report

PLAIN_LINE_EVERY_S = 10


@contextmanager
def progress() -> "Iterator[Callable[[Report], None]]":
    """Yield a function that shows a run's progress on stderr: a bar in a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None, rate="", failed="")

        def show(report: "Report") -> None:
            failed = f"[red]{len(report.failed):,} failed" if report.failed else ""
            speed = bar.tasks[task].speed
            rate = f"{speed:,.1f}/s" if speed else ""
            total = report.total or None
            bar.update(task, completed=report.handled, total=total, failed=failed, rate=rate)

        yield show


class _Lines:
    """Progress as plain lines, at most one every few seconds."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()

    def __call__(self, report: "Report") -> None:
        now = time.monotonic()
        if now - self._last < PLAIN_LINE_EVERY_S or not report.handled:
            return
        self._last = now
        rate = report.handled / (now - self._started)
        left = max(report.total - report.handled, 0) / rate
        goal = f" of {report.total:,}, {rate:,.1f}/s, {left:,.0f} s left" if report.total else f", {rate:,.1f}/s"
        click.echo(f"{report.handled:,}{goal}", err=True)
