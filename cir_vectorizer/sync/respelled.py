"""Objects under another spelling of their id: releases up to 0.1.0 made two objects of 101 and 101.0.

Each is moved to the id that all spellings have now. The new object is written before the old one is removed; a run that
ends in between leaves both, and the next run removes the old one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cir_vectorizer.collections import Collection, Id, SyncRecord
from cir_vectorizer.errors import PartialWriteError
from cir_vectorizer.sources.base import Failure, Item
from cir_vectorizer.sync.report import Report


@dataclass(frozen=True)
class Respelled:
    """An entry of the source, and the objects that other spellings of its id have.

    `missing` is True if no object has the entry's own id.
    """

    item: Item
    others: Mapping[Id, SyncRecord]
    missing: bool

    @property
    def first(self) -> Id:
        """The object to keep if the entry's own is missing."""
        return next(iter(self.others))

    @property
    def record(self) -> SyncRecord:
        """The record of the object to keep."""
        return self.others[self.first]


def move(collection: Collection, report: Report, found: Sequence[Respelled]) -> list[Failure]:
    """Move objects to the present spelling of their id, with their vectors and payloads; count them in the report.

    Returns:
        A failure for each object that the database refused; it stays under its old id.

    Raises:
        CollectionError: the database cannot be reached or refuses.
    """
    to = {each.first: each.item.id for each in found if each.missing}
    refused: Mapping[Id, str] = {}
    if to:
        try:
            collection.upsert([replace(point, id=to[point.id]) for point in collection.get(list(to))])
        except PartialWriteError as error:
            refused = error.failed
    done = [other for each in found if each.item.id not in refused for other in each.others]
    if done:
        collection.delete(done)
    report.moved += len(done)
    return [
        Failure(each.item.name, "database", f"was refused by the database: {refused[each.item.id]}", each.item.id)
        for each in found
        if each.item.id in refused
    ]
