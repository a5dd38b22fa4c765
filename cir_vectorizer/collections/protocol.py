"""What a vector database must be able to do here.

A plugin is a function `open_collection(address: Address, options: OpenOptions) -> Collection`, registered under the
entry point group `cir_vectorizer.collections` with the address's scheme as its name. The core imports no plugin.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from cir_vectorizer import extras
from cir_vectorizer.collections.addresses import Address, parse_address
from cir_vectorizer.errors import AddressError, BackboneMismatch, CollectionError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.filters import Filter

__all__ = [
    "RECORD_KEY",
    "Address",
    "Collection",
    "CreateOptions",
    "Hit",
    "Id",
    "Info",
    "Maker",
    "ModelRecord",
    "OpenOptions",
    "Payload",
    "Point",
    "SyncRecord",
    "Vector",
    "check",
    "ensure",
    "open_collection",
    "parse_address",
]

log = logging.getLogger(__name__)

ENTRY_POINTS = "cir_vectorizer.collections"
RECORD_KEY = "_cir"
"""The payload's key for what sync knows about an object; every other key is a column of the user's."""

Id = str | int
"""Of an object: sync makes UUIDs as text; collections that others made may hold numbers."""

Vector = npt.NDArray[np.float32]
Payload = dict[str, Any]
"""JSON values by column."""


class Model(Protocol):
    """A model as collections know it: a vectorizer, or a record of one."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def former_fingerprint(self) -> str: ...
    @property
    def precision(self) -> str: ...


@dataclass(frozen=True)
class ModelRecord:
    """Name, fingerprint and width of a model, without its weights.

    Attributes:
        former_fingerprint: what releases up to 0.1.0 noted in its place; empty where it is not known.
        precision: of the weights that make its vectors; vectors of all precisions are compared with one another.
    """

    name: str
    fingerprint: str
    dim: int
    former_fingerprint: str = ""
    precision: str = "float32"

    def __str__(self) -> str:
        return f"{self.name}@{self.fingerprint[:12]}"

    @classmethod
    def of(cls, model: Model) -> "ModelRecord":
        """Return the record of a model."""
        return cls(model.name, model.fingerprint, model.dim, model.former_fingerprint, model.precision)

    def made(self, fingerprint: str | None) -> bool:
        """Tell whether a noted fingerprint, of this version or the former one, is this model's."""
        return bool(fingerprint) and fingerprint in (self.fingerprint, self.former_fingerprint)

    def current(self, record: "SyncRecord") -> "SyncRecord":
        """Return an object's record with this model's fingerprint in place of its former one."""
        former = bool(self.former_fingerprint) and record.fingerprint == self.former_fingerprint
        return replace(record, fingerprint=self.fingerprint) if former else record


@dataclass(frozen=True)
class OpenOptions:
    """How a collection is spoken to.

    `using` names one of several vectors of an object; None is the only one there is. `tenant` is a tenant of a Weaviate
    collection. `grpc` lets Qdrant speak gRPC instead of REST (Weaviate needs both); `grpc_port` is its port, None for
    the database's usual one.
    """

    using: str | None = None
    tenant: str | None = None
    grpc: bool = False
    grpc_port: int | None = None


Maker = Literal["client", "server"]
"""Who makes the vectors of pictures: this program, or the database's server, which has the container make them."""


