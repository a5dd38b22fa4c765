"""Bring a collection in step with a source: encode what is new or changed, leave the rest alone.

What was done is written in the collection itself (`SyncRecord`), so a run that was killed is simply run again.
A picture counts as unchanged if its size and modification time are as recorded; if not, the hash of its bytes decides.

    one thread      lists the source, looks up what is known of each entry, and writes to the collection
    some threads    read, hash, decode and preprocess
    the caller's    runs the model, batch by batch

Memory is bounded: a few batches of decoded pictures are on their way at any time, however long the source is.
Not handled here: removing objects whose picture left the source.
"""

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from cir_vectorizer.collections import Collection, ModelRecord, Point, SyncRecord, ensure
from cir_vectorizer.errors import ImageError, ModelError, SourceError
from cir_vectorizer.files import replace_file
from cir_vectorizer.images import DEFAULT_LIMITS, open_image
from cir_vectorizer.sources import Failure, Item, Source

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer

BATCH_SIZE = 32
LOOKUP = 256
"""Entries of the source that are looked up in the collection at once."""
WRITES_IN_FLIGHT = 2

Change = Literal["added", "changed", "unchanged"]


@dataclass
class Report:
    """What a run did. Each entry of the source is in exactly one of added, changed, unchanged and failed.

    `encoded` counts pictures that went through the model; `skipped` files that are no pictures; `total` is how many
    entries there are. `complete` is False until the run has seen them all.
    """

    source: str = ""
    collection: str = ""
    model: str = ""
    total: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    encoded: int = 0
    skipped: int = 0
    seconds: float = 0.0
    complete: bool = False
    failed: list[Failure] = field(default_factory=list)

    @property
    def handled(self) -> int:
        """Entries done with."""
        return self.added + self.changed + self.unchanged + len(self.failed)

    def write(self, path: Path) -> None:
        """Write as JSON; a reader sees the old file or the new one.

        Raises:
            SourceError: it cannot be written.
        """
        content = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        try:
            replace_file(path, content.encode())
        except OSError as error:
            raise SourceError(
                f"the report {path} cannot be written ({error.strerror or error}); give another place with --report"
            ) from error


@dataclass(frozen=True)
class _Work:
    """One entry on its way: with pixels it is encoded, without them only its payload is written (if it changed)."""

    item: Item
    change: Change
    record: SyncRecord | None = None
    pixels: Tensor | None = None


@dataclass(frozen=True)
class _Candidate:
    """An entry whose picture must be read; `known` is its record of an earlier run."""

    item: Item
    known: SyncRecord | None
    fresh: SyncRecord
    """As the picture is now, its hash and norm still empty."""


def sync(
    source: Source,
    collection: Collection,
    vectorizer: "Vectorizer",
    *,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    report: Report | None = None,
    on_progress: Callable[[Report], None] | None = None,
) -> Report:
    """Index what is new or changed in `source`.

    Pictures that cannot be indexed are collected in the report and never end the run; what an earlier run indexed
    of them stays.

    Args:
        batch_size: pictures that go through the model at once.
        workers: threads that decode; one per core (at most 8) if None.
        report: filled in place, so that the caller has it after an interruption too.
        on_progress: called on the caller's thread after each batch and at the end.

    Raises:
        SourceError, CollectionError, ModelError: the run as a whole cannot go on. What was written stays; run again.
        BackboneMismatch: the collection was filled by another backbone.
    """
    model = ModelRecord(vectorizer.name, vectorizer.fingerprint, vectorizer.dim)
    report = Report() if report is None else report
    report.source, report.collection, report.model = source.name, str(collection.address), str(model)
    workers = workers or min(8, os.cpu_count() or 1)
    report.total = source.count()
    ensure(collection, model)
    run = _Run(collection, vectorizer, batch_size, report, on_progress or (lambda _: None))
    started = time.perf_counter()
    try:
        with ThreadPoolExecutor(workers, "cir-decode") as decoders:
            try:
                run.through(source, decoders, 2 * batch_size + workers)
            finally:
                decoders.shutdown(wait=False, cancel_futures=True)
    finally:
        run.close()
        report.skipped = source.skipped
        report.seconds = round(time.perf_counter() - started, 3)
    report.complete = True
    run.on_progress(report)
    return report


