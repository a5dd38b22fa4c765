"""Tables of edits: written by `make-edits`, read for training; a table from elsewhere needs only three columns."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, fields
from pathlib import Path

from cir_vectorizer.errors import SourceError
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sources.rows import Row, table_rows
from cir_vectorizer_trainer.captions.keywords import prepare
from cir_vectorizer_trainer.captions.reading import clean
from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.writing import write_table

COLUMNS = tuple(field.name for field in fields(Edit))
_NEEDED = ("reference", "words", "target")
_SHOWN = 5
"""Largest number of rows that are named as left out."""
_KINDS = frozenset(("replace", "add", "remove", "two", "not", "empty"))


def write_edits(edits: Iterable[Edit], out: Path) -> int:
    """Write edits as a table with a column for each attribute of `Edit`; return their number.

    Raises:
        SourceError: the suffix of `out` is not supported, or `out` cannot be written.
    """
    return write_table(out, COLUMNS, map(astuple, edits))


def read_edits(path: Path, tell: Callable[[str], None]) -> Iterator[Edit]:
    """Yield the edits of a table, in the form of captions that are trained on (see `prepare`).

    Rows that cannot be read are left out.

    The columns reference, words and target are needed. Without the column kind an edit is of the kind "table", or
    "empty" if nothing changes in it; without the column wording its words are its wording.

    Args:
        tell: called at the end with sentences about rows that are left out and about the table as a whole.

    Raises:
        SourceError: the table cannot be read, lacks a column, or has no row with a reference and a target.
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
    found, left_out, problems = 0, 0, list[str]()
    for number, row in rows:
        edit = str(row) if isinstance(row, Failure) else _edit(row, rows.place(number))
        if isinstance(edit, Edit):
            found += 1
            yield edit
        else:
            left_out += 1
            problems += [edit] if len(problems) < _SHOWN else []
    if problems and not found:
        raise SourceError(f"no row of {path} is an edit; the first one: {problems[0]}")
    for sentence in (*(f"left out: {problem}" for problem in problems), *(f"Note: {note}" for note in rows.notes)):
        tell(sentence)
    if left_out > _SHOWN:
        tell(f"left out: {left_out - _SHOWN:,} more rows of {path}")


def _edit(row: Row, place: str) -> Edit | str:
    """Return the edit of a row, or a sentence that says why it is none."""
    cells = {name: row.get(name) or "" for name in COLUMNS}
    if wrong := [name for name, cell in cells.items() if not isinstance(cell, str)]:
        return f"{place}: {wrong[0]!r} is no text; write it as text"
    text = {name: prepare(clean(str(cells[name]))) for name in (*_NEEDED, "negative")}
    if empty := [name for name in ("reference", "target") if not text[name]]:
        return f"{place}: {empty[0]!r} is empty; an edit needs both captions"
    known = cells["kind"] in _KINDS
    kind = str(cells["kind"]) if known else "table" if text["words"] or text["negative"] else "empty"
    wording = str(cells["wording"]) or text["words"]
    return Edit(text["reference"], text["words"], text["target"], kind, wording, text["negative"])
