"""Switch a collection to another backbone: embed everything into a new collection beside it, which then takes over.

The old collection answers until the new one holds an object for each of its own. A run that was stopped is run again
and goes on where it was, like any other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from typing_extensions import Unpack

from cir_vectorizer.collections import Collection, Id, ModelRecord
from cir_vectorizer.errors import CollectionError, SourceError
from cir_vectorizer.sources.base import Source
from cir_vectorizer.sync.compare import Known, owner_digest
from cir_vectorizer.sync.prune import MOST_REMOVED, PruneRefused, pages
from cir_vectorizer.sync.report import Report
from cir_vectorizer.sync.run import RunOptions, sync

if TYPE_CHECKING:
    from cir_vectorizer.client import ServedModel
    from cir_vectorizer.models.vectorizer import Vectorizer

Copy = Callable[[Callable[[Id], bool]], Source]
"""Returns a source of those objects of the old collection whose id is wanted; they keep their owners."""

_ROUNDS = 3
"""Rounds of copying: another program may add objects to the old collection meanwhile."""


class SwitchRefused(SourceError):
    """Objects of the old collection are missing from the new one; the old one still answers."""


def must_reembed(collection: Collection, model: ModelRecord) -> bool:
    """Tell whether a collection exists and another backbone filled it."""
    info = collection.info()
    return info is not None and info.fingerprint is not None and not model.made(info.fingerprint)


def beside(collection: Collection, model: ModelRecord) -> Collection:
    """Return the collection that is to take over: NAME_FINGERPRINT, with the first 8 digits of the fingerprint."""
    return collection.beside(f"{collection.address.collection}_{model.fingerprint[:8]}")


def reembed(
    source: Source,
    collection: Collection,
    vectorizer: "Vectorizer | ServedModel | ModelRecord",
    copy: Copy,
    **options: Unpack[RunOptions],
) -> Report:
    """Sync, and replace a collection that another backbone filled by one that this model fills.

    First the source is embedded, then what else the old collection holds (objects of other sources), by the recorded
    places of its pictures.

    Args:
        options: as for `sync`. `yes` also switches if objects of the old collection could not be embedded anew.

    Raises:
        SwitchRefused: objects would be lost; they are in the report.
        CollectionError: the collection has tenants; or as for `sync`.
        PruneRefused: with `prune`, more than a fifth of the source's objects would be left behind.
        SourceError, ModelError: as for `sync`; run again to go on.
    """
    model = ModelRecord.of(vectorizer)
    report = options["report"] = options.get("report") or Report()
    yes = options.get("yes", False)
    _finish_switch(collection, model)
    if not must_reembed(collection, model):
        return sync(source, collection, vectorizer, **options)
    if collection.options.tenant is not None:
        raise CollectionError(
            f"{collection.address} holds other tenants too, which --reembed would switch with this one; sync this tenant "
            "into a collection of its own"
        )
    other = beside(collection, model)
    sync(source, other, vectorizer, **options)
    report.complete = False
    owner = owner_digest(options.get("source_name") or source.identity) if options.get("prune") else None
    for _ in range(_ROUNDS):
        missing = _missing(collection, other, owner, {failure.id for failure in report.failed})
        if not missing.wanted:
            break
        rest = Report()
        copying: RunOptions = {**options, "source_name": None, "prune": False, "yes": False, "report": rest}
        try:
            sync(copy(missing.wanted.__contains__), other, vectorizer, **copying)
        finally:
            _add(report, rest)
    report.complete = True
    _check_left_behind(source, missing, report, yes)
    lost = missing.failed + len(missing.wanted)
    if lost and not yes:
        raise SwitchRefused(
            f"{lost:,} objects of {collection.address} could not be embedded anew, so it answers with the "
            "old model as before; correct what the report lists and run again, or give --yes to go on without them"
        )
    collection.take_over(other)
    report.collection, report.switched = str(collection.address), True
    return report


def _finish_switch(collection: Collection, model: ModelRecord) -> None:
    """End a switch that was cut off after the old collection was removed."""
    if collection.info() is None and (other := beside(collection, model)).info() is not None:
        collection.take_over(other)


@dataclass
class _Missing:
    """Objects of the old collection that the new one lacks."""

    wanted: set[Id] = field(default_factory=set)
    failed: int = 0
    """Objects beside these that could not be embedded anew."""
    left_behind: int = 0
    """Objects beside these that are to go, because their pictures left the source."""
    owned: int = 0
    """Objects that the source had written."""


def _missing(old: Collection, new: Collection, owner: str | None, failed: set[Id | None]) -> _Missing:
    """Compare two collections; `owner` is the source whose objects are left behind, None for no source."""
    there, missing = Known(new.scan(), ""), _Missing()
    for page in pages(old.scan()):
        _, found = there.find([id_ for id_, _ in page])
        for (id_, record), copied in zip(page, found, strict=True):
            ours = owner is not None and record is not None and record.owner == owner
            missing.owned += ours
            if copied:
                continue
            if id_ in failed:
                missing.failed += 1
            elif ours:
                missing.left_behind += 1
            else:
                missing.wanted.add(id_)
    return missing


def _check_left_behind(source: Source, missing: _Missing, report: Report, yes: bool) -> None:
    left, hidden = missing.left_behind, [failure for failure in report.failed if failure.hides_entries]
    if left and hidden:
        raise PruneRefused(
            f"{left:,} objects would be left behind, but part of {source.name} could not be listed ({hidden[0]}); "
            "correct it and run again"
        )
    if left > MOST_REMOVED * missing.owned and not yes:
        raise PruneRefused(
            f"{left:,} of the {missing.owned:,} objects that {source.name} had made have left it and would be left "
            f"behind, more than {MOST_REMOVED:.0%}; check that the source is whole, then give --yes"
        )


def _add(report: Report, rest: Report) -> None:
    """Count what a run over the rest of the old collection did."""
    for name in ("total", "added", "changed", "unchanged", "encoded", "seconds"):
        setattr(report, name, getattr(report, name) + getattr(rest, name))
    for change, count in rest.changes.items():
        report.changes[change] += count
    report.failed += rest.failed
