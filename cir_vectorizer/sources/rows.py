"""The reader of all tables: .csv, .tsv, .jsonl, .ndjson, .json and .parquet, each also gzipped.

A row is a dictionary of JSON values by column. In place of a malformed row comes a `Failure`, and reading goes on; a
problem with the whole file is a `SourceError`. Both name the file and the row.

    .csv, .tsv        the first row names the columns, without blanks around their names; unnamed columns are left out;
                      of columns with one name the first is read; the separator may also be a semicolon, a tab or a bar
                      (see `separated`)
    .jsonl, .ndjson   one object per line
    .json             a list of objects, loaded at once
    .parquet          times become ISO 8601, decimals become numbers, bytes stay; a gzipped file is loaded at once

If the first row of a .csv or .tsv file holds a web address or a picture's name (as in CC3M), it is a row like the
others, and the columns are called 1, 2, and so on.

A table that is only read for its texts (captions for training) is read leniently (`strict=False`): JSON rows need not be
objects, and numbers may have any size.
"""

import datetime
import decimal
import gzip
import importlib
import io
import json
import math
import posixpath
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from cir_vectorizer.errors import SourceError
from cir_vectorizer.identity import EXACT
from cir_vectorizer.redaction import cause
from cir_vectorizer.sources.base import Failure, is_picture
from cir_vectorizer.sources.separated import Broken, opened, split
from cir_vectorizer.sources.text import Opened, TableText, is_undecoded, reading

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
"""Suffixes of tables; each may be followed by .gz."""
_ZIPPED = ".gz"
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_LINES = (".csv", ".tsv", ".jsonl", ".ndjson")
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_UNDECODED = "is neither UTF-8 nor Windows-1252; save the table as UTF-8"
_SAMPLED = 1000
"""Number of rows of JSON that tell the names of the columns."""
_INT64 = 2**63
_PARQUET_BATCH, _COLUMN_BATCH = 256, 2**16
"""Rows of a parquet file that are read at once: fewer for whole rows, which may hold pictures, than for one column."""

Row = dict[str, Any]


def table_suffix(name: str) -> str | None:
    """Return a table's suffix in lower case, including .gz if present; None if the name is not a table's."""
    rest, last = posixpath.splitext(name.lower())
    kind, zipped = (posixpath.splitext(rest)[1], _ZIPPED) if last == _ZIPPED else (last, "")
    return kind + zipped if kind in SUFFIXES else None


def table_rows(path: Path, strict: bool = True) -> "Rows":
    """Return the rows of a table on this machine.

    Raises:
        SourceError: the file is missing, is a folder, or has no table's suffix.
    """
    suffix = table_suffix(path.name)
    if suffix is None:
        kinds = ", ".join(SUFFIXES)
        raise SourceError(
            f"{path} is no table that is read here; its name must end in one of {kinds}, each also with .gz"
        )
    if path.is_dir():
        raise SourceError(f"{path} is a folder; name the files in it")
    if not path.exists():
        raise SourceError(f"{path} does not exist; check the path")
    return Rows(str(path), suffix, lambda: path.open("rb"), strict)


