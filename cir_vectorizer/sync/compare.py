"""Comparison of a source's entries with the collection's records: decides what to do, without reading pictures."""

import gc
import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections import Collection, Id, ModelRecord, SyncRecord
from cir_vectorizer.collections.words import unspaced
from cir_vectorizer.errors import ImageError
from cir_vectorizer.redaction import cause
from cir_vectorizer.sources.base import Failure, Item, Stamp, other_ids
from cir_vectorizer.sync.respelled import Respelled
from cir_vectorizer.sync.take_over import Theirs
from cir_vectorizer.sync.texts import EncodedText, Texts, text_digest

LOOKUP = 256
"""Entries of the source that are compared at once."""
MOST_HELD = 16 * 2**20
"""Limit for the bytes of inline pictures among the entries compared at once; the entry that reaches it is the last."""

Change = Literal["added", "picture", "payload", "text", "record", "unchanged"]


Verdict = Literal["new", "same", "other"]
"""Result of comparing an entry with its object: the object does not exist, is as recorded, or may have changed."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The action for an entry: encode and write it if `prepared` is set, rewrite the payload if only `record` is,
    and nothing if neither is.

    `text` is the text to embed, "" if the object has none (any more), and None if the vector of its text stays.
    `adopted` is True if another source, or another program, had written the object.
    """

    item: Item
    change: Change
    record: SyncRecord | None = None
    prepared: Any = None
    """The picture in the form that the encoder takes."""
    adopted: bool = False
    text: str | None = None
    embedded: EncodedText | None = None
    """The embedding of `text`, once it is made."""

    @property
    def counter(self) -> str:
        """Name of the report's field that counts this decision."""
        kinds = {"picture": "changed", "payload": "changed", "text": "changed", "record": "unchanged"}
        return kinds.get(self.change, self.change)

    @property
    def must_embed(self) -> bool:
        """True if the object has a text whose embedding is still to be made."""
        return bool(self.text) and self.embedded is None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry whose picture must be read or at least stamped; `known` is its record from an earlier run.

    `fresh` is its new record: hash and norm are still empty, and so are size and time if `stamped` is False. `text` is
    the object's text, "" if it has none.
    """

    item: Item
    known: SyncRecord | None
    fresh: SyncRecord
    stamped: bool
    text: str = ""

    @property
    def adopted(self) -> bool:
        """True if another source, or another program, had written the object."""
        if self.known is None:
            return self._taken_over
        return self.known.owner not in ("", self.fresh.owner)

    @property
    def change(self) -> Change:
        """The change if the picture must be encoded."""
        return "added" if self.known is None and not self._taken_over else "picture"

    @property
    def _taken_over(self) -> bool:
        """True if the source takes over an object of another program."""
        return self.fresh.source_id != "" and self.fresh.owner != ""


Outcome = Decision | Candidate | Failure


class _Stamped(NamedTuple):
    """An entry, its stamp if that needs no network, its record's columns and owner, its text, and a hash of its state."""

    entry: Item | Failure
    stamp: Stamp | None = None
    columns: str = ""
    owner: str = ""
    text: str = ""
    state: int | None = None


def owner_digest(identity: str) -> str:
    """Return the digest that stands for a source in its objects' records: 12 hexadecimal digits."""
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def columns_digest(columns: dict[str, Any]) -> str:
    """Return the digest of an object's columns for its record: 16 hexadecimal digits.

    Texts without spaces count as changed since release 0.1.0, so that their words are written again.
    """
    content = json.dumps(columns, sort_keys=True, ensure_ascii=False)
    content += "pairs" if unspaced(content) else ""
    return hashlib.sha256(content.encode()).hexdigest()[:16]


_NO_COLUMNS = columns_digest({})


