"""What a vector database must be able to do here, and how one is named.

A plugin is a function `open_collection(address: Address) -> Collection`, registered under the entry point group
`cir_vectorizer.collections` with the address's scheme as its name. The core imports no plugin.

    qdrant://HOST[:PORT]/COLLECTION     a server (`qdrants://` with TLS); KEY@HOST carries an API key
    qdrant:DIRECTORY/COLLECTION         embedded, in a directory of this machine
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from cir_vectorizer.errors import AddressError, BackboneMismatch, CollectionError
from cir_vectorizer.filters import Filter

ENTRY_POINTS = "cir_vectorizer.collections"
RECORD_KEY = "_cir"
"""The payload's key for what sync knows about an object; every other key is a column of the user's."""

Id = str | int
"""Of an object: sync makes UUIDs as text; collections that others made may hold numbers."""

Vector = npt.NDArray[np.float32]
Payload = dict[str, Any]
"""JSON values by column."""


@dataclass(frozen=True)
class Address:
    """Where a collection is: on a server (`host`) or embedded in a directory (`path`). Printing it hides the key."""

    scheme: str
    collection: str
    host: str | None = None
    port: int | None = None
    path: Path | None = None
    api_key: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        if self.path is not None:
            return f"{self.scheme}:{self.path}/{self.collection}"
        return f"{self.scheme}://{self.server}/{self.collection}"

    @property
    def server(self) -> str:
        """`host[:port]` as a URL writes it, IPv6 in brackets."""
        host = f"[{self.host}]" if ":" in (self.host or "") else self.host or ""
        return host if self.port is None else f"{host}:{self.port}"

    def with_key(self, api_key: str | None) -> "Address":
        """The same place with another API key; None keeps the one in the address."""
        return replace(self, api_key=api_key) if api_key else self


@dataclass(frozen=True)
class ModelRecord:
    """What a collection remembers of the model that fills it."""

    name: str
    fingerprint: str
    dim: int

    def __str__(self) -> str:
        return f"{self.name}@{self.fingerprint[:12]}"


@dataclass(frozen=True)
class Info:
    """What a collection is. `model` and `fingerprint` are None where another program made it."""

    dim: int
    distance: str
    """Lower case: "cosine", "dot", …"""
    count: int
    model: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class SyncRecord:
    """What sync knows about an object, kept in its payload under `RECORD_KEY`.

    `norm` is the length of the picture's embedding before it was normalised; `columns` is a digest of the user's
    columns, so that a change of payload is seen without comparing what the database made of it.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str
    norm: float
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
    """An object to write: `vector` is (dim,) float32 of length 1."""

    id: Id
    vector: Vector
    payload: Payload


@dataclass(frozen=True)
class Hit:
    """An object that a search found: the higher the score, the nearer."""

    id: Id
    score: float
    payload: Payload


class Collection(Protocol):
    """A collection of a vector database: one vector of the model's width and a JSON payload for each id.

    Opening one touches nothing; the first call connects. One thread calls at a time, not always the same one.
    Methods retry by themselves what is likely to pass (a busy or restarting server), then raise.

    Every method raises CollectionError with cause and remedy: unreachable, refused, locked, full, or missing
    (all but `info` and `create`).
    """

    @property
    def address(self) -> Address:
        """Where it is."""

    def info(self) -> Info | None:
        """What is there; None where there is no such collection yet. Creates nothing."""

    def create(self, model: ModelRecord) -> None:
        """Make the collection for cosine over `model.dim` numbers and remember the model.

        Does nothing where it exists already, so that two processes may race.
        """

    def upsert(self, points: Sequence[Point]) -> None:
        """Write objects, replacing those with the same ids whole; on return they survive a crash of this process."""

    def records(self, ids: Sequence[Id]) -> dict[Id, SyncRecord]:
        """The sync records of those of `ids` that are there and have one; reads no vectors and no columns."""

    def scan(self) -> Iterator[tuple[Id, SyncRecord | None]]:
        """Every object's id and sync record, in pages, in any order; reads no vectors."""

    def get(self, ids: Sequence[Id]) -> list[Point]:
        """Those of `ids` that are there, whole, in any order; vectors have length 1."""

    def search(self, vector: Vector, limit: int, where: Filter = ()) -> list[Hit]:
        """The `limit` nearest objects that meet every condition, nearest first.

        Args:
            vector: (dim,) float32.
        """

    def replace_payload(self, payloads: Mapping[Id, Payload]) -> None:
        """Put a new payload in place of the whole old one, by id; vectors stay."""

    def delete(self, ids: Sequence[Id]) -> None:
        """Remove objects; ids that are not there are no error."""

    def count(self) -> int:
        """How many objects there are."""

    def close(self) -> None:
        """Let go of connections and locks; safe to call twice."""


