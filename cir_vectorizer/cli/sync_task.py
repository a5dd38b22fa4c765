"""The work of `cir-vectorizer sync`: one run, a dry run, or one round after another with --watch."""

import contextlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import click

from cir_vectorizer import extras
from cir_vectorizer.cli.common import by_default, check_model_is_possible, recorded_model, say_if_toy, served_model
from cir_vectorizer.cli.progress import progress
from cir_vectorizer.errors import CirError

if TYPE_CHECKING:
    from cir_vectorizer.client import ServedModel
    from cir_vectorizer.collections import Collection, CreateOptions, Id, ModelRecord
    from cir_vectorizer.models.vectorizer import Vectorizer
    from cir_vectorizer.query.encoded import Limits
    from cir_vectorizer.sources import Source, Web
    from cir_vectorizer.sync import Report
    from cir_vectorizer.sync.ray_decoders import RayDecoders

PARTIAL = 3
"""Exit status when the run is complete but some pictures failed, or the source had none."""
INTERRUPTED = 130
FAILURES_SHOWN = 20


@dataclass(frozen=True)
class SyncArguments:
    """The command's arguments, each under the name that click gives it."""

    source: str
    address: str
    model: str
    device: str | None
    precision: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    format: str | None
    image_column: str | None
    id_column: str | None
    pictures: Literal["first", "each"] | None
    text_columns: tuple[str, ...]
    private_urls: bool
    max_megapixels: int | None
    source_name: str | None
    take_over: bool
    picture_column: str | None
    prune: bool
    yes: bool
    dry_run: bool
    reembed: bool
    watching: bool
    interval: float
    batch_size: int
    workers: int | None
    engine: Literal["threads", "ray"]
    ray_address: str | None
    report_path: Path | None
    api_key: str | None
    using: str | None
    tenant: str | None
    grpc: bool
    grpc_port: int | None
    on_disk: bool
    quantization: Literal["none", "scalar", "binary"]
    indexed: tuple[str, ...]
    vectorize: Literal["client", "server"]
    service_url: str | None
    service: str | None


def run_sync(given: SyncArguments) -> None:
    """Run the command with these arguments.

    Raises:
        click.UsageError: two arguments do not go together.
        CirError: the run cannot go on.
    """
    from cir_vectorizer.collections import CreateOptions, OpenOptions, open_collection, parse_address
    from cir_vectorizer.sync.report import usual_path

    if not given.dry_run:
        check_model_is_possible(given.service, given.device)
    place = parse_address(given.address)
    if given.report_path is not None and not given.report_path.absolute().parent.is_dir():
        raise click.UsageError(
            f"the report's folder {given.report_path.parent} does not exist; make it, or give another --report"
        )
    if given.service_url and given.vectorize != "server":
        raise click.UsageError("--service-url goes with --vectorize server; give both or none")
    if given.service and given.max_megapixels:
        raise click.UsageError(
            "--max-megapixels is a limit of this program, and with --service the service decodes the pictures; set "
            "CIR_MAX_MEGAPIXELS there"
        )
    if given.ray_address and given.engine != "ray":
        raise click.UsageError("--ray-address goes with --engine ray; give both or none")
    if given.engine == "ray" and given.vectorize == "server":
        raise click.UsageError("--engine ray makes vectors here, and --vectorize server has the server do it; give one")
    if given.service and given.engine == "ray":
        raise click.UsageError(
            "--engine ray runs the model on the cluster, and --service is a model elsewhere; give one"
        )
    if given.vectorize == "server" and not by_default("precision"):
        raise click.UsageError(
            "--precision is of vectors that are made here, and --vectorize server has the server make them; give one"
        )
    if given.text_columns and given.vectorize == "server":
        raise click.UsageError(
            "--text-column needs vectors that are made here, and --vectorize server has the server make them; give one"
        )
    if given.take_over and (given.reembed or given.vectorize == "server" or given.text_columns):
        other = "--reembed" if given.reembed else "--text-column" if given.text_columns else "--vectorize server"
        raise click.UsageError(f"--take-over and {other} do not go together; give one")
    if given.engine == "ray":
        extras.require("ray", "--engine ray")
    if given.vectorize == "server":
        extras.require("models", "--vectorize server, which checks pictures here,")
    say_if_toy(given.service)
    opening = OpenOptions(given.using, given.tenant, given.grpc, given.grpc_port, given.picture_column)
    creating = CreateOptions(given.on_disk, given.quantization, given.indexed, given.vectorize, given.service_url)
    with contextlib.closing(open_collection(place, given.api_key, opening)) as collection:
        task = _Task(given, collection, creating, given.report_path or usual_path(place))
        if given.watching:
            task.watch(given.interval)
        with contextlib.closing(task.opened()) as listing:
            if given.dry_run:
                task.dry_run(listing)
            else:
                task.run_once(listing)


