"""Switch a collection to another backbone: embed everything into a new collection, which then takes over its name.

The old collection answers until the new one holds all of its objects. A run that was stopped resumes when it is started
again, like any other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from typing_extensions import Unpack

from cir_vectorizer.collections import Collection, CreateOptions, Id, Info, ModelRecord
from cir_vectorizer.errors import CollectionError, SourceError
from cir_vectorizer.sources.base import Source
from cir_vectorizer.sync import respelled
from cir_vectorizer.sync.compare import Comparer, Known, owner_digest
from cir_vectorizer.sync.prune import MOST_REMOVED, PruneRefused, nothing_left, pages
from cir_vectorizer.sync.report import Report
from cir_vectorizer.sync.run import RunOptions, sync
from cir_vectorizer.sync.texts import Texts, TextsRefused, question, texts_of

if TYPE_CHECKING:
    from cir_vectorizer.client import ServedModel
    from cir_vectorizer.models.vectorizer import Vectorizer

Copy = Callable[[Callable[[Id], bool]], Source]
"""Function that takes a filter on ids and returns the old collection's matching objects as a source; they keep their
owners."""

_ROUNDS = 3
"""Rounds of copying; several, since other programs may add objects to the old collection meanwhile."""


class SwitchRefused(SourceError):
    """Raised if objects of the old collection are missing from the new one; the old one still answers."""


def must_reembed(collection: Collection, model: ModelRecord) -> Info | None:
    """Return the state of a collection that another backbone filled, or another program with pictures; None for others."""
    info = collection.info()
    if info is None:
        return None
    must = bool(info.pictures) if info.fingerprint is None else not model.made(info.fingerprint)
    return info if must else None


def beside(collection: Collection, model: ModelRecord) -> Collection:
    """Return the new collection, NAME_FINGERPRINT with the fingerprint's first 8 digits, which will take over."""
    name, info = f"{collection.address.collection}_{model.fingerprint[:8]}", collection.info()
    return collection.twin(name) if info is not None and info.pictures else collection.beside(name)


def check_switch(source: Source, collection: Collection) -> None:
    """Check that a switch loses nothing.

    Raises:
        CollectionError: the collection has tenants, or another program made it and the source is not the collection.
    """
    if collection.options.tenant is not None:
        raise CollectionError(
            f"{collection.address} holds other tenants too, which --reembed would switch with this one; sync this tenant "
            "into a collection of its own"
        )
    info = collection.info()
    if info is not None and info.pictures and source.name != str(collection.address):
        raise CollectionError(
            f"{collection.address} holds the pictures themselves ({', '.join(info.pictures)}), so a collection with new "
            "vectors can only be made from itself; give its address as SOURCE too, or another --to"
        )
    if info is not None and info.pictures and info.blends_text:
        raise CollectionError(
            f"{collection.address} has vectors that blend texts with pictures, and sync makes them of pictures alone; give "
            "another --to"
        )
    if info is not None and info.picture_column is not None and not info.pictures:
        raise CollectionError(
            f"{collection.address} was made by another program, and --reembed would lose what only that program knows; "
            f"sync {collection.address} with --image-column {info.picture_column} into a new collection"
        )


