"""`cir-vectorizer sync`: a folder, a table or another collection into a collection, again and again."""

import contextlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from cir_vectorizer import extras
from cir_vectorizer.cli.common import (
    DEVICE_OPTION,
    MODEL_OPTION,
    SERVICE_OPTION,
    check_model_is_possible,
    database_options,
    fail_with_sentence,
    recorded_model,
    served_model,
)
from cir_vectorizer.cli.progress import progress
from cir_vectorizer.errors import CirError

if TYPE_CHECKING:
    from cir_vectorizer.client import ServedModel
    from cir_vectorizer.collections import Address, Collection, CreateOptions, Id, ModelRecord
    from cir_vectorizer.models.vectorizer import Vectorizer
    from cir_vectorizer.sources import Source, Web
    from cir_vectorizer.sync import Report
    from cir_vectorizer.sync.ray_engine import RayEngine

PARTIAL = 3
"""Exit status when the run is complete but some pictures failed."""
INTERRUPTED = 130
FAILURES_SHOWN = 20


@click.command(short_help="Index a folder, table or collection of pictures, again and again.")
@click.argument("source")
@click.option(
    "--to",
    "address",
    required=True,
    metavar="ADDRESS",
    help="qdrant://HOST[:PORT]/NAME, qdrant:DIR/NAME or weaviate://HOST[:PORT]/NAME.",
)
@MODEL_OPTION
@SERVICE_OPTION
@click.option(
    "--include", multiple=True, metavar="PATTERN", help="Folder: only such files, as in a .gitignore; repeatable."
)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Folder: no such files and folders; repeatable.")
@click.option(
    "--image-column",
    metavar="NAME",
    help="Table: column with the picture's path, URL or data URI; guessed if left out.",
)
@click.option("--id-column", metavar="NAME", help="Table: column that identifies the object; else the path.")
@click.option("--private-urls", is_flag=True, help="Also fetch a table's pictures from addresses of your own network.")
@click.option(
    "--source-name",
    metavar="NAME",
    help="What the source is called in the objects' records; its path or URL if left out.",
)
@click.option("--prune", is_flag=True, help="Remove objects of this source that left it.")
@click.option("--yes", is_flag=True, help="Also if --prune removes more than 20 %, or --reembed loses objects.")
@click.option("--dry-run", is_flag=True, help="Print what would be done; write nothing.")
@click.option("--reembed", is_flag=True, help="If another backbone filled the collection: embed all anew, then switch.")
@click.option("--watch", "watching", is_flag=True, help="Go on until Ctrl-C: sync whenever the source changes.")
@click.option(
    "--interval", type=click.FloatRange(0.1), default=30, show_default=True, help="Seconds between looks of --watch."
)
@click.option("--batch-size", type=click.IntRange(1, 4096), default=32, show_default=True, help="Pictures a batch.")
@click.option(
    "--workers", type=click.IntRange(1, 256), help="Threads that read pictures; one per core (16 for URLs) if left out."
)
@click.option(
    "--engine",
    type=click.Choice(["threads", "ray"]),
    default="threads",
    show_default=True,
    help="Where pictures are decoded and encoded: in this process, or on a Ray cluster.",
)
@click.option(
    "--ray-address", metavar="ADDRESS", help="Cluster of --engine ray; RAY_ADDRESS or this machine if left out."
)
@click.option(
    "--report",
    "report_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the JSON report goes; NAME-sync-report.json in the current directory if left out.",
)
@DEVICE_OPTION
@database_options
@click.option("--on-disk", is_flag=True, help="New collection: vectors on disk.")
@click.option(
    "--quantization",
    type=click.Choice(["none", "scalar", "binary"]),
    default="none",
    show_default=True,
    help="New collection: small copies of the vectors to search in.",
)
@click.option(
    "--index",
    "indexed",
    multiple=True,
    metavar="COLUMN",
    help="New collection: index a column for filters; repeatable.",
)
@click.option(
    "--vectorize",
    type=click.Choice(["client", "server"]),
    default="client",
    show_default=True,
    help="Who makes the vectors; server: the database asks the container.",
)
@click.option(
    "--service-url", metavar="URL", help="New collection with --vectorize server: the container, as the server sees it."
)
@fail_with_sentence
def sync(
    source: str,
    address: str,
    model: str,
    device: str | None,
    api_key: str | None,
    report_path: Path | None,
    dry_run: bool,
    watching: bool,
    interval: float,
    **given: Any,
) -> None:
    """Index the pictures of SOURCE into a collection: a folder, a .csv, .tsv, .jsonl or .parquet table, either of them
    elsewhere (s3://, gs://, http://, …), or another collection.

    Run it again at any time: pictures that did not change are not encoded again, and a run that was stopped goes on
    where it was. Pictures that cannot be read are listed at the end and in the report.

    Exit status: 0 everything is indexed, 3 some pictures failed, 1 the run could not go on, 130 stopped by Ctrl-C.
    """
    from cir_vectorizer.collections import CreateOptions, OpenOptions, open_collection, parse_address

    if not dry_run:
        check_model_is_possible(given["service"], device)
    place = parse_address(address)
    report_path = report_path or Path(f"{place.collection}-sync-report.json")
    if not report_path.absolute().parent.is_dir():
        raise click.UsageError(
            f"the report's folder {report_path.parent} does not exist; make it, or give another --report"
        )
    if given["service_url"] and given["vectorize"] != "server":
        raise click.UsageError("--service-url goes with --vectorize server; give both or none")
    if given["ray_address"] and given["engine"] != "ray":
        raise click.UsageError("--ray-address goes with --engine ray; give both or none")
    if given["engine"] == "ray" and given["vectorize"] == "server":
        raise click.UsageError("--engine ray makes vectors here, and --vectorize server has the server do it; give one")
    if given["service"] and given["engine"] == "ray":
        raise click.UsageError(
            "--engine ray runs the model on the cluster, and --service is a model elsewhere; give one"
        )
    if given["engine"] == "ray":
        extras.require("ray", "--engine ray")
    if given["vectorize"] == "server":
        extras.require("models", "--vectorize server, which checks pictures here,")
    opening = OpenOptions(given["using"], given["tenant"], given["grpc"], given["grpc_port"])
    creating = CreateOptions(
        given["on_disk"], given["quantization"], given["indexed"], given["vectorize"], given["service_url"]
    )
    with contextlib.closing(open_collection(place, api_key, opening)) as collection:
        task = _Task(source, collection, creating, model, device, report_path, given)
        if watching:
            task.watch(interval)
        with contextlib.closing(task.opened()) as listing:
            if dry_run:
                task.plan(listing)
            else:
                task.run_once(listing)


