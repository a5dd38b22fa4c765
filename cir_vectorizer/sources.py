"""What there is to index: a folder of pictures, or a table with a column of pictures.

A source names each picture once, under an id that stays the same from run to run. It reads no picture.
"""

import csv
import json
import math
import os
import posixpath
import re
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from cir_vectorizer.collections import RECORD_KEY
from cir_vectorizer.errors import SourceError

PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .avif .heic .heif .tif .tiff .bmp .jp2 .j2k .jpx .mpo .ppm .pgm .pbm .pnm "
    ".svg .eps .psd .ico .tga .jxl .dng .cr2 .cr3 .nef .arw".split()
)
"""Files that a folder's listing takes for pictures; what they really hold shows when they are opened, and those of kinds
that are not read (the second row) are reported instead of passed over."""

IMAGE_COLUMNS = ("image", "image_path", "img", "picture", "photo", "path", "file", "filename", "file_name")
"""Names, in this order and in any case, by which a table's image column is guessed."""

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_NAMESPACE = uuid.UUID("8a1b7a3e-52c6-5f0e-9d3c-6c1f1f0f6d0b")
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)\.\d+([eE][+-]?\d{1,2})?")
_INT64 = 2**63


@dataclass(frozen=True)
class Item:
    """A picture to index: its id, where it is, its name in reports, and the user's columns (JSON values)."""

    id: str
    path: Path
    name: str
    columns: dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """What could not be indexed: `reason` is a short code, `sentence` goes after the path."""

    path: str
    reason: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.path} {self.sentence}"


class Source(Protocol):
    """Where pictures come from. `items` may be called again and then lists anew."""

    @property
    def name(self) -> str:
        """As the user wrote it."""

    @property
    def skipped(self) -> int:
        """Files passed over by the last listing because they are no pictures."""

    def count(self) -> int:
        """How many entries `items` will give, for a progress bar.

        Raises:
            SourceError: the source as a whole cannot be indexed.
        """

    def items(self) -> Iterator[Item | Failure]:
        """Each picture once; an entry that cannot be indexed is a Failure, and the listing goes on."""


def open_source(path: Path, image_column: str | None = None, id_column: str | None = None) -> Source:
    """A folder, or a table told by its suffix (.csv, .tsv, .jsonl).

    Args:
        image_column: of a table; guessed by name if None.
        id_column: of a table; ids come from the picture's path if None.

    Raises:
        SourceError: there is nothing to read, or not of a known kind.
    """
    if path.is_dir():
        if image_column or id_column:
            raise SourceError(f"{path} is a folder, which has no columns; leave out --image-column and --id-column")
        return FolderSource(path)
    if not path.exists():
        raise SourceError(f"{path} does not exist; give a folder of pictures, or a .csv, .tsv or .jsonl table")
    if path.suffix.lower() not in (*_SEPARATORS, *_JSON_LINES):
        raise SourceError(f"{path} is neither a folder nor a table; tables end in .csv, .tsv or .jsonl")
    return TableSource(path, image_column, id_column)


def stable_id(key: str) -> str:
    """The object's id for a key of the source: the same key gives the same UUID on every machine."""
    return str(uuid.uuid5(_NAMESPACE, key))