@dataclass
class _Task:
    """A call of the command, with its collection opened."""

    given: SyncArguments
    collection: "Collection"
    creating: "CreateOptions"
    report_path: Path

    @cached_property
    def web(self) -> "Web":
        from cir_vectorizer.sources import Web

        return Web(self.given.private_urls)

    @cached_property
    def vectorizer(self) -> "Vectorizer | ServedModel | ModelRecord":
        """Local model or a service's; only its record if the database's server makes the vectors."""
        given = self.given
        if given.service is not None:
            return served_model(given.service, given.model, retries=20, seconds=600.0)
        if self.creating.vectorize == "server" and (record := recorded_model(given.model)) is not None:
            return record
        from cir_vectorizer.models import load

        if given.precision == "int8":
            from cir_vectorizer.cli.int8 import check_int8

            with contextlib.closing(self.opened()) as pictures:
                check_int8(given.model, pictures)
        device = "cpu" if given.engine == "ray" else given.device  # Ray's actors have their own devices
        return load(given.model, device, given.precision, parts=())

    def opened(self) -> "Source":
        """Open the source; a collection on the target's server or in its directory shares the connection."""
        from cir_vectorizer.collections import ANY_VECTOR, may_reembed, parse_address, same_collection, same_place
        from cir_vectorizer.errors import SourceError
        from cir_vectorizer.sources import CollectionSource, names_collection, open_source

        given, target = self.given, self.collection.address
        if names_collection(given.source) and given.format is None:
            there = parse_address(given.source)
            if same_place(there, target):
                same = same_collection(there, target)
                if same and not given.reembed:
                    more = ", or --reembed to have it embedded anew with another model"
                    raise SourceError(
                        f"{there} is the collection to write to as well; give another --to"
                        f"{more if may_reembed(self.collection, self.collection.info(), from_itself=True) else ''}"
                    )
                opening = replace(self.collection.options, using=ANY_VECTOR, tenant=None)
                collection = self.collection if same else self.collection.beside(there.collection, opening)
                return CollectionSource(
                    collection,
                    self.web,
                    given.image_column,
                    keep_owners=same,
                    lent=True,
                    text_columns=given.text_columns,
                )
        return open_source(
            given.source,
            given.image_column,
            given.id_column,
            include=given.include,
            exclude=given.exclude,
            web=self.web,
            pictures=given.pictures,
            text_columns=given.text_columns,
            format=given.format,
        )

    def dry_run(self, listing: "Source") -> None:
        """Print what a run would do."""
        from cir_vectorizer.collections import ModelRecord
        from cir_vectorizer.sync import dry_run

        given = self.given
        recorded = None if given.service is not None else recorded_model(given.model)
        model = recorded or ModelRecord.of(self.vectorizer)
        made = dry_run(
            listing,
            self.collection,
            model,
            create=self._creating(listing),
            reembed=given.reembed,
            source_name=given.source_name,
            prune=given.prune,
            yes=given.yes,
            take_over=given.take_over,
        )
        _print_failures(made.report)
        for line in made.lines:
            click.echo(line)
        if made.more:
            click.echo(f"… and {made.more:,} more")
        texts = f"; it would embed {made.report.texts:,} texts" if made.report.texts else ""
        click.echo(f"Nothing was written. A run would give: {_counts(made.report, given.prune)}{texts}")
        if made.refusal is not None:
            click.echo(f"Note: {made.refusal}", err=True)

    def run_once(self, listing: "Source") -> None:
        """Sync, print the summary, write the report, and exit with a status if the run is not a full success."""
        from cir_vectorizer.sync import Report

        report = Report()
        try:
            self._run(listing, report)
        except KeyboardInterrupt:
            click.echo(f"Stopped. {self._summary(report)} Run the same command to go on.", err=True)
            self._save(report)
            sys.exit(INTERRUPTED)
        except CirError:
            if report.complete:
                _print_failures(report)
                click.echo(self._summary(report))
            if report.complete or report.handled:
                with contextlib.suppress(CirError):  # the error that ended the run matters more
                    report.write(self.report_path)
            raise
        _print_failures(report)
        click.echo(self._summary(report))
        self._save(report)
        click.echo(f"Report: {self.report_path}", err=True)
        if report.failed or not report.total:
            sys.exit(PARTIAL)

    def watch(self, interval: float) -> NoReturn:
        """Sync whenever the source has changed, until Ctrl-C."""
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
            self._save(report)

        _ = self.vectorizer
        click.echo(f"Watching {self.given.source} every {interval:g} s; Ctrl-C ends it.", err=True)
        try:
            watch(self.opened, one_round, interval, tell)
        except KeyboardInterrupt:
            if current.handled and not current.complete:
                with contextlib.suppress(CirError):  # the next run reports the same
                    current.write(self.report_path)
            click.echo("Stopped.", err=True)
        sys.exit(INTERRUPTED)

    def _save(self, report: "Report") -> None:
        """Write the report; if its place was not chosen by the user, a place that cannot be written ends no run."""
        try:
            report.write(self.report_path)
        except CirError as error:
            if self.given.report_path is not None:
                raise
            click.echo(f"Note: {error}", err=True)

    def _run(self, listing: "Source", report: "Report") -> None:
        from cir_vectorizer.sources import CollectionSource
        from cir_vectorizer.sync import RunOptions, reembed, sync

        def copy(wanted: "Callable[[Id], bool]") -> "Source":
            return CollectionSource(self.collection, self.web, keep_owners=True, wanted=wanted, lent=True)

        given, vectorizer, creating = self.given, self.vectorizer, self._creating(listing)
        with self._decoders() as decoders, progress() as show:
            options: RunOptions = {
                "batch_size": given.batch_size,
                "workers": given.workers,
                "create": creating,
                "source_name": given.source_name,
                "prune": given.prune,
                "yes": given.yes,
                "report": report,
                "on_progress": show,
                "decoders": decoders,
                "limits": self._limits(),
                "take_over": given.take_over,
            }
            if given.reembed:
                reembed(listing, self.collection, vectorizer, copy, **options)
            else:
                sync(listing, self.collection, vectorizer, **options)

    def _creating(self, listing: "Source") -> "CreateOptions":
        """Return the options for a new collection; a copy of another collection has texts of the same columns."""
        from cir_vectorizer.sources import CollectionSource

        columns = self.given.text_columns
        if isinstance(listing, CollectionSource) and not columns and self.creating.vectorize == "client":
            columns = listing.noted_text_columns() if self.collection.info() is None else ()
        return replace(self.creating, text_columns=columns)

    def _limits(self) -> "Limits | None":
        from cir_vectorizer.query.encoded import DEFAULT_LIMITS

        megapixels = self.given.max_megapixels
        return None if megapixels is None else replace(DEFAULT_LIMITS, max_pixels=megapixels * 1_000_000)

    def _decoders(self) -> "AbstractContextManager[RayDecoders | None]":
        """Return a context with the Ray decoders, or with None if this process decodes and encodes."""
        if self.given.engine != "ray":
            return contextlib.nullcontext()
        from cir_vectorizer.client import ServedModel
        from cir_vectorizer.collections import ModelRecord
        from cir_vectorizer.sync.ray_decoders import RayDecoders

        assert not isinstance(self.vectorizer, ModelRecord | ServedModel)
        given = self.given
        return RayDecoders(self.vectorizer, given.ray_address, given.device, given.batch_size, given.workers)

    def _summary(self, report: "Report") -> str:
        skipped = f"; {report.skipped:,} files skipped: not pictures, or not wanted" if report.skipped else ""
        adopted = ""
        if report.changes["source"]:
            adopted = f"; {report.changes['source']:,} objects of another source now belong to this one"
            if not self.given.take_over:
                adopted += " (sources that share names or ids need collections of their own)"
        foreign = f"; {report.foreign:,} objects of another program stay as they are" if report.foreign else ""
        if foreign and not (self.given.take_over or self.given.reembed or self.given.vectorize == "server"):
            foreign += " (--take-over joins those that name the same pictures)"
        moved = (
            f"; {report.moved:,} objects with another spelling of their id, such as 101.0 for 101, were moved to the "
            "present one"
            if report.moved
            else ""
        )
        switched = f"; {report.collection} answers with {report.model} now" if report.switched else ""
        rate = f", {report.encoded / report.seconds:.1f} pictures/s" if report.encoded and report.seconds else ""
        texts = f"; {report.texts:,} texts embedded" if report.texts else ""
        counts = _counts(report, self.given.prune)
        return f"{counts}{texts}{skipped}{adopted}{foreign}{moved}{switched} ({report.seconds:.1f} s{rate})."


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
    for note in report.notes:
        click.echo(f"Note: {note}", err=True)
