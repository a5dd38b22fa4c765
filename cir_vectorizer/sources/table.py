"""A table of pictures, local or remote."""

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections import RECORD_KEY, Id
from cir_vectorizer.errors import ImageError, SourceError
from cir_vectorizer.identity import id_text, lost_digits, whole_number
from cir_vectorizer.redaction import cause, without_user
from cir_vectorizer.sources.base import Failure, Item, is_picture, stable_id, version_of
from cir_vectorizer.sources.pictures import is_url
from cir_vectorizer.sources.places import Places, key_of
from cir_vectorizer.sources.rows import Row, Rows
from cir_vectorizer.sources.types import NONE, ColumnTypes
from cir_vectorizer.sources.web import Web

IMAGE_COLUMNS = (
    "image",
    "image_path",
    "img",
    "picture",
    "photo",
    "path",
    "file",
    "filename",
    "file_name",
    "image_url",
    "url",
)
"""Names of columns that are taken for a table's image column, most likely first; case does not matter."""


class TableFile(Protocol):
    """The file of a table, local or remote."""

    name: str
    identity: str
    base: str
    """Folder or URL that relative paths start at, including credentials."""

    def refresh(self) -> None:
        """Fetch the file's present content."""

    def open(self) -> IO[bytes]:
        """Return a new stream from the start."""

    def close(self) -> None:
        """Release what the file holds, such as a download."""


