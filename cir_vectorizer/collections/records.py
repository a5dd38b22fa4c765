"""Data of a collection: objects to write, objects found, and the records that sync keeps of objects and models."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from cir_vectorizer.errors import QueryError
from cir_vectorizer.markup import without_markup
from cir_vectorizer.query.filters import parse_column

RECORD_KEY = "_cir"
"""Key of sync's record in an object's payload; every other key is one of the user's columns."""

TEXT_VECTOR = "cir_text"
"""Name of the vector of an object's text, beside the vector of its picture."""

Id = str | int
"""An object's id: sync makes UUIDs as text; collections of other programs may hold numbers."""

LENGTH_TOLERANCE = 0.01
"""Largest distance from 1 of the length of a unit vector; vectors may be stored in half precision."""

Vector = npt.NDArray[np.float32]
"""A vector, (dim,)."""
Payload = dict[str, Any]
"""JSON values by column."""


Maker = Literal["client", "server"]
"""Maker of the vectors of pictures: this program, or the database's server, which asks the container for them."""


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
        former_fingerprint: the model's fingerprint in the form of releases up to 0.1.0; empty if unknown.
        precision: precision of the weights; vectors from different precisions are comparable.
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
        """Tell whether a recorded fingerprint is this model's, in the present form or the former one."""
        return bool(fingerprint) and fingerprint in (self.fingerprint, self.former_fingerprint)

    def current(self, record: "SyncRecord") -> "SyncRecord":
        """Return an object's record, with this model's former fingerprint replaced by the present one."""
        former = bool(self.former_fingerprint) and record.fingerprint == self.former_fingerprint
        return replace(record, fingerprint=self.fingerprint) if former else record


@dataclass(frozen=True)
class Info:
    """State of a collection. `model` and `fingerprint` are None if another program made it.

    `dim` is None if it is not known yet (an empty Weaviate collection that another program made). `vectors` are the
    names of its vectors and `using` is the one that is searched; both are empty for a vector without a name. `version`
    is the server's, None if embedded.
    """

    dim: int | None
    distance: str
    """Name of the distance in lower case: "cosine", "dot", …"""
    count: int
    model: str | None = None
    fingerprint: str | None = None
    version: str | None = None
    using: str | None = None
    vectors: tuple[str, ...] = ()
    blends_text: bool = False
    """True if vectors were made from pictures and texts together; such a vector cannot be a reference picture."""
    vectorize: Maker = "client"
    """"server" if the server is set up to have the container make vectors and compose queries."""
    container: str | None = None
    """Address of the container, if the collection itself names it; else the server's configuration does."""
    precision: str = "float32"
    """Precision of the weights with which the noted model made the collection."""
    pictures: tuple[str, ...] = ()
    """Names of the columns that hold the pictures themselves, those from which the server makes vectors first."""
    picture_column: str | None = None
    """Column that names the picture of objects that another program made; set if the collection was adopted."""
    lengths: tuple[float, float] | None = None
    """Least and greatest length among some of the vectors, read only if the distance is "dot"."""
    text_columns: tuple[str, ...] = ()
    """Columns whose texts make the vector `TEXT_VECTOR` of an object; empty if the collection has no such vector."""
    text_weight: float | None = None
    """Weight of that vector beside the picture's in searches, from 0 to 1; None if none was chosen for the collection."""

    @property
    def compares_by_cosine(self) -> bool:
        """True if the distance is cosine, or the dot product of vectors of length 1, which is the same."""
        if self.distance == "dot" and self.lengths is not None:
            return all(abs(length - 1) < LENGTH_TOLERANCE for length in self.lengths)
        return self.distance == "cosine"

    @property
    def why_not_cosine(self) -> str:
        """The distance, for the middle of a sentence, with the vectors' lengths if they are why it is not cosine."""
        if self.lengths is None:
            return self.distance
        return f"{self.distance} vectors of length {self.lengths[0]:.3g} to {self.lengths[1]:.3g}"

    def precision_notes(self, precision: str) -> list[str]:
        """Return a sentence if a model's precision differs so much from the collection's that results may change.

        Half precision and float32 agree to a cosine of 0.999 or more; only int8 differs more.
        """
        differs = self.fingerprint is not None and precision != self.precision
        if not differs or "int8" not in (precision, self.precision):
            return []
        return [
            f"the collection's pictures were embedded in {self.precision}, and this model runs in {precision}, so objects "
            f"with close scores may change places; use --precision {self.precision} here too"
        ]