@dataclass
class _Task:
    """What one call of the command is to do."""

    source: str
    collection: "Collection"
    creating: "CreateOptions"
    model: str
    device: str | None
    report_path: Path
    given: dict[str, Any]

    @cached_property
    def web(self) -> "Web":
        from cir_vectorizer.sources import Web

        return Web(self.given["private_urls"])

    @cached_property
    def vectorizer(self) -> "Vectorizer | ServedModel | ModelRecord":
        """The model, or a service's; its record alone where the server makes the vectors."""
        if self.given["service"] is not None:
            return served_model(self.given["service"], self.model, retries=20, seconds=600.0)
        from cir_vectorizer.models import load

        on_paper = recorded_model(self.model) if self.creating.vectorize == "server" else None
        device = "cpu" if self.given["engine"] == "ray" else self.device  # Ray's actors have their own
        return on_paper[0] if on_paper else load(self.model, device)

    def opened(self) -> "Source":
        """The source; a collection on the target's own server or directory shares its connection."""
        from cir_vectorizer.collections import parse_address
        from cir_vectorizer.errors import SourceError
        from cir_vectorizer.sources import CollectionSource, names_collection, open_source

        given, target = self.given, self.collection.address
        if names_collection(self.source):
            there = parse_address(self.source)
            if there.place == target.place:
                same = _name(there) == _name(target)
                if same and not given["reembed"]:
                    raise SourceError(
                        f"{there} is the collection to write to as well; give another --to, or --reembed to have it "
                        "embedded anew with another model"
                    )
                opening = replace(self.collection.options, using=None, tenant=None)
                collection = self.collection if same else self.collection.beside(there.collection, opening)
                return CollectionSource(collection, self.web, given["image_column"], keep_marks=same, lent=True)
        return open_source(
            self.source,
            given["image_column"],
            given["id_column"],
            include=given["include"],
            exclude=given["exclude"],
            web=self.web,
        )

    def plan(self, listing: "Source") -> None:
        """Print what a run would do."""
        from cir_vectorizer.collections import ModelRecord
        from cir_vectorizer.sync import plan

        if self.given["service"] is None and (on_paper := recorded_model(self.model)) is not None:
            model, _ = on_paper
        else:
            model = ModelRecord.of(self.vectorizer)
        made = plan(
            listing,
            self.collection,
            model,
            create=self.creating,
            reembed=self.given["reembed"],
            **self._pruning(),
        )
        _print_failures(made.report)
        for line in made.lines:
            click.echo(line)
        if made.more:
            click.echo(f"… and {made.more:,} more")
        click.echo(f"Nothing was written. A run would give: {_counts(made.report, self.given['prune'])}")
        if made.refusal is not None:
            click.echo(f"Note: {made.refusal}", err=True)

    def run_once(self, listing: "Source") -> None:
        """Sync, print and write the report, and exit with the status that fits."""
        from cir_vectorizer.sync import Report

        report = Report()
        try:
            self._run(listing, report)
        except KeyboardInterrupt:
            click.echo(f"Stopped. {self._summary(report)} Run the same command to go on.", err=True)
            report.write(self.report_path)
            sys.exit(INTERRUPTED)
        except CirError:
            if report.complete:
                _print_failures(report)
                click.echo(self._summary(report))
            if report.complete or report.handled:
                with contextlib.suppress(CirError):  # what ended the run says more
                    report.write(self.report_path)
            raise
        _print_failures(report)
        click.echo(self._summary(report))
        report.write(self.report_path)
        click.echo(f"Report: {self.report_path}", err=True)
        if report.failed:
            sys.exit(PARTIAL)

    def watch(self, interval: float) -> NoReturn:
        """Sync whenever the source changed, until Ctrl-C."""
        from cir_vectorizer.sync import Report, watch

        current, last_error = Report(), ""
        shown: Report | None = None

        def one_round(listing: "Source") -> "Report":
            nonlocal current
            current = Report()
            self._run(listing, current)
            return current

        def tell(outcome: "Report | CirError") -> None:
            nonlocal last_error
            if isinstance(outcome, CirError):
                if str(outcome) != last_error:
                    if current.complete and current is not shown:
                        show(current)
                    click.echo(f"error: {outcome} (looking again every {interval:g} s)", err=True)
                last_error = str(outcome)
                return
            last_error = ""
            show(outcome)

        def show(report: "Report") -> None:
            nonlocal shown
            shown = report
            _print_failures(report)
            click.echo(self._summary(report))
            report.write(self.report_path)

        _ = self.vectorizer
        click.echo(f"Watching {self.source} every {interval:g} s; Ctrl-C ends it.", err=True)
        try:
            watch(self.opened, one_round, interval, tell)
        except KeyboardInterrupt:
            if current.handled and not current.complete:
                with contextlib.suppress(CirError):  # the next run tells the same
                    current.write(self.report_path)
            click.echo("Stopped.", err=True)
        sys.exit(INTERRUPTED)

    def _run(self, listing: "Source", report: "Report") -> None:
        from cir_vectorizer.sources import CollectionSource
        from cir_vectorizer.sync import reembed, sync

        options = {
            "batch_size": self.given["batch_size"],
            "workers": self.given["workers"],
            "create": self.creating,
            "report": report,
            **self._pruning(),
        }

        def copy(wanted: "Callable[[Id], bool]") -> "Source":
            return CollectionSource(self.collection, self.web, keep_marks=True, wanted=wanted, lent=True)

        vectorizer = self.vectorizer
        with self._engine() as engine, progress() as show:
            options["engine"] = engine
            if self.given["reembed"]:
                reembed(listing, self.collection, vectorizer, copy, on_progress=show, **options)
            else:
                sync(listing, self.collection, vectorizer, on_progress=show, **options)

    def _engine(self) -> "AbstractContextManager[RayEngine | None]":
        """What decodes and encodes, where that is not this process."""
        if self.given["engine"] != "ray":
            return contextlib.nullcontext()
        from cir_vectorizer.client import ServedModel
        from cir_vectorizer.collections import ModelRecord
        from cir_vectorizer.sync.ray_engine import RayEngine

        assert not isinstance(self.vectorizer, ModelRecord | ServedModel)
        given = self.given
        return RayEngine(self.vectorizer, given["ray_address"], self.device, given["batch_size"], given["workers"])

    def _pruning(self) -> dict[str, Any]:
        return {name: self.given[name] for name in ("source_name", "prune", "yes")}

    def _summary(self, report: "Report") -> str:
        skipped = f"; {report.skipped:,} files are no pictures or not wanted" if report.skipped else ""
        adopted = (
            f"; {report.changes['source']:,} objects of another source are of this one now (sources that share names or "
            "ids need collections of their own)"
            if report.changes["source"]
            else ""
        )
        switched = f"; {report.collection} answers with {report.model} now" if report.switched else ""
        rate = f", {report.encoded / report.seconds:.1f} pictures/s" if report.encoded and report.seconds else ""
        counts = _counts(report, self.given["prune"])
        return f"{counts}{skipped}{adopted}{switched} ({report.seconds:.1f} s{rate})."


def _counts(report: "Report", pruned: bool) -> str:
    counts = {
        "added": report.added,
        "changed": report.changed,
        "unchanged": report.unchanged,
        **({"removed": report.removed} if pruned else {}),
        "failed": len(report.failed),
    }
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _print_failures(report: "Report") -> None:
    for failure in report.failed[:FAILURES_SHOWN]:
        click.echo(str(failure), err=True)
    if len(report.failed) > FAILURES_SHOWN:
        click.echo(f"… and {len(report.failed) - FAILURES_SHOWN:,} more", err=True)


def _name(address: "Address") -> str:
    """Weaviate takes a small first letter for the capital one."""
    name = address.collection
    return name[:1].upper() + name[1:] if address.scheme.startswith("weaviate") else name
