"""Objects that another program made, and that a source takes over because they name its pictures.

Such an object keeps its id, its other vectors and its other columns. Its record holds the id that the source gives to
the picture, so that later runs find it by that.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cir_vectorizer.collections import Collection, Id, Info, Point, SyncRecord, Vector, picture_cell, picture_column_of
from cir_vectorizer.collections.base import check_written
from cir_vectorizer.errors import CollectionError, ImageError, PartialWriteError
from cir_vectorizer.sources.base import Failure, Item
from cir_vectorizer.sources.picture_column import guess_columns
from cir_vectorizer.sources.pictures import is_url
from cir_vectorizer.sources.places import Places
from cir_vectorizer.sources.web import Web

_PAGE = 256
_SAMPLE = 100
"""Objects from whose columns the column of pictures is guessed."""


class Theirs:
    """Objects of other programs in a collection: those that sources took over, and with `take_over` all others too.

    Args:
        info: the collection's description.
        take_over: match objects that no source wrote by the picture that they name.

    Raises:
        CollectionError: no column names pictures.
    """

    def __init__(self, collection: Collection, info: Info, take_over: bool) -> None:
        self._ids: dict[str, Id] = {}
        """Ids of objects, by the source's id."""
        self._free: dict[str, list[Id]] = {}
        """Ids of objects that no source wrote, by the place of their picture."""
        self._column = picture_column_of(collection, info)
        self._places = Places(os.getcwd(), Web())
        unowned: list[Id] = []
        for id_, record in collection.scan():
            if record is not None and record.source_id:
                self._ids[record.source_id] = id_
            elif record is None or not record.owner:  # `doctor --adopt` writes records without an owner
                unowned.append(id_)
        self.left = len(unowned)
        """Number of objects that no source has taken over so far."""
        if take_over and unowned:
            self._column = self._column or _guessed(collection, unowned[:_SAMPLE])
            for start in range(0, len(unowned), _PAGE):
                self._match(collection.get(unowned[start : start + _PAGE]), self._column)

    def of(self, entry: Item | Failure) -> Item | Failure:
        """Return an entry under the id of the object that it stands for, if another program made that object."""
        if entry.id is None:
            return entry
        known = self._ids.get(str(entry.id))
        if isinstance(entry, Failure):
            return entry if known is None else replace(entry, id=known)
        location = _normal(entry.picture.location)
        if known is None:
            free = self._free.get(location)
            if not free:
                return entry
            known = self._ids[str(entry.id)] = free.pop(0)
            self.left -= 1
        columns = entry.columns
        if self._column is not None and "." not in self._column and is_url(location):
            columns = {**columns, self._column: location}  # if the picture moves, the object has to name its new place
        return replace(entry, id=known, source_id=str(entry.id), columns=columns)

    def _match(self, points: Sequence[Point], column: str) -> None:
        for point in sorted(points, key=lambda point: str(point.id)):
            try:
                picture, _ = self._places.picture(picture_cell(point.payload, column))
            except ImageError:
                continue
            self._free.setdefault(_normal(picture.location), []).append(point.id)


def theirs_of(collection: Collection, info: Info, take_over: bool) -> Theirs | None:
    """Return the objects of other programs that a run has to know; None if the collection is all ours.

    Raises:
        CollectionError: as for `Theirs`.
    """
    return Theirs(collection, info, take_over) if take_over or info.picture_column is not None else None


def upsert(collection: Collection, points: Sequence[Point]) -> None:
    """Write objects; of those that another program made, all else stays.

    Raises:
        PartialWriteError: names the objects that the database rejected; all others were written.
    """
    _write(points, collection.upsert, collection.merge)


def replace_payloads(collection: Collection, points: Sequence[Point], texts: Mapping[Id, Vector | None]) -> None:
    """Replace the payloads of objects (the points have no vectors); of those that another program made, columns that
    the source lacks stay.

    Args:
        texts: as for `Collection.replace_payload`.

    Raises:
        PartialWriteError: as for `upsert`.
    """

    def replace_ours(ours: Sequence[Point]) -> None:
        collection.replace_payload({point.id: point.payload for point in ours}, texts)

    _write(points, replace_ours, collection.merge)


def _write(points: Sequence[Point], *calls: Callable[[Sequence[Point]], None]) -> None:
    ours: list[Point] = []
    theirs: list[Point] = []
    for point in points:
        record = SyncRecord.read(point.payload)
        (theirs if record is not None and record.source_id else ours).append(point)
    failed: dict[Id, str] = {}
    cause: PartialWriteError | None = None
    for call, some in zip(calls, (ours, theirs), strict=True):
        try:
            if some:
                call(some)
        except PartialWriteError as error:
            failed, cause = failed | error.failed, error
    check_written(failed, len(points), cause)


def _guessed(collection: Collection, ids: Sequence[Id]) -> str:
    columns = guess_columns([point.payload for point in collection.get(ids)])
    if not columns:
        raise CollectionError(
            f"{collection.address} has no column that clearly names pictures; name the one that does with --picture-column"
        )
    return columns[0]


def _normal(location: str) -> str:
    """Return the one spelling of a picture's place."""
    return location if is_url(location) else os.path.normpath(location)
