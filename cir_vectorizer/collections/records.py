"""Records of models and objects: what goes into a collection, what comes out, and what is kept about both."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

RECORD_KEY = "_cir"
"""The payload's key for what sync knows about an object; every other key is a column of the user's."""

Id = str | int
"""An object's id: sync makes UUIDs as text; collections that others made may hold numbers."""

Vector = npt.NDArray[np.float32]
Payload = dict[str, Any]
"""JSON values by column."""


Maker = Literal["client", "server"]
"""Maker of the vectors of pictures: this program, or the database's server, which has the container make them."""


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
class Info:
    """State of a collection. `model` and `fingerprint` are None where another program made it.

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
    """Precision of the weights with which the noted model made the collection."""


@dataclass(frozen=True)
class SyncRecord:
    """What sync knows about an object, kept in its payload under `RECORD_KEY`.

    `norm` is the length of the picture's embedding before it was normalised; `columns` is a digest of the user's
    columns, so that a change of payload is seen without comparing what the database made of it. `norm` is None where the
    container made the vector for the database's server: it hands out unit vectors alone. `owner` is a digest of the name
    of the source that wrote the object; it is empty where no source was noted.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str
    norm: float | None
    fingerprint: str
    columns: str
    owner: str = ""

    @classmethod
    def read(cls, payload: Mapping[str, Any] | None) -> Self | None:
        """Return the record in a payload, or None where sync wrote none.

        Release 0.1.0 wrote the owner behind a dot in `columns`.
        """
        found = (payload or {}).get(RECORD_KEY)
        names = [each.name for each in fields(cls) if each.name != "owner"]
        if not isinstance(found, Mapping) or any(name not in found for name in names):
            return None
        values = {name: found[name] for name in names}
        columns, _, owner = str(values["columns"]).partition(".")
        return cls(**{**values, "columns": columns, "owner": found.get("owner", owner)})

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


def texts(payload: Mapping[str, Any]) -> Iterator[str]:
    """Yield all texts of the user's columns, nested ones too, which the keyword side of a hybrid search reads."""
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


def values_at(payload: Mapping[str, Any], column: tuple[str, ...]) -> list[Any]:
    """Return the entries of a column's list, or its one value; a column that is not there has the value None."""
    value: Any = payload
    for part in column:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, list) else [value]
