"""One Qdrant collection behind the core's protocol; the embedded mode and a server take the same path.

Not handled here: tenants (a payload column and a filter do that in Qdrant), multivectors.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from qdrant_client import QdrantClient, models

from cir_vectorizer.collections import (
    RECORD_KEY,
    Address,
    Collection,
    CreateOptions,
    Hit,
    Id,
    Info,
    ModelRecord,
    OpenOptions,
    Payload,
    Point,
    SyncRecord,
    Vector,
)
from cir_vectorizer.errors import AddressError, CollectionError, PartialWriteError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.filters import Filter
from cir_vectorizer.query.wire import to_json
from cir_vectorizer_qdrant import searching, words
from cir_vectorizer_qdrant.connection import ATTEMPTS, Connection, commit_without_fsync, said_by, status_of
from cir_vectorizer_qdrant.filters import to_qdrant
from cir_vectorizer_qdrant.inference import DEFAULT_MODEL
from cir_vectorizer_qdrant.schema import Schema, missing_indexes, new_collection, read_schema

SCAN_PAGE = 10_000
"""The embedded mode sorts all its ids for each page, so pages are long."""
SEARCH_ATTEMPTS = 3
"""Of a search that waits for the container too: somebody sits before it."""

_T = TypeVar("_T")


class QdrantCollection:
    """A collection of a Qdrant server, or one embedded in a directory (then locked by this process).

    Implements `cir_vectorizer.collections.Collection`; the contracts are written there.
    """

    def __init__(
        self, address: Address, options: OpenOptions = OpenOptions(), connection: Connection | None = None
    ) -> None:
        if address.path is not None and address.scheme == "qdrants":
            raise AddressError(f"{address} asks for TLS on an embedded collection; write qdrant:{address.path}/…")
        if options.tenant is not None:
            raise CollectionError(
                f"{address} is a Qdrant collection, which has no tenants; leave out --tenant, and give each tenant a "
                "collection or a payload column to filter by"
            )
        self.address = address
        self.options = options
        self._name = address.collection
        self._connection = connection or Connection(address, options)
        self._known: Schema | None = None

    def info(self) -> Info | None:
        if self.address.path is not None and not (self.address.path / "meta.json").is_file():
            return None
        if not self._call(lambda client: client.collection_exists(self._name)):
            return None
        self._known = None
        schema = self._schema
        note = schema.note
        version = None if self._connection.embedded else self._call(lambda client: client.info()).version
        info = Info(
            schema.dim,
            schema.distance,
            schema.count,
            version=version,
            using=schema.using or None,
            vectors=schema.vectors,
        )
        if note is not None:
            return replace(
                info,
                model=note.model,
                fingerprint=note.fingerprint,
                vectorize=note.vectorize,
                precision=note.precision,
            )
        page, _ = self._scroll(1, None)  # servers before 1.16 keep no metadata, but each object has its record
        first = SyncRecord.read(page[0].payload) if page else None
        if first is None:
            return info
        return replace(info, model="a model whose name was not kept", fingerprint=first.fingerprint)

    def create(self, model: ModelRecord, options: CreateOptions = CreateOptions()) -> None:
        if options.vectorize == "server" and self._connection.embedded:
            raise CollectionError(
                f"{self.address} is embedded, so there is no server that could ask a container for vectors; leave out "
                "--vectorize server, or run a Qdrant server"
            )
        if options.service_url is not None:
            raise CollectionError(
                "Qdrant takes the container's address from its own configuration alone; set "
                f"QDRANT__INFERENCE__ADDRESS={options.service_url} for the server and leave out the option"
            )

        def make(client: QdrantClient) -> None:
            if client.collection_exists(self._name):
                return
            client.create_collection(self._name, **new_collection(model, self.options.using, options))
            commit_without_fsync(client)

        try:
            self._call(make)
        except CollectionError as error:
            made_meanwhile = status_of(error.__cause__) in (400, 409, "ALREADY_EXISTS")
            if not (made_meanwhile and self._call(lambda client: client.collection_exists(self._name))):
                raise

    def remember(self, model: ModelRecord) -> None:
        if (note := self._schema.note) is None:
            return  # a server before 1.16, which keeps no metadata: each object has its record
        known = replace(note, model=model.name, fingerprint=model.fingerprint, precision=model.precision)
        self._call(lambda client: client.update_collection(self._name, metadata=known.to_metadata()))
        self._known = None

    def upsert(self, points: Sequence[Point]) -> None:
        if not points:
            return
        self._index([point.payload for point in points])

        def send(some: Mapping[Id, Point]) -> None:
            batch = self._batch(list(some.values()))
            self._call(lambda client: client.upsert(self._name, points=batch, wait=True))

        self._write({point.id: point for point in points}, send)

    def _write(self, objects: Mapping[Id, _T], send: Callable[[Mapping[Id, _T]], None]) -> None:
        """Send objects; where they are refused, find by halving which of them are to blame."""
        failed: dict[Id, str] = {}

        def by_halves(some: Mapping[Id, _T]) -> Exception | None:
            try:
                send(some)
            except (CollectionError, ValueError) as error:
                if isinstance(error, CollectionError) and not _refused(error.__cause__):
                    raise
                if len(some) == 1:
                    failed[next(iter(some))] = said_by(error.__cause__ or error)
                    return error
                ids = list(some)
                halves = (ids[: len(ids) // 2], ids[len(ids) // 2 :])
                refusals = [by_halves({id_: some[id_] for id_ in half}) for half in halves]
                return refusals[0] or refusals[1]
            return None

        cause = by_halves(objects)
        if cause is not None:
            raise PartialWriteError(failed, len(objects)) from cause

    def _batch(self, points: Sequence[Point]) -> models.Batch:
        schema = self._schema
        vectors: dict[str, Any] = {schema.using: [self._vector(point, schema) for point in points]}
        if schema.words:
            vectors[words.VECTOR] = [words.of_payload(point.payload) for point in points]
        return models.Batch(
            ids=[point.id for point in points],
            vectors=vectors if len(vectors) > 1 or schema.using else vectors[""],
            payloads=[point.payload for point in points],
        )

    def _vector(self, point: Point, schema: Schema) -> list[float] | models.Image:
        if point.vector is not None:
            return [float(x) for x in point.vector]
        if point.picture is None or schema.note is None or schema.note.vectorize != "server":
            raise ValueError(
                "it comes without a vector, and the collection was not made for the server to make it; write the "
                "vector, or make the collection with --vectorize server"
            )
        return models.Image(image=base64.b64encode(point.picture).decode("ascii"), model=schema.model or DEFAULT_MODEL)

    def _index(self, payloads: Sequence[Payload]) -> None:
        """Make the payload indexes that were asked for, once their columns' type is seen."""
        missing = {} if self._connection.embedded else missing_indexes(self._schema, payloads)

        def make(client: QdrantClient) -> None:
            for key, kind in missing.items():
                client.create_payload_index(self._name, key, kind, wait=True)

        if missing:
            self._call(make)
            self._known = None

    def records(self, ids: Sequence[Id]) -> dict[Id, SyncRecord]:
        found = self._call(lambda client: client.retrieve(self._name, list(ids), with_payload=[RECORD_KEY]))
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
            lambda client: client.scroll(self._name, limit=limit, offset=offset, with_payload=[RECORD_KEY])
        )

    def get(self, ids: Sequence[Id]) -> list[Point]:
        using = self._schema.using
        found = self._call(
            lambda client: client.retrieve(self._name, list(ids), with_payload=True, with_vectors=[using])
        )
        return [Point(_id(each), _dense(each, using), each.payload or {}) for each in found]

    def search(
        self,
        vector: Vector,
        limit: int,
        where: Filter = (),
        *,
        offset: int = 0,
        text: str | None = None,
        group_by: str | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        return self._find([float(x) for x in vector], limit, where, offset, text, group_by, exact)

    def near(
        self,
        query: ComposedQuery,
        limit: int,
        where: Filter = (),
        *,
        offset: int = 0,
        text: str | None = None,
        group_by: str | None = None,
        model: str | None = None,
    ) -> list[Hit]:
        if self._connection.embedded:
            raise CollectionError(
                f"{self.address} is embedded, so there is no server that could ask a container; compose the query here"
            )
        asked = models.InferenceObject(object=to_json(query), model=model or self._schema.model or DEFAULT_MODEL)
        return self._find(asked, limit, where, offset, text, group_by, False, SEARCH_ATTEMPTS)

    def _find(
        self,
        query: Any,
        limit: int,
        where: Filter,
        offset: int,
        text: str | None,
        group_by: str | None,
        exact: bool,
        attempts: int = ATTEMPTS,
    ) -> list[Hit]:
        schema = self._schema
        asked = searching.by_vector(query, schema, to_qdrant(where), exact, self._connection.embedded)
        if text is not None:
            asked = searching.with_keywords(asked, text, schema, offset + limit)
        found = self._call(
            lambda client: searching.run(client, self._name, asked, limit, offset, group_by),
            attempts,
        )
        return [Hit(_id(each), each.score, each.payload or {}) for each in found]

    def replace_payload(self, payloads: Mapping[Id, Payload]) -> None:
        schema = self._schema

        def send(some: Mapping[Id, Payload]) -> None:
            def replace_all(client: QdrantClient) -> None:
                there = {_id(each) for each in client.retrieve(self._name, list(some), with_payload=False)}
                known = {id_: payload for id_, payload in some.items() if id_ in there}
                if known:
                    client.batch_update_points(self._name, _replacing(known, schema.words), wait=True)

            self._call(replace_all)

        if payloads:
            self._index(list(payloads.values()))
            self._write(payloads, send)

    def delete(self, ids: Sequence[Id]) -> None:
        selector = models.PointIdsList(points=list(ids))
        self._call(lambda client: client.delete(self._name, points_selector=selector, wait=True))

    def count(self) -> int:
        return self._call(lambda client: client.count(self._name, exact=True)).count

    def beside(self, name: str, options: OpenOptions | None = None) -> "QdrantCollection":
        return QdrantCollection(replace(self.address, collection=name), options or self.options, self._connection)

    def take_over(self, other: Collection) -> None:
        def switch(client: QdrantClient) -> None:
            old, new = _behind(client, self._name), _behind(client, other.address.collection)
            if new is None:
                raise CollectionError(f"there is no collection {other.address}; nothing was switched")
            if old == new:
                return
            point_here = models.CreateAliasOperation(
                create_alias=models.CreateAlias(collection_name=new, alias_name=self._name)
            )
            if old == self._name:
                others = [
                    models.CreateAliasOperation(
                        create_alias=models.CreateAlias(collection_name=new, alias_name=each.alias_name)
                    )
                    for each in client.get_collection_aliases(old).aliases
                ]
                client.delete_collection(old)
                client.update_collection_aliases([point_here, *others])
                return
            leave = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self._name))
            client.update_collection_aliases([leave, point_here] if old else [point_here])
            if old and not client.get_collection_aliases(old).aliases:
                client.delete_collection(old)

        self._call(switch)
        self._known = None

    def drop(self) -> None:
        def remove(client: QdrantClient) -> None:
            real = _behind(client, self._name)
            if real is not None:
                client.delete_collection(real)

        if self.address.path is None or (self.address.path / "meta.json").is_file():
            self._call(remove)
        self._known = None

    def close(self) -> None:
        self._connection.close()
        self._known = None

    @property
    def _schema(self) -> Schema:
        if self._known is None:
            found = self._call(lambda client: client.get_collection(self._name))
            self._known = read_schema(found, self.address, self.options.using)
        return self._known

    def _call(self, work: Callable[[QdrantClient], _T], attempts: int = ATTEMPTS) -> _T:
        try:
            return self._connection.call(work, self._name, attempts)
        except CollectionError:
            self._known = None  # it may have been replaced by another one
            raise


