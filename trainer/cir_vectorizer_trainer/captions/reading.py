"""Training captions from files: text, tables and JSON, cleaned and without duplicates.

A table's captions stand in one column. It is named by the caller, or guessed: the only one called caption, captions,
text, title or description, else the only one that holds text (numbers and web addresses are none). The first row of a
.csv or .tsv file names the columns; only where it holds a web address (as in CC3M) it is a row like the others, and
the columns are called 1, 2, and so on.

Not handled: other encodings than UTF-8, and streaming of .json and gzipped .parquet, which are read whole.
"""

import csv
import gzip
import importlib
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, cast

from cir_vectorizer.errors import CaptionError

STDIN = "-"
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "description")

_UNCLEAN = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_NOT_TEXT = re.compile(r"\s*(?:https?://\S*|[-+]?[\d.,]+(?:e[-+]?\d+)?|)\s*", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class CaptionSet:
    """Captions to train on.

    Args:
        captions: cleaned, each once, in the order of first appearance.
        read: how many were found: `len(captions) + blank + duplicates`.
        blank: how many of them were empty.
        duplicates: how many of them repeated an earlier one.
    """

    captions: list[str]
    read: int
    blank: int
    duplicates: int

    def summary(self) -> str:
        """One sentence with the four counts."""
        return (
            f"{_count(len(self.captions), 'caption')} out of {self.read:,} read: "
            f"left out {self.blank:,} blank and {_count(self.duplicates, 'duplicate')}."
        )


def read_captions(sources: Sequence[str], column: str | None = None) -> CaptionSet:
    """Read all captions of `sources`, one after the other.

    Args:
        sources: paths that end in .txt (one caption a line), .csv, .tsv, .jsonl, .json (a list of strings or objects)
            or .parquet, each also with .gz; or "-" for standard input, one caption a line.
        column: the column or key that holds the captions of tables; a list of strings in it gives several captions.

    Raises:
        CaptionError: a source is missing, damaged, not UTF-8 or of another kind, its column is unknown, or no caption
            was found in any source.
    """
    unique: dict[str, None] = {}
    read = blank = 0
    for source in sources:
        for raw in _captions_of(source, column):
            read += 1
            caption = clean(raw)
            if caption:
                unique[caption] = None
            else:
                blank += 1
    if not unique:
        names = " and ".join("standard input" if source == STDIN else source for source in sources)
        raise CaptionError(
            f"{names or 'An empty list of files'} holds no caption; give a text file with one caption a line, "
            "or a table (.csv, .tsv, .jsonl, .json, .parquet) with a column of captions"
        )
    return CaptionSet(list(unique), read, blank, read - blank - len(unique))


def clean(text: str) -> str:
    """`text` without control characters and lone surrogates, its whitespace collapsed."""
    return " ".join(_UNCLEAN.sub(" ", text).split())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _captions_of(source: str, column: str | None) -> Iterator[str]:
    if source == STDIN:
        yield from _lines(sys.stdin.buffer, "standard input")
        return
    path = Path(source)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if zipped else suffixes)[-1:]
    read = _READERS.get(kind[0] if kind else "")
    if read is None:
        raise CaptionError(
            f"{source} is of no kind that captions are read from; its name must end in one of "
            f"{', '.join(_READERS)}, each also with .gz"
        )
    with _explained(source), path.open("rb") as file:
        stream: IO[bytes] = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if zipped else file
        yield from read(stream, source, column)


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turns what the standard library raises about a file into a CaptionError."""
    try:
        yield
    except FileNotFoundError as error:
        raise CaptionError(f"{source} does not exist; check the path") from error
    except IsADirectoryError as error:
        raise CaptionError(f"{source} is a folder; name the caption files in it") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CaptionError(f"{source} is damaged or not gzipped ({error}); fetch or pack it again") from error
    except OSError as error:
        raise CaptionError(f"{source} cannot be read ({error.strerror or error}); check its permissions") from error


def _lines(stream: Iterable[bytes], source: str) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise CaptionError(
                f"{source}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x}); save the file as UTF-8, "
                f"for example with `iconv -f WINDOWS-1252 -t UTF-8` (or `-f UTF-16`)"
            ) from error
        yield text.removeprefix("\ufeff") if number == 1 else text


# --- kinds of files ------------------------------------------------------------------------------


def _read_text(stream: IO[bytes], source: str, column: str | None) -> Iterator[str]:  # noqa: ARG001
    return _lines(stream, source)


def _read_csv(stream: IO[bytes], source: str, column: str | None, delimiter: str = ",") -> Iterator[str]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader((line.replace("\0", " ") for line in _lines(stream, source)), delimiter=delimiter)
    rows = (row for row in reader if row)
    try:
        header = [name.strip() for name in next(rows, [])]
        leading = list(islice(rows, 1))
        if any(map(_ADDRESS.match, header)):
            leading.insert(0, header)
            header = [str(number) for number, _ in enumerate(header, 1)]
        if not leading:
            return
        sample = dict(zip(header, leading[-1], strict=False))
        at = header.index(_choose_column(sample, header, column, source))
        for row in chain(leading, rows):
            yield _cell(row, at, header, f"{source}, line {reader.line_num}")
    except csv.Error as error:
        raise CaptionError(f"{source}, line {reader.line_num}: {error}; save the table anew") from error


def _read_tsv(stream: IO[bytes], source: str, column: str | None) -> Iterator[str]:
    return _read_csv(stream, source, column, "\t")


def _cell(row: list[str], at: int, header: list[str], where: str) -> str:
    if any(row[len(header) :]):
        raise CaptionError(
            f"{where}: {len(row)} fields under {_count(len(header), 'column')}; "
            "put captions that hold the separator in double quotes"
        )
    text = row[at] if at < len(row) else ""
    if "\n" in text and "\t" in text:
        raise CaptionError(
            f'{where}: a field that begins with " runs over several rows; close that quote, or write it twice'
        )
    return text


def _read_jsonl(stream: IO[bytes], source: str, column: str | None) -> Iterator[str]:
    def values() -> Iterator[tuple[str, Any]]:
        for number, line in enumerate(_lines(stream, source), 1):
            where = f"{source}, line {number}"
            yield where, _parse(line.strip(), where) if line.strip() else None

    return _from_json(values(), source, column)


def _read_json(stream: IO[bytes], source: str, column: str | None) -> Iterator[str]:
    found = _parse("".join(_lines(stream, source)), source)
    if not isinstance(found, list):
        raise CaptionError(
            f"{source} holds {_named(found)}; a list of strings or of objects is needed, "
            "for example the list inside it in a file of its own"
        )
    return _from_json(((f"{source}, item {number}", item) for number, item in enumerate(found, 1)), source, column)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = "" if error.lineno == 1 else f", line {error.lineno}"
        raise CaptionError(f"{where}{line}: not JSON ({error.msg}, column {error.colno}); mend or drop it") from error
    except RecursionError as error:
        raise CaptionError(f"{where}: JSON nested too deeply for captions") from error


def _from_json(values: Iterable[tuple[str, Any]], source: str, column: str | None) -> Iterator[str]:
    key = None
    seen: dict[str, None] = {}
    for where, value in values:
        if isinstance(value, dict):
            if key is None and (column is None or column in value):
                key = _choose_column(value, list(value), column, source)
            if key is None:
                seen |= dict.fromkeys(value)
            value = None if key is None else value.get(key)
        yield from _texts(value, where)
    if seen and key is None:
        _choose_column({}, list(seen), column, source)


def _texts(value: Any, where: str) -> Iterator[str]:
    for text in value if isinstance(value, list) else [value]:
        if text is not None and not isinstance(text, str):
            raise CaptionError(f"{where}: {_named(text)} where a caption should be; name another column")
        yield text or ""


def _named(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number"}
    return names.get(type(value), "a number" if isinstance(value, float) else "null")


def _read_parquet(stream: IO[bytes], source: str, column: str | None) -> Iterator[str]:
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise CaptionError(
            f"{source}: reading .parquet needs pyarrow; install it with `pip install 'cir-vectorizer[train]'`"
        ) from error
    try:
        table = parquet.ParquetFile(arrow.BufferReader(stream.read()) if isinstance(stream, gzip.GzipFile) else stream)
        fields = {field.name: field.type for field in table.schema_arrow}
        textual = {name: "text" if _is_text(arrow.types, kind) else 0 for name, kind in fields.items()}
        name = _choose_column(textual, list(fields), column, source)
        for number, batch in enumerate(table.iter_batches(columns=[name])):
            for value in batch.column(0).to_pylist():
                yield from _texts(value, f"{source}, column {name!r}, batch {number}")
    except arrow.ArrowException as error:
        raise CaptionError(f"{source} is no readable Parquet file ({error}); write it again") from error


def _is_text(types: Any, kind: Any) -> bool:
    inner = kind.value_type if types.is_list(kind) or types.is_large_list(kind) or types.is_dictionary(kind) else kind
    return bool(types.is_string(inner) or types.is_large_string(inner))


def _choose_column(sample: Mapping[str, Any], columns: list[str], column: str | None, source: str) -> str:
    """The column that holds captions; `sample` has one value of each, to tell text from other things."""
    if column is not None:
        if column in columns:
            return column
        raise CaptionError(f"{source} has no column {column!r}; name one of {', '.join(columns)}")
    named = [name for name in columns if name.lower() in CAPTION_COLUMNS]
    textual = [name for name, value in sample.items() if _holds_text(value)]
    for candidates in (named, textual):
        if len(candidates) == 1:
            return candidates[0]
    raise CaptionError(
        f"{source}: cannot tell which column holds the captions; name it with --column: {', '.join(columns)}"
    )


def _holds_text(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_holds_text, value))
    return isinstance(value, str) and not _NOT_TEXT.fullmatch(value)


_READERS = {
    ".txt": _read_text,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
