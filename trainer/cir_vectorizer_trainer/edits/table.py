"""Tables of edits: written by `make-edits`, read for training; a table from elsewhere needs only three columns."""

from collections.abc import Iterable, Iterator
from dataclasses import astuple, fields
from pathlib import Path

from cir_vectorizer.errors import SourceError
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sources.rows import table_rows
from cir_vectorizer_trainer.captions.keywords import prepare
from cir_vectorizer_trainer.captions.reading import clean
from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.writing import write_table

COLUMNS = tuple(field.name for field in fields(Edit))
_NEEDED = ("reference", "words", "target")
_KINDS = frozenset(("replace", "add", "remove", "two", "not", "empty"))


def write_edits(edits: Iterable[Edit], out: Path) -> int:
    """Write edits as a table with a column for each attribute of `Edit`; return their number.

    Raises:
        SourceError: the suffix of `out` is not supported, or `out` cannot be written.
    """
    return write_table(out, COLUMNS, map(astuple, edits))


def read_edits(path: Path) -> Iterator[Edit]:
    """Yield the edits of a table, in the form of captions that are trained on (see `prepare`).

    The columns reference, words and target are needed. Without the column kind an edit is of the kind "table", or
    "empty" if nothing changes in it; without the column wording its words are its wording.

    Raises:
        SourceError: the table cannot be read, lacks a column, or a row has no reference or target.
    """
    rows = table_rows(path)
    there = rows.columns()
    if missing := [name for name in _NEEDED if name not in there]:
        for _, row in rows:
            if isinstance(row, Failure):  # a damaged row says more than the columns that it hides
                raise SourceError(str(row))
            break
        raise SourceError(
            f"{path} has no column {missing[0]!r}; a table of edits has the columns {', '.join(_NEEDED)}, and its "
            f"columns are {', '.join(there) or 'none'}"
        )
    for number, row in rows:
        if isinstance(row, Failure):
            raise SourceError(str(row))
        cells = {name: row.get(name) or "" for name in COLUMNS}
        if wrong := [name for name, cell in cells.items() if not isinstance(cell, str)]:
            raise SourceError(f"{rows.place(number)}: {wrong[0]!r} is no text; write it as text")
        text = {name: prepare(clean(str(cells[name]))) for name in (*_NEEDED, "negative")}
        if empty := [name for name in ("reference", "target") if not text[name]]:
            raise SourceError(f"{rows.place(number)}: {empty[0]!r} is empty; an edit needs both captions")
        known = cells["kind"] in _KINDS
        kind = str(cells["kind"]) if known else "table" if text["words"] or text["negative"] else "empty"
        wording = str(cells["wording"]) or text["words"]
        yield Edit(text["reference"], text["words"], text["target"], kind, wording, text["negative"])