def _behind(client: QdrantClient, name: str) -> str | None:
    """The collection that a name, which may be an alias, stands for."""
    aliases = {each.alias_name: each.collection_name for each in client.get_aliases().aliases}
    if name in aliases:
        return aliases[name]
    return name if client.collection_exists(name) else None


def _replacing(payloads: Mapping[Id, Payload], with_words: bool) -> list[models.UpdateOperation]:
    """The keywords of all objects at once, and an overwrite for each.

    The overwrites come last: they hold the records that say that an object is up to date.
    """
    overwrites: list[models.UpdateOperation] = [
        models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload=payload, points=[id_]))
        for id_, payload in payloads.items()
    ]
    if not with_words:
        return overwrites
    operations: list[models.UpdateOperation] = []
    sparse = {id_: words.of_payload(payload) for id_, payload in payloads.items()}
    points = [models.PointVectors(id=id_, vector={words.VECTOR: each}) for id_, each in sparse.items() if each.indices]
    wordless: list[Id] = [id_ for id_, each in sparse.items() if not each.indices]
    if points:
        operations.append(models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=points)))
    if wordless:
        gone = models.DeleteVectors(vector=[words.VECTOR], points=list(wordless))
        operations.append(models.DeleteVectorsOperation(delete_vectors=gone))
    return operations + overwrites


def _dense(record: models.Record, using: str) -> Vector:
    vector: Any = record.vector
    if isinstance(vector, dict):
        vector = vector.get(using)
    return np.asarray(vector or [], dtype=np.float32)


def _id(found: models.Record | models.ScoredPoint) -> Id:
    return found.id if isinstance(found.id, int) else str(found.id)


def _refused(error: BaseException | None) -> bool:
    """Whether the database read the request and would not take what was in it."""
    return status_of(error) in (400, 413, 422, "INVALID_ARGUMENT", "OUT_OF_RANGE") or isinstance(error, ValueError)
