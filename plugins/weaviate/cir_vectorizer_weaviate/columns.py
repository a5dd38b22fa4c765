"""Properties that let Weaviate filter by a payload's columns.

The whole payload is kept as JSON in one text property; the properties here only index it. A property has one type, but
a column may have several, so there is one property for each type seen in a column (`size` and `size__text`), created
when a value first needs it. Each property's description names its column, so names that Weaviate refuses (`brand name`,
`Ü`, `a.b`) can be restored. A value without a property is not lost; it just cannot be filtered by.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from weaviate.classes.config import DataType, Property, Tokenization

from cir_vectorizer.collections import RECORD_KEY, Payload
from cir_vectorizer.query.filters import EXACT_INTEGER

Kind = Literal["text", "number", "boolean", "integer", "padded", "int"]
"""Kinds of values, by how they are compared. "integer" is a whole number too large for exact floats, kept as digits;
"padded" is a text with spaces at its ends, which Weaviate would strip, kept as JSON; "int" is a property of another
program, which takes whole numbers alone."""

Path = tuple[str, ...]

_TYPES: dict[Kind, tuple[DataType, DataType]] = {
    "text": (DataType.TEXT, DataType.TEXT_ARRAY),
    "number": (DataType.NUMBER, DataType.NUMBER_ARRAY),
    "boolean": (DataType.BOOL, DataType.BOOL_ARRAY),
    "integer": (DataType.TEXT_ARRAY, DataType.TEXT_ARRAY),
    "padded": (DataType.TEXT_ARRAY, DataType.TEXT_ARRAY),
    "int": (DataType.INT, DataType.INT_ARRAY),
}
_NATIVE: dict[DataType, tuple[Kind, bool]] = {
    types[many]: (kind, many)
    for kind, types in _TYPES.items()
    if kind not in ("integer", "padded")
    for many in (False, True)
}
"""Kind of another program's property by its type, and True for a list."""
_TEXTS = ("text", "integer", "padded")
_RESERVED = frozenset({"id", "vector", "vectors", "properties"})
_MAX_NAME = 100


@dataclass(frozen=True)
class Column:
    """A property for one kind of values of one column."""

    name: str
    path: Path
    kind: Kind
    many: bool
    """True if the property holds lists."""

    @property
    def description(self) -> str:
        return json.dumps({"column": list(self.path), "kind": self.kind}, ensure_ascii=False)

    def property(self, ranges: bool) -> Property:
        """Return the property for `create` and `add_property`; with `ranges`, it is indexed for < and > too."""
        return Property(
            name=self.name,
            data_type=_TYPES[self.kind][self.many],
            description=self.description,
            tokenization=Tokenization.FIELD if self.kind in _TEXTS else None,
            index_filterable=True,
            index_searchable=False if self.kind in _TEXTS else None,
            index_range_filters=True if ranges and self.kind == "number" and not self.many else None,
        )

    @classmethod
    def read(cls, name: str, data_type: DataType, description: str | None) -> "Column | None":
        """Return the Column that a property's description holds; None if this plugin did not make the property."""
        try:
            said = json.loads(description or "")
            path, kind = tuple(str(part) for part in said["column"]), said["kind"]
        except (ValueError, KeyError, TypeError):
            return None
        return cls(name, path, kind, data_type == _TYPES[kind][1]) if kind in _TYPES else None

    @classmethod
    def native(cls, name: str, data_type: DataType) -> "Column | None":
        """Return the Column for a property of another program; None if no values of ours fit its type."""
        kind, many = _NATIVE.get(data_type, (None, False))
        return None if kind is None else cls(name, (name,), kind, many)


@dataclass
class Columns:
    """The columns for which a collection has properties."""

    known: list[Column] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    """Names of all properties of the collection, in lower case."""

    def of(self, path: Path) -> list[Column]:
        """Return the properties of a column."""
        return [each for each in self.known if each.path == path]

    def missing(self, payloads: list[Payload]) -> list[Column]:
        """Return the properties that these payloads need and the collection lacks, and add them to `known`."""
        added = []
        for payload in payloads:
            for path, kind, values, many in _values(payload):
                if values and self._find(path, kind, values, many) is None:
                    column = Column(self._free_name(path, kind), path, kind, many or kind in ("integer", "padded"))
                    self.known.append(column)
                    self.taken.add(column.name.lower())
                    added.append(column)
        return added

    def index(self, payload: Payload) -> dict[str, Any]:
        """Return the properties of an object with this payload, by name."""
        found: dict[str, Any] = {}
        for path, kind, values, many in _values(payload):
            column = self._find(path, kind, values, many) if values else None
            if column is not None:
                fitting = [int(each) for each in values] if column.kind == "int" else values
                found[column.name] = fitting if column.many else fitting[0]
        return found

    def _find(self, path: Path, kind: Kind, values: list[Any], many: bool) -> Column | None:
        kinds = {kind, "int"} if kind == "number" and all(each == int(each) for each in values) else {kind}
        fitting = [each for each in self.of(path) if each.kind in kinds and (each.many or not many)]
        return min(fitting, key=lambda each: each.many, default=None)

    def _free_name(self, path: Path, kind: Kind) -> str:
        slug = re.sub(r"[^A-Za-z0-9_]", "_", "_".join(path))[:_MAX_NAME]
        slug = slug[:1].lower() + slug[1:] if re.match(r"[A-Za-z]", slug) else f"c{slug}"
        if slug in _RESERVED:
            slug += "_"
        digest = hashlib.sha256(json.dumps(path).encode()).hexdigest()[:8]
        names = [slug, f"{slug}__{kind}", f"{slug}__{kind}_list", f"{slug}_{digest}", f"{slug}_{digest}__{kind}"]
        if not self.of(path):
            names = [slug, f"{slug}_{digest}"]
        return next(name for name in [*names, f"{slug}_{digest}__{kind}_list"] if name.lower() not in self.taken)


def is_padded(text: str) -> bool:
    """Tell whether a text has spaces at its ends, which Weaviate would ignore in comparisons."""
    return text != text.strip()


def _values(payload: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Kind, list[Any], bool]]:
    """Yield the values of each column and kind, with True if they come from a list."""
    for key, value in payload.items():
        path = (*above, key)
        if not above and key == RECORD_KEY:
            continue
        if isinstance(value, Mapping):
            yield from _values(value, path)
            continue
        many = isinstance(value, list | tuple)
        entries = list(value) if many else [value]
        numbers = [each for each in entries if isinstance(each, int | float) and not isinstance(each, bool)]
        texts = [each for each in entries if isinstance(each, str)]
        yield path, "text", [each for each in texts if not is_padded(each)], many
        yield path, "padded", [json.dumps(each) for each in texts if is_padded(each)], many
        yield path, "boolean", [each for each in entries if isinstance(each, bool)], many
        yield path, "number", [each for each in map(_float, numbers) if math.isfinite(each)], many
        yield path, "integer", [str(n) for n in numbers if isinstance(n, int) and abs(n) > EXACT_INTEGER], many


def _float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf
