"""Does everything between a model, a collection, its server and the container fit together?

    for finding in examine(collection, model):
        print(finding.level, finding.check, finding.sentence)

Objects are written only into a collection made beside the one examined, which is removed again. A check that makes no
sense after what was found before it is left out.
"""

import itertools
import os
import re
import secrets
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import httpx
import numpy as np

from cir_vectorizer.client import Client, Patience
from cir_vectorizer.collections import (
    Address,
    Collection,
    CreateOptions,
    Info,
    ModelRecord,
    Point,
    SyncRecord,
    Vector,
    open_collection,
)
from cir_vectorizer.errors import CollectionError, ServiceError
from cir_vectorizer.query import ComposedQuery

Level = Literal["ok", "warning", "problem"]
"""A warning is a loss that one may live with; with a problem something does not work."""

SAMPLE = 1000
"""Objects whose records are looked at."""
NORM_FACTOR = 1.5
"""How far the mean norm of a catalog may be from the model's: catalogs of one kind of thing differ by less."""
PROBE = "a picture"
"""The text that the container is asked about."""
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Finding:
    """What a check found: `sentence` is the cause, and the remedy where one is needed."""

    check: str
    level: Level
    sentence: str


@dataclass(frozen=True)
class _Need:
    """What a server lacks that is older than `version`."""

    version: tuple[int, int]
    level: Level
    missing: str


@dataclass(frozen=True)
class _Kind:
    """A database as its server presents itself."""

    name: str
    port: int
    tls_port: int
    path: str
    key_header: str
    key_variable: str
    setting: str
    needs: tuple[_Need, ...]


_KINDS = {
    "qdrant": _Kind(
        "Qdrant", 6333, 6333, "/", "api-key", "QDRANT_API_KEY", "QDRANT__INFERENCE__ADDRESS",
        (
            _Need((1, 10), "problem", "the query interface, so no search works"),
            _Need((1, 16), "warning", "the collection's metadata, so what sync noted in its objects alone tells the model"),
        ),
    ),
    "weaviate": _Kind(
        "Weaviate", 8080, 443, "/v1/meta", "authorization", "WEAVIATE_API_KEY", "CLIP_INFERENCE_API",
        (
            _Need((1, 27), "problem", "what the client needs, so nothing works"),
            _Need((1, 32), "warning", "aliases, so sync --reembed cannot switch"),
        ),
    ),
}  # fmt: skip


def examine(
    collection: Collection,
    model: ModelRecord,
    mean_norm: float | None = None,
    service_url: str | None = None,
    service_key: str | None = None,
) -> Iterator[Finding]:
    """Check a collection, one finding after another.

    Args:
        model: what is to fill or to search it.
        mean_norm: the model's mean length of picture embeddings, if it is known.
        service_url: the container, as this machine sees it, without a path; a key may stand in it.
        service_key: the container's key.
    """
    examination = _Examination(collection, model)
    yield from examination.database()
    if examination.info is not None:
        yield from examination.fit(examination.info)
        yield from examination.norms(examination.info, mean_norm)
    if examination.usable:
        yield from examination.round_trip()
    container = None
    if service_url is not None:
        try:
            container = _Container(service_url, service_key, model)
        except ServiceError as error:
            yield Finding("service", "problem", f"--service cannot be used: {error}")
        else:
            yield from container.findings()
    if examination.usable:
        yield from examination.wiring(container)
    if container is not None:
        container.client.close()


def worst(findings: Iterable[Finding]) -> Level:
    """The level of the most serious finding."""
    order: tuple[Level, ...] = ("ok", "warning", "problem")
    return max((finding.level for finding in findings), key=order.index, default="ok")


