"""Another collection as a source: the same objects, with their pictures at the places that sync recorded."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from cir_vectorizer.collections import RECORD_KEY, Collection, Id, Point, SyncRecord
from cir_vectorizer.errors import ImageError, SourceError
from cir_vectorizer.sources.base import Failure, Item
from cir_vectorizer.sources.places import Places
from cir_vectorizer.sources.web import Web

_PAGE = 256


class CollectionSource:
    """The objects of a collection, with their ids and columns.

    Args:
        collection: the collection to read.
        image_column: the column that names an object's picture, for a collection that sync did not make; relative
            paths start at the current directory. If None, the recorded path is used.
        keep_owners: True if objects keep belonging to the source that wrote them, instead of to this collection.
        wanted: tells which ids to list; all if None.
        lent: True if `close` shall leave the collection open.
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

    def count(self) -> int | None:
        if self._collection.info() is None:
            raise SourceError(f"there is no collection {self.name} to copy from; correct the address")
        return self._collection.count() if self._wanted is None else None

    def items(self) -> Iterator[Item | Failure]:
        ids = (id_ for id_, _ in self._collection.scan() if self._wanted is None or self._wanted(id_))
        while page := list(itertools.islice(ids, _PAGE)):
            for point in self._collection.get(page):
                yield self._entry(point)

    def still_has(self, location: str) -> bool:
        return False

    def close(self) -> None:
        if not self._lent:
            self._collection.close()

    def _entry(self, point: Point) -> Item | Failure:
        record = SyncRecord.read(point.payload)
        columns = {name: value for name, value in point.payload.items() if name != RECORD_KEY}
        place = f"object {point.id}"
        cell = record.path if record is not None else None
        if self._image_column is not None:
            cell = next(iter(self._places.listed(columns.get(self._image_column))), None)
        if cell is None:
            sentence = "does not say where its picture is; name the column that does with --image-column"
            return Failure(place, "missing", sentence, point.id)
        try:
            picture, _ = self._places.picture(cell)
        except ImageError as error:
            return Failure(place, error.reason, f"has a picture that {error}", point.id)
        return Item(point.id, picture, str(cell), columns, record if self._keep_owners else None)
