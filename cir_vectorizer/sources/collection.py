"""Another collection as a source: the same objects, with their pictures at the places that sync recorded."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cir_vectorizer.collections import RECORD_KEY, Collection, Id, Point, SyncRecord, picture_cell, picture_column_of
from cir_vectorizer.errors import ImageError, SourceError
from cir_vectorizer.identity import spellings, whole_number
from cir_vectorizer.sources.base import Failure, Item, stable_id
from cir_vectorizer.sources.pictures import INLINE, InlinePicture
from cir_vectorizer.sources.places import Places
from cir_vectorizer.sources.web import Web

_PAGE = 256
_PAGE_WITH_PICTURES = 16
"""Objects that are read at once if their pictures come along."""


class CollectionSource:
    """The objects of a collection, with their ids and columns; ids of respelled whole numbers become the present ones.

    Args:
        collection: the collection to read.
        image_column: the column that names or holds an object's picture, for a collection that sync did not make;
            relative paths start at the current directory. If None, the recorded path is used; for objects without a
            record, the column that the collection was adopted with, or from which the database's server makes the vectors.
        keep_owners: True if objects keep their ids and belong to the source that wrote them, not to this collection.
        wanted: tells which ids to list; all if None.
        lent: True if `close` shall leave the collection open.
        text_columns: columns that some object must have.
    """

    far = True
    skipped = 0
    notes = ()

    def __init__(
        self,
        collection: Collection,
        web: Web,
        image_column: str | None = None,
        keep_owners: bool = False,
        wanted: Callable[[Id], bool] | None = None,
        lent: bool = False,
        text_columns: Sequence[str] = (),
    ) -> None:
        address = collection.address
        self.name = str(address)
        self.identity = str(replace(address, path=Path(os.path.abspath(address.path))) if address.path else address)
        self._collection = collection
        self._places = Places(os.getcwd(), web)
        self._image_column = image_column
        self._keep_owners = keep_owners
        self._wanted = wanted
        self._lent = lent
        self._text_columns = text_columns

    @property
    def nothing(self) -> str:
        return f"{self.name} was read as a collection, which has no objects; check its name, or sync into it first"

    def count(self) -> int | None:
        if self._collection.info() is None:
            raise SourceError(f"there is no collection {self.name} to copy from; correct the address")
        self._check_text_columns()
        return self._collection.count() if self._wanted is None else None

    def items(self) -> Iterator[Item | Failure]:
        ids = (id_ for id_, _ in self._collection.scan() if self._wanted is None or self._wanted(id_))
        info = self._collection.info()
        named = picture_column_of(self._collection, info)
        holding = self._holding_column(info.pictures if info is not None else ())
        while page := list(itertools.islice(ids, _PAGE if holding is None else _PAGE_WITH_PICTURES)):
            held = {} if holding is None else self._collection.pictures(page, holding)
            for point in self._collection.get(page):
                yield self._entry(point, named, held.get(point.id), stay=self._keep_owners and holding is not None)

    def noted_text_columns(self) -> tuple[str, ...]:
        """Return the columns whose texts are vectors of the collection's objects."""
        info = self._collection.info()
        return () if info is None else info.text_columns

    def still_has(self, location: str) -> bool:
        return False

    def close(self) -> None:
        if not self._lent:
            self._collection.close()

    def _check_text_columns(self) -> None:
        missing, seen = set(self._text_columns), dict[str, None]()
        ids = (id_ for id_, _ in self._collection.scan())
        while missing and (page := list(itertools.islice(ids, _PAGE))):
            for point in self._collection.get(page):
                seen |= dict.fromkeys(name for name in point.payload if name != RECORD_KEY)
                missing -= {name for name in missing if picture_cell(point.payload, name) is not None}
        if missing:
            raise SourceError(
                f"{self.name} has no column {min(missing)!r}; --text-column is one of: {', '.join(seen) or 'none at all'}"
            )

    def _holding_column(self, pictures: Sequence[str]) -> str | None:
        """Return which of the columns with pictures is read; None if the pictures are elsewhere."""
        if self._image_column is None:
            return pictures[0] if pictures else None
        return self._image_column if self._image_column in pictures else None

    def _entry(self, point: Point, named: str | None, held: str | None, stay: bool) -> Item | Failure:
        """Return an object as an entry.

        Args:
            named: column that names the pictures of objects without a record.
            held: the picture that the object itself holds.
            stay: True if objects of another program keep their columns where these are.
        """
        record = SyncRecord.read(point.payload)
        kept = record if self._keep_owners else None
        columns = {name: value for name, value in point.payload.items() if name != RECORD_KEY}
        number = None if self._keep_owners else _number_of(point.id, columns)
        id_ = point.id if number is None else stable_id(str(number))
        place = f"object {point.id}"
        cell = record.path if record is not None else None
        if held is not None and cell is not None and cell.startswith(INLINE):
            cell = None
        if self._image_column is not None:
            cell = next(iter(self._places.listed(columns.get(self._image_column))), None)
        elif record is None and named is not None:
            cell = picture_cell(columns, named)
        if stay and (record is None or record.source_id):
            kept, columns = record or SyncRecord("", 0, 0, "", None, "", "", source_id=str(point.id)), {}
        if cell is None and held is not None:
            return Item(id_, InlinePicture(held), place, columns, kept, number=number)
        if cell is None:
            sentence = "does not say where its picture is; name the column that does with --image-column"
            if self._image_column is not None:
                sentence = f"has nothing in column {self._image_column!r}, so its picture is unknown; fill it in"
            return Failure(place, "missing", sentence, id_, number)
        try:
            picture, _ = self._places.picture(cell)
        except ImageError as error:
            return Failure(place, error.reason, f"has a picture that {error}", id_, number)
        return Item(id_, picture, str(cell), columns, kept, number=number)


def _number_of(id_: Id, columns: dict[str, Any]) -> int | None:
    """Return the whole number in a column that sync derived the id from, in whichever spelling; None if there is none."""
    numbers = dict.fromkeys(whole_number(value) for value in columns.values())
    spelled = ((number, text) for number in numbers if number is not None for text in spellings(number))
    return next((number for number, text in spelled if stable_id(text) == id_), None)