@dataclass(frozen=True)
class SyncRecord:
    """Sync's record of an object, kept in its payload under `RECORD_KEY`.

    `norm` is the length of the picture's embedding before it was normalised; it is None if the container made the
    vector for the database's server, since the container only returns unit vectors. `columns` is a digest of the
    user's columns: databases may change values, so the stored columns cannot be compared directly. `owner` is a digest
    of the name of the source that wrote the object; it is empty if no source was recorded. `source_id` is set for objects
    that another program made and a source took over: the id that the source gives to the picture. `text` is a digest of
    the text of which the object's `TEXT_VECTOR` was made; it is empty if the object has none.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str
    norm: float | None
    fingerprint: str
    columns: str
    owner: str = ""
    source_id: str = ""
    text: str = ""

    @classmethod
    def read(cls, payload: Mapping[str, Any] | None) -> Self | None:
        """Return the record in a payload; None if it holds none.

        Release 0.1.0 appended the owner to `columns`, after a dot.
        """
        found = (payload or {}).get(RECORD_KEY)
        if not isinstance(found, Mapping) or any(name not in found for name in _REQUIRED):
            return None
        values = {name: found[name] for name in _REQUIRED}
        columns, _, owner = str(values["columns"]).partition(".")
        more = {name: str(found.get(name, "")) for name in _OPTIONAL}
        return cls(**{**values, "columns": columns, "owner": found.get("owner", owner), **more})

    def join(self, columns: Mapping[str, Any]) -> Payload:
        """Return an object's payload: the user's columns and this record."""
        kept = {name: value for name, value in asdict(self).items() if value or name not in _OPTIONAL}
        return {**columns, RECORD_KEY: kept}


_OPTIONAL = ("source_id", "text")
_REQUIRED = tuple(each.name for each in fields(SyncRecord) if each.name not in ("owner", *_OPTIONAL))


@dataclass(frozen=True)
class Point:
    """An object to write, or one that was read.

    `vector` is (dim,) float32 of length 1. It is None only in an object to write whose vector the server makes from
    `picture`, the bytes of an image file; that needs a collection created with `vectorize="server"`. `text_vector` is the
    vector of the object's text, of the same form; None if it has no text.
    """

    id: Id
    vector: Vector | None
    payload: Payload
    picture: bytes | None = field(default=None, repr=False)
    text_vector: Vector | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Hit:
    """An object that a search found; a higher score is nearer.

    The score is the cosine. In a search with keywords, or with a second score, it is the fused score, which is only
    comparable within one result list.

    `signals` are the parts of a fused score by name: `picture` and `text` are the cosines to the object's two vectors,
    `unwanted` and `wanted` those to the words of `negative_text` and `must_text`, from 0 to 1 among the candidates.
    `others` are further objects of the same group, in a search that asks for several of each.
    """

    id: Id
    score: float
    payload: Payload
    signals: Mapping[str, float] = field(default_factory=dict)
    others: tuple["Hit", ...] = ()


def texts(payload: Mapping[str, Any]) -> Iterator[str]:
    """Yield all texts in the user's columns, nested ones too and without HTML, for the keyword side of a hybrid search."""
    for key, value in payload.items():
        if key != RECORD_KEY:
            yield from (without_markup(each) for each in single_values(value) if isinstance(each, str))


def single_values(value: Any) -> Iterator[Any]:
    """Yield the values in lists and groups of columns, nested ones too; a single value is the only one."""
    if isinstance(value, Mapping):
        for each in value.values():
            yield from single_values(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from single_values(each)
    else:
        yield value


def picture_cell(payload: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column, or the first entry of its list; None if it is missing.

    Args:
        column: the column's key as it is, or written as in a filter (`image.url` for a nested one).
    """
    try:
        path = (column,) if column in payload else parse_column(column)
    except QueryError:  # a key that filters write in quotes, and that this object lacks
        return None
    return next(iter(values_at(payload, path)), None)


def place_of(payload: Payload, picture_column: str | None) -> Any:
    """Return the place of an object's picture: the recorded one, or the one in a column; None if neither is there."""
    record = SyncRecord.read(payload)
    if record is not None:
        return record.path
    return None if picture_column is None else picture_cell(payload, picture_column)


def shown_columns(payload: Payload) -> dict[str, Any]:
    """Return the user's columns, and `path` if sync recorded one and no column has that name."""
    record = SyncRecord.read(payload)
    columns = {key: value for key, value in payload.items() if key != RECORD_KEY}
    return columns if record is None else {"path": record.path, **columns}


def values_at(payload: Mapping[str, Any], column: tuple[str, ...]) -> list[Any]:
    """Return the entries of a column's list, or its single value; a missing column has the value None."""
    value: Any = payload
    for part in column:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, list) else [value]


def groups_of(hit: Hit, column: tuple[str, ...]) -> list[tuple[type, str | int]]:
    """Return the groups of a hit, as type and value: one for each text or whole number in a column."""
    values = values_at(hit.payload, column)
    return [(type(value), value) for value in values if isinstance(value, str | int) and not isinstance(value, bool)]


def best_of_groups(hits: Iterable[Hit], column: tuple[str, ...], most: int) -> list[Hit]:
    """Return the first hit for each text or whole number in a column, at most `most`."""
    best: dict[tuple[type, str | int], Hit] = {}
    for hit in hits:
        for group in groups_of(hit, column):
            best.setdefault(group, hit)
        if len(best) >= most:
            break
    return list(best.values())[:most]
