"""Checks of a collection and its server through the collection's own protocol."""

import itertools
import secrets
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections import (
    Ask,
    Collection,
    CreateOptions,
    Info,
    ModelRecord,
    Point,
    SyncRecord,
    Vector,
    database_of,
    may_reembed,
    open_collection,
)
from cir_vectorizer.doctor.container import Container
from cir_vectorizer.doctor.findings import Finding
from cir_vectorizer.doctor.servers import version_finding, version_of
from cir_vectorizer.doctor.wiring import Compose, Wiring
from cir_vectorizer.errors import CollectionError, MissingExtraError
from cir_vectorizer.query import ComposedQuery

SAMPLE = 1000
"""Most objects whose records are checked."""
NORM_FACTOR = 1.5
"""Largest accepted ratio between a catalog's mean norm and the model's; even catalogs of one kind of thing stay below."""


class Examination:
    def __init__(self, collection: Collection, model: ModelRecord) -> None:
        self.collection = collection
        self.address = collection.address
        self.model = model
        self.server = None if self.address.host is None else database_of(self.address)
        self.info: Info | None = None
        self.usable = False
        """True once objects can be written to the server."""

    def database(self) -> Iterator[Finding]:
        """Check the connection, the server's version, and that the collection exists."""
        version = None if self.server is None else version_of(self.address, self.server)
        failed: CollectionError | None = None
        try:
            self.info = self.collection.info()
        except CollectionError as error:
            failed = error
        if failed is not None and version is None:
            yield Finding("connection", "problem", str(failed))
            return
        if self.info is not None:
            version = version or self.info.version
        where = "is a directory, without a server" if self.address.path is not None else "answers"
        yield Finding("connection", "ok", f"{self.address} {where}")
        too_old = False
        if self.server is not None and version is not None:
            finding = version_finding(self.server, version)
            too_old = finding.level == "problem"
            yield finding
        if too_old:
            self.info = None
        elif failed is not None:
            yield Finding("collection", "problem", str(failed))
        elif self.info is None:
            sentence = (
                f"there is no collection {self.address} yet; cir-vectorizer sync makes it, or correct the address"
            )
            yield Finding("collection", "warning", sentence)
            self.usable = self.address.path is None
        else:
            yield Finding("collection", "ok", f"{self.address} holds {self.info.count:,} objects")
            self.usable = True

    def fit(self, info: Info) -> Iterator[Finding]:
        """Check that vector size, distance and backbone are the model's."""
        model, where = self.model, self.address
        if info.dim is None:
            yield Finding("vector size", "ok", "an empty collection takes vectors of any width")
        elif info.dim != model.dim:
            sentence = (
                f"{where} has vectors of {info.dim} numbers, and {model} makes {model.dim}; give the --model that filled "
                "it, or name another collection"
            )
            yield Finding("vector size", "problem", sentence)
        else:
            yield Finding("vector size", "ok", f"{info.dim} numbers, as {model} makes")
        if not info.compares_by_cosine:
            sentence = (
                f"{where} compares by {info.why_not_cosine}, and {model} needs cosine; make another collection with cosine, "
                "which sync does"
            )
            yield Finding("distance", "problem", sentence)
        else:
            same = "" if info.distance == "cosine" else ", of vectors of length 1, which is cosine"
            yield Finding("distance", "ok", f"{info.distance}{same}")
        yield self._backbone(info)
        if info.fingerprint is not None and info.precision != self.model.precision:
            close = "may change places in" if info.precision == "int8" else "keep their places in all but near ties of"
            sentence = (
                f"its pictures were embedded in {info.precision}; objects {close} searches in another precision "
                f"(--precision {info.precision} is the same)"
            )
            yield Finding("precision", "ok", sentence)
        if info.blends_text:
            sentence = (
                "vectors are made of pictures and texts together, so objects cannot be references for composed queries; "
                "use a named vector of the picture alone for that"
            )
            yield Finding("references", "warning", sentence)

    def _backbone(self, info: Info) -> Finding:
        if self.model.made(info.fingerprint):
            return Finding("backbone", "ok", f"made by {info.model} with the same backbone as {self.model}")
        if info.fingerprint is not None:
            sentence = (
                f"{self.address} was made by {info.model}@{info.fingerprint[:12]}, and {self.model} has another backbone, "
                "whose vectors cannot be compared; give the --model that made it, or "
                + ("run sync --reembed" if may_reembed(self.collection, info) else "sync into a new collection")
            )
            return Finding("backbone", "problem", sentence)
        if not info.count:
            return Finding(
                "backbone", "ok", "no model is recorded yet; sync records its own in a collection that it makes"
            )
        if info.vectorize == "server":
            return Finding("backbone", "ok", "the server has its container make the vectors; see wiring")
        sentence = (
            f"another program filled {self.address}, so nothing says which backbone made its vectors; if it was "
            f"{self.model}, run this with --adopt, which verifies and notes it; else sync into a new collection"
        )
        return Finding("backbone", "warning", sentence)

    def norms(self, info: Info, mean_norm: float | None) -> Iterator[Finding]:
        """Check the records of some objects: the norms of their embeddings, and the backbones that made them."""
        try:
            records = [record for _, record in itertools.islice(self.collection.scan(), SAMPLE)]
        except CollectionError as error:
            yield Finding("norms", "problem", f"records cannot be read: {error}")
            return
        ours = [record for record in records if record is not None]
        others = sum(not self.model.made(record.fingerprint) for record in ours)
        if others and self.model.made(info.fingerprint):
            sentence = (
                f"{others:,} of {len(ours):,} objects were made by another backbone than the collection says; run sync "
                "again over their source"
            )
            yield Finding("records", "problem", sentence)
        yield _norms(len(records), ours, mean_norm, info)

    def round_trip(self) -> Iterator[Finding]:
        """Write, read, find and remove an object in a collection beside this one."""
        numbers = np.random.default_rng(0).normal(size=self.model.dim).astype(np.float32)
        try:
            with self._scratch(self.model, CreateOptions()) as scratch:
                wrong = _there_and_back(scratch, numbers / np.linalg.norm(numbers), self.model)
        except CollectionError as error:
            wrong = str(error)
        if wrong is None:
            yield Finding("round trip", "ok", "an object was written, read, found and removed beside the collection")
        else:
            yield Finding("round trip", "problem", f"an object beside the collection: {wrong}")

    def wiring(self, container: Container | None, compose: Compose | None, named: bool) -> Iterator[Finding]:
        """Check that the database itself reaches the container and gets the right vectors.

        Args:
            compose: makes the model's vectors if no container does; None if the model cannot run here.
            named: True if the user named a container, even one that cannot be asked.
        """
        if self.server is None:
            return
        by_server = self.info is not None and self.info.vectorize == "server"
        if container is None and not by_server:
            more = "" if named else "; give --service to check a container too"
            sentence = f"vectors and queries are made outside the server{more}"
            yield Finding("wiring", "ok", sentence)
            return
        served, source = None, "--service"
        if container is not None and (served := container.served) is not None:
            compose = container.compose
        elif not by_server:
            return
        else:
            source = f"--model {self.model.name}"
        if compose is None:
            compose = _uncomparable
        check = Wiring(
            self.server, self._scratch, lambda number, vector: _point(vector, self.model, number), compose, source
        )
        if self.info is not None and by_server:
            yield check.of_collection(self.collection, self.info, served or self._noted(self.info))
        elif served is not None:
            yield check.of_server(served)

    def _noted(self, info: Info) -> ModelRecord:
        """Return the model under the name that the collection notes, by which its server asks for it."""
        return self.model if info.model is None else ModelRecord(info.model, self.model.fingerprint, self.model.dim)

    @contextmanager
    def _scratch(self, model: ModelRecord, options: CreateOptions) -> Iterator[Collection]:
        """Yield a collection made beside this one, and remove it when the context ends.

        Raises:
            CollectionError: it cannot be made or removed.
        """
        name = f"{self.address.collection[:200]}_doctor_{secrets.token_hex(4)}"
        opening = self.collection.options
        if opening.tenant is None:
            scratch = self.collection.beside(name)
        else:  # with a tenant, only the tenant would be removed
            scratch = open_collection(replace(self.address, collection=name), options=replace(opening, tenant=None))
        try:
            scratch.create(model, options)
            yield scratch
        finally:
            try:
                scratch.drop()
            except CollectionError as error:
                raise CollectionError(
                    f"{scratch.address}, made for this check, could not be removed ({error}); remove it by hand"
                ) from error
            finally:
                if opening.tenant is not None:
                    scratch.close()


