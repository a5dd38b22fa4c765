"""A table of pictures, local or remote."""

import contextlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections import RECORD_KEY, Id
from cir_vectorizer.errors import ImageError, QueryError, SourceError
from cir_vectorizer.identity import id_text, lost_digits, whole_number
from cir_vectorizer.query.filters import parse_column
from cir_vectorizer.redaction import cause, without_user
from cir_vectorizer.sources.base import Failure, Item, is_picture, stable_id, version_of
from cir_vectorizer.sources.cells import Pictures, by_product, image_column, more_pictures, product_column
from cir_vectorizer.sources.pictures import is_url
from cir_vectorizer.sources.places import Places, key_of
from cir_vectorizer.sources.rows import Row, Rows
from cir_vectorizer.sources.types import ColumnTypes, is_filled
from cir_vectorizer.sources.web import Web


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

    The picture's cell holds a path relative to the table, a URL, a data URI, or (parquet) bytes, or a list of them: then
    `pictures` says whether the first becomes the row's object, or each an object of its own. The cells of a csv become
    numbers and truth values as `types` says; empty cells and unnamed columns are left out. Ids are whole numbers or texts
    as they are spelled, never fractions.

    Raises:
        SourceError: the table cannot be read, or lacks a column that was asked for.
    """

    skipped = 0

    def __init__(
        self,
        file: TableFile,
        suffix: str,
        web: Web,
        image_column: str | None = None,
        id_column: str | None = None,
        pictures: Pictures | None = None,
        text_columns: Sequence[str] = (),
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
        self._more_pictures = more_pictures(columns, self._image)
        self._id = self._column("--id-column", id_column, columns)
        for name in text_columns:
            self._check_text_column(name, columns)
        self._pictures = pictures or "first"
        self._by_default = pictures is None
        product = product_column(columns, self._image)
        self._product = product if self._id in (None, product) else None
        if self._id and pictures == "each":
            self._product = self._id
        self._more_named = 0
        if RECORD_KEY in columns:
            raise SourceError(
                f"{self.name} has a column {RECORD_KEY!r}, which sync needs for itself; rename the column"
            )
        if other := next((name for name in self._rows.binary_columns() if name != self._image), None):
            raise SourceError(
                f"{self.name} has bytes in column {other!r}, which databases do not hold; drop the column"
            )

    def count(self) -> int:
        """Read the table once: count its entries, find the columns' types, and check that ids are unique."""
        self._file.refresh()
        count = 0
        keys, numbers = array("Q"), array("Q")
        seen = _Seen(ColumnTypes(self._rows.decimal_comma), self._rows.untyped)
        for number, entry in self._entries(self._typing(seen)):
            count += 1
            if isinstance(entry, Failure) and entry.reason == "row" and entry.id is None:
                continue
            self.far |= isinstance(entry, Item) and not entry.picture.near
            # without an id column, several rows that fail may name the same picture
            if entry.id is not None and (self._id or isinstance(entry, Item)):
                keys.append(version_of(str(entry.id)))
                numbers.append(number)
        if seen.unread is not None and not seen.readable:
            raise self._unreadable(seen.unread)
        self._types, self._type_notes, self._whole_ids = seen.types, seen.types.decide(), seen.whole_ids
        self._check_unique(np.frombuffer(keys, np.uint64), np.frombuffer(numbers, np.uint64))
        return count

    def items(self) -> Iterator[Item | Failure]:
        for _, entry in self._entries(self._rows):
            yield entry

    @property
    def notes(self) -> list[str]:
        notes = []
        if self._rows.headless:
            notes.append(
                f"the first row of {self.name} names no columns, so they are called 1, 2, …; the pictures are in "
                f"{self._image}"
            )
        if self._more_named and self._by_default:
            rows = "1 row" if self._more_named == 1 else f"{self._more_named:,} rows"
            notes.append(
                f"in {rows} of {self.name} several pictures are named, and only the first is indexed; give --pictures each "
                "for an object of each"
            )
        return [*self._rows.notes, *notes, *self._type_notes]

    @property
    def nothing(self) -> str:
        columns = self._rows.columns()
        return (
            f"{self.name} was read as {self._rows.kind}, which has no rows below the names of its columns "
            f"({_listed(columns)}); check that its export came to an end"
        )

    def still_has(self, location: str) -> bool:
        return False

    def close(self) -> None:
        self._file.close()

    def _check_unique(self, keys: npt.NDArray[np.uint64], numbers: npt.NDArray[np.uint64]) -> None:
        order = np.argsort(keys, kind="stable")
        twice = np.flatnonzero(keys[order][1:] == keys[order][:-1])
        pairs = sorted((int(numbers[order[i + 1]]), int(numbers[order[i]])) for i in twice)
        for later, earlier in pairs:
            first: set[Id | None] = set()
            for number, entry in self._entries(self._rows):
                if number == earlier:
                    first.add(entry.id)
                elif number == later and entry.id is not None and entry.id in first:
                    self._duplicate(earlier, later, entry)

    def _duplicate(self, earlier: int, later: int, entry: Item | Failure) -> NoReturn:
        if self._id:
            value = next((row[self._id] for number, row in self._rows if number == later and isinstance(row, dict)), "")
            remedy = f"both have the {self._id!r} {id_text(value)!r}; make the ids unique"
            if self._pictures == "first":
                remedy += ", or give --pictures each if they hold several pictures of one product"
        else:
            cell = entry.name[:100] if isinstance(entry, Item) else ""
            remedy = f"both name the picture {cell!r}; remove one, or tell the rows apart with --id-column"
        raise SourceError(f"{self.name}: rows {earlier:,} and {later:,} would be the same object: {remedy}")

    def _typing(self, seen: "_Seen") -> Iterator[tuple[int, Row | Failure]]:
        """Yield all rows, and note in `seen` what they are like."""
        apart = (self._image, self._id)
        for number, row in self._rows:
            if isinstance(row, Failure):
                seen.unread = seen.unread or row
            else:
                seen.readable = True
                if self._rows.untyped:
                    seen.types.see(number, row, apart)
                    cell = row.get(self._id) if self._id else None
                    seen.whole_ids = seen.whole_ids and (cell in (None, "") or _small(whole_number(cell)))
            yield number, row

    def _entries(self, rows: Iterable[tuple[int, Row | Failure]]) -> Iterator[tuple[int, Item | Failure]]:
        """Yield each entry with the number of its row; of a product's equal pictures, only the first."""
        if self._product:
            rows = by_product(rows, self._product, self._image, self._pictures)
        self._more_named = 0
        product: Any = None
        seen: set[Id] = set()
        for number, row in rows:
            if isinstance(row, Failure):
                yield number, row
                continue
            cells = self._cells(row)
            if self._pictures == "first":
                self._more_named += len(cells) > 1
                yield number, self._entry(number, row, cells[0] if cells else None)
                continue
            if self._product is None or row.get(self._product) != product:
                product, seen = row.get(self._product) if self._product else None, set()
            for cell in cells or [None]:
                entry = self._entry(number, row, cell)
                if entry.id is None or entry.id not in seen:
                    yield number, entry
                if entry.id is not None:
                    seen.add(entry.id)

    def _cells(self, row: Row) -> list[Any]:
        """Return the pictures that a row names."""
        more = self._more_pictures if self._pictures == "each" else ()
        return [cell for column in (self._image, *more) for cell in self._places.listed(self._filled(row, column))]

    def _entry(self, number: int, row: Row, cell: Any) -> Item | Failure:
        place = self._rows.place(number)
        product: str | None = None
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
            whole, product = whole_number(value), id_text(value)
            id_ = stable_id(product) if self._pictures == "first" else None
        of_id = whole if self._pictures == "first" else None
        """The whole number that the object's id is made of alone."""
        if cell is None:
            return Failure(
                place, "missing", f"has no picture in column {self._image!r}; fill it, or drop the row", id_, of_id
            )
        if not isinstance(cell, str | bytes | dict):
            return Failure(place, "row", f"has no text in column {self._image!r}; give the picture's path", id_, of_id)
        try:
            picture, key = self._places.picture(cell)
        except ImageError as error:
            if id_ is None and (known := key_of(cell)) is not None:
                id_ = _picture_id(product, known)
            return Failure(place, error.reason, f"holds a picture that {error}", id_, of_id)
        if self._rows.untyped:
            columns = self._types.typed(row, apart=self._image)
        else:
            columns = {column: value for column, value in row.items() if column != self._image and value != ""}
        if self._id:
            columns[self._id] = self._id_value(row[self._id], whole)
        name = without_user(cell) if isinstance(cell, str) and not picture.held else place
        return Item(_picture_id(product, key) if id_ is None else id_, picture, name, columns, number=of_id)

    def _filled(self, row: Row, column: str) -> Any:
        """Return the value of a column; None if the cell is empty."""
        value = row.get(column)
        empty = not is_filled(value) if self._rows.untyped and isinstance(value, str) else value == ""
        return None if empty else value

    def _id_value(self, value: Any, number: int | None) -> Any:
        """Return an id for the payload: the same value for all spellings of a whole number, else the cell as it is."""
        if number is None:
            return value
        return number if self._whole_ids or not isinstance(value, str) else str(number)

    def _unreadable(self, first: Failure) -> SourceError:
        return SourceError(f"no row of {self.name} can be read: the first one {first.sentence}")

    def _column(self, option: str, name: str | None, columns: Sequence[str]) -> str | None:
        if name is not None and name.strip() in columns:
            return name if name in columns else name.strip()
        if name is not None and name not in columns and name not in (columns := self._rows.columns(name)):
            raise SourceError(f"{self.name} has no column {name!r}; {option} is one of: {_listed(columns)}")
        return name

    def _check_text_column(self, name: str, columns: Sequence[str]) -> None:
        if name == self._image:
            rest = _listed([each for each in columns if each != name])
            raise SourceError(f"column {name!r} of {self.name} holds the pictures; --text-column is one of: {rest}")
        outer = name
        if name not in columns and not self._rows.untyped:
            with contextlib.suppress(QueryError):  # an odd name
                outer, *_ = parse_column(name)
        self._column("--text-column", outer, columns)

    def _guess(self, columns: Sequence[str]) -> str:
        if (name := image_column(columns)) is not None:
            return name
        sample = self._rows.sample() or {} if self._rows.headless else {}
        named = next((column for column, cell in sample.items() if is_url(cell) or is_picture(cell)), None)
        if named is not None:
            return named
        if not columns:
            first = next((row for _, row in self._rows), None)
            if isinstance(first, Failure):
                raise self._unreadable(first)
            raise SourceError(
                f"{self.name} was read as {self._rows.kind}, which is empty; check that its export came to an end"
            )
        if self._rows.untyped and len(columns) == 1:
            raise SourceError(
                f"{self.name} has one column, {columns[0]!r}, which does not name pictures; if its cells are separated, do it "
                "with commas, semicolons, tabs or bars, or name the separator in a first line such as sep=^"
            )
        raise SourceError(
            f"{self.name} has no column that is clearly the picture's; give --image-column, one of: {_listed(columns)} (it was "
            f"read as {self._rows.kind}; --format reads it as another)"
        )


def _picture_id(product: str | None, key: str) -> Id:
    """Return the id of a picture's own object: of the picture alone, or of the picture as one of a product's."""
    return stable_id(key if product is None else f"{product}\n{key}")


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "none at all"


def _small(number: int | None) -> bool:
    """Tell whether a number is one that JSON and all databases hold."""
    return number is not None and abs(number) < 10**18


@dataclass
class _Seen:
    """Facts about the rows of a table, while they are read for the first time."""

    types: ColumnTypes
    whole_ids: bool
    unread: Failure | None = None
    readable: bool = False
