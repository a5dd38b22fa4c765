"""Conversion of the core's conditions to Weaviate's filter.

Conditions mean the same as in Qdrant: an object without a column fails every = and meets every != on that column.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from weaviate.classes.query import Filter as Weaviate
from weaviate.collections.classes.filters import _Filters

from cir_vectorizer.collections import RECORD_KEY
from cir_vectorizer.errors import QueryError
from cir_vectorizer.query.filters import EXACT_INTEGER, Condition, Filter, Value

Kind = Literal["text", "number", "boolean", "integer", "padded", "int", "other"]
"""Kinds of comparison: those of `columns.Kind`, and for other programs' properties "int" and "other" (no filters)."""

HAS_TEXT = f"{RECORD_KEY}_has_text"
"""Property that marks an object with a text's vector: Weaviate has no filter for objects without a vector."""
NOWHERE = UUID(int=0)
"""An id that no object has."""

_KINDS: Mapping[str, Kind] = {
    "text": "text",
    "uuid": "text",
    "date": "text",
    "number": "number",
    "int": "int",
    "boolean": "boolean",
}


@dataclass(frozen=True)
class Field:
    """A property to compare with, and its kind of comparison."""

    name: str
    kind: Kind


Fields = Callable[[tuple[str, ...]], list[Field]]
"""Function that returns the properties of a column; none if the column does not exist."""


def kind_of(data_type: str) -> Kind:
    """Return the kind of comparison for a Weaviate type; a list is compared like its entries."""
    return _KINDS.get(data_type.removesuffix("[]"), "other")


def everywhere() -> _Filters:
    """Return a filter that every object passes; it makes Weaviate compare with each object of a small collection."""
    return Weaviate.by_id().not_equal(NOWHERE)


def without_text(filters: _Filters | None) -> _Filters:
    """Return a filter that objects pass if they pass `filters` and are not marked to have a text."""
    unmarked = Weaviate.by_property(HAS_TEXT).not_equal(True)
    return unmarked if filters is None else Weaviate.all_of([filters, unmarked])


def to_weaviate(where: Filter, fields: Fields, without: Sequence[str] = ()) -> _Filters | None:
    """Convert conditions that must all hold to a Weaviate filter; None if every object passes.

    Args:
        without: UUIDs of objects to leave out.

    Raises:
        QueryError: a column has a type that cannot be filtered by.
    """
    filters = [made for condition in where if (made := _condition(condition, fields)) is not None]
    filters += [Weaviate.by_id().not_equal(uuid) for uuid in without]
    return Weaviate.all_of(filters) if filters else None


def _condition(condition: Condition, fields: Fields) -> _Filters | None:
    """Return the filter for one condition; None if every object meets it."""
    found = fields(condition.column)
    for field in found:
        if field.kind == "other":
            column = ".".join(condition.column)
            raise QueryError("filter", f"column {column!r} has a type that filters do not reach; leave it out")
    if condition.operator == "!=":
        tests = [test for field in found for test in _equals(field, condition.values[0], negated=True)]
        return Weaviate.all_of(tests) if tests else None
    if condition.operator in ("=", "in"):
        tests = [test for value in condition.values for field in found for test in _equals(field, value)]
    else:
        bound = condition.values[0].number
        assert bound is not None
        tests = [test for field in found for test in _ranges(field, condition.operator, bound)]
    return Weaviate.any_of(tests) if tests else Weaviate.by_id().equal(NOWHERE)


def _equals(field: Field, value: Value, negated: bool = False) -> list[_Filters]:
    """Return the comparisons of a property with a written value, read as a value of the property's kind."""
    number = value.number
    exact = isinstance(number, int) and abs(number) > EXACT_INTEGER
    wanted: str | float | bool | None = None
    target = Weaviate.by_property(field.name)
    padded = value.text != value.text.strip()
    if field.kind == "text" and not padded:
        return [target.not_equal(text) if negated else target.equal(text) for text in value.texts]
    if field.kind == "padded" and padded:
        wanted = json.dumps(value.text)
    elif field.kind == "integer" and exact:
        wanted = str(number)
    elif field.kind == "boolean":
        wanted = value.truth
    elif field.kind == "number" and number is not None and not exact:
        wanted = float(number)
    elif field.kind == "int" and number is not None and float(number).is_integer():
        wanted = int(number)
    if wanted is None:
        return []
    return [target.not_equal(wanted) if negated else target.equal(wanted)]


def _ranges(field: Field, operator: str, bound: int | float) -> list[_Filters]:
    target = Weaviate.by_property(field.name)
    if field.kind == "number":
        limit = float(bound)
        sides = {
            "<": target.less_than,
            "<=": target.less_or_equal,
            ">": target.greater_than,
            ">=": target.greater_or_equal,
        }
        return [sides[operator](limit)]
    if field.kind == "int":
        whole = {"<": math.ceil(bound), "<=": math.floor(bound), ">": math.floor(bound), ">=": math.ceil(bound)}
        sides = {
            "<": target.less_than,
            "<=": target.less_or_equal,
            ">": target.greater_than,
            ">=": target.greater_or_equal,
        }
        return [sides[operator](whole[operator])]
    return []
