"""One Qdrant collection behind the core's protocol; the embedded mode and a server take the same path.

One unnamed cosine vector an object. Not handled here: named vectors, quantisation, payload indexes, gRPC.
"""

import random
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from cir_vectorizer.collections import (
    RECORD_KEY,
    Address,
    Hit,
    Id,
    Info,
    ModelRecord,
    Payload,
    Point,
    SyncRecord,
    Vector,
)
from cir_vectorizer.errors import AddressError, CollectionError
from cir_vectorizer.filters import Filter
from cir_vectorizer_qdrant.filters import to_qdrant

DEFAULT_PORT = 6333
METADATA_KEY = "cir_vectorizer"
TIMEOUT_S = 60
ATTEMPTS = 10
"""Of a call that may pass later: with the waits between them about 40 s, enough for a server to restart."""
SCAN_PAGE = 10_000
"""The embedded mode sorts all its ids for each page, so pages are long."""

_T = TypeVar("_T")
_SERVER_ERRORS = (ResponseHandlingException, UnexpectedResponse, ResourceExhaustedResponse)
_LOCAL_ERRORS = (sqlite3.Error, OSError, RuntimeError, ValueError)


class QdrantCollection:
    """A collection of a Qdrant server, or one embedded in a directory (then locked by this process).

    Implements `cir_vectorizer.collections.Collection`; the contracts are written there.
    """

    def __init__(self, address: Address) -> None:
        if address.path is not None and address.scheme == "qdrants":
            raise AddressError(f"{address} asks for TLS on an embedded collection; write qdrant:{address.path}/…")
        self.address = address
        self._name = address.collection
        self._reached = False

    @cached_property
    def _client(self) -> QdrantClient:
        address = self.address
        if address.path is not None:
            # said once in the README instead of on every run
            warnings.filterwarnings("ignore", message="Local mode is not recommended", category=UserWarning)
            client = QdrantClient(path=str(address.path), force_disable_check_same_thread=True)
            _commit_without_fsync(client, self._name)
            return client
        host = f"[{address.host}]" if ":" in (address.host or "") else address.host
        return QdrantClient(
            host=host,
            port=address.port or DEFAULT_PORT,
            https=address.scheme == "qdrants",
            api_key=address.api_key,
            timeout=TIMEOUT_S,
            check_compatibility=False,
        )

    def info(self) -> Info | None:
        if self.address.path is not None and not (self.address.path / "meta.json").is_file():
            return None
        if not self._call(lambda: self._client.collection_exists(self._name)):
            return None
        found = self._call(lambda: self._client.get_collection(self._name))
        vectors = found.config.params.vectors
        if not isinstance(vectors, models.VectorParams) or vectors.multivector_config is not None:
            kind = f"named vectors ({', '.join(vectors)})" if isinstance(vectors, dict) else "no single dense vector"
            raise CollectionError(f"{self.address} has {kind}, which is not supported yet; name another collection")
        model, fingerprint = self._maker(getattr(found.config, "metadata", None))
        return Info(vectors.size, vectors.distance.value.lower(), found.points_count or 0, model, fingerprint)

    def _maker(self, metadata: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
        record = (metadata or {}).get(METADATA_KEY)
        if isinstance(record, Mapping):
            return str(record["model"]), str(record["fingerprint"])
        page, _ = self._scroll(1, None)  # servers before 1.16 keep no metadata, but each object has its record
        first = SyncRecord.read(page[0].payload) if page else None
        return (None, None) if first is None else ("a model whose name was not kept", first.fingerprint)

    def create(self, model: ModelRecord) -> None:
        def make() -> None:
            if self._client.collection_exists(self._name):
                return
            self._client.create_collection(
                self._name,
                vectors_config=models.VectorParams(size=model.dim, distance=models.Distance.COSINE),
                metadata={METADATA_KEY: {"model": model.name, "fingerprint": model.fingerprint}},
            )
            _commit_without_fsync(self._client, self._name)

        try:
            self._call(make)
        except CollectionError as error:
            made_meanwhile = isinstance(error.__cause__, UnexpectedResponse) and error.__cause__.status_code in (
                400,
                409,
            )
            if not (made_meanwhile and self._client.collection_exists(self._name)):
                raise

    def upsert(self, points: Sequence[Point]) -> None:
        batch = models.Batch(
            ids=[point.id for point in points],
            vectors=[point.vector.tolist() for point in points],
            payloads=[point.payload for point in points],
        )
        self._call(lambda: self._client.upsert(self._name, points=batch, wait=True))

    def records(self, ids: Sequence[Id]) -> dict[Id, SyncRecord]:
        found = self._call(lambda: self._client.retrieve(self._name, list(ids), with_payload=[RECORD_KEY]))
        records = {_id(each): SyncRecord.read(each.payload) for each in found}
        return {id_: record for id_, record in records.items() if record is not None}

    def scan(self) -> Iterator[tuple[Id, SyncRecord | None]]:
        offset: Any = None
        while True:
            page, offset = self._scroll(SCAN_PAGE, offset)
            for each in page:
                yield _id(each), SyncRecord.read(each.payload)
            if offset is None:
                return

    def _scroll(self, limit: int, offset: Any) -> tuple[list[models.Record], Any]:
        return self._call(
            lambda: self._client.scroll(self._name, limit=limit, offset=offset, with_payload=[RECORD_KEY])
        )

    def get(self, ids: Sequence[Id]) -> list[Point]:
        found = self._call(lambda: self._client.retrieve(self._name, list(ids), with_payload=True, with_vectors=True))
        return [Point(_id(each), np.asarray(each.vector, dtype=np.float32), each.payload or {}) for each in found]

    def search(self, vector: Vector, limit: int, where: Filter = ()) -> list[Hit]:
        query_filter = to_qdrant(where)
        found = self._call(
            lambda: self._client.query_points(
                self._name, query=vector.tolist(), limit=limit, query_filter=query_filter, with_payload=True
            )
        )
        return [Hit(_id(each), each.score, each.payload or {}) for each in found.points]

    def replace_payload(self, payloads: Mapping[Id, Payload]) -> None:
        operations = [
            models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload=payload, points=[id_]))
            for id_, payload in payloads.items()
        ]
        self._call(lambda: self._client.batch_update_points(self._name, operations, wait=True))

    def delete(self, ids: Sequence[Id]) -> None:
        selector = models.PointIdsList(points=list(ids))
        self._call(lambda: self._client.delete(self._name, points_selector=selector, wait=True))

    def count(self) -> int:
        return self._call(lambda: self._client.count(self._name, exact=True)).count

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()
            del self._client

    def _call(self, work: Callable[[], _T]) -> _T:
        """Run a call; what may pass is tried again with growing, random waits, once the server was ever reached."""
        attempt = 1
        while True:
            try:
                result = work()
            except (*_SERVER_ERRORS, *_LOCAL_ERRORS) as error:
                if not _may_pass(error) or attempt >= (ATTEMPTS if self._reached else 2):
                    raise CollectionError(self._sentence(error)) from error
            else:
                self._reached = True
                return result
            time.sleep(min(0.25 * 2**attempt, 8) * random.uniform(0.5, 1))
            attempt += 1

    def _sentence(self, error: Exception) -> str:
        if self.address.path is not None:
            return _local_sentence(self.address, self.address.path, error)
        where = self.address.server if self.address.port else f"{self.address.server}:{DEFAULT_PORT}"
        if isinstance(error, ResponseHandlingException):
            if isinstance(error.source, ValidationError):
                return (
                    f"what answers at {where} does not speak as Qdrant does; check host and port (REST, usually 6333)"
                )
            cause = str(error.source) or type(error.source).__name__
            remedy = "start it, or correct host and port (the REST port, usually 6333)"
            return f"no Qdrant server answers at {where} ({cause}); {remedy}"
        if isinstance(error, UnexpectedResponse):
            if error.status_code in (401, 403):
                given = "the API key was refused" if self.address.api_key else "an API key is needed"
                return f"{where}: {given}; give --api-key or set QDRANT_API_KEY"
            return f"{where} answered {error.status_code} for collection {self._name!r}: {_said(error)}"
        return f"{where} cannot take this for collection {self._name!r}: {error}"


def _id(found: models.Record | models.ScoredPoint) -> Id:
    return found.id if isinstance(found.id, int) else str(found.id)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 429 or (error.status_code or 0) >= 500
    if isinstance(error, ResponseHandlingException):
        return not isinstance(error.source, ValidationError)
    return isinstance(error, ResourceExhaustedResponse)


def _said(error: UnexpectedResponse) -> str:
    try:
        return str(error.structured()["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return error.content[:200].decode("utf-8", "replace") or error.reason_phrase


def _local_sentence(address: Address, path: Path, error: Exception) -> str:
    if isinstance(error, RuntimeError) and "already accessed" in str(error):
        return (
            f"{path} is in use by another process, and an embedded collection serves one at a time; wait until that "
            "one ends, or run a Qdrant server and name it as qdrant://HOST/COLLECTION"
        )
    cause = getattr(error, "strerror", None) or error
    if isinstance(error, OSError | sqlite3.Error):
        return (
            f"the embedded collection {address} cannot be read or written ({cause}); check the disk and the permissions"
        )
    return f"the embedded collection {address} cannot do this: {cause}"


def _commit_without_fsync(client: QdrantClient, collection: str) -> None:
    """Let the embedded mode commit each object to a write-ahead log without waiting for the disk.

    It commits objects one by one, each with its own fsync (some 15 ms). With the log a crash of the process still
    loses nothing; a power cut may lose the last commits, which the next sync writes again. Reaches for an inner
    attribute: where a version of qdrant-client has it elsewhere, writing is slower and nothing else changes.
    """
    inner = getattr(getattr(client, "_client", None), "collections", {}).get(collection)
    connection = getattr(getattr(inner, "storage", None), "storage", None)
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
