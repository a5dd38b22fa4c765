"""The rows of a table's file, as dictionaries of JSON values; rows that make no sense are failures of their own."""

import csv
import datetime
import decimal
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import IO, Any

from cir_vectorizer.errors import SourceError
from cir_vectorizer.redaction import cause
from cir_vectorizer.sources.base import Failure

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)\.\d+([eE][+-]?\d{1,2})?")
_INT64 = 2**63
_PARQUET_BATCH = 256

Row = dict[str, Any]
Number = type[int] | type[float]


class Rows:
    """The rows of a table, counted from 1 without the header; blank lines do not count.

    Args:
        name: of the table, for messages.
        suffix: one of `SUFFIXES`.
        opened: gives a stream from the table's start; a new one at each call.
    """

    def __init__(self, name: str, suffix: str, opened: Callable[[], IO[bytes]]) -> None:
        self._name = name
        self._opened = opened
        self._suffix = suffix
        self._separator = _SEPARATORS.get(suffix)
        self.untyped = self._separator is not None
        """Whether every cell is text."""

    def __iter__(self) -> Iterator[tuple[int, Row | Failure]]:
        with self._reading() as stream:
            yield from enumerate(self._read(stream), start=1)

    def columns(self) -> tuple[list[str], list[str]]:
        """The columns, of the header or of the first readable row; and those of them that hold bytes.

        Raises:
            SourceError: the table cannot be read.
        """
        if self._separator:
            with self._reading() as stream:
                return [name for name in self._header(self._reader(stream)) if name], []
        if self._suffix == ".parquet":
            with self._reading() as stream, self._parquet(stream) as parquet:
                schema = parquet.schema_arrow
                return list(schema.names), [field.name for field in schema if "binary" in str(field.type)]
        return next((list(row) for _, row in self if isinstance(row, dict)), []), []

    def _read(self, stream: IO[bytes]) -> Iterator[Row | Failure]:
        if self._separator:
            return self._csv_rows(stream)
        return self._parquet_rows(stream) if self._suffix == ".parquet" else self._json_rows(_text(stream))

    @contextmanager
    def _reading(self) -> Iterator[IO[bytes]]:
        try:
            with self._opened() as stream:
                yield stream
        except (OSError, csv.Error) as error:
            raise SourceError(f"{self._name} cannot be read ({cause(error)}); check the file") from error
        except UnicodeDecodeError as error:
            raise SourceError(f"{self._name} is not UTF-8 (byte {error.start}); save it as UTF-8") from error

    def _reader(self, stream: IO[bytes]) -> Iterator[list[str]]:
        csv.field_size_limit(2**27)
        return csv.reader(_text(stream), delimiter=self._separator or ",", strict=True)

    def _csv_rows(self, stream: IO[bytes]) -> Iterator[Row | Failure]:
        reader = self._reader(stream)
        header = self._header(reader)
        for number, cells in enumerate(filter(None, reader), start=1):
            if len(cells) > len(header):
                sentence = f"has {len(cells)} cells for {len(header)} columns; put quotes around commas"
                yield Failure(self._place(number), "row", sentence)
            else:
                yield {name: cell for name, cell in zip(header, cells, strict=False) if name}

    def _header(self, reader: Iterator[list[str]]) -> list[str]:
        header = next(reader, [])
        if twice := {name for name in header if name and header.count(name) > 1}:
            raise SourceError(f"{self._name} has two columns named {min(twice)!r}; rename one")
        return header

    def _json_rows(self, stream: Iterable[str]) -> Iterator[Row | Failure]:
        for number, line in enumerate(filter(str.strip, stream), start=1):
            try:
                row = json.loads(line, parse_constant=_number, parse_int=_number, parse_float=_number)
                json.dumps(row, ensure_ascii=False).encode()
            except (ValueError, RecursionError) as error:
                yield Failure(self._place(number), "row", f"is not valid JSON ({error}); correct it")
                continue
            if isinstance(row, dict):
                yield row
            else:
                yield Failure(self._place(number), "row", 'is no JSON object; write {"image": …, …}')

    def _parquet_rows(self, stream: IO[bytes]) -> Iterator[Row | Failure]:
        with self._parquet(stream) as parquet:
            rows = (row for batch in parquet.iter_batches(batch_size=_PARQUET_BATCH) for row in _batch_rows(batch))
            for number, row in enumerate(rows, start=1):
                try:
                    if isinstance(row, Exception):
                        raise ValueError(f"holds a value that cannot be read ({cause(row)})")
                    yield {name: _json_value(value) for name, value in row.items() if not _is_missing(value)}
                except ValueError as error:
                    yield Failure(self._place(number), "row", f"{error}; write it as text, number, list or struct")

    @contextmanager
    def _parquet(self, stream: IO[bytes]) -> Iterator[Any]:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise SourceError(f"{self._name} needs pyarrow to be read; run: pip install pyarrow") from error
        try:
            yield pq.ParquetFile(stream)
        except pa.ArrowException as error:
            raise SourceError(f"{self._name} is no parquet file or damaged ({cause(error)}); write it again") from error

    def _place(self, number: int) -> str:
        return f"{self._name}, row {number:,}"


def wider(kind: Number | None, cell: str) -> Number | None:
    """The narrowest of int, float, text (None) that holds this cell and those before it."""
    if kind is None or cell == "" or (kind is int and _INTEGER.fullmatch(cell)):
        return kind
    if _INTEGER.fullmatch(cell) or (_DECIMAL.fullmatch(cell) and math.isfinite(float(cell))):
        return float
    return None


def typed(kind: Number | None, value: Any) -> Any:
    """A cell as its column's kind; as it is if it is not of that kind, since the table was edited meanwhile."""
    if kind is None:
        return value
    try:
        number = kind(value)
        return number if math.isfinite(number) else value
    except (ValueError, OverflowError):
        return value


def _batch_rows(batch: Any) -> Iterator[Row | Exception]:
    """The rows of a parquet file's batch; in place of one that Python cannot hold, the error."""
    try:
        yield from batch.to_pylist()
    except Exception:  # each type of column has its own: a date after the year 9999, an unknown time zone
        for number in range(len(batch)):
            try:
                yield from batch.slice(number, 1).to_pylist()
            except Exception as error:
                yield error


def _text(stream: IO[bytes]) -> TextIOWrapper:
    return TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def _number(text: str) -> int | float:
    """A JSON number that databases can hold."""
    value = int(text) if re.fullmatch(r"-?\d+", text) else float(text)
    if not math.isfinite(value) or (isinstance(value, int) and not -_INT64 <= value < _INT64):
        raise ValueError(f"{text[:40]} is not a number that databases hold")
    return value


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _json_value(value: Any) -> Any:
    """A parquet value as JSON has it: times as ISO 8601, decimals as numbers; bytes stay, for the picture's column."""
    if value is None or isinstance(value, str | bool | bytes):
        return value
    if isinstance(value, int | float | decimal.Decimal):
        return _number(str(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_json_value(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _json_value(each) for key, each in value.items()}
    raise ValueError(f"holds a {type(value).__name__}, which databases do not")