class _Examination:
    def __init__(self, collection: Collection, model: ModelRecord) -> None:
        self.collection = collection
        self.address = collection.address
        self.model = model
        self.kind = None if self.address.host is None else _KINDS.get(self.address.scheme.removesuffix("s"))
        self.info: Info | None = None
        self.usable = False
        """Whether objects can be written to the server."""

    def database(self) -> Iterator[Finding]:
        """Connection, the server's version, and whether the collection is there."""
        version = None if self.kind is None else _version(self.address, self.kind)
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
        if self.kind is not None and version is not None:
            finding = _version_finding(self.kind, version)
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
        """Width, distance and backbone against the model's."""
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
        if info.distance != "cosine":
            sentence = (
                f"{where} compares by {info.distance}, and {model} needs cosine; make another collection with cosine, "
                "which sync does"
            )
            yield Finding("distance", "problem", sentence)
        else:
            yield Finding("distance", "ok", "cosine")
        yield self._backbone(info)
        if info.blends_text:
            sentence = (
                "vectors are made of pictures and texts together, so objects are no references for composed queries; "
                "use a named vector of the picture alone for that"
            )
            yield Finding("references", "warning", sentence)

    def _backbone(self, info: Info) -> Finding:
        if info.fingerprint == self.model.fingerprint:
            return Finding("backbone", "ok", f"made by {info.model} with the same backbone as {self.model}")
        if info.fingerprint is not None:
            sentence = (
                f"{self.address} was made by {info.model}@{info.fingerprint[:12]}, and {self.model} has another backbone, "
                "whose vectors cannot be compared; give the --model that made it, or run sync --reembed"
            )
            return Finding("backbone", "problem", sentence)
        if not info.count:
            return Finding("backbone", "ok", "no model is noted yet; sync notes its own in a collection that it makes")
        sentence = (
            f"another program filled {self.address}, so nothing says which backbone made its vectors; search it only "
            f"if it was {self.model}, or sync into a new collection"
        )
        return Finding("backbone", "warning", sentence)

    def norms(self, info: Info, mean_norm: float | None) -> Iterator[Finding]:
        """What the records of some objects say of their embeddings' length, and of what made them."""
        try:
            records = [record for _, record in itertools.islice(self.collection.scan(), SAMPLE)]
        except CollectionError as error:
            yield Finding("norms", "problem", f"records cannot be read: {error}")
            return
        ours = [record for record in records if record is not None]
        others = sum(record.fingerprint != self.model.fingerprint for record in ours)
        if others and info.fingerprint == self.model.fingerprint:
            sentence = (
                f"{others:,} of {len(ours):,} objects were made by another backbone than the collection says; run sync "
                "again over their source"
            )
            yield Finding("records", "problem", sentence)
        yield _norms(len(records), ours, mean_norm, info.vectorize == "server")

    def round_trip(self) -> Iterator[Finding]:
        """An object goes into a collection beside this one, is read, found and removed."""
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

    def wiring(self, container: "_Container | None") -> Iterator[Finding]:
        """Does the database itself reach the container?"""
        if self.kind is None:
            return
        if self.info is not None and self.info.vectorize == "server":
            try:
                self.collection.near(ComposedQuery(text=PROBE), 1)
            except CollectionError as error:
                yield Finding("wiring", "problem", f"{self.kind.name} does not get vectors from the container: {error}")
            else:
                yield Finding("wiring", "ok", f"{self.kind.name} had its container compose a query for the collection")
            return
        if container is None:
            sentence = "vectors and queries are made outside the server; give --service to check a container too"
            yield Finding("wiring", "ok", sentence)
            return
        if container.served is None:
            return
        yield self._reached(container, container.served, self.kind)

    def _reached(self, container: "_Container", served: ModelRecord, kind: _Kind) -> Finding:
        """A text's vector from the container is found by the same text, which the server has to ask the container for."""
        try:
            vector = container.client.embed_texts([PROBE], model=str(served))[0]
            with self._scratch(served, CreateOptions(vectorize="server")) as scratch:
                scratch.upsert([_point(vector, self.model)])
                hits = scratch.near(ComposedQuery(text=PROBE), 1)
        except (CollectionError, ServiceError) as error:
            return Finding("wiring", "problem", f"{kind.name} does not get vectors from the container: {error}")
        if not hits or hits[0].score < 0.999:
            sentence = (
                f"{kind.name} asks a container that gives other vectors than --service; correct {kind.setting} of its "
                "server, or --service"
            )
            return Finding("wiring", "problem", sentence)
        return Finding("wiring", "ok", f"{kind.name} reaches the container and gets the vectors that --service gives")

    @contextmanager
    def _scratch(self, model: ModelRecord, options: CreateOptions) -> Iterator[Collection]:
        """A collection beside this one, which is there until the context ends.

        Raises:
            CollectionError: it cannot be made, or not be removed.
        """
        name = f"{self.address.collection[:200]}_doctor_{secrets.token_hex(4)}"
        opening = self.collection.options
        if opening.tenant is None:
            scratch = self.collection.beside(name)
        else:  # removing a tenant would leave the collection
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