def parse_address(text: str) -> Address:
    """Read an address; see the module's docstring for the forms.

    Raises:
        AddressError: says what is wrong and how to write it. An API key in the address is never repeated.
    """
    shown = re.sub(r"//[^/]*@", "//…@", text)
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if not colon or not re.fullmatch(r"[a-z][a-z0-9+.-]+", scheme):
        raise AddressError(
            f"address {shown!r} does not say which database; write qdrant://HOST:PORT/COLLECTION for a server, "
            "or qdrant:DIRECTORY/COLLECTION for one embedded in a directory"
        )
    if scheme in ("http", "https"):
        tls = "qdrants" if scheme == "https" else "qdrant"
        raise AddressError(f"address {shown!r} is a web address; write {tls}://HOST:PORT/COLLECTION")
    if rest.startswith("//"):
        return _server_address(text, scheme, shown)
    directory, slash, collection = rest.rpartition("/")
    if not slash or not directory:
        raise AddressError(
            f"address {shown!r} names no directory; write {scheme}:DIRECTORY/COLLECTION, say {scheme}:./index/shop"
        )
    if not collection:
        raise AddressError(f"address {shown!r} ends in a slash; its last part is the collection: {shown}COLLECTION")
    try:
        path = Path(directory).expanduser()
    except RuntimeError as error:
        raise AddressError(f"address {shown!r} is in the home of an unknown user; write the directory out") from error
    return Address(scheme, _collection_name(collection, shown), path=path)


def _server_address(text: str, scheme: str, shown: str) -> Address:
    form = f"{scheme}://HOST[:PORT]/COLLECTION"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise AddressError(f"address {shown!r} has a wrong host or port ({error}); write {form}") from error
    if not host:
        raise AddressError(
            f"address {shown!r} names no host; write {form}, or {scheme}:DIRECTORY/COLLECTION if embedded"
        )
    if parts.query or parts.fragment:
        raise AddressError(f"address {shown!r} holds ? or #; write {form}, and %3F or %23 for such a letter in a name")
    collection = parts.path.strip("/")
    if not collection:
        raise AddressError(f"address {shown!r} names no collection; write {form}")
    if "/" in collection:
        raise AddressError(f"address {shown!r} has more than a collection after the host; write {form}")
    key = unquote(parts.password or parts.username or "") or None
    return Address(scheme, _collection_name(unquote(collection), shown), host, port, api_key=key)


def _collection_name(name: str, shown: str) -> str:
    if name in (".", "..") or not re.fullmatch(r'[^<>:"/\\|?*\x00-\x1f]{1,255}', name):
        raise AddressError(
            f"address {shown!r} has a collection name that databases refuse; take letters, digits, - and _, at most 255"
        )
    return name


def open_collection(address: Address | str, api_key: str | None = None) -> Collection:
    """Open a collection with the plugin that its scheme names; connects to nothing yet.

    Raises:
        AddressError: the address is malformed, or no plugin answers to its scheme.
    """
    place = (parse_address(address) if isinstance(address, str) else address).with_key(api_key)
    plugins = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if place.scheme not in plugins:
        raise AddressError(
            f"no plugin is installed for {place.scheme}: addresses, only for {', '.join(sorted(plugins)) or 'none'}; "
            "correct the address or install the plugin"
        )
    collection: Collection = plugins[place.scheme].load()(place)
    return collection


def ensure(collection: Collection, model: ModelRecord) -> None:
    """Make the collection for this model, or check that the one there is for it.

    Raises:
        BackboneMismatch: it was filled by another backbone, or has another width.
        CollectionError: it has another distance, or holds objects of another program.
    """
    info = collection.info()
    if info is None:
        collection.create(model)
        info = collection.info()
        assert info is not None
    _check(collection.address, info, model)
    if info.fingerprint is None and info.count:
        raise CollectionError(
            f"{collection.address} holds {info.count:,} objects that cir-vectorizer did not put there, and nothing "
            "says which model made their vectors; sync into a new collection (searching this one works as it is)"
        )


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
    maker = "another program" if info.model is None else str(ModelRecord(info.model, info.fingerprint or "?", info.dim))
    remedy = "name another collection, or load the model that it was made with"
    if info.dim != model.dim:
        raise BackboneMismatch(
            f"{address} has vectors of {info.dim} numbers (made by {maker}), and {model} makes {model.dim}; {remedy}"
        )
    if info.distance != "cosine":
        raise CollectionError(
            f"{address} compares by {info.distance}, and {model} needs cosine; name another collection"
        )
    if info.fingerprint is not None and info.fingerprint != model.fingerprint:
        raise BackboneMismatch(
            f"{address} was made by {maker}, and the model at hand is {model}: vectors of two backbones cannot be "
            f"compared; {remedy}"
        )
