"""`cir-vectorizer sync`: a folder or a table into a collection, again and again."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cir_vectorizer.cli.common import DEVICE_OPTION, MODEL_OPTION, fail_with_sentence

if TYPE_CHECKING:
    from cir_vectorizer.sync import Report

PARTIAL = 3
"""Exit status when the run is complete but some pictures failed."""
INTERRUPTED = 130
PLAIN_LINE_EVERY_S = 10
FAILURES_SHOWN = 20


@click.command(short_help="Index a folder or table of pictures, again and again.")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--to", "address", required=True, metavar="ADDRESS", help="qdrant://HOST[:PORT]/NAME or qdrant:DIR/NAME.")
@MODEL_OPTION
@click.option("--image-column", metavar="NAME", help="Table: column with the picture's path; guessed if left out.")
@click.option("--id-column", metavar="NAME", help="Table: column that identifies the object; else the path.")
@click.option("--batch-size", type=click.IntRange(1, 4096), default=32, show_default=True, help="Pictures a batch.")
@click.option("--workers", type=click.IntRange(1, 256), help="Threads that decode pictures; one per core if left out.")
@click.option(
    "--report",
    "report_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the JSON report goes; NAME-sync-report.json in the current directory if left out.",
)
@DEVICE_OPTION
@click.option("--api-key", envvar="QDRANT_API_KEY", show_envvar=True, help="Key of the database's server.")
@fail_with_sentence
def sync(
    source: Path,
    address: str,
    model: str,
    image_column: str | None,
    id_column: str | None,
    batch_size: int,
    workers: int | None,
    report_path: Path | None,
    device: str | None,
    api_key: str | None,
) -> None:
    """Index the pictures of SOURCE, a folder or a .csv, .tsv or .jsonl table, into a collection.

    Run it again at any time: pictures that did not change are not encoded again, and a run that was stopped goes on
    where it was. Pictures that cannot be read are listed at the end and in the report.

    Exit status: 0 everything is indexed, 3 some pictures failed, 1 the run could not go on.
    """
    from cir_vectorizer.collections import open_collection, parse_address
    from cir_vectorizer.sources import open_source

    place = parse_address(address)
    listing = open_source(source, image_column, id_column)
    report_path = report_path or Path(f"{place.collection}-sync-report.json")
    if not report_path.absolute().parent.is_dir():
        raise click.UsageError(
            f"the report's folder {report_path.parent} does not exist; make it, or give another --report"
        )

    from cir_vectorizer.models import load
    from cir_vectorizer.sync import Report
    from cir_vectorizer.sync import sync as run

    collection = open_collection(place, api_key)
    report = Report()
    try:
        vectorizer = load(model, device)
        with _progress() as show:
            run(
                listing,
                collection,
                vectorizer,
                batch_size=batch_size,
                workers=workers,
                report=report,
                on_progress=show,
            )
    except KeyboardInterrupt:
        report.write(report_path)
        click.echo(f"Stopped. {_summary(report)} Run the same command to go on.", err=True)
        sys.exit(INTERRUPTED)
    finally:
        collection.close()
    for failure in report.failed[:FAILURES_SHOWN]:
        click.echo(str(failure), err=True)
    if len(report.failed) > FAILURES_SHOWN:
        click.echo(f"… and {len(report.failed) - FAILURES_SHOWN:,} more", err=True)
    click.echo(_summary(report))
    report.write(report_path)
    click.echo(f"Report: {report_path}", err=True)
    if report.failed:
        sys.exit(PARTIAL)


def _summary(report: "Report") -> str:
    counts = ", ".join(
        f"{name} {count:,}"
        for name, count in (
            ("added", report.added),
            ("changed", report.changed),
            ("unchanged", report.unchanged),
            ("failed", len(report.failed)),
        )
    )
    skipped = f"; {report.skipped:,} files are no pictures" if report.skipped else ""
    rate = f", {report.encoded / report.seconds:.1f} pictures/s" if report.encoded and report.seconds else ""
    return f"{counts}{skipped} ({report.seconds:.1f} s{rate})."


@contextmanager
def _progress() -> "Iterator[Callable[[Report], None]]":
    """A function that shows how far the run is, on stderr: a bar in a terminal, a line now and then elsewhere."""
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
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=None, rate="", failed="")

        def show(report: "Report") -> None:
            failed = f"[red]{len(report.failed):,} failed" if report.failed else ""
            speed = progress.tasks[task].speed
            rate = f"{speed:,.1f}/s" if speed else ""
            progress.update(task, completed=report.handled, total=report.total, failed=failed, rate=rate)

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
        click.echo(f"{report.handled:,} of {report.total:,}, {rate:,.1f}/s, {left:,.0f} s left", err=True)