def same_picture(candidate: Candidate, known: SyncRecord) -> Decision:
    """Decide about an entry whose picture has not changed: rewrite its payload if columns, text or record differ."""
    item, record = candidate.item, replace(candidate.fresh, sha256=known.sha256, norm=known.norm)
    if record == known:
        return Decision(item, "unchanged")
    text = candidate.text if record.text != known.text else None
    change: Change = "payload" if record.columns != known.columns else "record" if text is None else "text"
    return Decision(item, change, record, adopted=candidate.adopted, text=text)


class Known:
    """The objects of a collection at the start of a run, in 17 bytes each.

    The id and the part of the record that a listing can be compared with are kept as 64-bit hashes. If the hashes of
    two states collide (one chance in 10¹⁹), a changed picture counts as unchanged.

    Args:
        scanned: ids and records of all objects.
        owner: digest of the source; objects whose record names it count as owned.
        model: the present model; records with its former fingerprint count as its own.
    """

    def __init__(
        self, scanned: Iterable[tuple[Id, SyncRecord | None]], owner: str, model: ModelRecord | None = None
    ) -> None:
        self._current: Callable[[SyncRecord], SyncRecord] = model.current if model else lambda record: record
        keys, states, owned = array("q"), array("q"), bytearray()
        with _no_collector():
            for id_, record in scanned:
                keys.append(hash(id_))
                states.append(0 if record is None else _state_of(self._current(record)))
                owned.append(record is not None and record.owner == owner)
        order = np.argsort(np.frombuffer(keys, np.int64), kind="stable") if keys else np.empty(0, np.int64)
        self._keys = np.frombuffer(keys, np.int64)[order] if keys else np.empty(0, np.int64)
        self._states = np.frombuffer(states, np.int64)[order] if keys else np.empty(0, np.int64)
        self._owned = np.frombuffer(owned, np.bool_)[order] if keys else np.empty(0, np.bool_)
        self._seen = np.zeros(len(order), np.bool_)

    @property
    def owned(self) -> int:
        """Number of objects that the source wrote in earlier runs."""
        return int(self._owned.sum())

    @property
    def all_seen(self) -> bool:
        """True if the source has named every object."""
        return bool(self._seen.all())

    @property
    def left(self) -> int:
        """Number of owned objects that the source has not named again so far."""
        return int((self._owned & ~self._seen).sum())

    def find(self, ids: Sequence[Id]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return the position of each id, and True for each id that exists."""
        wanted = np.fromiter((hash(id_) for id_ in ids), np.int64, len(ids))
        places = np.searchsorted(self._keys, wanted)
        found = places < len(self._keys)
        found[found] = self._keys[places[found]] == wanted[found]
        return places, found

    def see(self, entries: Sequence[tuple[Id, int | None]]) -> "dict[Id, Verdict]":
        """Mark these ids as named by the source, and compare the state of each with that of its record."""
        places, found = self.find([id_ for id_, _ in entries])
        self._seen[places[found]] = True
        recorded = self._states[np.minimum(places, len(self._states) - 1)] if len(self._states) else places
        return {
            id_: "new" if not there else "same" if state == record else "other"
            for (id_, state), there, record in zip(entries, found.tolist(), recorded.tolist(), strict=True)
        }

    def mark(self, ids: Sequence[Id]) -> list[Id]:
        """Return those of `ids` that exist, and mark them as named by the source."""
        places, found = self.find(ids)
        self._seen[places[found]] = True
        return [id_ for id_, there in zip(ids, found.tolist(), strict=True) if there]

    def all_same(self, listing: "Listing") -> bool:
        """Tell whether every entry of a listing has the state of its record; if so, mark all as named by the source."""
        places = np.searchsorted(self._keys, listing.keys)
        if len(self._keys) == 0 or places.max(initial=0) >= len(self._keys):
            return False
        same = (self._keys[places] == listing.keys) & (self._states[places] == listing.states)
        if not same.all():
            return False
        self._seen[places] = True
        return True

    def leaving(self, objects: Sequence[tuple[Id, SyncRecord | None]]) -> list[tuple[Id, SyncRecord]]:
        """Return the objects to prune: written by the source, not named again, and unchanged since the run began."""
        places, found = self.find([id_ for id_, _ in objects])
        return [
            (id_, record)
            for (id_, record), place, there in zip(objects, places, found, strict=True)
            if there and record is not None and self._owned[place] and not self._seen[place]
            if self._states[place] == _state_of(self._current(record))
        ]


@dataclass(frozen=True)
class Listing:
    """All entries of a source as hashes, like the objects in `Known`: 16 bytes per entry."""

    keys: npt.NDArray[np.int64]
    states: npt.NDArray[np.int64]
    numbered: bool
    """True if ids are derived from whole numbers, of which the collection may hold other spellings."""


class Comparer:
    """Compares entries of a source with their records in the collection.

    Args:
        model: the model that makes the vectors.
        owner: digest of the source.
        known: result of a scan of the whole collection; if None, records are read by id.
        theirs: the objects that another program made and that entries may stand for; None if there are none.
        texts: the texts of objects.
        settle: called with the entries of which the collection holds other spellings, before they are compared; returns
            failures in place of some of them.
    """

    def __init__(
        self,
        collection: Collection,
        model: ModelRecord,
        owner: str,
        known: Known | None = None,
        theirs: Theirs | None = None,
        settle: Callable[[Sequence[Respelled]], Sequence[Failure]] = lambda _: (),
        texts: Texts | None = None,
    ) -> None:
        self.known = known
        self._texts = texts or Texts()
        self._theirs = theirs
        self._settle = settle
        self.model = model
        self._collection = collection
        self._fingerprint = model.fingerprint
        self.owner = owner

    def next_lot(self, entries: Iterator[Item | Failure]) -> list[Outcome]:
        """Take the next entries from `entries` and return the outcome for each; an empty list at the end."""
        lot: list[Item | Failure] = []
        held = 0
        for entry in entries:
            lot.append(entry)
            held += entry.picture.held if isinstance(entry, Item) else 0
            if len(lot) >= LOOKUP or held >= MOST_HELD:
                break
        return self._compare([self._stamped(entry) for entry in lot])

    def listing(self, entries: Iterable[Item | Failure]) -> Listing | None:
        """Return the listing for `Known.all_same`; None if some entry has no id or no stamp."""
        keys, states = array("q"), array("q")
        numbered = False
        for entry in entries:
            stamped = self._stamped(entry)
            if stamped.entry.id is None or stamped.state is None:
                return None
            keys.append(hash(stamped.entry.id))
            states.append(stamped.state)
            numbered = numbered or (isinstance(entry, Item) and entry.number is not None)
        return Listing(np.array(keys, np.int64), np.array(states, np.int64), numbered)

    def _stamped(self, entry: Item | Failure) -> _Stamped:
        if self._theirs is not None:
            entry = self._theirs.of(entry)
        if isinstance(entry, Failure):
            return _Stamped(entry)
        columns, owner = _NO_COLUMNS, self.owner
        if entry.recorded is not None:
            columns, owner = entry.recorded.columns, entry.recorded.owner
        elif entry.columns:
            columns = columns_digest(entry.columns)
        picture = entry.picture
        try:
            stamp = picture.stamp() if picture.near else None
        except (ImageError, OSError, ValueError) as error:
            return _Stamped(unreadable(entry, error))
        text = self._texts.of(entry.columns)
        if stamp is None:
            return _Stamped(entry, None, columns, owner, text)
        parts = (picture.location, stamp.size, stamp.version, self._fingerprint, columns, owner, text_digest(text))
        return _Stamped(entry, stamp, columns, owner, text, hash(parts))

    def _compare(self, lot: Sequence[_Stamped]) -> list[Outcome]:
        verdicts: dict[Id, Verdict] = {}
        if self.known is not None:
            about = [(each.entry.id, each.state) for each in lot if each.entry.id is not None]
            verdicts = self.known.see(about)
        items = (each.entry for each in lot if isinstance(each.entry, Item))
        asked = [item.id for item in items if verdicts.get(item.id, "other") == "other"]
        found = self._collection.records(asked) if asked else {}
        respelled = self._respelled(lot, verdicts, found)
        failures = {failure.id: failure for failure in self._settle(respelled)} if respelled else {}
        found |= {each.item.id: each.record for each in respelled if each.missing}
        records = {id_: self.model.current(record) for id_, record in found.items()}
        outcomes: list[Outcome] = []
        for stamped in lot:
            entry = stamped.entry
            if isinstance(entry, Failure):
                outcomes.append(entry)
            elif entry.id in failures:
                outcomes.append(failures[entry.id])
            elif verdicts.get(entry.id) == "same":
                outcomes.append(Decision(entry, "unchanged"))
            else:
                outcomes.append(self._differing(entry, stamped, records.get(entry.id)))
        return outcomes

    def _respelled(
        self, lot: Sequence[_Stamped], verdicts: Mapping[Id, Verdict], found: Mapping[Id, SyncRecord]
    ) -> list[Respelled]:
        """Return the entries of which the collection holds objects under other spellings of their whole number.

        Objects of entries that failed stay as they are.
        """
        of = {other: each.entry for each in lot for other in other_ids(each.entry)}
        ids = list(of) if self.known is None else self.known.mark(list(of))
        held = self._collection.records(ids) if ids else {}
        grouped: dict[Id, tuple[Item, dict[Id, SyncRecord]]] = {}
        for other, record in held.items():
            if isinstance(item := of[other], Item):
                grouped.setdefault(item.id, (item, {}))[1][other] = record
        return [
            Respelled(item, others, missing=item.id not in found and verdicts.get(item.id) != "same")
            for item, others in grouped.values()
        ]

    def _differing(self, item: Item, stamped: _Stamped, known: SyncRecord | None) -> Outcome:
        stamp = stamped.stamp
        fresh = SyncRecord(
            path=item.picture.location,
            size=stamp.size if stamp else 0,
            mtime_ns=stamp.version if stamp else 0,
            sha256="",
            norm=0.0,
            fingerprint=self._fingerprint,
            columns=stamped.columns,
            owner=stamped.owner,
            source_id=item.source_id if item.recorded is None else item.recorded.source_id,
            text=text_digest(stamped.text),
        )
        candidate = Candidate(item, known, fresh, stamp is not None, stamped.text)
        return settled(candidate) or candidate


@contextmanager
def _no_collector() -> Iterator[None]:
    """Pause garbage collection: each page of records would trigger one, which walks through the whole model."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def settled(candidate: Candidate) -> Decision | None:
    """Decide about a candidate whose path, size and time match its record; return None if its picture must be read."""
    known, fresh = candidate.known, candidate.fresh
    if known is None or not candidate.stamped or known.fingerprint != fresh.fingerprint:
        return None
    if (known.path, known.size, known.mtime_ns) != (fresh.path, fresh.size, fresh.mtime_ns):
        return None
    return same_picture(candidate, known)


def unreadable(item: Item, error: Exception) -> Failure:
    """Return the failure of an entry whose picture cannot be read."""
    if isinstance(error, ImageError):
        return Failure(item.name, error.reason, str(error), item.id, item.number)
    if isinstance(error, FileNotFoundError):
        sentence = "does not exist; correct the path, or it left while the source was read"
    else:
        sentence = f"cannot be read ({cause(error)}); check the file and its permissions"
    return Failure(item.name, "path", sentence, item.id, item.number)


def _state_of(record: SyncRecord) -> int:
    return hash(
        (record.path, record.size, record.mtime_ns, record.fingerprint, record.columns, record.owner, record.text)
    )
