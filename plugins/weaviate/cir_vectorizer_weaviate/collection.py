"""A Weaviate collection with the core's protocol, over the v4 client: REST for the schema, gRPC for objects.

Not handled: cross references and nested objects in collections of other programs; payloads leave them out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, TypeVar

from weaviate import WeaviateClient
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter as WeaviateFilter
from weaviate.collections import Collection as Remote
from weaviate.exceptions import UnexpectedStatusCodeError

from cir_vectorizer.collections import (
    RECORD_KEY,
    TEXT_VECTOR,
    Address,
    Ask,
    Candidates,
    Collection,
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
from cir_vectorizer.collections.base import SAMPLE, BaseCollection, Page, check_written, lengths_of
from cir_vectorizer.collections.connection import ATTEMPTS, SEARCH_ATTEMPTS
from cir_vectorizer.collections.note import Note
from cir_vectorizer.collections.rescoring import Words, rescored
from cir_vectorizer.collections.retry import persist
from cir_vectorizer.errors import CollectionError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.filters import parse_column
from cir_vectorizer_weaviate import aliases, objects, scoring, searching
from cir_vectorizer_weaviate.connection import said_by
from cir_vectorizer_weaviate.filters import everywhere, to_weaviate, without_text
from cir_vectorizer_weaviate.inference import concept
from cir_vectorizer_weaviate.schema import (
    UNNAMED,
    Schema,
    class_name,
    description,
    hidden_properties,
    new_collection,
    read_schema,
    text_mark,
    text_vector,
)
from cir_vectorizer_weaviate.writing import write

PAGE = 1000
"""Objects in each page of a scan, look-up or removal."""
Asked = tuple[Vector, Any, int, Any]
"""Vector, target, limit and filter of a search."""
_T = TypeVar("_T")


class WeaviateCollection(BaseCollection[WeaviateClient, Schema]):
    """A collection of a Weaviate server, or one tenant's part of a collection."""

    page_size = PAGE

    def name_of(self, address: Address) -> str:
        return class_name(address)

    def create(self, model: ModelRecord, options: CreateOptions = CreateOptions()) -> None:
        tenant = self.options.tenant

        def make(client: WeaviateClient) -> None:
            for keeps_hash in (True, False):
                if client.collections.exists(self._name):
                    break
                arguments = new_collection(self._name, model, self.options.using, tenant, options, keeps_hash)
                try:
                    client.collections.create(**arguments)
                except UnexpectedStatusCodeError as error:
                    if not keeps_hash or "blobHash" not in str(error):
                        raise
            if tenant is not None and not self._has_tenant(client):
                client.collections.use(self._name).tenants.create(tenant)

        try:
            self._call(make)
        except CollectionError as error:
            if not exists_already(error):
                raise
            self._call(make)
        self._known = None

    def upsert(self, points: Sequence[Point]) -> None:
        schema = self._prepared([point.payload for point in points])
        failed: dict[Id, str] = {}
        made = []
        for point in points:
            try:
                made.append(objects.to_object(point, schema))
            except ValueError as error:
                failed[point.id] = str(error)
        write(made, self._on, failed, len(points))

    def records(self, ids: Sequence[Id]) -> dict[Id, SyncRecord]:
        if RECORD_KEY not in self._schema.properties:
            return {}
        found = {
            str(each.uuid): objects.read_record(each)
            for each in self._read(ids, return_properties=[RECORD_KEY], include_vector=False)
        }
        return {id_: record for id_ in ids if (record := found.get(objects.uuid_of(id_) or "")) is not None}

    def _page(self, limit: int, after: Any) -> tuple[Page, Any]:
        wanted: Any = [RECORD_KEY] if RECORD_KEY in self._schema.properties else False
        page = self._on(
            lambda remote: remote.query.fetch_objects(limit=limit, after=after, return_properties=wanted).objects
        )
        return [(str(each.uuid), objects.read_record(each)) for each in page], page[-1].uuid if page else None

    def get(self, ids: Sequence[Id]) -> list[Point]:
        schema = self._schema
        found = self._read(ids, return_properties=schema.shown, include_vector=self._vector_names(schema))
        return [objects.read_point(each, schema) for each in found]

    def pictures(self, ids: Sequence[Id], column: str) -> dict[Id, str]:
        found = self._read(ids, return_properties=[column], include_vector=False)
        return {str(each.uuid): text for each in found if isinstance(text := each.properties.get(column), str)}

    def payloads(self, ids: Sequence[Id]) -> dict[Id, Payload]:
        schema = self._schema
        found = self._read(ids, return_properties=schema.shown, include_vector=False)
        return {str(each.uuid): objects.payload(each.properties, schema) for each in found}

    def sample(self, count: int) -> list[Point]:
        schema = self._schema
        names = self._vector_names(schema)
        found = self._on(
            lambda remote: (
                remote.query.fetch_objects(limit=count, include_vector=names, return_properties=False).objects
            )
        )
        return [objects.read_point(each, schema) for each in found]

    def search(self, query: Vector | ComposedQuery, ask: Ask = Ask()) -> list[Hit]:
        self._check_ask(query, ask)
        schema = self._schema
        if isinstance(query, ComposedQuery) and schema.vectorize != "server":
            raise CollectionError(
                f"{self.address} has no container that could compose a query; compose it here, or make the collection "
                "with --vectorize server"
            )
        if ask.texts is not None and not isinstance(query, ComposedQuery):
            return rescored(self, query, Words(), ask)
        filters = self._filters(ask)
        if isinstance(query, ComposedQuery):
            search, attempts = searching.nearest(concept(query), ask.text, schema, filters), SEARCH_ATTEMPTS
        elif ask.diversity:
            self._needs((1, 37), "diversity")
            search, attempts = searching.varied(query.tolist(), ask, schema, filters), ATTEMPTS
        else:
            search, attempts = searching.nearest(query.tolist(), ask.text, schema, filters), ATTEMPTS

        def page(limit: int, offset: int = 0) -> list[Hit]:
            return self._on(lambda remote: search(remote, limit, offset), attempts)

        if ask.group_by is None:
            return page(ask.limit, ask.offset)
        return searching.best_of_groups(page, ask.group_by, ask.limit, ask.offset)

    def score(
        self, rankings: Sequence[Signal], signals: Sequence[Signal], ask: Ask, candidates: int, shown: int = 0
    ) -> Candidates:
        self._check_signals((*rankings, *signals))
        schema, filters = self._schema, self._filters(ask)
        names = scoring.names(signals, schema)

        shows = () if schema.native or not shown else schema.shown

        def nearest(vector: Vector, target: Any, limit: int, where: Any) -> list[scoring.Found]:
            return self._on(lambda remote: scoring.nearest(remote, vector, target, limit, where, names, shows))

        def run(first: Asked, *others: Asked) -> list[list[scoring.Found]]:
            with ThreadPoolExecutor(1) as pool:
                waiting = [pool.submit(nearest, *each) for each in others]
                return [nearest(*first), *(each.result() for each in waiting)]

        if shown and ask.texts is not None and schema.marks_texts:
            vector, limit = rankings[0].vector, min(candidates, scoring.depth(shown))
            with_text, without = run(
                (vector, scoring.both(ask.texts.weight, schema), limit, filters),
                (vector, schema.using, shown, without_text(filters)),
            )
            if not any(TEXT_VECTOR in each.vectors for each in without):  # else an older release wrote some
                return scoring.scored([*with_text, *without], signals, schema, ask, shown)
        found = run(*((each.vector, scoring.target(each, schema), candidates, filters) for each in rankings))
        return scoring.scored(chain.from_iterable(found), signals, schema, ask, shown)

    def _filters(self, ask: Ask) -> Any:
        if ask.where:
            self._known = None  # another process may have added columns, or types of known columns
        schema = self._schema
        without = [uuid for lot in _uuids(ask.without) for uuid in lot]
        filters = to_weaviate(ask.where, schema.fields, without)
        if not ask.exact or schema.flat:
            return filters
        count = self.count()
        if count > schema.exact_cutoff:
            raise CollectionError(
                f"{self.address} holds {count:,} objects, and Weaviate's exact search takes at most "
                f"{schema.exact_cutoff:,}; raise flat_search_cutoff of the collection, or search its index "
                "(evaluate queries: --approximate)"
            )
        return filters or everywhere()

    def replace_payload(self, payloads: Mapping[Id, Payload], texts: Mapping[Id, Vector | None] = {}) -> None:
        if not payloads:
            return
        schema = self._prepared(list(payloads.values()))
        by_uuid = {objects.uuid_of(id_): payload for id_, payload in payloads.items()}
        new_texts = {objects.uuid_of(id_): text for id_, text in texts.items()}
        found = self._read(list(payloads), return_properties=False, include_vector=True)
        made = []
        for each in found:
            uuid = str(each.uuid)
            vectors: Any = each.vector if schema.using is not None else each.vector.get(UNNAMED)
            if schema.texts and uuid in new_texts:
                text = new_texts[uuid]
                vectors = {name: vector for name, vector in vectors.items() if name != TEXT_VECTOR}
                vectors |= {} if text is None else {TEXT_VECTOR: objects.numbers(text)}
            kept = objects.properties(by_uuid[uuid], schema, has_text=TEXT_VECTOR in (vectors or ()))
            made.append(DataObject(properties=kept, uuid=uuid, vector=vectors or None))
        write(made, self._on, {}, len(payloads))

    def merge(self, points: Sequence[Point]) -> None:
        schema = self._prepared([point.payload for point in points])
        failed: dict[Id, str] = {}
        for point in points:
            try:
                self._update(point, schema)
            except CollectionError as error:
                cause = error.__cause__
                if not isinstance(cause, UnexpectedStatusCodeError) or cause.status_code >= 500:
                    raise
                failed[point.id] = said_by(cause)
        check_written(failed, len(points))

    def _update(self, point: Point, schema: Schema) -> None:
        found = objects.merged(point, schema)
        vector = objects.to_vector(point, schema)
        self._on(lambda remote: remote.data.update(str(point.id), properties=found, vector=vector))

    def delete(self, ids: Sequence[Id]) -> None:
        for lot in _uuids(ids):
            self._delete(WeaviateFilter.by_id().contains_any(lot))

    def _delete(self, where: Any) -> None:
        done = self._on(lambda remote: remote.data.delete_many(where=where))
        if done.failed:
            raise CollectionError(f"{self.address}: {done.failed:,} objects were not removed; run the command again")

    def count(self) -> int:
        return self._on(lambda remote: remote.aggregate.over_all(total_count=True)).total_count or 0

    def _exists(self) -> bool:
        if not self._call(lambda client: client.collections.exists(self._name)):
            return False
        self._check_tenant(self._schema)
        return self.options.tenant is None or self._call(self._has_tenant)

    def _read_schema(self) -> Schema:
        found = self._call(lambda client: client.collections.use(self._name).config.get())
        return read_schema(found, self.address, self.options.using)

    def _describe(self, schema: Schema) -> Info:
        return Info(
            dim=self._width(schema),
            distance=schema.distance,
            count=self.count(),
            version=self._read_version(),
            using=schema.using,
            vectors=schema.vectors,
            blends_text=schema.blends_text,
            vectorize=schema.vectorize,
            pictures=schema.pictures,
            container=schema.container,
            lengths=lengths_of(self._some_vectors(schema, SAMPLE)) if schema.distance == "dot" else None,
        )

    def _read_version(self) -> str:
        return str(self._call(lambda client: client.get_meta())["version"])

    def _write_note(self, note: Note) -> None:
        name = self._schema.name  # an alias cannot be updated
        if RECORD_KEY in self._schema.properties:
            descriptions = {RECORD_KEY: description(note)}
            self._call(lambda client: client.collections.use(name).config.update(property_descriptions=descriptions))
        else:
            record, *_ = hidden_properties(note)
            self._call(lambda client: client.collections.use(name).config.add_property(record))

    def _add_text_vector(self, schema: Schema) -> None:
        using = self._named(schema)

        def add(client: WeaviateClient) -> None:
            config = client.collections.use(schema.name).config
            if not schema.marks_texts:
                config.add_property(text_mark())
            config.add_vector(vector_config=text_vector(config.get(), using))

        if not schema.texts:
            self._call(add)

    def _clients_with_texts(self, schema: Schema) -> str:
        named = self._named(schema)
        return (
            f"with a second vector, Weaviate's own clients must name the picture's vector in every search "
            f"(target_vector={named!r}) and in every write (vector={{{named!r}: …}}), else Weaviate refuses them"
            + ("; the vector is added for all tenants of the collection" if schema.tenants else "")
        )

    def _named(self, schema: Schema) -> str:
        """Return the name of the picture's vector, without which Weaviate's client writes no second one."""
        if schema.using is None:
            raise CollectionError(
                f"the vectors of {self.address} have no name, and Weaviate's client writes no second one beside such a "
                "vector; sync into a new collection: give another --to"
            )
        return schema.using

    def _behind(self, client: WeaviateClient, name: str) -> str | None:
        return aliases.behind(client, name)

    def _switch(self, client: WeaviateClient, old: str | None, new: str) -> None:
        aliases.switch(client, self._name, old, new)

    def _remove(self, client: WeaviateClient, real: str) -> None:
        if self.options.tenant is not None:
            client.collections.use(real).tenants.remove([self.options.tenant])
            return
        if real != self._name:
            client.alias.delete(alias_name=self._name)
        client.collections.delete(real)

    def twin(self, name: str) -> Collection:
        from cir_vectorizer_weaviate.twin import Twin  # a class derived from this one

        return Twin(self, name)

    def take_over(self, other: Collection) -> None:
        if self.options.tenant is not None:
            raise CollectionError(
                f"{self.address} holds other tenants too, and an alias would switch them all; sync this tenant into a "
                "collection of its own"
            )
        super().take_over(other)

    def _prepared(self, payloads: list[Payload]) -> Schema:
        """Return the schema after adding properties for all columns of these payloads.

        Retries if another process adds the same properties at the same time.
        """
        return persist(lambda: self._with_columns(payloads), exists_already, ATTEMPTS)

    def _with_columns(self, payloads: list[Payload]) -> Schema:
        schema = self._schema
        wanted = [each.property(_indexed(each.path, schema)) for each in schema.columns.missing(payloads)]
        if not schema.ours:
            wanted += [each for each in hidden_properties(schema.note) if each.name not in schema.properties]
        if not wanted:
            return schema

        def add(client: WeaviateClient) -> None:
            for each in wanted:
                client.collections.use(schema.name).config.add_property(each)

        self._known = None
        self._call(add)
        return self._schema

    def _check_tenant(self, schema: Schema) -> None:
        if schema.tenants and self.options.tenant is None:
            raise CollectionError(f"{self.address} is divided among tenants; name one with --tenant")
        if not schema.tenants and self.options.tenant is not None:
            raise CollectionError(f"{self.address} has no tenants; leave out --tenant, or name another collection")

    def _has_tenant(self, client: WeaviateClient) -> bool:
        return bool(client.collections.use(self._name).tenants.exists(str(self.options.tenant)))

    def _width(self, schema: Schema) -> int | None:
        """Return the vectors' dimension, from the note or the first object; None if there is neither."""
        if schema.note is not None and schema.note.dim is not None:
            return schema.note.dim
        return next((len(vector) for vector in self._some_vectors(schema, 1)), None)

    def _vector_names(self, schema: Schema) -> list[str] | bool:
        return True if schema.using is None else [schema.using, *([TEXT_VECTOR] if schema.texts else [])]

    def _some_vectors(self, schema: Schema, limit: int) -> list[Vector]:
        """Return the vectors of the first objects, as they are stored."""
        names = True if schema.using is None else [schema.using]
        found = self._on(
            lambda remote: (
                remote.query.fetch_objects(limit=limit, include_vector=names, return_properties=False).objects
            )
        )
        vectors = [objects.stored_vector(each.vector, schema.using) for each in found]
        return [each for each in vectors if each is not None]

    def _read(self, ids: Sequence[Id], **wanted: Any) -> list[Any]:
        def read(lot: list[str]) -> list[Any]:
            return list(
                self._on(
                    lambda remote: (
                        remote.query.fetch_objects(
                            filters=WeaviateFilter.by_id().contains_any(lot), limit=len(lot), **wanted
                        ).objects
                    )
                )
            )

        return [each for lot in _uuids(ids) for each in read(lot)]

    def _on(self, work: "Callable[[Remote[Any, Any]], _T]", attempts: int = ATTEMPTS) -> _T:
        """Run a call on the collection, or on the tenant's part of it."""

        def run(client: WeaviateClient) -> _T:
            remote = client.collections.use(self._name)
            return work(remote if self.options.tenant is None else remote.with_tenant(self.options.tenant))

        return self._call(run, attempts)


def _indexed(path: tuple[str, ...], schema: Schema) -> bool:
    return schema.note is not None and path in map(parse_column, schema.note.indexed)


def exists_already(error: BaseException) -> bool:
    """Tell whether the server refused to create something because another process had just created it."""
    return error.__cause__ is not None and "already exists" in said_by(error.__cause__)


def _uuids(ids: Sequence[Id]) -> Iterator[list[str]]:
    uuids = [uuid for id_ in ids if (uuid := objects.uuid_of(id_)) is not None]
    for start in range(0, len(uuids), PAGE):
        yield uuids[start : start + PAGE]
