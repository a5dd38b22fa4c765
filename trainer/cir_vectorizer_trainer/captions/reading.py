"""Training captions from files: text, tables and JSON, cleaned and without duplicates.

A table has its captions in one column. The caller names it, or it is guessed: the only column called caption, captions,
text, title or description, else the only one that holds text (numbers and web addresses are not text). Tables are
read, leniently, by `cir_vectorizer.sources.rows`.
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cir_vectorizer.errors import CaptionError, SourceError
from cir_vectorizer.markup import without_markup
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sources.rows import Rows, json_kind, table_rows, table_suffix
from cir_vectorizer.sources.text import reading, text_lines
from cir_vectorizer_trainer.captions.store import MANY, CaptionStore

SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet")
STDIN = "-"
CAPTION_COLUMNS = ("caption", "captions", "text", "title", "description")

_UNCLEAN = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_NOT_TEXT = re.compile(r"\s*(?:https?://\S*|[-+]?[\d.,]+(?:e[-+]?\d+)?|)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class CaptionSet:
    """Captions to train on.

    Args:
        captions: cleaned, each once, in the order of first appearance; in memory, or in a temporary file if they are many.
        read: number of captions found: `len(captions) + blank + duplicates`.
        blank: number of empty ones.
        duplicates: number of those that repeat an earlier one.
        unread: number of rows that cannot be read, which do not count as captions.
        first_unread: a sentence about the first of them.
        notes: sentences about tables as a whole.
    """

    captions: Sequence[str]
    read: int
    blank: int
    duplicates: int
    unread: int = 0
    first_unread: str = ""
    notes: Sequence[str] = ()

    def summary(self) -> str:
        """Return the counts in words, with sentences about rows that cannot be read and about tables."""
        unread = f" {_count(self.unread, 'row')} cannot be read; the first: {self.first_unread}." if self.unread else ""
        return (
            f"{_count(len(self.captions), 'caption')} out of {self.read:,} read: "
            f"left out {self.blank:,} blank and {_count(self.duplicates, 'duplicate')}.{unread}"
            + "".join(f" Note: {note}." for note in self.notes)
        )


def read_captions(sources: Sequence[str], column: str | None = None) -> CaptionSet:
    """Read all captions of `sources`, one source after another.

    Args:
        sources: paths that end in .txt (one caption a line), .csv, .tsv, .jsonl, .ndjson, .json (a list of strings or
            objects) or .parquet, each also with .gz; or "-" for standard input, one caption a line.
        column: the tables' column or key that holds the captions; a list of strings in it gives several captions.

    Raises:
        CaptionError: a source is missing, damaged, not UTF-8 or of another kind; its column is unknown; or no source
            holds a caption that can be read.
    """
    read = blank = unread = 0
    first_unread = ""
    notes: list[str] = []

    def failed(failure: Failure) -> None:
        nonlocal unread, first_unread
        unread += 1
        first_unread = first_unread or str(failure)

    def cleaned() -> Iterator[str]:
        nonlocal read, blank
        for source in sources:
            for raw in _captions_of(source, column, failed, notes):
                read += 1
                caption = clean(raw)
                blank += not caption
                if caption:
                    yield caption

    try:
        unique = CaptionStore(cleaned())
    except OSError as error:
        raise CaptionError(
            f"the captions do not fit into {tempfile.gettempdir()} ({error.strerror or error}); make room there, or set TMPDIR "
            "to another folder"
        ) from error
    if not unique and unread:
        raise CaptionError(first_unread)
    if not unique:
        names = " and ".join("standard input" if source == STDIN else source for source in sources)
        raise CaptionError(
            f"{names or 'An empty list of files'} holds no caption; give a text file with one caption a line, "
            "or a table (.csv, .tsv, .jsonl, .json, .parquet) with a column of captions"
        )
    captions = unique if len(unique) > MANY else list(unique)
    return CaptionSet(captions, read, blank, read - blank - len(unique), unread, first_unread, tuple(notes))


def clean(text: str) -> str:
    """Remove HTML, control characters and lone surrogates from `text`, and collapse its whitespace."""
    text = without_markup(text)
    return " ".join((text if text.isprintable() else _UNCLEAN.sub(" ", text)).split())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _captions_of(source: str, column: str | None, failed: Callable[[Failure], None], notes: list[str]) -> Iterator[str]:
    try:
        if source == STDIN:
            yield from text_lines(sys.stdin.buffer, "standard input")
        elif table_suffix(source) is not None:
            rows = table_rows(Path(source), strict=False)
            yield from _from_table(rows, source, column, failed)
            notes += rows.notes
        else:
            yield from _from_text(Path(source), source)
    except SourceError as error:
        raise CaptionError(str(error)) from error


def _from_text(path: Path, source: str) -> Iterator[str]:
    name = path.name.lower()
    if not name.removesuffix(".gz").endswith(".txt"):
        raise CaptionError(
            f"{source} is not a kind of file that captions are read from; its name must end in one of "
            f"{', '.join(SUFFIXES)}, each also with .gz"
        )
    if path.is_dir():
        raise CaptionError(f"{source} is a folder; name the caption files in it")
    if not path.exists():
        raise CaptionError(f"{source} does not exist; check the path")
    with reading(source, lambda: path.open("rb")) as stream:
        yield from text_lines(stream, source)


def _from_table(rows: Rows, source: str, column: str | None, failed: Callable[[Failure], None]) -> Iterator[str]:
    name: str | None = None
    if not rows.is_json and (sample := rows.sample()) is not None:  # each row of JSON names its own columns
        name = _choose_column(sample, rows.columns(), column, source)
    seen: dict[str, None] = {}
    for number, row in rows.read(name):
        if isinstance(row, Failure):
            failed(row)
            continue
        value = row
        if isinstance(row, dict):
            if name is None and (column is None or column in row):
                name = _choose_column(row, list(row), column, source)
            if name is None:
                seen |= dict.fromkeys(row)
            value = None if name is None else row.get(name)
        for text in _texts(value, rows.place(number)):
            if rows.untyped and "\n" in text and "\t" in text:
                raise CaptionError(
                    f'{rows.place(number)}: a field that begins with " runs over several rows; close that quote, or write '
                    "it twice"
                )
            yield text
    if seen and name is None:
        _choose_column({}, list(seen), column, source)


def _texts(value: Any, where: str) -> Iterator[str]:
    for text in value if isinstance(value, list) else [value]:
        if text is not None and not isinstance(text, str):
            raise CaptionError(f"{where}: {json_kind(text)} where a caption should be; name another column")
        yield text or ""


def _choose_column(sample: Mapping[str, Any], columns: list[str], column: str | None, source: str) -> str:
    """Return the column that holds captions; `sample` has a value of each column, to tell which hold text."""
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