class _Run:
    """One run: what is waiting for a batch, and the thread that talks to the collection."""

    def __init__(
        self,
        collection: Collection,
        vectorizer: "Vectorizer",
        batch_size: int,
        report: Report,
        on_progress: Callable[[Report], None],
    ) -> None:
        self.collection = collection
        self.vectorizer = vectorizer
        self.batch_size = batch_size
        self.report = report
        self.on_progress = on_progress
        self.limits = getattr(vectorizer, "limits", DEFAULT_LIMITS)
        self._database = ThreadPoolExecutor(1, "cir-database")
        self._writes: deque[tuple[Future[None], Sequence[_Work]]] = deque()
        self._pictures: list[_Work] = []
        self._payloads: list[_Work] = []

    def through(self, source: Source, decoders: ThreadPoolExecutor, in_flight: int) -> None:
        """Take the whole source through the stages.

        Args:
            in_flight: pictures that may be decoded ahead of the model.
        """
        decoding: deque[Future[_Work | Failure]] = deque()
        for entry in self._looked_up(source):
            if isinstance(entry, _Candidate):
                decoding.append(decoders.submit(self._decode, entry))
            else:
                self._take(entry)
            if len(decoding) >= in_flight:
                self._take(decoding.popleft().result())
        while decoding:
            self._take(decoding.popleft().result())
        self._encode()
        self._write_payloads()
        while self._writes:
            self._reap()

    def close(self) -> None:
        """Let the writes that were handed over finish, and count them; after a failed one, drop the rest."""
        self._database.shutdown(wait=True, cancel_futures=any(_failed(write) for write, _ in self._writes))
        for write, works in self._writes:
            if not write.cancelled() and write.exception() is None:
                self._count(works)

    def _looked_up(self, source: Source) -> Iterator[_Work | _Candidate | Failure]:
        """Entries of the source beside what is known of them; the next lot is looked up while this one is used."""
        entries = source.items()
        coming = self._database.submit(self._look_up, entries)
        while lot := coming.result():
            coming = self._database.submit(self._look_up, entries)
            yield from lot

    def _look_up(self, entries: Iterator[Item | Failure]) -> list[_Work | _Candidate | Failure]:
        lot = list(islice(entries, LOOKUP))
        ids = [entry.id for entry in lot if isinstance(entry, Item)]
        known = self.collection.records(ids) if ids else {}
        return [entry if isinstance(entry, Failure) else self._compare(entry, known.get(entry.id)) for entry in lot]

    def _compare(self, item: Item, known: SyncRecord | None) -> _Work | _Candidate | Failure:
        """Tell from the file's size and time alone what is to be done."""
        try:
            status = item.path.stat()
        except (OSError, ValueError) as error:
            return _unreadable(item, error)
        fresh = SyncRecord(
            path=str(item.path),
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            sha256="",
            norm=0.0,
            fingerprint=self.vectorizer.fingerprint,
            columns=_digest(item.columns),
        )
        if known is None or known.fingerprint != fresh.fingerprint:
            return _Candidate(item, known, fresh)
        if (known.size, known.mtime_ns) != (fresh.size, fresh.mtime_ns):
            return _Candidate(item, known, fresh)
        return _same_picture(item, known, fresh)

    def _decode(self, candidate: _Candidate) -> _Work | Failure:
        item, known = candidate.item, candidate.known
        try:
            if candidate.fresh.size > self.limits.max_bytes or not item.path.is_file():
                open_image(item.path, self.limits)
            content = item.path.read_bytes()
            fresh = replace(candidate.fresh, sha256=hashlib.sha256(content).hexdigest())
            if known is not None and (known.sha256, known.fingerprint) == (fresh.sha256, fresh.fingerprint):
                return _same_picture(item, known, fresh)
            pixels = self.vectorizer.preprocess(open_image(content, self.limits))
        except ImageError as error:
            return Failure(item.name, error.reason, str(error))
        except OSError as error:
            return _unreadable(item, error)
        except Exception as error:  # whatever one picture does, the others go on
            return Failure(
                item.name, "internal", f"could not be prepared ({type(error).__name__}: {error}); report this"
            )
        return _Work(item, "added" if known is None else "changed", fresh, pixels)

    def _take(self, entry: _Work | Failure) -> None:
        if isinstance(entry, Failure):
            self.report.failed.append(entry)
        elif entry.pixels is not None:
            self._pictures.append(entry)
            if len(self._pictures) >= self.batch_size:
                self._encode()
        elif entry.record is not None:
            self._payloads.append(entry)
            if len(self._payloads) >= LOOKUP:
                self._write_payloads()
        else:
            self.report.unchanged += 1
            if self.report.unchanged % LOOKUP == 0:
                self.on_progress(self.report)

    def _encode(self) -> None:
        works, self._pictures = self._pictures, []
        if not works:
            return
        try:
            embeddings = self.vectorizer.embed_pixels(
                torch.stack([work.pixels for work in works if work.pixels is not None])
            )
        except (RuntimeError, MemoryError) as error:
            raise ModelError(
                f"model {self.vectorizer.name!r} failed on a batch of {len(works)} pictures ({error}); "
                "if memory is short, give a smaller --batch-size"
            ) from error
        self.report.encoded += len(works)
        points, written = [], []
        for work, embedding in zip(works, embeddings, strict=True):
            norm = float(np.linalg.norm(embedding))
            assert work.record is not None
            if not (np.isfinite(norm) and norm > 0):
                sentence = (
                    "gives an embedding that is no direction (zero or not finite); check the picture and the model"
                )
                self.report.failed.append(Failure(work.item.name, "embedding", sentence))
                continue
            record = replace(work.record, norm=norm)
            points.append(Point(work.item.id, embedding / norm, record.join(work.item.columns)))
            written.append(replace(work, pixels=None))
        if points:
            self._write(written, self.collection.upsert, points)

    def _write_payloads(self) -> None:
        works, self._payloads = self._payloads, []
        payloads = {work.item.id: work.record.join(work.item.columns) for work in works if work.record is not None}
        if payloads:
            self._write(works, self.collection.replace_payload, payloads)

    def _write(self, works: Sequence[_Work], call: Callable[[Any], None], argument: Any) -> None:
        while len(self._writes) >= WRITES_IN_FLIGHT:
            self._reap()
        self._writes.append((self._database.submit(call, argument), works))

    def _reap(self) -> None:
        write, works = self._writes[0]
        write.result()
        self._writes.popleft()
        self._count(works)
        self.on_progress(self.report)

    def _count(self, works: Sequence[_Work]) -> None:
        for work in works:
            setattr(self.report, work.change, getattr(self.report, work.change) + 1)


def _same_picture(item: Item, known: SyncRecord, fresh: SyncRecord) -> _Work:
    """The picture is as indexed: its payload is written again if the columns or the record differ."""
    record = replace(fresh, sha256=known.sha256, norm=known.norm)
    change: Change = "unchanged" if record.columns == known.columns else "changed"
    return _Work(item, change, None if record == known else record)


def _digest(columns: dict[str, Any]) -> str:
    content = json.dumps(columns, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _unreadable(item: Item, error: Exception) -> Failure:
    cause = (getattr(error, "strerror", None) or str(error)).lower()
    if isinstance(error, FileNotFoundError):
        return Failure(item.name, "path", "does not exist; correct the path, or it left while the source was read")
    return Failure(item.name, "path", f"cannot be read ({cause}); check the file and its permissions")


def _failed(write: "Future[None]") -> bool:
    return write.done() and not write.cancelled() and write.exception() is not None