@dataclass(frozen=True)
class CreateOptions:
    """How a collection is made, where it does not exist yet.

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
class Info:
    """What a collection is. `model` and `fingerprint` are None where another program made it.

    `dim` is None where nothing tells it yet (an empty Weaviate collection that another program made). `using` is the
    vector that is searched, among `vectors`; both are empty for one without a name. `version` is the server's, None if
    embedded.
    """

    dim: int | None
    distance: str
    """Lower case: "cosine", "dot", …"""
    count: int
    model: str | None = None
    fingerprint: str | None = None
    version: str | None = None
    using: str | None = None
    vectors: tuple[str, ...] = ()
    blends_text: bool = False
    """True where the vector was made of a picture and texts: such a vector is no reference for a composed query."""
    vectorize: Maker = "client"
    """"server" where the server is set to have the container make vectors and compose queries."""
    precision: str = "float32"
    """Of the weights that the noted model had when it made the collection."""


@dataclass(frozen=True)
class SyncRecord:
    """What sync knows about an object, kept in its payload under `RECORD_KEY`.

    `norm` is the length of the picture's embedding before it was normalised; `columns` is a digest of the user's
    columns, so that a change of payload is seen without comparing what the database made of it. `norm` is None where the
    container made the vector for the database's server: it hands out unit vectors alone.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str
    norm: float | None
    fingerprint: str
    columns: str

    @classmethod
    def read(cls, payload: Mapping[str, Any] | None) -> Self | None:
        """The record in a payload, or None where there is none that this version wrote."""
        found = (payload or {}).get(RECORD_KEY)
        names = [each.name for each in fields(cls)]
        if not isinstance(found, Mapping) or any(name not in found for name in names):
            return None
        return cls(**{name: found[name] for name in names})

    def join(self, columns: Mapping[str, Any]) -> Payload:
        """The payload of an object: the user's columns and this record."""
        return {**columns, RECORD_KEY: asdict(self)}


@dataclass(frozen=True)
class Point:
    """An object to write, or one that was read.

    `vector` is (dim,) float32 of length 1. It is None only in an object to write whose vector the server shall make of
    `picture`, an encoded file's bytes; the collection was then made with `vectorize="server"`.
    """

    id: Id
    vector: Vector | None
    payload: Payload
    picture: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Hit:
    """An object that a search found: the higher the score, the nearer.

    The score is the cosine; of a search with keywords it is the fused one, which compares only within its list.
    """

    id: Id
    score: float
    payload: Payload


class Collection(Protocol):
    """A collection of a vector database: one vector of the model's width and a JSON payload for each id.

    Opening one touches nothing; the first call connects. One thread calls at a time, not always the same one.
    Methods retry by themselves what is likely to pass (a busy or restarting server), then raise.

    Every method raises CollectionError with cause and remedy: unreachable, refused, locked, full, or missing
    (all but `info`, `create` and `drop`).
    """

    @property
    def address(self) -> Address:
        """Where it is."""

    @property
    def options(self) -> OpenOptions:
        """How it was opened."""

    def info(self) -> Info | None:
        """What is there; None where there is no such collection (or tenant) yet. Creates nothing."""

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
        """The sync records of those of `ids` that are there and have one; reads no vectors and no columns."""

    def scan(self) -> Iterator[tuple[Id, SyncRecord | None]]:
        """Every object's id and sync record, in pages, in any order; reads no vectors and no columns."""

    def get(self, ids: Sequence[Id]) -> list[Point]:
        """Those of `ids` that are there, whole, in any order; vectors have length 1, pictures are left out."""

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
        """The nearest objects that meet every condition, nearest first.

        Args:
            vector: (dim,) float32.
            limit: how many at most.
            offset: how many to pass over first.
            text: words to look for beside the vector; both rankings are fused.
            group_by: a column, written as in a filter: the best object for each of its values, and none without it.
            exact: compare with every object instead of asking the index.
        """

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
        """As `search`, but the server has the container compose the query.

        Args:
            model: as the container lists it, for Qdrant; None is the model that the collection was made for. A Weaviate
                collection is bound to its model by its address of the container.

        Raises:
            CollectionError: no container is wired to this collection, or it refused the query; says how to fix it.
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
        """How many objects there are."""

    def beside(self, name: str, options: OpenOptions | None = None) -> "Collection":
        """Another collection of the same server or directory, opened with the same options if none are given.

        It speaks through this one's connection: closing this one closes it too.
        """

    def take_over(self, other: "Collection") -> None:
        """From now on this address answers with what `other`, one that `beside` opened, holds.

        The name becomes an alias of the other collection and the old collection is removed. Readers see the old or the
        new one where the name was an alias already or named nothing; the first time, the name is missing for a moment.
        """

    def drop(self) -> None:
        """Remove the collection (with a tenant: that tenant alone); no error where there is none."""

    def close(self) -> None:
        """Let go of connections and locks; safe to call twice."""


def texts(payload: Mapping[str, Any]) -> Iterator[str]:
    """All texts of the user's columns, nested ones too: what the keyword side of a hybrid search reads."""
    for key, value in payload.items():
        if key != RECORD_KEY:
            yield from _texts_in(value)


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts_in(each)


