"""A run of sync, on three kinds of threads.

    one thread              lists the source, compares entries with their records, and talks to the collection
    several threads         read, hash, decode and preprocess
    the caller's thread     runs the model, batch by batch

Memory is bounded: only a few batches of decoded pictures are in memory at any time, however long the source is, and
17 bytes are kept for each object of the collection.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from cir_vectorizer.collections import (
    Collection,
    CreateOptions,
    Id,
    Info,
    ModelRecord,
    Point,
    Vector,
    ensure,
    may_reembed,
)
from cir_vectorizer.errors import BackboneMismatch, CollectionError, PartialWriteError
from cir_vectorizer.query.encoded import Limits
from cir_vectorizer.sources.base import Failure, Source
from cir_vectorizer.sync import respelled
from cir_vectorizer.sync.compare import LOOKUP, Comparer, Decision, Known, Outcome, owner_digest
from cir_vectorizer.sync.encode import Decoders, Encoder, ThreadDecoders, encoder
from cir_vectorizer.sync.prune import prune as remove_what_left
from cir_vectorizer.sync.report import Report
from cir_vectorizer.sync.take_over import replace_payloads, theirs_of, upsert
from cir_vectorizer.sync.texts import EncodedText, Texts, TextsRefused, check_texts, question, texts_of

if TYPE_CHECKING:
    from cir_vectorizer.client import ServedModel
    from cir_vectorizer.models.vectorizer import Vectorizer

BATCH_SIZE = 32
"""Number of pictures that are encoded together, and written together."""
WRITES_IN_FLIGHT = 2
MOST_REFUSED = 3
"""Number of batches in a row that the database must reject completely to end a run."""
ALWAYS_SCANNED = 50_000
"""Collections up to this number of objects are always scanned at the start of a run. In a larger one, entries are
looked up by id if the source is less than a quarter of its size."""

OnProgress = Callable[[Report], None]


class RunOptions(TypedDict, total=False):
    """The keyword arguments of `sync`, which explains each."""

    batch_size: int
    workers: int | None
    create: CreateOptions | None
    source_name: str | None
    prune: bool
    yes: bool
    report: Report | None
    on_progress: OnProgress | None
    decoders: Decoders | None
    limits: Limits | None
    take_over: bool


def sync(
    source: Source,
    collection: Collection,
    vectorizer: "Vectorizer | ServedModel | ModelRecord",
    *,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    create: CreateOptions | None = None,
    source_name: str | None = None,
    prune: bool = False,
    yes: bool = False,
    report: Report | None = None,
    on_progress: OnProgress | None = None,
    decoders: Decoders | None = None,
    limits: Limits | None = None,
    take_over: bool = False,
) -> Report:
    """Index what is new or changed in `source`.

    Pictures that cannot be indexed are listed in the report and do not end the run; their objects from earlier runs
    stay.

    Args:
        vectorizer: the model; a ModelRecord is enough if the server makes the vectors.
        batch_size: pictures that go through the model at once.
        workers: threads that read and decode; if None, one per core (at most 8), or 16 for remote pictures and for a
            service's model.
        create: options for creating the collection if it does not exist. With `vectorize="server"`, pictures are sent
            instead of vectors, and the model only supplies the fingerprint of what the server's container runs. Its
            `text_columns` also apply to a collection that exists, and replace those that it has noted; without any, the
            noted ones go on.
        source_name: the source's name, kept as a digest in its objects' records; its path or URL if None.
        prune: remove objects that this source wrote and no longer contains.
        yes: prune even if that removes more than a fifth of them, and add the vector of texts to a collection that exists.
        report: report to fill in place, so that the caller has it after an interruption too.
        on_progress: called on the caller's thread after each batch and at the end.
        decoders: decoders to use instead of threads and the local model.
        limits: limits on the pictures; if None, those of the model.
        take_over: take over objects that another program made, if they name pictures of this source; else they stay.

    Raises:
        SourceError, CollectionError, ModelError, ServiceError: the run cannot go on. What was written stays; run again.
        BackboneMismatch: the collection was filled by another backbone.
        PruneRefused: everything was indexed, but nothing was removed, because it would be too much.
        TextsRefused: an existing collection would get the vector of texts, and `yes` is False; nothing was done.
    """
    model = ModelRecord.of(vectorizer)
    create = create or CreateOptions()
    report = Report() if report is None else report
    report.source, report.collection, report.model = source.name, str(collection.address), str(model)
    started = time.perf_counter()
    expected = source.count()
    report.total = expected or 0
    check_texts(create, take_over)
    new = bool(create.text_columns) and collection.info() is None
    info = prepare(collection, model, create)
    texts = texts_of(collection, info, create.text_columns)
    if not (new or yes) and (asked := question(collection, info, texts)) is not None:
        raise TextsRefused(asked)
    if texts.columns != info.text_columns:
        collection.add_texts(texts.columns)
    about_new = [f"the new collection has a second vector: {collection.about_texts()}"] if new else []
    theirs = theirs_of(collection, info, take_over)
    settle = partial(respelled.move, collection, report)
    owner = owner_digest(source_name or source.identity)
    comparer = Comparer(collection, model, owner, theirs=theirs, settle=settle, texts=texts)
    nothing_new = compare_all(source, collection, comparer, expected, always=prune)
    if decoders is None:
        decoders = ThreadDecoders(encoder(vectorizer, by_server=create.vectorize == "server"), batch_size, workers)
    if limits is not None:
        decoders.encoder.limits = limits
    run = _Run(collection, decoders.encoder, batch_size, report, on_progress or (lambda _: None))
    try:
        if nothing_new:
            report.unchanged = report.total
        else:
            run.through(source, comparer, decoders)
        report.complete = True
        if prune:
            assert comparer.known is not None
            remove_what_left(source, collection, comparer.known, run.hidden, yes, report, run.on_progress)
    finally:
        run.close()
        report.skipped = source.skipped
        report.foreign = theirs.left if theirs is not None else 0
        nothing = report.complete and not report.total
        report.notes = [*notes_on(source, nothing), *about_new, *run.notes(texts)]
        if report.encoded:
            report.notes += info.precision_notes(model.precision)
        report.seconds = round(time.perf_counter() - started, 3)
    run.on_progress(report)
    return report


def notes_on(source: Source, nothing: bool) -> list[str]:
    """Return the sentences about a listing as a whole, with one that says so if nothing was found."""
    return [*source.notes, *([source.nothing] if nothing else [])]


def prepare(collection: Collection, model: ModelRecord, create: CreateOptions) -> Info:
    """Create or check the collection, as `ensure`; a refusal advises `--reembed` where that can help."""
    try:
        return ensure(collection, model, create)
    except BackboneMismatch as error:
        if not may_reembed(collection, collection.info()):
            raise
        raise BackboneMismatch(f"{error}, or give --reembed to embed everything again") from error


def compare_all(
    source: Source, collection: Collection, comparer: Comparer, expected: int | None, always: bool = False
) -> bool:
    """Scan the collection into `comparer.known`, unless looking up the source's entries by id costs less.

    Meanwhile the source is listed too, unless it is remote: then it may share the database's connection.

    Args:
        expected: number of the source's entries; None if it cannot tell.
        always: scan in any case.

    Returns:
        True if the source lists exactly `expected` entries, all match their records, and no other object can be one of
        theirs under another spelling of its id.
    """
    count = collection.count()
    if not always and count > max(ALWAYS_SCANNED, 4 * (expected or 0)):
        return False
    with ThreadPoolExecutor(1, "cir-database") as database:
        scanning = database.submit(Known, collection.scan() if count else (), comparer.owner, comparer.model)
        maybe_same = not source.far and expected is not None and 0 < expected <= count
        listing = comparer.listing(source.items()) if maybe_same else None
        comparer.known = scanning.result()
    if listing is None or len(listing.keys) != expected or not comparer.known.all_same(listing):
        return False
    return not listing.numbered or comparer.known.all_seen


class _Run:
    """State of a run: entries that wait for a batch, and the thread that talks to the collection."""

    def __init__(
        self,
        collection: Collection,
        encoder: Encoder,
        batch_size: int,
        report: Report,
        on_progress: OnProgress,
    ) -> None:
        self.collection = collection
        self.encoder = encoder
        self.batch_size = batch_size
        self.report = report
        self.on_progress = on_progress
        self.hidden: list[Failure] = []
        """Failures that may have kept entries from being listed."""
        self._database = ThreadPoolExecutor(1, "cir-database")
        self._writes: deque[tuple[Future[None], Sequence[Decision]]] = deque()
        self._refused_whole = 0
        """Number of batches in a row that the database rejected completely."""
        self._pictures: list[Decision] = []
        self._payloads: list[Decision] = []
        self._cut = 0
        """Number of texts whose end the model did not read."""

    def through(self, source: Source, comparer: Comparer, decoders: Decoders) -> None:
        """Take the whole source through the stages."""
        with contextlib.closing(decoders.settle(self._compared(source, comparer), source.far)) as outcomes:
            for outcome in outcomes:
                self._take(outcome)
        self._encode()
        self._write_payloads()
        while self._writes:
            self._reap()

    def close(self) -> None:
        """Wait for pending writes and count them; if one failed, drop those that have not started."""
        self._database.shutdown(wait=True, cancel_futures=any(_failed(write) for write, _ in self._writes))
        while self._writes:
            write, decisions = self._writes.popleft()
            if not write.cancelled() and not _failed(write):
                self._count(write, decisions)

    def _compared(self, source: Source, comparer: Comparer) -> Iterator[Outcome]:
        """Yield the outcome for each entry; the next lot is compared while this one is processed."""
        entries = source.items()
        seen = 0
        coming = self._database.submit(comparer.next_lot, entries)
        while lot := coming.result():
            coming = self._database.submit(comparer.next_lot, entries)
            seen += len(lot)
            yield from lot
        self.report.total = seen

    def _take(self, outcome: Decision | Failure) -> None:
        if isinstance(outcome, Failure):
            self.report.failed.append(outcome)
            if outcome.hides_entries:
                self.hidden.append(outcome)
        elif outcome.prepared is not None:
            self._pictures.append(outcome)
            if len(self._pictures) >= self.batch_size:
                self._encode()
        elif outcome.record is not None:
            self._payloads.append(outcome)
            texts = sum(each.must_embed for each in self._payloads) if outcome.must_embed else 0
            if len(self._payloads) >= LOOKUP or texts >= self.batch_size:
                self._write_payloads()
        else:
            self.report.unchanged += 1
            if self.report.unchanged % LOOKUP == 0:
                self.on_progress(self.report)

    def notes(self, texts: Texts) -> list[str]:
        """Return sentences about the texts of this run."""
        notes = []
        if self._cut:
            which = "1 text is" if self._cut == 1 else f"{self._cut:,} texts are"
            notes.append(f"{which} longer than the model's context; the end was left out")
        if texts.columns and self.report.handled and not texts.found:
            notes.append(
                f"no object of {self.report.source} has a text in {', '.join(texts.columns)}, so none has a vector of one; "
                "name other columns with --text-column"
            )
        return notes

    def _embed_texts(self, decisions: Sequence[Decision]) -> list[Decision]:
        """Return the decisions with their texts embedded; those whose text failed are reported and left out."""
        waiting = [decision for decision in decisions if decision.must_embed]
        made: list[EncodedText | str] = []
        for start in range(0, len(waiting), self.batch_size):
            made += self.encoder.embed_texts([each.text or "" for each in waiting[start : start + self.batch_size]])
        embedded = iter(made)
        whole = []
        for decision in decisions:
            found = next(embedded) if decision.must_embed else decision.embedded
            if isinstance(found, EncodedText):
                self.report.texts += 1
                self._cut += found.cut
                if not np.isfinite(found.vector).all() or not found.vector.any():
                    found = "has a text whose embedding is zero or not finite; check the text and the model"
            if isinstance(found, str):
                self.report.failed.append(Failure(decision.item.name, "text", found, decision.item.id))
            else:
                whole.append(replace(decision, embedded=found))
        return whole

    def _encode(self) -> None:
        decisions, self._pictures = self._embed_texts(self._pictures), []
        if not decisions:
            return
        made = list(self.encoder.points(decisions))
        self.report.encoded += len(decisions)
        self.report.failed += [each for each in made if isinstance(each, Failure)]
        points = [each for each in made if isinstance(each, Point)]
        if points:
            pairs = zip(decisions, made, strict=True)
            written = [replace(decision, prepared=None) for decision, each in pairs if isinstance(each, Point)]
            self._write(written, partial(upsert, self.collection), points)

    def _write_payloads(self) -> None:
        decisions, self._payloads = self._embed_texts(self._payloads), []
        made = [(each.item, each.record) for each in decisions if each.record is not None]
        points = [Point(item.id, None, record.join(item.columns)) for item, record in made]
        texts: dict[Id, Vector | None] = {
            each.item.id: None if each.embedded is None else each.embedded.vector
            for each in decisions
            if each.text is not None
        }
        if points:
            self._write(decisions, partial(replace_payloads, self.collection, texts=texts), points)

    def _write(
        self, decisions: Sequence[Decision], call: Callable[[Sequence[Point]], None], points: Sequence[Point]
    ) -> None:
        while len(self._writes) >= WRITES_IN_FLIGHT:
            self._reap()
        self._writes.append((self._database.submit(call, points), decisions))

    def _reap(self) -> None:
        write, decisions = self._writes[0]
        write.exception()  # wait before `popleft`: after an interruption, `close` still counts this write
        self._count(write, decisions)
        self._writes.popleft()
        self.on_progress(self.report)
        if self._refused_whole >= MOST_REFUSED:
            raise CollectionError(
                f"the database refused {MOST_REFUSED} batches in a row whole, the last one with: "
                f"{self.report.failed[-1].sentence}; correct the cause and run again"
            )

    def _count(self, write: "Future[None]", decisions: Sequence[Decision]) -> None:
        """Count the objects of a finished write; objects that the database rejected become failures."""
        refused: dict[Any, str] = {}
        error = write.exception()
        if isinstance(error, PartialWriteError):
            refused = error.failed
        elif error is not None:
            raise error
        self._refused_whole = self._refused_whole + 1 if len(refused) == len(decisions) > 1 else 0
        for decision in decisions:
            if decision.item.id in refused:
                sentence = f"was refused by the database: {refused[decision.item.id]}"
                self.report.failed.append(Failure(decision.item.name, "database", sentence, decision.item.id))
                continue
            setattr(self.report, decision.counter, getattr(self.report, decision.counter) + 1)
            if decision.change in self.report.changes:
                self.report.changes[decision.change] += 1
            if decision.adopted:
                self.report.changes["source"] += 1


def _failed(write: "Future[None]") -> bool:
    if not write.done() or write.cancelled():
        return False
    error = write.exception()
    return error is not None and not isinstance(error, PartialWriteError)
