"""A Qdrant collection with the core's protocol; the same code serves the embedded mode and a server.

Not handled: tenants (in Qdrant, use a payload column and a filter), multivectors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import QdrantClient, models

from cir_vectorizer.collections import (
    RECORD_KEY,
    TEXT_VECTOR,
    Ask,
    Candidates,
    CreateOptions,
    Hit,
    Id,
    Info,
    ModelRecord,
    Payload,
    Point,
    Signal,
    SyncRecord,
    Vector,
)
from cir_vectorizer.collections.base import SAMPLE, BaseCollection, Page, lengths_of
from cir_vectorizer.collections.connection import ATTEMPTS, SEARCH_ATTEMPTS
from cir_vectorizer.collections.note import Note
from cir_vectorizer.collections.rescoring import Words, rescored
from cir_vectorizer.errors import CollectionError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.wire import to_json
from cir_vectorizer_qdrant import aliases, objects, scoring, searching
from cir_vectorizer_qdrant.columns import missing_indexes
from cir_vectorizer_qdrant.connection import commit_without_fsync, status_of
from cir_vectorizer_qdrant.inference import DEFAULT_MODEL
from cir_vectorizer_qdrant.schema import Schema, new_collection, read_schema
from cir_vectorizer_qdrant.writing import write


class QdrantCollection(BaseCollection[QdrantClient, Schema]):
    """A collection of a Qdrant server, or one embedded in a directory, which this process then locks."""

    page_size = 10_000
    """Objects in each page of a scan; many, because the embedded mode sorts all ids for each page."""

    def create(self, model: ModelRecord, options: CreateOptions = CreateOptions()) -> None:
        if options.vectorize == "server" and self._embedded:
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
            if not (made_meanwhile and self._exists()):
                raise

    def upsert(self, points: Sequence[Point]) -> None:
        def send(some: Sequence[Point]) -> None:
            made = objects.to_points(some, self._schema)
            self._call(lambda client: client.upsert(self._name, points=made, wait=True))

        if points:
            self._index([point.payload for point in points])
            write(list({point.id: point for point in points}.values()), send, lambda point: point.id)

    def replace_payload(self, payloads: Mapping[Id, Payload], texts: Mapping[Id, Vector | None] = {}) -> None:
        def send(some: Sequence[tuple[Id, Payload]]) -> None:
            def replace_all(client: QdrantClient) -> None:
                found = client.retrieve(self._name, [id_ for id_, _ in some], with_payload=False)
                there = {objects.id_of(each) for each in found}
                known = {id_: payload for id_, payload in some if id_ in there}
                if known:
                    operations = objects.to_replacement(known, texts, self._schema)
                    client.batch_update_points(self._name, operations, wait=True)

            self._call(replace_all)

        if payloads:
            self._index(list(payloads.values()))
            write(list(payloads.items()), send, lambda each: each[0])

    def merge(self, points: Sequence[Point]) -> None:
        def send(some: Sequence[Point]) -> None:
            operations = objects.to_merge(some, self._schema)
            self._call(lambda client: client.batch_update_points(self._name, operations, wait=True))

        if points:
            self._index([point.payload for point in points])
            write(points, send, lambda point: point.id)

    def _index(self, payloads: Sequence[Payload]) -> None:
        """Create the payload indexes that the options asked for, as soon as the payloads show their columns' type."""
        note, there = self._schema.note, self._schema.indexed
        missing = {} if self._embedded or note is None else missing_indexes(note.indexed, there, payloads)

        def make(client: QdrantClient) -> None:
            for key, kind in missing.items():
                client.create_payload_index(self._name, key, kind, wait=True)

        if missing:
            self._call(make)
            self._known = None

    def records(self, ids: Sequence[Id]) -> dict[Id, SyncRecord]:
        found = self._call(lambda client: client.retrieve(self._name, list(ids), with_payload=[RECORD_KEY]))
        records = {objects.id_of(each): objects.read_record(each) for each in found}
        return {id_: record for id_, record in records.items() if record is not None}

    def _page(self, limit: int, after: Any) -> tuple[Page, Any]:
        page, following = self._call(
            lambda client: client.scroll(self._name, limit=limit, offset=after, with_payload=[RECORD_KEY])
        )
        return [(objects.id_of(each), objects.read_record(each)) for each in page], following

    def get(self, ids: Sequence[Id]) -> list[Point]:
        schema = self._schema
        names = self._vector_names(schema)
        found = self._call(lambda client: client.retrieve(self._name, list(ids), with_payload=True, with_vectors=names))
        return [objects.read_point(each, schema) for each in found]

    def payloads(self, ids: Sequence[Id]) -> dict[Id, Payload]:
        found = self._call(lambda client: client.retrieve(self._name, list(ids), with_payload=True))
        return {objects.id_of(each): each.payload or {} for each in found}

    def sample(self, count: int) -> list[Point]:
        schema = self._schema
        names = self._vector_names(schema)
        found, _ = self._call(
            lambda client: client.scroll(self._name, limit=count, with_payload=False, with_vectors=names)
        )
        return [objects.read_point(each, schema) for each in found]

    def search(self, query: Vector | ComposedQuery, ask: Ask = Ask()) -> list[Hit]:
        self._check_ask(query, ask)
        if ask.texts is not None and not isinstance(query, ComposedQuery):
            return rescored(self, query, Words(), ask)
        if ask.diversity:
            self._needs((1, 15), "diversity")
        asked: Any
        if isinstance(query, ComposedQuery):
            if self._embedded:
                raise CollectionError(
                    f"{self.address} is embedded, so there is no server that could ask a container; compose the query "
                    "here"
                )
            model = ask.model or self._schema.model or DEFAULT_MODEL
            asked, attempts = models.InferenceObject(object=to_json(query), model=model), SEARCH_ATTEMPTS
        else:
            asked, attempts = objects.numbers(query), ATTEMPTS
        arguments = searching.by_vector(asked, ask, self._schema, self._embedded)
        found = self._call(lambda client: searching.run(client, self._name, arguments, ask), attempts)
        return [objects.read_hit(each) for each in found]

    def score(
        self, rankings: Sequence[Signal], signals: Sequence[Signal], ask: Ask, candidates: int, shown: int = 0
    ) -> Candidates:
        self._check_signals((*rankings, *signals))
        schema = self._schema
        searches = scoring.rankings(rankings, ask, candidates, schema, self._embedded)
        if self._embedded:
            tops = self._call(lambda client: scoring.embedded(client, self._name, searches))
            found = scoring.table(rankings, tops, signals)
            asked = list(zip(signals, scoring.missing(found), strict=True))
            compared = self._call(lambda client: scoring.compare_embedded(client, self._name, asked, schema))
            return scoring.completed(found, compared, {})

        def run(searches: Sequence[models.QueryRequest]) -> list[scoring.Found]:
            return self._call(lambda client: scoring.on_server(client, self._name, searches, self.options.grpc))

        found = scoring.table(rankings, [top.cosines for top in run(searches)], signals)
        missing = scoring.missing(found)
        further = [scoring.comparison(signal, ids, schema) for signal, ids in zip(signals, missing, strict=True) if ids]
        if found.ids and shown and ask.texts is not None:
            further.append(scoring.payloads_of(scoring.likely(found, ask.texts, shown + scoring.SPARE)))
        answers = run(further)
        rest = iter(answers)
        cosines = [next(rest).cosines if ids else {} for ids in missing]
        return scoring.completed(found, cosines, answers[-1].payloads if answers else {})

    def delete(self, ids: Sequence[Id]) -> None:
        selector = models.PointIdsList(points=list(ids))
        self._call(lambda client: client.delete(self._name, points_selector=selector, wait=True))

    def count(self) -> int:
        return self._call(lambda client: client.count(self._name, exact=True)).count

    def drop(self) -> None:
        if self._may_exist:
            super().drop()
        self._known = None

    @property
    def _embedded(self) -> bool:
        return self.address.path is not None

    @property
    def _may_exist(self) -> bool:
        """False for a directory without collections; the client would create it if asked."""
        return self.address.path is None or (self.address.path / "meta.json").is_file()

    def _exists(self) -> bool:
        return self._may_exist and self._call(lambda client: client.collection_exists(self._name))

    def _read_schema(self) -> Schema:
        found = self._call(lambda client: client.get_collection(self._name))
        return read_schema(found, self.address, self.options.using)

    def _describe(self, schema: Schema) -> Info:
        return Info(
            schema.dim,
            schema.distance,
            schema.count,
            version=self._read_version(),
            using=schema.using or None,
            vectors=schema.vectors,
            vectorize=schema.note.vectorize if schema.note else "client",
            lengths=self._lengths(schema) if schema.distance == "dot" else None,
        )

    def _read_version(self) -> str | None:
        return None if self._embedded else self._call(lambda client: client.info()).version

    def _vector_names(self, schema: Schema) -> list[str]:
        return [schema.using, *([TEXT_VECTOR] if schema.texts else [])]

    def _lengths(self, schema: Schema) -> tuple[float, float] | None:
        found, _ = self._call(
            lambda client: client.scroll(self._name, limit=SAMPLE, with_payload=False, with_vectors=[schema.using])
        )
        vectors = [objects.read_point(each, schema).vector for each in found]
        return lengths_of(each for each in vectors if each is not None and each.size)

    def _write_note(self, note: Note) -> None:
        self._call(lambda client: client.update_collection(self._name, metadata=note.to_json()))

    def _add_text_vector(self, schema: Schema) -> None:
        config = models.DenseVectorConfig(size=schema.dim, distance=models.Distance.COSINE)

        def add(client: QdrantClient) -> None:
            client.create_vector_name(self._name, TEXT_VECTOR, models.DenseVectorNameConfig(dense=config))
            if not self._embedded:
                client.update_collection(self._name, vectors_config={TEXT_VECTOR: schema.storage})

        try:
            self._call(add)
        except CollectionError as error:
            if status_of(error.__cause__) not in (404, 405, "UNIMPLEMENTED"):
                raise
            raise CollectionError(
                f"{self.address.server} is a Qdrant server older than 1.18, which adds no vector to a collection that exists; "
                "sync into a new collection (give another --to), or update the server"
            ) from error

    def _clients_with_texts(self, schema: Schema) -> str:
        if using := schema.using:
            return f"Qdrant's own clients search the picture's vector with using={using!r}, as before"
        return "Qdrant's own clients search the picture's vector unless they name another (using=…), as before"

    def _behind(self, client: QdrantClient, name: str) -> str | None:
        return aliases.behind(client, name)

    def _switch(self, client: QdrantClient, old: str | None, new: str) -> None:
        aliases.switch(client, self._name, old, new)

    def _remove(self, client: QdrantClient, real: str) -> None:
        client.delete_collection(real)
