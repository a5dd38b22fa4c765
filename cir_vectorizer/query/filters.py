"""The filter language of the command line: conditions on payload columns, joined by `and`.

    colour=red and price<50 and category!=hat and tag in (new, "on sale")

| operator        | holds if                                                                 |
| --------------- | ------------------------------------------------------------------------ |
| `=`  `!=`       | the column (or one entry of its list) equals the value, or does not      |
| `<` `<=` `>` `>=` | the column is a number on that side of it                              |
| `in (a, b, …)`  | the column (or one entry of its list) equals one of the values           |

A value with spaces or one of `( ) , = < > !` needs quotes (' or "). An unquoted 38 equals the number 38 and the text
"38"; an unquoted true equals the boolean and the text; a quoted value is always a text. An unquoted dot in a column's
name leads into a nested object.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal, cast

from cir_vectorizer.errors import QueryError
from cir_vectorizer.identity import EXACT, id_text, whole_number

EXACT_INTEGER = EXACT
"""Largest integer up to which floats, which databases use for ranges, tell neighbouring integers apart."""

TOO_WHOLE = 2**63
"""Smallest integer that databases cannot store; integers from here on are read as text."""

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in"]


@dataclass(frozen=True)
class Value:
    """A value as written, and the number or boolean that it may also mean."""

    text: str
    number: int | float | None = None
    truth: bool | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts that equal the value: the one written, and a whole number's digits (101 for 101.0)."""
        digits = self.text if self.number is None else id_text(self.text)
        return tuple(dict.fromkeys((self.text, digits)))


@dataclass(frozen=True)
class Condition:
    """A comparison: `column` is a path of keys; `values` has one entry unless the operator is `in`."""

    column: tuple[str, ...]
    operator: Operator
    values: tuple[Value, ...]


Filter = tuple[Condition, ...]
"""Conditions that must all hold; an empty filter matches every object."""

_TOKEN = re.compile(
    r"""(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<operator><=|>=|!=|=|<|>)"""
    r"""|(?P<mark>[(),])"""
    r"""|(?P<word>[^\s"'(),=<>!][^\s"(),=<>!]*)"""
)
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


def parse_filter(text: str) -> Filter:
    """Read a filter.

    Raises:
        QueryError: in field `filter`; names the letter (counted from 1) of the first error, and what fits there.
    """
    reader = _Reader(text)
    conditions = [reader.condition()]
    while reader.next_is("word", "and"):
        conditions.append(reader.condition())
    reader.end()
    return tuple(conditions)


def parse_column(text: str) -> tuple[str, ...]:
    """Read a column's name as a filter writes it: `colour`, `maker.city`, `"brand name"`.

    Raises:
        QueryError: in field `column`; it is not a column's name.
    """
    try:
        reader = _Reader(text)
        column = reader.column()
        reader.end()
    except QueryError as error:
        raise QueryError("column", f"{text!r} is no column's name; put quotes around odd names") from error
    return column


def bare_value(text: str) -> Value:
    """Return the value that a word without quotes means."""
    if text.lower() in ("true", "false"):
        return Value(text, truth=text.lower() == "true")
    if not _NUMBER.fullmatch(text):
        return Value(text)
    try:
        whole = whole_number(text)
        number = whole if whole is not None else float(text) if re.search(r"[.eE]", text) else int(text)
        fits = math.isfinite(number) if isinstance(number, float) else abs(number) < TOO_WHOLE
    except ValueError:  # Python refuses integers of thousands of digits
        fits = False
    return Value(text, number) if fits else Value(text)


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0

    def condition(self) -> Condition:
        column = self.column()
        if self.next_is("word", "in"):
            return Condition(column, "in", self._list())
        found = self._take("= != < <= > >= or in (…)", "operator")
        value, token = self._value()
        operator = cast(Operator, found.text)
        if operator not in ("=", "!=") and value.number is None:
            raise _error(
                token,
                f"is no number that databases hold, and {operator} compares numbers; write for example price{operator}50",
            )
        return Condition(column, operator, (value,))

    def column(self) -> tuple[str, ...]:
        name = self._take("a column's name, for example colour=red", "word", "quoted")
        column = tuple(name.text.split(".")) if name.kind == "word" else (name.text,)
        if "" in column:
            raise _error(name, "is no column's name; write for example colour=red, and quotes around odd names")
        return column

    def next_is(self, kind: str, text: str) -> bool:
        """Consume the next token if it is this one, and tell whether it was."""
        token = self._tokens[self._at]
        found = token.kind == kind and token.text.lower() == text
        self._at += found
        return found

    def end(self) -> None:
        self._take("the end, or `and` with one more condition; a value with spaces needs quotes", "end")

    def _list(self) -> tuple[Value, ...]:
        if not self.next_is("mark", "("):
            self._take("( and a list of values, for example tag in (new, sale)", "nothing")
        values = [self._value()[0]]
        while self.next_is("mark", ","):
            values.append(self._value()[0])
        if not self.next_is("mark", ")"):
            self._take("a comma or the closing ); a value with spaces needs quotes", "nothing")
        return tuple(values)

    def _value(self) -> tuple[Value, _Token]:
        token = self._take("a value", "word", "quoted")
        return (Value(token.text) if token.kind == "quoted" else bare_value(token.text)), token

    def _take(self, wanted: str, *kinds: str) -> _Token:
        token = self._tokens[self._at]
        if token.kind == "end" and "end" not in kinds:
            raise QueryError("filter", f"ends too early; expected {wanted}")
        if token.kind not in kinds:
            raise _error(token, f"does not fit; expected {wanted}")
        self._at += token.kind != "end"
        return token


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            problem = (
                "opens a quote that is never closed" if text[at] in "\"'" else "is no operator; != means not equal"
            )
            raise _error(_Token("odd", text[at], at + 1), problem)
        kind = match.lastgroup or ""
        content = re.sub(r"\\(.)", r"\1", match[0][1:-1]) if kind == "quoted" else match[0]
        tokens.append(_Token(kind, content, at + 1))
        at = match.end()
    return [*tokens, _Token("end", "", len(text) + 1)]


def _error(token: _Token, problem: str) -> QueryError:
    return QueryError("filter", f"at letter {token.position}: {token.text!r} {problem}")