class LocalTable:
    """The file of a table on this machine."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.identity = os.path.abspath(path)
        self.base = os.path.dirname(self.identity)

    def refresh(self) -> None:
        """Do nothing: each `open` reads the file as it is now."""

    def open(self) -> IO[bytes]:
        try:
            return open(self.identity, "rb")
        except OSError as error:
            raise SourceError(f"{self.name} cannot be read ({cause(error)}); check the file") from error

    def close(self) -> None:
        """Do nothing: no file stays open."""


class TableSource:
    """The rows of a table: one column names the picture, the others are its payload.

    The picture's cell holds a path relative to the table, a URL, a data URI, or (parquet) bytes. The cells of a csv
    become numbers and truth values as `types` says; empty cells and unnamed columns are left out. Ids are whole numbers or
    texts as they are spelled, never fractions.

    Raises:
        SourceError: the table cannot be read, or lacks a column that was asked for.
    """

    skipped = 0

    def __init__(
        self, file: TableFile, suffix: str, web: Web, image_column: str | None = None, id_column: str | None = None
    ) -> None:
        self.name = file.name
        self.identity = file.identity
        self.far = False
        self._file = file
        self._rows = Rows(file.name, suffix, file.open)
        self._places = Places(file.base, web)
        self._whole_ids = False
        """True if all ids of a csv are whole numbers, so that the payload has them as numbers."""
        self._types = ColumnTypes()
        self._type_notes: list[str] = []
        columns = self._rows.columns()
        self._image = self._column("--image-column", image_column, columns) or self._guess(columns)
        self._id = self._column("--id-column", id_column, columns)
        if RECORD_KEY in columns:
            raise SourceError(
                f"{self.name} has a column {RECORD_KEY!r}, which sync needs for itself; rename the column"
            )
        if other := next((name for name in self._rows.binary_columns() if name != self._image), None):
            raise SourceError(
                f"{self.name} has bytes in column {other!r}, which databases do not hold; drop the column"
            )

    def count(self) -> int:
        """Read the table once: count its rows, find the columns' types, and check that ids are unique."""
        self._file.refresh()
        count = 0
        keys, numbers = array("Q"), array("Q")
        whole_ids = self._rows.untyped
        types = ColumnTypes(self._rows.decimal_comma)
        unread: Failure | None = None
        readable = False
        for number, row in self._rows:
            count += 1
            if isinstance(row, Failure):
                unread = unread or row
                continue
            readable = True
            if self._rows.untyped:
                types.see(number, {column: cell for column, cell in row.items() if column != self._id})
                if self._id:
                    cell = row.get(self._id)
                    whole_ids = whole_ids and (cell in (None, "") or _small(whole_number(cell)))
            entry = self._entry(number, row)
            self.far |= isinstance(entry, Item) and not entry.picture.near
            # without an id column, several rows that fail may name the same picture
            if entry.id is not None and (self._id or isinstance(entry, Item)):
                keys.append(version_of(str(entry.id)))
                numbers.append(number)
        self._whole_ids = whole_ids
        if unread is not None and not readable:
            raise SourceError(f"no row of {self.name} can be read: the first one {unread.sentence}")
        self._types, self._type_notes = types, types.decide()
        self._check_unique(np.frombuffer(keys, np.uint64), np.frombuffer(numbers, np.uint64))
        return count

    def items(self) -> Iterator[Item | Failure]:
        for number, row in self._rows:
            yield row if isinstance(row, Failure) else self._entry(number, row)

    @property
    def notes(self) -> list[str]:
        headless = (
            f"the first row of {self.name} names no columns, so they are called 1, 2, …; the pictures are in "
            f"{self._image}"
        )
        return [*([headless] if self._rows.headless else []), *self._type_notes]

    def still_has(self, location: str) -> bool:
        return False

    def close(self) -> None:
        self._file.close()

    def _check_unique(self, keys: npt.NDArray[np.uint64], numbers: npt.NDArray[np.uint64]) -> None:
        order = np.argsort(keys, kind="stable")
        twice = np.flatnonzero(keys[order][1:] == keys[order][:-1])
        pairs = sorted((int(numbers[order[i + 1]]), int(numbers[order[i]])) for i in twice)
        for later, earlier in pairs:
            rows = [row for number, row in self._rows if number in (earlier, later) and isinstance(row, dict)]
            if len(rows) < 2:
                continue  # the table was edited while it was read
            first, second = (self._entry(number, row) for number, row in zip((earlier, later), rows, strict=True))
            if first.id == second.id is not None:
                self._duplicate(earlier, later, rows[1])

    def _duplicate(self, earlier: int, later: int, row: Row) -> NoReturn:
        if self._id:
            remedy = f"both have the {self._id!r} {id_text(row[self._id])!r}; make the ids unique"
        else:
            cell = str(row[self._image])[:100]
            remedy = f"both name the picture {cell!r}; remove one, or tell the rows apart with --id-column"
        raise SourceError(f"{self.name}: rows {earlier:,} and {later:,} would be the same object: {remedy}")

    def _entry(self, number: int, row: Row) -> Item | Failure:
        place = self._rows.place(number)
        id_: Id | None = None
        whole: int | None = None
        if self._id:
            value = self._filled(row, self._id)
            if value is None:
                return Failure(place, "id", f"has no id in column {self._id!r}; fill it, or drop the row")
            if lost_digits(value):
                sentence = (
                    f"has the id {value} in column {self._id!r}, a number that may have lost its last digits; write the "
                    "column as whole numbers or as text"
                )
                return Failure(place, "id", sentence)
            whole = whole_number(value)
            id_ = stable_id(id_text(value))
        cell = self._filled(row, self._image)
        if cell is None:
            return Failure(
                place, "missing", f"has no picture in column {self._image!r}; fill it, or drop the row", id_, whole
            )
        if not isinstance(cell, str | bytes | dict):
            return Failure(place, "row", f"has no text in column {self._image!r}; give the picture's path", id_, whole)
        try:
            picture, key = self._places.picture(cell)
        except ImageError as error:
            if id_ is None and (known := key_of(cell)) is not None:
                id_ = stable_id(known)
            return Failure(place, error.reason, f"holds a picture that {error}", id_, whole)
        columns: dict[str, Any] = {}
        for column, value in row.items():
            if column == self._image:
                continue
            if column == self._id:
                value = None if value == "" else self._id_value(value, whole)
            elif self._rows.untyped:
                value = self._types.typed(column, value)
            elif value == "":
                value = None
            if value is not None or not (self._rows.untyped or column == self._id):
                columns[column] = value
        name = without_user(cell) if isinstance(cell, str) and not picture.held else place
        return Item(stable_id(key) if id_ is None else id_, picture, name, columns, number=whole)

    def _id_value(self, value: Any, number: int | None) -> Any:
        """Return an id for the payload: the same value for all spellings of a whole number, else the cell as it is."""
        if number is None:
            return value
        return number if self._whole_ids or not isinstance(value, str) else str(number)

    def _filled(self, row: Row, column: str) -> Any:
        """Return the value of a column; None if the cell is empty."""
        value = row.get(column)
        return None if value == "" or (self._rows.untyped and value in NONE) else value

    def _column(self, option: str, name: str | None, columns: Sequence[str]) -> str | None:
        if name is not None and name not in columns and name not in (columns := self._rows.columns(name)):
            raise SourceError(f"{self.name} has no column {name!r}; {option} is one of: {_listed(columns)}")
        return name

    def _guess(self, columns: Sequence[str]) -> str:
        by_name = {column.strip().lower(): column for column in reversed(columns)}
        for name in IMAGE_COLUMNS:
            if name in by_name:
                return by_name[name]
        sample = self._rows.sample() or {} if self._rows.headless else {}
        if (
            named := next((name for name, cell in sample.items() if is_url(cell) or is_picture(cell)), None)
        ) is not None:
            return named
        raise SourceError(
            f"{self.name} has no column that is clearly the picture's; give --image-column, one of: {_listed(columns)}"
        )


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "none at all"


def _small(number: int | None) -> bool:
    """Tell whether a number is one that JSON and all databases hold."""
    return number is not None and abs(number) < 10**18