class _Container:
    """The container as this machine sees it.

    Raises:
        ServiceError: its address is none.
    """

    def __init__(self, url: str, key: str | None, model: ModelRecord) -> None:
        self.client = Client(url, api_key=key, timeout=TIMEOUT_S, patience=Patience(retries=0))
        self.model = model
        self.served: ModelRecord | None = None
        """The model with the wanted backbone, as the container calls it."""
        bare = httpx.URL(url).copy_with(userinfo=b"")
        self._url = str(bare).rstrip("/")

    def findings(self) -> Iterator[Finding]:
        """Is it alive and ready, does the key work, does it serve the model's backbone?"""
        try:
            answer = httpx.get(f"{self._url}/.well-known/ready", timeout=TIMEOUT_S)
        except httpx.HTTPError as error:
            sentence = (
                f"no container answers at {self._url} ({error or type(error).__name__}); start it, or correct --service"
            )
            yield Finding("service", "problem", sentence)
            return
        if answer.status_code == 503:
            yield Finding("service", "problem", f"{self._url} is not ready: {_error(answer)}; wait, or look at its log")
            return
        if not answer.is_success:
            sentence = (
                f"what answers at {self._url} is no container of cir-vectorizer (status {answer.status_code}); correct "
                "--service, which has no path"
            )
            yield Finding("service", "problem", sentence)
            return
        yield Finding("service", "ok", f"{self._url} is alive and ready")
        try:
            listed = self.client.models()
        except ServiceError as error:
            refused = error.status in (401, 403)
            remedy = "; give a valid one with --service-key or CIR_API_KEY" if refused else ""
            yield Finding("service key" if refused else "service", "problem", f"{self._url}: {error}{remedy}")
            return
        yield Finding("service key", "ok", "the container lets these requests in")
        yield self._model(listed)

    def _model(self, listed: dict[str, Any]) -> Finding:
        data: list[dict[str, Any]] = listed.get("data", [])
        for each in data:
            if each.get("fingerprint") == self.model.fingerprint:
                self.served = ModelRecord(str(each["id"]), self.model.fingerprint, self.model.dim)
                return Finding("service model", "ok", f"serves {self.served}, with the same backbone as {self.model}")
        names = ", ".join(str(each.get("full_name")) for each in data) or "no model"
        sentence = (
            f"the container serves {names}, and none has the backbone of {self.model}; start it with --model "
            f"{self.model.name}"
        )
        return Finding("service model", "problem", sentence)


def _version(address: Address, kind: _Kind) -> str | None:
    """What the server says its version is, asked without its client, which may refuse an old one; None if it is mute."""
    tls = address.scheme.endswith("s")
    port = address.port or (kind.tls_port if tls else kind.port)
    host = replace(address, port=port).server
    key = address.api_key or os.environ.get(kind.key_variable)
    value = f"Bearer {key}" if kind.key_header == "authorization" else str(key)
    try:
        answer = httpx.get(
            f"http{'s' if tls else ''}://{host}{kind.path}",
            headers={kind.key_header: value} if key else None,
            timeout=TIMEOUT_S,
        )
        version = answer.json()["version"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) else None


def _version_finding(kind: _Kind, version: str) -> Finding:
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers is None:
        return Finding("version", "ok", f"{kind.name} {version}")
    found = (int(numbers[1]), int(numbers[2]))
    lacking = [need for need in kind.needs if found < need.version]
    if not lacking:
        return Finding("version", "ok", f"{kind.name} {version}")
    newest = max(need.version for need in lacking)
    missing = "; ".join(need.missing for need in lacking)
    needed = ".".join(map(str, newest))
    level: Level = "problem" if any(need.level == "problem" for need in lacking) else "warning"
    return Finding("version", level, f"{kind.name} {version} lacks {missing}; update the server to {needed} or later")


def _norms(seen: int, ours: list[SyncRecord], mean_norm: float | None, by_server: bool) -> Finding:
    if not seen:
        return Finding("norms", "ok", "there are no objects yet")
    norms = [record.norm for record in ours if record.norm is not None]
    if by_server and not norms:
        sentence = (
            "the container makes the vectors, which have length 1; references are taken at the model's mean length"
        )
        return Finding("norms", "ok", sentence)
    bad = sum(not (np.isfinite(norm) and norm > 0) for norm in norms)
    if bad:
        sentence = f"{bad:,} of {seen:,} objects have a length that no picture has; remove them and run sync again"
        return Finding("norms", "problem", sentence)
    if len(norms) < seen:
        sentence = (
            f"{seen - len(norms):,} of {seen:,} objects have none, so as references they are taken at the model's mean "
            "length, which blurs composed queries a little; sync their source to have them"
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
    return Finding("norms", "ok", f"all of {seen:,} objects have one; the mean is {mean:.2f}{known}")


def _point(vector: Vector, model: ModelRecord) -> Point:
    record = SyncRecord("doctor", 1, 1, "00", 1.5, model.fingerprint, "")
    return Point(str(uuid.UUID(int=1)), vector, record.join({"word": "doctor"}))


def _there_and_back(scratch: Collection, vector: Vector, model: ModelRecord) -> str | None:
    """What came back otherwise than it went; None if all is well."""
    point = _point(vector, model)
    scratch.upsert([point])
    found = scratch.get([point.id])
    if len(found) != 1:
        return "was written and is not there; look at the server's log"
    if found[0].vector is None or float(np.abs(found[0].vector - vector).max()) > 1e-3:
        return "came back with another vector; look at the server's log"
    if found[0].payload != point.payload:
        return "came back with another payload; look at the server's log"
    hits = scratch.search(vector, 1)
    if [hit.id for hit in hits] != [point.id] or hits[0].score < 0.99:
        return "is not found by its own vector; look at the server's log"
    scratch.delete([point.id])
    return "was removed and is still there; look at the server's log" if scratch.count() else None


def _error(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return f"it answered {answer.status_code}"
