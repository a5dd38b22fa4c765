"""Notes about filters that find nothing because a column holds values of another type than a condition compares."""

from collections.abc import Sequence
from typing import Any

from cir_vectorizer.collections.records import Payload, values_at
from cir_vectorizer.query.filters import Condition, Filter


def filter_notes(where: Filter, payloads: Sequence[Payload]) -> list[str]:
    """Return a sentence for each condition that no object can meet, as far as some objects of the collection show.

    Args:
        payloads: payloads of objects that were found without the filter.
    """
    notes = []
    for condition in where:
        values = [each for payload in payloads for each in values_at(payload, condition.column) if each is not None]
        problem = _problem(condition, values) if values else _missing(condition, payloads)
        if problem:
            notes.append(f"filter: {problem}")
    return notes


def _missing(condition: Condition, payloads: Sequence[Payload]) -> str | None:
    return None if condition.operator == "!=" else without_values(condition.column, payloads)


def without_values(column: tuple[str, ...], payloads: Sequence[Payload]) -> str | None:
    """Return the sentence about a column in which none of these objects has a value; None if one has."""
    if not payloads or any(each is not None for payload in payloads for each in values_at(payload, column)):
        return None
    name = ".".join(column)
    return f"none of the {len(payloads):,} objects looked at has a value in column {name!r}; check the column's name"


def _problem(condition: Condition, values: Sequence[Any]) -> str | None:
    """Return why these values of a condition's column never meet it; None if they may."""
    if condition.operator == "!=":
        return None
    kinds = {_kind(each) for each in values} - {"other"}
    wanted = {"number"}
    if condition.operator in ("=", "in"):
        wanted = {"text"}
        wanted |= {"number" for value in condition.values if value.number is not None}
        wanted |= {"truth" for value in condition.values if value.truth is not None}
    column = ".".join(condition.column)
    held = next((each for each in values if _kind(each) != "other"), None)
    given = " or ".join(repr(value.text) for value in condition.values)
    if kinds and not kinds & wanted:
        if condition.operator not in ("=", "in"):
            return (
                f"column {column!r} holds {_words(held)}, and {condition.operator} compares numbers; compare with =, or have "
                "the table's cells corrected and synced again"
            )
        return f"column {column!r} holds {_words(held)}, which never equals the text {given}; write a value like that, without quotes"
    texts = {each for each in values if isinstance(each, str)}
    folded = {text.casefold(): text for text in texts} if kinds == {"text"} else {}
    for value in condition.values:
        other = folded.get(value.text.casefold())
        if other is not None and value.text not in texts:
            return f"column {column!r} holds the text {other!r}, not {value.text!r}; capital letters count, so write {other!r}"
    return None


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "truth"
    return "number" if isinstance(value, int | float) else "text" if isinstance(value, str) else "other"


def _words(value: Any) -> str:
    """Return the kind of a value with the value, in words."""
    names = {"truth": "true and false", "number": "numbers", "text": "text"}
    kind = _kind(value)
    return names[kind] if kind == "truth" else f"{names[kind]} such as {value!r:.60}"
