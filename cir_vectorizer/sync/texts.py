"""Texts of objects, whose embeddings are the second vector of an object, `TEXT_VECTOR`.

The text of an object is made of some of its columns. Its record holds a digest of it, so that a run embeds only texts
that are new or changed.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cir_vectorizer.collections import TEXT_VECTOR, Collection, CreateOptions, Info, Vector, single_values, values_at
from cir_vectorizer.errors import CollectionError, QueryError
from cir_vectorizer.markup import without_markup
from cir_vectorizer.query.filters import parse_column


class TextsRefused(CollectionError):
    """Raised before a collection that exists gets its second vector: searches by other programs may need to change."""


@dataclass(frozen=True)
class EncodedText:
    """The embedding of a text, (dim,); `cut` is True if the text was longer than the model's context."""

    vector: Vector
    cut: bool = False


class Texts:
    """The texts of objects: the values of columns, joined.

    Args:
        columns: names of columns, `a.b` for a nested one; without any, no object has a text.
    """

    def __init__(self, columns: Sequence[str] = ()) -> None:
        self.columns = tuple(columns)
        self._paths = {column: _path(column) for column in self.columns}
        self.found = False
        """True if some object had a text."""

    def of(self, columns: Mapping[str, Any]) -> str:
        """Return the text of an object's columns: without HTML and surplus blanks, joined by commas; "" if there is none."""
        parts: list[str] = []
        for column, path in self._paths.items():
            for value in values_at(columns, (column,) if column in columns else path):
                parts += filter(None, map(_part, single_values(value)))
        text = ", ".join(parts)
        self.found = self.found or bool(text)
        return text


def text_digest(text: str) -> str:
    """Return the digest of a text for its object's record: 16 hexadecimal digits; "" for no text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def check_texts(create: CreateOptions, take_over: bool) -> None:
    """Check that the options of a run go together with texts.

    Raises:
        CollectionError: they do not.
    """
    if create.text_columns and create.vectorize == "server":
        raise CollectionError(
            "with --vectorize server the database's server makes the vectors, and it makes none of --text-column; give one"
        )
    if create.text_columns and take_over:
        raise CollectionError(
            "--take-over joins objects of another program, which get no vector of their texts; leave out --text-column"
        )


def texts_of(collection: Collection, info: Info, asked: Sequence[str]) -> Texts:
    """Return the texts of a collection's objects: those of the columns asked for, or else of the noted ones.

    Raises:
        CollectionError: objects of this collection cannot have texts.
    """
    if asked and (info.fingerprint is None or info.picture_column is not None):
        raise CollectionError(
            f"{collection.address} was made by another program, whose objects get no second vector; sync into a new "
            "collection with --text-column: give another --to"
        )
    if asked and info.vectorize == "server":
        raise CollectionError(
            f"the server makes the vectors of {collection.address}, and it makes none of --text-column; sync into a new "
            "collection without --vectorize server: give another --to"
        )
    return Texts(asked or info.text_columns)


def question(collection: Collection, info: Info, texts: Texts) -> str | None:
    """Return why adding these texts needs --yes; None if the collection has the second vector already, or gets none."""
    if info.text_columns or not texts.columns:
        return None
    return (
        f"{collection.address} would get a second vector, {TEXT_VECTOR}: {collection.about_texts()}; run the same command "
        "with --yes to add it"
    )


def _path(column: str) -> tuple[str, ...]:
    try:
        return parse_column(column)
    except QueryError:  # a column's name as it is
        return (column,)


def _part(value: Any) -> str:
    """Return a single value as text; a number becomes one, a truth value does not."""
    if isinstance(value, str):
        return " ".join(without_markup(value).split()).encode("utf-8", "replace").decode()
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(int(value)) if value == int(value) else str(value)
    return ""