def open_collection(
    address: Address | str, api_key: str | None = None, options: OpenOptions = OpenOptions()
) -> Collection:
    """Open a collection with the plugin that its scheme names; connects to nothing yet.

    Args:
        api_key: goes before one in the address; where neither gives one, the plugin looks into the environment
            (`QDRANT_API_KEY`, `WEAVIATE_API_KEY`).

    Raises:
        AddressError: the address is malformed, or no plugin answers to its scheme.
    """
    place = (parse_address(address) if isinstance(address, str) else address).with_key(api_key)
    plugins = extras.plugins(ENTRY_POINTS)
    if place.scheme not in plugins:
        raise AddressError(
            f"no plugin is installed for {place.scheme}: addresses, only for {', '.join(sorted(plugins)) or 'none'}; "
            "correct the address or install the plugin"
        )
    collection: Collection = plugins[place.scheme].load()(place, options)
    return collection


def ensure(collection: Collection, model: ModelRecord, options: CreateOptions = CreateOptions()) -> Info:
    """Make the collection for this model, or check that the one there is for it.

    Raises:
        BackboneMismatch: it was filled by another backbone, or has another width.
        CollectionError: it has another distance, holds objects of another program, or its server was to make the
            vectors and is not set to.
    """
    info = collection.info()
    if info is None:
        collection.create(model, options)
        info = collection.info()
        assert info is not None
    _check(collection.address, info, model)
    if info.model is not None and info.fingerprint != model.fingerprint:
        collection.remember(replace(model, name=info.model, precision=info.precision))
        info = replace(info, fingerprint=model.fingerprint)
    if options.vectorize == "server" and info.vectorize != "server":
        raise CollectionError(
            f"{collection.address} was made for vectors that come from outside, so its server cannot make them; leave "
            "out --vectorize server, or sync into a new collection"
        )
    if info.fingerprint is None and info.count:
        raise CollectionError(
            f"{collection.address} holds {info.count:,} objects that cir-vectorizer did not put there, and nothing "
            "says which model made their vectors; sync into a new collection (searching this one works as it is)"
        )
    return info


def check(collection: Collection, model: ModelRecord) -> Info:
    """Check that a search with this model's vectors makes sense.

    A collection that another program made passes if its width and distance do.

    Raises:
        BackboneMismatch: it was filled by another backbone, or has another width.
        CollectionError: there is none, or it has another distance.
    """
    info = collection.info()
    if info is None:
        raise CollectionError(
            f"there is no collection {collection.address}; correct the address, or run cir-vectorizer sync"
        )
    _check(collection.address, info, model)
    return info


def _check(address: Address, info: Info, model: ModelRecord) -> None:
    maker = "another program" if info.model is None else f"{info.model}@{(info.fingerprint or '?')[:12]}"
    remedy = "name another collection, or load the model that it was made with"
    if info.dim not in (None, model.dim):
        raise BackboneMismatch(
            f"{address} has vectors of {info.dim} numbers (made by {maker}), and {model} makes {model.dim}; {remedy}"
        )
    if info.distance != "cosine":
        raise CollectionError(
            f"{address} compares by {info.distance}, and {model} needs cosine; name another collection"
        )
    if info.fingerprint is not None and not model.made(info.fingerprint):
        raise BackboneMismatch(
            f"{address} was made by {maker}, and the model at hand is {model}: vectors of two backbones cannot be "
            f"compared; {remedy}"
        )
    if info.fingerprint == model.former_fingerprint:
        note_former(str(address), info.fingerprint)


@lru_cache(maxsize=1024)
def note_former(where: str, fingerprint: str) -> None:
    """Log once that `where` names its model by a fingerprint of version 1, which fits the weights at hand."""
    log.warning(
        "%s names its model by the fingerprint of an earlier release, %s; it fits the weights here and is accepted, "
        "though that form says nothing of activation and tokenizer. sync and train write the present form",
        where,
        fingerprint[:12],
    )
