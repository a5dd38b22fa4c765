"""A collection that is searched here: its calls run on threads, and which of the served models it is for is looked up."""

import logging
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cir_vectorizer.collections import Collection, Info, ModelRecord, check
from cir_vectorizer.engine.batching import HostPool, Lane
from cir_vectorizer.errors import CollectionError, OverloadError
from cir_vectorizer.models import Vectorizer
from cir_vectorizer.service.metrics import Metrics

log = logging.getLogger(__name__)

Result = TypeVar("Result")

RECHECK_SECONDS = 5.0
"""How long what a collection says of itself is believed: sync may put another one in its place."""

WAITING_PER_THREAD = 64
"""Calls that wait for a thread before more are refused."""

CLOSE_SECONDS = 5.0


@dataclass(frozen=True)
class Match:
    """A collection as it is, and the served model whose vectors it holds."""

    model: str
    info: Info


class Catalog:
    """One collection, spoken to by as many threads as it was opened times.

    Args:
        name: what requests call it.
        opened: the same collection, opened once for each thread that may speak to it.
        metrics: told how long calls take.
    """

    def __init__(self, name: str, opened: Sequence[Collection], metrics: Metrics) -> None:
        self.name = name
        self._address = opened[0].address
        self._idle: queue.SimpleQueue[Collection] = queue.SimpleQueue()
        for collection in opened:
            self._idle.put(collection)
        self._count = len(opened)
        self._pool = HostPool(len(opened), lambda: None, name="cir-collection")
        self._metrics = metrics
        self._running = 0
        self._matches: dict[str | None, tuple[float, Match]] = {}

    async def call(self, what: str, work: Callable[[Collection], Result]) -> Result:
        """The result of `work`, which is given the collection on one of its threads.

        Args:
            what: one word for the metrics.

        Raises:
            OverloadError: too many calls wait.
        """
        if self._running >= WAITING_PER_THREAD * self._count:
            raise OverloadError(1)
        self._running += 1
        began = time.perf_counter()
        try:
            return await self._pool.run(Lane.SEARCH, self._with_one, work)
        finally:
            self._running -= 1
            self._metrics.collection(self.name, what, time.perf_counter() - began)

    async def match(self, vectorizers: Mapping[str, Vectorizer], asked: str | None, default: str) -> Match:
        """The served model that this collection is for.

        Args:
            asked: the model that a request names; None finds the one that the collection was made with, or the default
                one for a collection that another program made.

        Raises:
            BackboneMismatch: it is for none of them, or not for the one asked.
            CollectionError: there is no such collection, or it cannot be asked.
        """
        known = self._matches.get(asked)
        if known is not None and time.monotonic() - known[0] < RECHECK_SECONDS:
            return known[1]
        names = [asked] if asked is not None else [default, *(name for name in vectorizers if name != default)]
        records = [ModelRecord(name, vectorizers[name].fingerprint, vectorizers[name].dim) for name in names]
        match = await self.call("info", lambda collection: _match(collection, records))
        self._matches[asked] = (time.monotonic(), match)
        return match

    def close(self) -> None:
        """End the threads and let go of the collection; one that is still being asked is left to the process's end."""
        self._pool.close()
        until = time.monotonic() + CLOSE_SECONDS
        for _ in range(self._count):
            try:
                collection = self._idle.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                log.warning("collection %s is still being asked at the end", self.name)
                return
            collection.close()

    def _with_one(self, work: Callable[[Collection], Result]) -> Result:
        collection = self._idle.get()
        try:
            return work(collection)
        finally:
            self._idle.put(collection)


def _match(collection: Collection, records: Sequence[ModelRecord]) -> Match:
    info = collection.info()
    if info is None:
        raise CollectionError(f"there is no collection {collection.address.collection!r} yet; run cir-vectorizer sync")
    record = next((each for each in records if each.fingerprint == info.fingerprint), records[0])
    return Match(record.name, check(collection, record))
