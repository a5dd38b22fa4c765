"""Removal of objects whose picture has left the source.

An object belongs to the source that last named it, which its record holds. Only objects of this source that existed
when the run began are removed: none of another source, and none that another run wrote meanwhile. Nothing is removed
if part of the source could not be listed, or if it lists nothing at all.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from cir_vectorizer.collections import Collection, Id, SyncRecord
from cir_vectorizer.errors import SourceError
from cir_vectorizer.sources.base import Failure, Source
from cir_vectorizer.sync.compare import Known
from cir_vectorizer.sync.report import Report

MOST_REMOVED = 0.2
"""Largest share of a source's objects that is removed without --yes."""
_BY_ID = (
    "; if the table has a column of ids, give --id-column COLUMN, so that rows without a picture hide no object (once with "
    "--yes, because the objects get new ids)"
)
_PAGE = 1000
_T = TypeVar("_T")


class PruneRefused(SourceError):
    """Raised instead of removing objects: too many would go, or their pictures may still exist."""


def prune(
    source: Source,
    collection: Collection,
    known: Known,
    hidden: list[Failure],
    yes: bool,
    report: Report,
    on_progress: Callable[[Report], None],
) -> None:
    """Remove the objects that `leaving` finds.

    Args:
        hidden: failures that may have kept entries of the source from being listed.
        yes: remove them even if they are more than `MOST_REMOVED`.

    Raises:
        PruneRefused: as for `check`.
    """
    check(source, known, report.total, hidden, yes)
    for page in pages(leaving(source, collection, known)):
        known_again = collection.records([id_ for id_, _ in page])
        still = [id_ for id_, record in page if known_again.get(id_) == record]
        collection.delete(still)
        report.removed += len(still)
        on_progress(report)


def check(source: Source, known: Known, listed: int, hidden: list[Failure], yes: bool) -> None:
    """Check that pruning would not remove too much.

    Args:
        listed: number of the source's entries.

    Raises:
        PruneRefused: the source lists nothing, part of it could not be listed, or more than `MOST_REMOVED` would be removed.
    """
    if known.left and not listed:
        raise PruneRefused(f"nothing was removed: {nothing_left(source)}")
    if known.left and hidden:
        by_id = all(failure.reason == "missing" for failure in hidden)
        remedy = _BY_ID if by_id else "; correct it and run again"
        raise PruneRefused(
            f"nothing was removed: part of {source.name} could not be listed ({hidden[0]}), so {known.left:,} objects "
            f"that were not seen may still have their pictures{remedy}"
        )
    if known.left > MOST_REMOVED * known.owned and not yes:
        raise PruneRefused(
            f"nothing was removed: {known.left:,} of the {known.owned:,} objects from {source.name} have left it, more "
            f"than {MOST_REMOVED:.0%}; check that the source is whole, then give --yes"
        )


def nothing_left(source: Source) -> str:
    """Return the sentence that says why an empty source removes no objects, not even with --yes."""
    return f"{source.nothing}; an empty source never removes its objects, so if they shall go, delete the collection"


def leaving(source: Source, collection: Collection, known: Known) -> Iterator[tuple[Id, SyncRecord]]:
    """Yield the objects to remove."""
    if known.left:
        # scan to the end first: a database may skip objects if others are removed while it pages through them
        found = [each for page in pages(collection.scan()) for each in known.leaving(page)]
        yield from (each for each in found if not source.still_has(each[1].path))


def pages(entries: Iterable[_T]) -> Iterator[list[_T]]:
    """Yield the entries in lists of a thousand."""
    entries = iter(entries)
    while page := list(itertools.islice(entries, _PAGE)):
        yield page