class Rows:
    """The rows of a table, counted from 1 without the header and blank lines.

    Args:
        name: the table's name in messages.
        suffix: the suffix that `table_suffix` returns.
        opened: returns a new stream from the table's start.
        strict: True for rows that go into a database; if False they are read leniently, and numbers count lines.
    """

    def __init__(self, name: str, suffix: str, opened: Opened, strict: bool = True) -> None:
        self._name = name
        self._opened = opened
        self._kind = suffix.removesuffix(_ZIPPED)
        self._strict = strict
        self._separator = _SEPARATORS.get(self._kind)
        self._text = TableText(name)
        self._twice: list[str] = []
        self.headless = False
        """True if the first row of the text that was read last is no header."""
        self.decimal_comma = False
        """True if the separator of the text that was read last is no comma, so that a comma may mark decimals."""
        self.untyped = self._separator is not None
        """True if every cell is text."""
        self.is_json = self._kind in (".jsonl", ".ndjson", ".json")
        """True if each row names its own columns."""

    def __iter__(self) -> Iterator[tuple[int, Row | Failure]]:
        return self.read()

    def read(self, column: str | None = None) -> Iterator[tuple[int, Any]]:
        """Yield each row with its number; in place of a malformed row, a `Failure`.

        Args:
            column: the only column to read from a parquet file; other formats are read whole.

        Raises:
            SourceError: the table cannot be read, or cannot be read to its end.
        """
        with self._reading() as stream:
            if self._separator:
                yield from self._csv_rows(stream)
            elif self.is_json:
                yield from self._json_rows(stream)
            else:
                yield from self._parquet_rows(stream, column)

    def columns(self, wanted: str | None = None) -> list[str]:
        """Return the names of the columns, from the header, or from the first rows if each row names its own.

        Args:
            wanted: a name to look for in all rows, if it is not among the first ones.

        Raises:
            SourceError: the table cannot be read.
        """
        if self._separator:
            with self._reading() as stream:
                header, _ = self._cells(stream)
                return [name for name in header if name or not self._strict]
        if not self.is_json:
            return list(self.sample() or ())
        rows = (row for _, row in self.read() if isinstance(row, dict))
        names = dict.fromkeys(name for row in islice(rows, _SAMPLED) for name in row)
        if wanted is not None and wanted not in names:
            names |= dict.fromkeys(next((row for row in rows if wanted in row), ()))
        return list(names)

    def binary_columns(self) -> list[str]:
        """Return the columns that hold bytes, which only a parquet file can have.

        Raises:
            SourceError: the table cannot be read.
        """
        sample = None if self.untyped or self.is_json else self.sample()
        return [name for name, value in (sample or {}).items() if isinstance(value, bytes)]

    def sample(self) -> Row | None:
        """Return a sample value for each column: the first row, or for a parquet file a text, empty bytes, or None,
        according to the column's type. None if there is no row.

        Raises:
            SourceError: the table cannot be read.
        """
        if self._separator or self.is_json:
            return next((row for _, row in self.read() if isinstance(row, dict)), None)
        with self._reading() as stream, self._parquet(stream) as parquet:
            return {field.name: _sample(field.type) for field in parquet.schema_arrow}

    def place(self, number: int) -> str:
        """Return the name of a row in messages."""
        unit = "row" if self._strict or self._kind == ".parquet" else "line" if self._kind in _LINES else "item"
        return f"{self._name}, {unit} {number:,}"

    @property
    def kind(self) -> str:
        """The table's format in sentences: csv, jsonl, …"""
        return self._kind[1:]

    @property
    def notes(self) -> list[str]:
        """Sentences about the table as a whole, when it was read last."""
        twice = [f"{self._name} has several columns named {name!r}; the first of them is read" for name in self._twice]
        return [*self._text.notes, *twice]

    def _reading(self) -> AbstractContextManager[IO[bytes]]:
        self._text = TableText(self._name)
        return reading(self._name, self._opened)

    def _failure(self, number: int, sentence: str) -> tuple[int, Failure]:
        return number, Failure(self.place(number), "row", sentence)

    # --- csv and tsv ---

    def _cells(self, stream: IO[bytes]) -> tuple[list[str], Iterator[tuple[int, list[str] | Broken]]]:
        """Return the names of the columns, and an iterator over each row's cells with the number of its last line."""
        lines = self._text.lines(stream)
        if not self._strict:
            lines = (line.replace("\0", " ") for line in lines)
        table = opened(lines, self._separator or ",")
        self.decimal_comma = table.separator != ","
        rows = split(table.lines, table.separator, table.number, table.spaced)
        number, header = next(rows, (1, []))
        if isinstance(header, Broken):
            raise SourceError(f"{self._name}, line {number:,}, which names the columns, {header}")
        self.headless = any(_ADDRESS.match(name.strip()) or is_picture(name.strip()) for name in header)
        if self.headless:
            return [str(number) for number, _ in enumerate(header, start=1)], chain([(number, header)], rows)
        if any(map(is_undecoded, header)):
            raise SourceError(f"{self._name}, line {number:,}, which names the columns, {_UNDECODED}")
        names = [name.strip() for name in header]
        self._twice = sorted({name for name in names if name and names.count(name) > 1})
        return names, rows

    def _csv_rows(self, stream: IO[bytes]) -> Iterator[tuple[int, Row | Failure]]:
        header, rows = self._cells(stream)
        width, strict, number = len(header), self._strict, 0
        backwards = not strict or bool(self._twice)  # if columns share a name, the first one wins
        for line, cells in rows:
            number = number + 1 if strict else line
            if cells.__class__ is Broken:
                yield self._failure(number, str(cells))
            elif len(cells) > width and any(cells[width:]):
                columns = "1 column" if width == 1 else f"{width} columns"
                sentence = f"has {len(cells)} cells for {columns}; put quotes around cells that hold the separator"
                yield self._failure(number, sentence)
            elif self._text.undecoded and any(map(is_undecoded, cells)):
                yield self._failure(number, _UNDECODED)
            elif backwards:
                pairs = list(zip(header, cells, strict=False))
                yield number, {name: cell for name, cell in reversed(pairs) if name or not strict}
            else:
                yield number, {name: cell for name, cell in zip(header, cells, strict=False) if name}

    # --- json ---

    def _json_rows(self, stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
        if self._kind == ".json":
            values = enumerate(self._json_list(stream), start=1)
            if not self._strict:
                yield from values
                return
            texts = ((number, json.dumps(value)) for number, value in values)
        else:
            lines = self._text.lines(stream)
            texts = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
            if self._strict:
                texts = ((row, line) for row, (_, line) in enumerate(texts, start=1))
        for number, text in texts:
            if self._text.undecoded and is_undecoded(text):
                yield self._failure(number, _UNDECODED)
                continue
            try:
                value = self._parsed(text)
            except (ValueError, RecursionError) as error:
                yield self._failure(number, f"is not valid JSON ({_said(error)}); correct it")
                continue
            if isinstance(value, dict) or not self._strict:
                yield number, value
            else:
                yield self._failure(number, 'is no JSON object; write {"image": …, …}')

    def _json_list(self, stream: IO[bytes]) -> list[Any]:
        text = "".join(self._text.lines(stream))
        if self._text.undecoded:
            raise SourceError(f"{self._name} {_UNDECODED}")
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            problem = f"is not valid JSON ({error.msg}, column {error.colno})"
            raise SourceError(f"{self._name}, line {error.lineno:,} {problem}; correct it") from error
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{self._name} is not valid JSON ({_said(error)}); correct it") from error
        if not isinstance(found, list):
            items = "objects" if self._strict else "strings or of objects"
            raise SourceError(
                f"{self._name} holds {json_kind(found)}; a list of {items} is needed, for example the list inside it in "
                "a file of its own"
            )
        return found

    def _parsed(self, text: str) -> Any:
        if not self._strict:
            return json.loads(text)
        value = json.loads(text, parse_constant=_number, parse_int=_number, parse_float=_number)
        json.dumps(value, ensure_ascii=False).encode()  # raises for invalid Unicode
        return value

    # --- parquet ---

    def _parquet_rows(self, stream: IO[bytes], column: str | None) -> Iterator[tuple[int, Row | Failure]]:
        wanted = None if column is None else [column]
        size = _PARQUET_BATCH if column is None else _COLUMN_BATCH
        with self._parquet(stream) as parquet:
            batches = parquet.iter_batches(batch_size=size, columns=wanted)
            for number, row in enumerate((row for batch in batches for row in _batch_rows(batch)), start=1):
                try:
                    if isinstance(row, Exception):
                        raise ValueError(f"holds a value that cannot be read ({cause(row)})")
                    yield number, {name: _json_value(value) for name, value in row.items() if not _is_missing(value)}
                except ValueError as error:
                    yield self._failure(number, f"{error}; write it as text, number, list or struct")

    @contextmanager
    def _parquet(self, stream: IO[bytes]) -> Iterator[Any]:
        try:
            pa, pq = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise SourceError(
                f"{self._name} needs pyarrow to be read; run: pip install pyarrow, or pip install 'cir-vectorizer[train]'"
            ) from error
        try:
            yield pq.ParquetFile(io.BytesIO(stream.read()) if isinstance(stream, gzip.GzipFile) else stream)
        except pa.ArrowException as error:
            raise SourceError(f"{self._name} is no parquet file or damaged ({cause(error)}); write it again") from error


def json_kind(value: Any) -> str:
    """Return the kind of a JSON value in words, for the middle of a sentence."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number"}
    return names.get(type(value), "a number" if isinstance(value, float) else "null")


def _batch_rows(batch: Any) -> Iterator[Row | Exception]:
    """Yield the rows of a parquet file's batch; in place of a row that Python cannot represent, the error."""
    try:
        yield from batch.to_pylist()
    except Exception:  # each column type raises its own error: a date after the year 9999, an unknown time zone
        for number in range(len(batch)):
            try:
                yield from batch.slice(number, 1).to_pylist()
            except Exception as error:
                yield error


def _sample(kind: Any) -> Any:
    """Return a sample value for a parquet column's type."""
    types = importlib.import_module("pyarrow").types
    inner = kind.value_type if types.is_list(kind) or types.is_large_list(kind) or types.is_dictionary(kind) else kind
    if types.is_string(inner) or types.is_large_string(inner):
        return "text"
    return b"" if "binary" in str(kind) else None


def _said(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _number(text: str) -> int | float:
    """Return a JSON number; raise ValueError if databases cannot store it."""
    value = int(text) if re.fullmatch(r"-?\d+", text) else float(text)
    if not math.isfinite(value) or (isinstance(value, int) and not -_INT64 <= value < _INT64):
        raise ValueError(f"{text[:40]} is not a number that databases hold")
    return value


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _json_value(value: Any) -> Any:
    """Return a parquet value as JSON: times as ISO 8601, decimals as numbers. Bytes stay, for a column of pictures."""
    if value is None or isinstance(value, str | bool | bytes):
        return value
    if isinstance(value, decimal.Decimal) and abs(value) >= EXACT and value == value.to_integral_value():
        return _number(str(int(value)))
    if isinstance(value, int | float | decimal.Decimal):
        return _number(str(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_json_value(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _json_value(each) for key, each in value.items()}
    raise ValueError(f"holds a {type(value).__name__}, which databases do not")
