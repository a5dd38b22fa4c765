"""Ids by value: a whole number is the same id however it is written or typed (101, 101.0, " 101 ")."""

import re
from numbers import Integral, Real

EXACT = 2**53
"""Smallest whole number from which floating-point numbers, and numbers in JavaScript, confuse neighbours."""

_WHOLE = re.compile(r"\s*(-?(?:0|[1-9][0-9]*))(\.0+)?\s*")  # \s: also the no-break spaces of web pages
_SHORTENED = re.compile(r"\s*-?\d(\.\d+)?[eE]\+\d+\s*", re.ASCII)
_WRITTEN = [f"{left}{{}}{zeros}{right}" for zeros in ("", ".0", ".00") for left in ("", " ") for right in ("", " ")]
_MOST_DIGITS = 40


def whole_number(value: object) -> int | None:
    """Return the whole number that a value is; None if it is something else.

    A text is a whole number if it is written as one: digits without leading zeros, perhaps followed by `.0`, perhaps
    with blanks around. Codes such as 007, 12.10 and 1e3 are not.
    """
    if isinstance(value, str):
        found = _WHOLE.fullmatch(value) if len(value) <= _MOST_DIGITS else None
        return int(found[1]) if found else None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if isinstance(value, Integral):
        return int(value)
    return int(float(value)) if float(value).is_integer() else None


def id_text(value: object) -> str:
    """Return an id as text: a whole number as its digits, anything else as it is spelled."""
    number = whole_number(value)
    return str(value) if number is None else str(number)


def lost_digits(value: object) -> bool:
    """Tell whether a number may have lost its last digits, as a floating-point number or in a spreadsheet."""
    if isinstance(value, str):
        if _SHORTENED.fullmatch(value):
            return True
        if "." not in value:
            return False
    elif isinstance(value, Integral):
        return False
    number = whole_number(value)
    return number is not None and abs(number) >= EXACT and int(float(number)) == number


def spellings(number: int) -> list[str]:
    """Return the texts that tables have for a whole number, its digits first; releases up to 0.1.0 made an id of each."""
    return [written.format(number) for written in _WRITTEN]


def json_id(id_: str | int) -> dict[str, str | int]:
    """Return the id in an answer: `id` and, always as text, `id_text`.

    `id` too is text where JavaScript would round the number.
    """
    exact = isinstance(id_, str) or abs(id_) < EXACT
    return {"id": id_ if exact else str(id_), "id_text": str(id_)}
