"""One Weaviate collection behind the core's protocol, by the v4 client: REST for the schema, gRPC for objects.

Not handled here: cross references and nested objects of other programs' collections, which are left out of payloads.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

from weaviate import WeaviateClient
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter as WeaviateFilter
from weaviate.collections import Collection as Remote
from weaviate.exceptions import UnexpectedStatusCodeError, WeaviateUnsupportedFeatureError

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
from cir_vectorizer.collections.retry import persist
from cir_vectorizer.errors import AddressError, CollectionError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.filters import Filter, parse_column
from cir_vectorizer_weaviate import objects, searching
from cir_vectorizer_weaviate.connection import ATTEMPTS, Connection, said_by
from cir_vectorizer_weaviate.filters import everywhere, to_weaviate
from cir_vectorizer_weaviate.inference import concept
from cir_vectorizer_weaviate.schema import (
    Schema,
    class_name,
    hidden_properties,
    new_collection,
    read_schema,
)
from cir_vectorizer_weaviate.writing import write

PAGE = 1000
"""Objects a page of a scan, a look-up or a removal."""
SEARCH_ATTEMPTS = 3
"""Of a search that waits for the container too: somebody sits before it."""

_T = TypeVar("_T")


class WeaviateCollection:
    """A collection of a Weaviate server, or one tenant's part of it.

    Implements `cir_vectorizer.collections.Collection`; the contracts are written there.
    """

    def __init__(
        self, address: Address, options: OpenOptions = OpenOptions(), connection: Connection | None = None
    ) -> None:
        if address.path is not None:
            raise AddressError(
                f"{address} names a directory, and Weaviate runs as a server alone; write weaviate://HOST:PORT/COLLECTION"
            )
        self.address = address
        self.options = options
        self._name = class_name(address)
        self._connection = connection or Connection(address, options)
        self._known: Schema | None = None

    def info(self) -> Info | None:
        self._known = None
        if not self._call(lambda client: client.collections.exists(self._name)):
            return None
        schema = self._schema
        self._check_tenant(schema)
        if self.options.tenant is not None and not self._call(self._has_tenant):
            return None
        info = Info(
            dim=schema.note.dim if schema.note else self._width(schema),
            distance=schema.distance,
            count=self.count(),
            version=str(self._call(lambda client: client.get_meta())["version"]),
            using=schema.using,
            vectors=schema.vectors,
            blends_text=schema.blends_text,
            vectorize=schema.vectorize,
        )
        if schema.note is not None:
            note = schema.note
            return replace(info, model=note.model, fingerprint=note.fingerprint, precision=note.precision)
        first = next(iter(self._records(1, None)), (None, None))[1]
        if first is None:
            return info
        return replace(info, model="a model whose name was not kept", fingerprint=first.fingerprint)

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
            if not _exists_already(error):
                raise
            self._call(make)
        self._known = None

    def remember(self, model: ModelRecord) -> None:
        if (note := self._schema.note) is None:
            return
        known = replace(note, model=model.name, fingerprint=model.fingerprint, precision=model.precision)
        descriptions = {RECORD_KEY: known.to_description()}
        self._call(lambda client: client.collections.use(self._name).config.update(property_descriptions=descriptions))
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
            str(each.uuid): _record(each.properties)
            for each in self._read(ids, return_properties=[RECORD_KEY], include_vector=False)
        }
        return {id_: record for id_ in ids if (record := found.get(objects.uuid_of(id_) or "")) is not None}

    def scan(self) -> Iterator[tuple[Id, SyncRecord | None]]:
        after: str | None = None
        while page := self._records(PAGE, after):
            yield from page
            after = str(page[-1][0])

    def _records(self, limit: int, after: str | None) -> list[tuple[Id, SyncRecord | None]]:
        wanted: Any = [RECORD_KEY] if RECORD_KEY in self._schema.properties else False
        page = self._on(
            lambda remote: (
                remote.query.fetch_objects(
                    limit=limit, after=UUID(after) if after else None, return_properties=wanted
                ).objects
            )
        )
        return [(str(each.uuid), _record(each.properties)) for each in page]

    def get(self, ids: Sequence[Id]) -> list[Point]:
        schema = self._schema
        found = self._read(ids, return_properties=schema.shown, include_vector=self._vector_names(schema))
        return [
            Point(str(each.uuid), objects.read_vector(each.vector, schema), objects.payload(each.properties, schema))
            for each in found
        ]

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
        filters = self._filters(where)
        schema = self._schema
        if exact and not schema.flat:
            count = self.count()
            if count > schema.exact_cutoff:
                raise CollectionError(
                    f"{self.address} holds {count:,} objects, and Weaviate compares with each of at most "
                    f"{schema.exact_cutoff:,}; raise flat_search_cutoff of the collection, or search its index"
                )
            filters = filters or everywhere()
        numbers = [float(x) for x in vector]
        search = (
            searching.near_vector(numbers, schema, filters)
            if text is None
            else searching.hybrid(text, numbers, schema, filters)
        )
        return self._hits(search, limit, offset, group_by)

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
        schema = self._schema
        if schema.vectorize != "server":
            raise CollectionError(
                f"{self.address} has no container that could compose a query; compose it here, or make the collection "
                "with --vectorize server"
            )
        written, filters = concept(query), self._filters(where)
        search = (
            searching.near_text(written, schema, filters)
            if text is None
            else searching.hybrid(text, written, schema, filters)
        )
        return self._hits(search, limit, offset, group_by, SEARCH_ATTEMPTS)

    def _filters(self, where: Filter) -> Any:
        if where:
            self._known = None  # another process may have met new columns, or new types in known ones
        return to_weaviate(where, self._schema.fields) if where else None

    def _hits(
        self, search: searching.Search, limit: int, offset: int, group_by: str | None, attempts: int = ATTEMPTS
    ) -> list[Hit]:
        def page(limit: int, offset: int = 0) -> list[Hit]:
            return self._on(lambda remote: search(remote, limit, offset), attempts)

        return page(limit, offset) if group_by is None else searching.best_of_groups(page, group_by, limit, offset)

    def replace_payload(self, payloads: Mapping[Id, Payload]) -> None:
        if not payloads:
            return
        schema = self._prepared(list(payloads.values()))
        by_uuid = {objects.uuid_of(id_): payload for id_, payload in payloads.items()}
        found = self._read(list(payloads), return_properties=False, include_vector=True)
        made = []
        for each in found:
            vectors: Any = each.vector if schema.using is not None else each.vector.get("default")
            kept = objects.properties(by_uuid[str(each.uuid)], schema)
            made.append(DataObject(properties=kept, uuid=str(each.uuid), vector=vectors or None))
        write(made, self._on, {}, len(payloads))

    def delete(self, ids: Sequence[Id]) -> None:
        for lot in _uuids(ids):
            self._delete(WeaviateFilter.by_id().contains_any(lot))

    def _delete(self, where: Any) -> None:
        done = self._on(lambda remote: remote.data.delete_many(where=where))
        if done.failed:
            raise CollectionError(f"{self.address}: {done.failed:,} objects were not removed; run the command again")

    def count(self) -> int:
        return self._on(lambda remote: remote.aggregate.over_all(total_count=True)).total_count or 0

    def beside(self, name: str, options: OpenOptions | None = None) -> "WeaviateCollection":
        return WeaviateCollection(replace(self.address, collection=name), options or self.options, self._connection)

    def take_over(self, other: Collection) -> None:
        if self.options.tenant is not None:
            raise CollectionError(
                f"{self.address} holds other tenants too, and an alias would switch them all; sync this tenant into a "
                "collection of its own"
            )
        theirs = class_name(other.address)

        def switch(client: WeaviateClient) -> None:
            aliases = client.alias.list_all()  # refused by a server without them, before anything is removed
            old, new = _behind(client, self._name), _behind(client, theirs)
            if new is None:
                raise CollectionError(f"there is no collection {other.address}; nothing was switched")
            if old == new:
                return
            if old is None or old == self._name:
                for name in [alias.alias for alias in aliases.values() if alias.collection == old]:
                    client.alias.update(alias_name=name, new_target_collection=new)
                client.collections.delete(self._name)
                client.alias.create(alias_name=self._name, target_collection=new)
                return
            client.alias.update(alias_name=self._name, new_target_collection=new)
            if not client.alias.list_all(collection=old):
                client.collections.delete(old)

        self._call(switch)
        self._known = None

    def drop(self) -> None:
        def remove(client: WeaviateClient) -> None:
            real = _behind(client, self._name)
            if real is None:
                return
            if self.options.tenant is not None:
                client.collections.use(real).tenants.remove([self.options.tenant])
                return
            if real != self._name:
                client.alias.delete(alias_name=self._name)
            client.collections.delete(real)

        self._call(remove)
        self._known = None

    def close(self) -> None:
        self._connection.close()
        self._known = None

    @property
    def _schema(self) -> Schema:
        if self._known is None:
            found = self._call(lambda client: client.collections.use(self._name).config.get())
            self._known = read_schema(found, self.address, self.options.using)
        return self._known

    def _prepared(self, payloads: list[Payload]) -> Schema:
        """The schema, with properties for all that these payloads hold; another process may be adding them too."""
        return persist(lambda: self._with_columns(payloads), _exists_already, ATTEMPTS)

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
        """How many numbers a vector has, told by the first object."""
        first = self._on(
            lambda remote: (
                remote.query.fetch_objects(
                    limit=1, include_vector=self._vector_names(schema), return_properties=False
                ).objects
            )
        )
        vector = objects.read_vector(first[0].vector, schema) if first else None
        return None if vector is None else len(vector)

    def _vector_names(self, schema: Schema) -> list[str] | bool:
        return True if schema.using is None else [schema.using]

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
        """Run a call on the collection, or on its tenant's part."""

        def run(client: WeaviateClient) -> _T:
            remote = client.collections.use(self._name)
            return work(remote if self.options.tenant is None else remote.with_tenant(self.options.tenant))

        return self._call(run, attempts)

    def _call(self, work: Callable[[WeaviateClient], _T], attempts: int = ATTEMPTS) -> _T:
        try:
            return self._connection.call(work, self._name, attempts)
        except CollectionError:
            self._known = None  # it may have been replaced by another one
            raise


def _behind(client: WeaviateClient, name: str) -> str | None:
    """The collection that a name, which may be an alias, stands for."""
    try:
        alias = client.alias.get(alias_name=name)
    except WeaviateUnsupportedFeatureError:  # servers before 1.32
        alias = None
    if alias is not None:
        return str(alias.collection)
    return name if client.collections.exists(name) else None


def _record(properties: Mapping[str, Any]) -> SyncRecord | None:
    return SyncRecord.read({RECORD_KEY: objects.read_record(properties)})


def _indexed(path: tuple[str, ...], schema: Schema) -> bool:
    return schema.note is not None and path in map(parse_column, schema.note.indexed)


def _uuids(ids: Sequence[Id]) -> Iterator[list[str]]:
    uuids = [uuid for id_ in ids if (uuid := objects.uuid_of(id_)) is not None]
    for start in range(0, len(uuids), PAGE):
        yield uuids[start : start + PAGE]


def _exists_already(error: BaseException) -> bool:
    """Tell whether the server refused this because another process made the same at the same time."""
    return error.__cause__ is not None and "already exists" in said_by(error.__cause__)