def _norms(seen: int, ours: list[SyncRecord], mean_norm: float | None, info: Info) -> Finding:
    if not seen:
        return Finding("norms", "ok", "there are no objects yet")
    norms = [record.norm for record in ours if record.norm is not None]
    if info.vectorize == "server" and not norms:
        sentence = "the container makes the vectors, which have norm 1; for references the model's mean norm is used"
        return Finding("norms", "ok", sentence)
    bad = sum(not (np.isfinite(norm) and norm > 0) for norm in norms)
    if bad:
        sentence = (
            f"{bad:,} of {seen:,} objects have a norm that is not a positive number; remove them and run sync again"
        )
        return Finding("norms", "problem", sentence)
    if len(norms) < seen:
        foreign = info.fingerprint is None or info.picture_column is not None
        remedy = "sync their source with --take-over" if foreign else "sync their source"
        sentence = (
            f"{seen - len(norms):,} of {seen:,} objects have none, so the model's mean norm is used when they are references, "
            f"which blurs composed queries a little; {'adopt it, and ' if info.fingerprint is None else ''}{remedy} to record "
            "theirs"
        )
        return Finding("norms", "warning", sentence)
    mean = float(np.mean(norms))
    if mean_norm is not None and not 1 / NORM_FACTOR < mean / mean_norm < NORM_FACTOR:
        sentence = (
            f"their mean is {mean:.2f}, and the model's {mean_norm:.2f}; these pictures are unlike those that the model "
            "knows, or another model made the vectors: look at some results"
        )
        return Finding("norms", "warning", sentence)
    known = "" if mean_norm is None else f", the model's {mean_norm:.2f}"
    return Finding("norms", "ok", f"all {seen:,} objects have one; the mean is {mean:.2f}{known}")


