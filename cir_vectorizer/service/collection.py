"""A collection that is searched here: its calls run on threads, and which of the served models it is for is looked up."""

import asyncio
import logging
import queue
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from cir_vectorizer.collections import Collection, Info, ModelRecord, check
from cir_vectorizer.collections.addresses import Address
from cir_vectorizer.engine.batching import HostPool, Lane
from cir_vectorizer.errors import CirError, CollectionError, OverloadError
from cir_vectorizer.models import Vectorizer
from cir_vectorizer.service.http.metrics import Metrics

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


class ServedCollection:
    """One collection, spoken to by as many threads as it was opened times.

    Args:
        name: what requests call it.
        opened: the same collection, opened once for each thread that may speak to it.
        metrics: told how long calls take.
    """

    def __init__(self, name: str, opened: Sequence[Collection], metrics: Metrics) -> None:
        self.name = name
        self.address = opened[0].address
        self._idle: queue.SimpleQueue[Collection] = queue.SimpleQueue()
        for collection in opened:
            self._idle.put(collection)
        self._count = len(opened)
        self._pool = HostPool(len(opened), lambda: None, name="cir-collection")
        self._metrics = metrics
        self._places = _places(self.address)
        self._running = 0
        self._matches: dict[str | None, tuple[float, Match]] = {}

    async def call(self, what: str, work: Callable[[Collection], Result]) -> Result:
        """The result of `work`, which is given the collection on one of its threads.

        A call that a thread has begun counts until the thread is done, whether or not its caller still waits. The
        sentence of an error has the collection's name wherever it had its place.

        Args:
            what: one word for the metrics.

        Raises:
            OverloadError: too many calls wait.
        """
        if self._running >= WAITING_PER_THREAD * self._count:
            raise OverloadError(1)
        self._running += 1
        begun = False

        def run() -> Result:
            nonlocal begun
            begun = True
            return self._with_one(work)

        task = asyncio.ensure_future(self._pool.run(Lane.SEARCH, run))
        task.add_done_callback(partial(self._done, what, time.perf_counter()))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not begun:
                task.cancel()
            raise
        except CirError as error:
            raise error.saying(self._places.sub(lambda _: self.name, error.problem)) from error.__cause__

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
        records = [ModelRecord.of(vectorizers[name]) for name in names]
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

    def _done(self, what: str, began: float, task: "asyncio.Task[Any]") -> None:
        self._running -= 1
        self._metrics.collection(self.name, what, time.perf_counter() - began)
        if not task.cancelled():
            task.exception()  # seen, even if the caller has gone

    def _with_one(self, work: Callable[[Collection], Result]) -> Result:
        collection = self._idle.get()
        try:
            return work(collection)
        finally:
            self._idle.put(collection)


def _places(address: Address) -> "re.Pattern[str]":
    """Finds in a sentence where a collection is: its address, its directory, its server."""
    host = address.host or ""
    texts = [str(address), address.server, f"grpc-{host}" if host else "", host]
    if address.path is not None and address.path.name:
        texts += [f"{address.scheme}:{address.path}", str(address.path.absolute()), str(address.path)]
    places = [re.escape(text) for text in sorted(filter(None, texts), key=len, reverse=True)]
    if host:
        places.append(r"ipv[46]:[\w.:%\[\]]*\w")  # as gRPC writes what the host's name stands for
    port = r"(?::\d+)?" if host else ""
    return re.compile(rf"(?<![\w.-])(?:{'|'.join(places)}){port}(?![\w-])")


def _match(collection: Collection, records: Sequence[ModelRecord]) -> Match:
    info = collection.info()
    if info is None:
        raise CollectionError(f"there is no collection {collection.address} yet; run cir-vectorizer sync")
    record = next((each for each in records if each.made(info.fingerprint)), records[0])
    return Match(record.name, check(collection, record))