def reembed(
    source: Source,
    collection: Collection,
    vectorizer: "Vectorizer | ServedModel | ModelRecord",
    copy: Copy,
    **options: Unpack[RunOptions],
) -> Report:
    """Sync; if another backbone filled the collection, replace it by a new collection that this model fills.

    First the source is embedded, then the old collection's other objects (those of other sources), whose pictures are
    read from their recorded places.

    Args:
        copy: returns objects of the old collection as a source.
        options: as for `sync`. With `yes`, switch even if objects of the old collection could not be embedded again.

    Raises:
        SwitchRefused: objects would be lost; the report lists them.
        TextsRefused: as for `sync`.
        CollectionError: as for `check_switch` and `sync`.
        PruneRefused: with `prune`, more than a fifth of the source's objects would be left behind.
        SourceError, ModelError: as for `sync`; run again to resume.
    """
    model = ModelRecord.of(vectorizer)
    report = options["report"] = options.get("report") or Report()
    yes = options.get("yes", False)
    _finish_switch(collection, model)
    if (info := must_reembed(collection, model)) is None:
        return sync(source, collection, vectorizer, **options)
    check_switch(source, collection)
    create = with_texts(collection, info, options.get("create") or CreateOptions())
    if not yes and (asked := question(collection, info, Texts(create.text_columns))) is not None:
        raise TextsRefused(asked)
    options["create"] = create
    _move_respelled(source, collection, model, report)
    other = beside(collection, model)
    sync(source, other, vectorizer, **options)
    listed, report.complete = report.total, False
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
    _check_left_behind(source, listed, missing, report, yes)
    lost = missing.failed + len(missing.wanted)
    if lost and not yes:
        raise SwitchRefused(
            f"{lost:,} objects of {collection.address} could not be embedded anew, so it answers with the "
            "old model as before; correct what the report lists and run again, or give --yes to go on without them"
        )
    collection.take_over(other)
    report.collection, report.switched = str(collection.address), True
    return report


def with_texts(collection: Collection, info: Info, create: CreateOptions) -> CreateOptions:
    """Return the options for the new collection, which keeps the text columns of the old one unless others are given.

    Raises:
        CollectionError: as for `texts_of`.
    """
    return replace(create, text_columns=texts_of(collection, info, create.text_columns).columns)


def _move_respelled(source: Source, collection: Collection, model: ModelRecord, report: Report) -> None:
    """Move the old collection's objects to the present spelling of their ids, under which the new one will have them."""
    source.count()
    entries = (entry for entry in source.items() if entry.number is not None)
    settle = partial(respelled.move, collection, report)
    comparer = Comparer(collection, model, "", Known(collection.scan(), ""), settle=settle)
    while comparer.next_lot(entries):
        pass


def _finish_switch(collection: Collection, model: ModelRecord) -> None:
    """Complete a switch that was interrupted after the old collection was removed."""
    if collection.info() is None and (other := beside(collection, model)).info() is not None:
        collection.take_over(other)


@dataclass
class _Missing:
    """Objects of the old collection that the new one lacks."""

    wanted: set[Id] = field(default_factory=set)
    failed: int = 0
    """Number of other missing objects, which could not be embedded again."""
    left_behind: int = 0
    """Number of other missing objects, which are dropped because their pictures left the source."""
    owned: int = 0
    """Number of the old collection's objects that the source had written."""


def _missing(old: Collection, new: Collection, owner: str | None, failed: set[Id | None]) -> _Missing:
    """Find the objects that the new collection lacks; those of source `owner` are left behind (None: of no source)."""
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


def _check_left_behind(source: Source, listed: int, missing: _Missing, report: Report, yes: bool) -> None:
    left, hidden = missing.left_behind, [failure for failure in report.failed if failure.hides_entries]
    if left and not listed:
        raise PruneRefused(f"{left:,} objects would be left behind: {nothing_left(source)}")
    if left and hidden:
        raise PruneRefused(
            f"{left:,} objects would be left behind, but part of {source.name} could not be listed ({hidden[0]}); "
            "correct it and run again"
        )
    if left > MOST_REMOVED * missing.owned and not yes:
        raise PruneRefused(
            f"{left:,} of the {missing.owned:,} objects from {source.name} have left it and would be left behind, more "
            f"than {MOST_REMOVED:.0%}; check that the source is whole, then give --yes"
        )


def _add(report: Report, rest: Report) -> None:
    """Add the counts of a run over the rest of the old collection to the report."""
    for name in ("total", "added", "changed", "unchanged", "encoded", "texts", "seconds"):
        setattr(report, name, getattr(report, name) + getattr(rest, name))
    for change, count in rest.changes.items():
        report.changes[change] += count
    report.failed += rest.failed
    report.notes += [note for note in rest.notes if note not in report.notes]