def _uncomparable(_: Sequence[ComposedQuery]) -> npt.NDArray[np.float32]:
    raise MissingExtraError(
        "no model can run here; give a --service that serves it, or run: pip install 'cir-vectorizer[models]'"
    )


def _point(vector: Vector, model: ModelRecord, number: int = 0) -> Point:
    record = SyncRecord("doctor", 1, 1, "00", 1.5, model.fingerprint, "")
    return Point(str(uuid.UUID(int=number + 1)), vector, record.join({"word": "doctor"}))


def _there_and_back(scratch: Collection, vector: Vector, model: ModelRecord) -> str | None:
    """Return what went wrong when an object was written, read, found and removed; None if all is well."""
    point = _point(vector, model)
    scratch.upsert([point])
    found = scratch.get([point.id])
    if len(found) != 1:
        return "was written and is not there; look at the server's log"
    if found[0].vector is None or float(np.abs(found[0].vector - vector).max()) > 1e-3:
        return "came back with another vector; look at the server's log"
    if found[0].payload != point.payload:
        return "came back with another payload; look at the server's log"
    hits = scratch.search(vector, Ask(1))
    if [hit.id for hit in hits] != [point.id] or hits[0].score < 0.99:
        return "is not found by its own vector; look at the server's log"
    scratch.delete([point.id])
    return "was removed and is still there; look at the server's log" if scratch.count() else None