class FolderSource:
    """The pictures under a folder, told by suffix; hidden files and folders are passed over.

    Linked folders are followed after all real ones, and no folder is listed twice, so loops end.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self.name = str(root)
        self.skipped = 0
        try:
            os.scandir(self.root).close()
        except OSError as error:
            raise SourceError(f"{root} cannot be listed ({_cause(error)}); check its permissions") from error

    def count(self) -> int:
        return sum(1 for _ in self._names())

    def items(self) -> Iterator[Item | Failure]:
        for name in self._names():
            if isinstance(name, Failure):
                yield name
            elif name != _printable(name):
                yield Failure(_printable(name), "path", "has a name that is not UTF-8; rename it")
            else:
                yield Item(stable_id(name), self.root / name, name, {})

    def _names(self) -> Iterator[str | Failure]:
        """Paths of the pictures relative to the root, with slashes."""
        self.skipped = 0
        seen = {_identity(parent) for parent in self.root.resolve().parents}
        folders, links = [""], deque[str]()
        while folders or links:
            folder = folders.pop() if folders else links.popleft()
            try:
                identity = _identity(self.root / folder)
                if identity in seen:
                    continue
                seen.add(identity)
                files, inner, linked = _listing(self.root / folder)
            except OSError as error:
                yield Failure(
                    _printable(folder), "directory", f"cannot be listed ({_cause(error)}); check its permissions"
                )
                continue
            folders.extend(posixpath.join(folder, name) for name in reversed(inner))
            links.extend(posixpath.join(folder, name) for name in linked)
            for name in files:
                if posixpath.splitext(name)[1].lower() in PICTURE_SUFFIXES:
                    yield posixpath.join(folder, name)
                else:
                    self.skipped += 1


class TableSource:
    """The rows of a table: one column names the picture, the others are its payload.

    Paths are relative to the table. A csv column becomes numbers only if every filled cell of it is a number
    as JSON would write it (so 007 keeps a column of codes as text); empty cells and unnamed columns are left out.
    """

    def __init__(self, path: Path, image_column: str | None = None, id_column: str | None = None) -> None:
        self.name = str(path)
        self.skipped = 0
        self._path = Path(os.path.abspath(path))
        self._separator = _SEPARATORS.get(path.suffix.lower())
        self._numbers: dict[str, type[int] | type[float]] = {}
        columns = self._columns()
        self._image = self._column("--image-column", image_column, columns) or self._guess(columns)
        self._id = self._column("--id-column", id_column, columns)
        if RECORD_KEY in columns:
            raise SourceError(f"{path} has a column {RECORD_KEY!r}, which sync needs for itself; rename the column")

    def count(self) -> int:
        """Read the table once: how many rows, which columns are numbers, and whether every id is there once."""
        count = 0
        first_row: dict[bytes, int] = {}
        kinds: dict[str, type[int] | type[float] | None] = {}
        for number, row in self._rows():
            count += 1
            entry = row if isinstance(row, Failure) else self._entry(number, row)
            if isinstance(row, dict) and self._separator:
                for column, cell in row.items():
                    kinds[column] = _wider(kinds.get(column, int), cell)
            if isinstance(entry, Item):
                earlier = first_row.setdefault(uuid.UUID(entry.id).bytes, number)
                if earlier != number:
                    self._duplicate(earlier, number, entry)
        self._numbers = {column: kind for column, kind in kinds.items() if kind is not None}
        return count

    def items(self) -> Iterator[Item | Failure]:
        for number, row in self._rows():
            yield row if isinstance(row, Failure) else self._entry(number, row)

    def _duplicate(self, earlier: int, later: int, item: Item) -> NoReturn:
        if self._id:
            remedy = f"both have the {self._id!r} of {item.name!r}; make the ids unique"
        else:
            remedy = f"both name the picture {item.name!r}; remove one, or tell the rows apart with --id-column"
        raise SourceError(f"{self.name}: rows {earlier:,} and {later:,} would be the same object: {remedy}")

    def _entry(self, number: int, row: dict[str, Any]) -> Item | Failure:
        place = f"{self.name}, row {number:,}"
        cell = row.get(self._image)
        if cell is None or cell == "":
            return Failure(place, "missing", f"has no picture in column {self._image!r}; fill it, or drop the row")
        if not isinstance(cell, str):
            return Failure(place, "row", f"has no text in column {self._image!r}; give the picture's path")
        if re.match(r"(https?://|data:)", cell, re.IGNORECASE):
            return Failure(place, "url", "names a picture by URL, which is not fetched; download it and give its path")
        key = posixpath.normpath(cell)
        if self._id:
            value = row.get(self._id)
            key = "" if value is None else str(value)
            if not key:
                return Failure(place, "id", f"has no id in column {self._id!r}; fill it, or drop the row")
        columns = {
            column: self._typed(column, value) for column, value in row.items() if column != self._image and value != ""
        }
        return Item(stable_id(key), self._path.parent / cell, cell, columns)

    def _typed(self, column: str, value: Any) -> Any:
        return self._numbers[column](value) if column in self._numbers else value

    def _rows(self) -> Iterator[tuple[int, dict[str, Any] | Failure]]:
        """Rows counted from 1 without the header; blank lines do not count."""
        with self._opened() as stream:
            yield from enumerate(self._csv_rows(stream) if self._separator else self._json_rows(stream), start=1)

    @contextmanager
    def _opened(self) -> Iterator[Iterable[str]]:
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as stream:
                yield stream
        except (OSError, csv.Error) as error:
            raise SourceError(f"{self.name} cannot be read ({_cause(error)}); check the file") from error
        except UnicodeDecodeError as error:
            raise SourceError(f"{self.name} is not UTF-8 (byte {error.start}); save it as UTF-8") from error

    def _csv_rows(self, stream: Iterable[str]) -> Iterator[dict[str, Any] | Failure]:
        csv.field_size_limit(2**27)
        reader = csv.reader(stream, delimiter=self._separator or ",", strict=True)
        header = self._header(reader)
        for number, cells in enumerate(filter(None, reader), start=1):
            if len(cells) > len(header):
                place = f"{self.name}, row {number:,}"
                yield Failure(
                    place, "row", f"has {len(cells)} cells for {len(header)} columns; put quotes around commas"
                )
            else:
                yield {name: cell for name, cell in zip(header, cells, strict=False) if name}

    def _json_rows(self, stream: Iterable[str]) -> Iterator[dict[str, Any] | Failure]:
        for number, line in enumerate(filter(str.strip, stream), start=1):
            place = f"{self.name}, row {number:,}"
            try:
                row = json.loads(line, parse_constant=_number, parse_int=_number, parse_float=_number)
                json.dumps(row, ensure_ascii=False).encode()
            except (ValueError, RecursionError) as error:
                yield Failure(place, "row", f"is not valid JSON ({error}); correct it")
                continue
            if isinstance(row, dict):
                yield row
            else:
                yield Failure(place, "row", 'is no JSON object; write {"image": …, …}')

    def _columns(self) -> list[str]:
        """Of the header, or of the first readable row."""
        if self._separator:
            with self._opened() as stream:
                return [name for name in self._header(csv.reader(stream, delimiter=self._separator)) if name]
        return next((list(row) for _, row in self._rows() if isinstance(row, dict)), [])

    def _header(self, reader: Iterator[list[str]]) -> list[str]:
        header = next(reader, [])
        if twice := {name for name in header if name and header.count(name) > 1}:
            raise SourceError(f"{self.name} has two columns named {min(twice)!r}; rename one")
        return header

    def _column(self, option: str, name: str | None, columns: Sequence[str]) -> str | None:
        if name is not None and name not in columns:
            raise SourceError(f"{self.name} has no column {name!r}; {option} is one of: {_listed(columns)}")
        return name

    def _guess(self, columns: Sequence[str]) -> str:
        by_name = {column.strip().lower(): column for column in reversed(columns)}
        for name in IMAGE_COLUMNS:
            if name in by_name:
                return by_name[name]
        raise SourceError(
            f"{self.name} has no column that is clearly the picture's; give --image-column, one of: {_listed(columns)}"
        )


def _listing(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Names of the files, real folders and linked folders in a folder, in order, without the hidden ones."""
    files: list[str] = []
    folders: list[str] = []
    links: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif entry.is_symlink() and entry.is_dir():
                links.append(entry.name)
            else:
                files.append(entry.name)
    return sorted(files), sorted(folders), sorted(links)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")


def _cause(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "none at all"


def _wider(kind: type[int] | type[float] | None, cell: str) -> type[int] | type[float] | None:
    """The narrowest of int, float, text (None) that holds this cell and those before it."""
    if kind is None or cell == "" or (kind is int and _INTEGER.fullmatch(cell)):
        return kind
    if _INTEGER.fullmatch(cell) or (_DECIMAL.fullmatch(cell) and math.isfinite(float(cell))):
        return float
    return None


def _number(text: str) -> int | float:
    """A JSON number that databases can hold."""
    value = int(text) if re.fullmatch(r"-?\d+", text) else float(text)
    if not math.isfinite(value) or (isinstance(value, int) and not -_INT64 <= value < _INT64):
        raise ValueError(f"{text[:40]} is not a number that databases hold")
    return value
