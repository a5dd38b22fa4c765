"""The protocol of a collection: options to open and make one, questions to ask it, and what it must be able to do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from cir_vectorizer.collections.addresses import Address
from cir_vectorizer.collections.records import Hit, Id, Info, Maker, ModelRecord, Payload, Point, SyncRecord, Vector
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.filters import Filter


@dataclass(frozen=True)
class OpenOptions:
    """Options for opening a collection.

    `using` names one of several vectors of an object; None means the only one there is. `tenant` is a tenant of a Weaviate
    collection. `grpc` lets Qdrant speak gRPC instead of REST (Weaviate needs both); `grpc_port` is its port, None for
    the database's usual one.
    """

    using: str | None = None
    tenant: str | None = None
    grpc: bool = False
    grpc_port: int | None = None


@dataclass(frozen=True)
class CreateOptions:
    """Options for making a collection where it does not exist yet.

    `indexed` are columns (`a.b` for a nested one) that filters will ask for often. With `vectorize="server"` the server
    calls the container for each object that is written with a picture in place of a vector; `service_url` is the
    container's address as the server sees it, None for the one in the server's own configuration.
    """

    vector_on_disk: bool = False
    quantization: Literal["none", "scalar", "binary"] = "none"
    indexed: tuple[str, ...] = ()
    vectorize: Maker = "client"
    service_url: str | None = None


@dataclass(frozen=True)
class Ask:
    """Conditions and extent of a search.

    Attributes:
        limit: largest number of hits.
        where: conditions that every hit meets.
        offset: number of hits to skip first.
        text: words to look for beside the vector; both rankings are fused.
        group_by: a column, written as in a filter: the best object for each of its values, and none without it.
        exact: compare with every object instead of asking the index.
        model: model that composes a ComposedQuery, as the container lists it; None is the model that the collection was
            made for. Weaviate binds a collection to its model by the container's address, and ignores this.
    """

    limit: int = 10
    where: Filter = ()
    offset: int = 0
    text: str | None = None
    group_by: str | None = None
    exact: bool = False
    model: str | None = None


class Collection(Protocol):
    """A collection of a vector database: one vector of the model's width and a JSON payload for each id.

    Opening one touches nothing; the first call connects. One thread calls at a time, not always the same one.
    Methods retry by themselves what is likely to pass (a busy or restarting server), then raise.

    Every method raises CollectionError with cause and remedy: unreachable, refused, locked, full, or missing
    (all but `info`, `create` and `drop`).
    """

    @property
    def address(self) -> Address:
        """The collection's address."""

    @property
    def options(self) -> OpenOptions:
        """The options it was opened with."""

    def info(self) -> Info | None:
        """Return the collection's state; None where there is no such collection (or tenant) yet. Creates nothing."""

    def create(self, model: ModelRecord, options: CreateOptions = CreateOptions()) -> None:
        """Make the collection for cosine over `model.dim` numbers and remember the model.

        Does nothing where it exists already, so that two processes may race.
        """

    def remember(self, model: ModelRecord) -> None:
        """Note another model than before, where the database has room for a note; objects stay as they are."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Write objects, replacing those with the same ids whole; on return they survive a crash of this process.

        Raises:
            PartialWriteError: names the objects that the database refused; all others were written.
        """

    def records(self, ids: Sequence[Id]) -> dict[Id, SyncRecord]:
        """Return the sync records of those of `ids` that are there and have one; reads no vectors and no columns."""

    def scan(self) -> Iterator[tuple[Id, SyncRecord | None]]:
        """Yield every object's id and sync record, in pages, in any order; reads no vectors and no columns."""

    def get(self, ids: Sequence[Id]) -> list[Point]:
        """Return those of `ids` that are there, whole, in any order; vectors have length 1, pictures are left out."""

    def search(self, query: Vector | ComposedQuery, ask: Ask = Ask()) -> list[Hit]:
        """Return the nearest objects that meet every condition, nearest first.

        Args:
            query: a vector, (dim,) float32; or a composed query, whose vector the database's server has the container
                make.

        Raises:
            CollectionError: for a composed query: no container is wired to this collection, or it refused the query;
                says how to fix it.
            QueryError: a condition or column that the database cannot address.
        """

    def replace_payload(self, payloads: Mapping[Id, Payload]) -> None:
        """Put a new payload in place of the whole old one, by id; vectors and pictures stay.

        Ids that are not there are passed over.

        Raises:
            PartialWriteError: as for `upsert`.
        """

    def delete(self, ids: Sequence[Id]) -> None:
        """Remove objects; ids that are not there are no error."""

    def count(self) -> int:
        """Return the number of objects."""

    def beside(self, name: str, options: OpenOptions | None = None) -> "Collection":
        """Open another collection of the same server or directory, with the same options if none are given.

        It speaks through this one's connection: closing this one closes it too.
        """

    def take_over(self, other: "Collection") -> None:
        """Have this address answer with what `other`, one that `beside` opened, holds.

        The name becomes an alias of the other collection and the old collection is removed. Readers see the old or the
        new one where the name was an alias already or named nothing; the first time, the name is missing for a moment.
        """

    def drop(self) -> None:
        """Remove the collection (with a tenant: that tenant alone); no error where there is none."""

    def close(self) -> None:
        """Let go of connections and locks; safe to call twice."""
