"""Tables of pictures with texts and tables of triplets: their pictures, texts and examples.

A picture's cell is what `sync` takes too: a path relative to the table, a URL, a data URI, or bytes (parquet). A text's
cell is a text, or a list of texts, each of which makes a row. A cell that cannot be used is reported and its row left out.
"""

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import ImageError, SourceError
from cir_vectorizer.sources.base import Failure, SourcePicture
from cir_vectorizer.sources.cells import IMAGE_COLUMNS
from cir_vectorizer.sources.pictures import is_url
from cir_vectorizer.sources.places import Places
from cir_vectorizer.sources.rows import Row, table_rows
from cir_vectorizer.sources.web import Web
from cir_vectorizer_trainer.captions.reading import CAPTION_COLUMNS, clean

PAIR_COLUMNS = {"image": IMAGE_COLUMNS, "text": CAPTION_COLUMNS}
TRIPLET_COLUMNS = {
    "reference": ("reference", "reference_image", "ref", "source", "source_image", "candidate", "query_image", "from"),
    "text": ("text", "edit", "instruction", "modification", "relative_caption", "captions", "caption", "prompt"),
    "target": ("target", "target_image", "target_hard", "edited_image", "to"),
}
"""Roles of a table's columns, each with the names by which a column is guessed, in order of preference; case is ignored."""
MOST_FAILURES = 1000
"""Largest number of failures that are kept; all are counted."""


class Tables:
    """Pictures and texts of all tables, each once, and the rows, which refer to them by number.

    Attributes:
        pictures: all different pictures.
        texts: all different texts; the first is empty.
        pairs: (picture, text) numbers, one array each.
        triplets: (reference, text, target) numbers, one array each.
        failures: the first `MOST_FAILURES` rows and pictures that cannot be used.
        failed: number of all of them.
        notes: sentences about tables as a whole.
    """

    def __init__(self, web: Web | None = None) -> None:
        self.pictures: list[SourcePicture] = []
        self.texts: list[str] = [""]
        self.pairs = (array("i"), array("i"))
        self.triplets = (array("i"), array("i"), array("i"))
        self.failures: list[Failure] = []
        self.failed = 0
        self.notes: list[str] = []
        self._web = web or Web()
        self._picture_numbers: dict[str, int] = {}
        self._text_numbers = {"": 0}

    def read_pairs(self, path: Path, columns: Sequence[str] = ()) -> None:
        """Add a table of pictures with texts.

        Args:
            columns: columns of picture and text; guessed if empty.

        Raises:
            SourceError: the table cannot be read, or lacks a column.
        """
        for image, text in self._rows(path, PAIR_COLUMNS, "--pair-columns", columns):
            self.pairs[0].append(image)
            self.pairs[1].append(text)

    def read_triplets(self, path: Path, columns: Sequence[str] = ()) -> None:
        """Add a table of reference pictures, texts and target pictures.

        Args:
            columns: columns of reference, text and target; guessed if empty.

        Raises:
            SourceError: the table cannot be read, or lacks a column.
        """
        for reference, text, target in self._rows(path, TRIPLET_COLUMNS, "--triplet-columns", columns):
            self.triplets[0].append(reference)
            self.triplets[1].append(text)
            self.triplets[2].append(target)

    def fail(self, failure: Failure) -> None:
        """Note a row or picture that cannot be used."""
        self.failed += 1
        if len(self.failures) < MOST_FAILURES:
            self.failures.append(failure)

    @property
    def digest(self) -> str:
        """Digest of all pictures' locations and all texts (hex)."""
        digest = PartsDigest(str(len(self.pictures)), *(picture.location for picture in self.pictures))
        return digest.add(*self.texts).hexdigest()

    def _rows(
        self, path: Path, roles: dict[str, tuple[str, ...]], option: str, columns: Sequence[str]
    ) -> Iterator[list[int]]:
        """Yield the numbers of each row's pictures and text, in the order of the roles."""
        rows = table_rows(path)
        found = choose_columns(str(path), rows.columns(), roles, option, columns)
        places = Places(str(path.resolve().parent), self._web)
        for number, row in rows:
            if isinstance(row, Failure):
                self.fail(row)
                continue
            numbers = self._numbers(rows.place(number), row, found, places)
            if numbers is not None:
                at = list(roles).index("text")
                for text in numbers[at]:
                    yield [*(each[0] for each in numbers[:at]), text, *(each[0] for each in numbers[at + 1 :])]
        self.notes += rows.notes

    def _numbers(self, place: str, row: Row, columns: dict[str, str], places: Places) -> list[list[int]] | None:
        """Return the numbers for each role; if a cell cannot be used, note a failure and return None."""
        numbers = []
        for role, column in columns.items():
            cell = row.get(column)
            if cell is None or cell == "" or cell == []:
                self.fail(Failure(place, "missing", f"has nothing in column {column!r}; fill it, or drop the row"))
                return None
            found = self._texts(cell) if role == "text" else self._picture(cell, place, column, places)
            if found is None:
                if role == "text":
                    self.fail(Failure(place, "row", f"has no text in column {column!r}; give words"))
                return None
            numbers.append(found)
        return numbers

    def _texts(self, cell: Any) -> list[int] | None:
        texts = cell if isinstance(cell, list) else [cell]
        if not all(isinstance(text, str) for text in texts):
            return None
        cleaned = [text for text in map(clean, texts) if text]
        for text in cleaned:
            if text not in self._text_numbers:
                self._text_numbers[text] = len(self.texts)
                self.texts.append(text)
        return [self._text_numbers[text] for text in cleaned] or None

    def _picture(self, cell: Any, place: str, column: str, places: Places) -> list[int] | None:
        try:
            picture, _ = places.picture(next(iter(places.listed(cell)), cell))
        except ImageError as error:
            self.fail(Failure(place, error.reason, f"column {column!r} holds a picture that {error}"))
            return None
        key = picture.location if is_url(picture.location) else os.path.normpath(picture.location)
        number = self._picture_numbers.setdefault(key, len(self.pictures))
        if number == len(self.pictures):
            self.pictures.append(picture)
        return [number]


def choose_columns(
    table: str, columns: Sequence[str], roles: dict[str, tuple[str, ...]], option: str, named: Sequence[str]
) -> dict[str, str]:
    """Return the column of each role: the named one, or one with a usual name.

    Raises:
        SourceError: a column is missing or cannot be guessed.
    """
    there = f"its columns are {', '.join(columns)}" if columns else "it has no columns at all"
    wanted = ",".join(role.upper() for role in roles)
    if named and len(named) != len(roles):
        raise SourceError(f"{option} has {len(named)} names, but {table} needs {len(roles)}; write {option} {wanted}")
    if missing := [name for name in named if name not in columns]:
        raise SourceError(f"{table} has no column {missing[0]!r}; {there}")
    if named:
        return dict(zip(roles, named, strict=True))
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    found = {role: next((by_name[name] for name in names if name in by_name), None) for role, names in roles.items()}
    chosen = {role: column for role, column in found.items() if column is not None}
    if missing := [role for role in roles if role not in chosen]:
        raise SourceError(
            f"{table} has no column that is clearly the {missing[0]}'s; name them with {option} {wanted}: {there}"
        )
    return chosen
