"""A collection that the service searches: runs its calls on threads and finds the served model that fits it."""

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
from cir_vectorizer.engine.core import Trace
from cir_vectorizer.errors import CirError, CollectionError, OverloadError
from cir_vectorizer.models import Vectorizer
from cir_vectorizer.service.http.metrics import Metrics

log = logging.getLogger(__name__)

Result = TypeVar("Result")

RECHECK_SECONDS = 5.0
"""Time for which a collection's description is cached; short, because sync may replace the collection."""

WAITING_PER_THREAD = 64
"""Most unfinished calls per thread; more are rejected."""

CLOSE_SECONDS = 5.0


@dataclass(frozen=True)
class Match:
    """A collection's current description, and the served model to search it with."""

    model: str
    info: Info


class ServedCollection:
    """A collection that several threads call, each through a connection of its own.

    Args:
        name: the collection's name in requests.
        opened: the same collection, opened once for each thread.
        metrics: records how long calls take.
        trace: told of each call of a request.
    """

    def __init__(self, name: str, opened: Sequence[Collection], metrics: Metrics, trace: Trace | None = None) -> None:
        self.name = name
        self.address = opened[0].address
        self.picture_column = opened[0].options.picture_column
        """The operator's choice of the column that names pictures; None if there is none."""
        self.tenant = opened[0].options.tenant
        self._idle: queue.SimpleQueue[Collection] = queue.SimpleQueue()
        for collection in opened:
            self._idle.put(collection)
        self._count = len(opened)
        self._pool = HostPool(len(opened), lambda: None, name="cir-collection")
        self._metrics = metrics
        self._trace = trace
        self._places = _places(self.address)
        self._running = 0
        self._matches: dict[str | None, tuple[float, Match]] = {}

    async def call(self, what: str, work: Callable[[Collection], Result]) -> Result:
        """Run `work` with the collection on one of its threads, and return the result.

        A call that a thread has started counts as unfinished until it ends, even if its caller no longer waits. In
        the sentences of errors, the collection's name replaces its address.

        Args:
            what: one word for the metrics.

        Raises:
            OverloadError: too many calls are unfinished.
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
        asked = time.monotonic()
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not begun:
                task.cancel()
            raise
        except CirError as error:
            raise error.saying(self._places.sub(lambda _: self.name, error.problem)) from error.__cause__
        finally:
            if self._trace is not None:
                about = {"cir.collection": self.name, "cir.call": what}
                self._trace.span("database call", asked, time.monotonic(), **about)

    async def match(self, vectorizers: Mapping[str, Vectorizer], asked: str | None, default: str) -> Match:
        """Return the served model to search this collection with, and the collection's description.

        Args:
            asked: the model that a request names; None finds the model that the collection was made with, or the
                default model if another program made the collection.

        Raises:
            BackboneMismatch: no served model, or not the one asked for, has the collection's backbone.
            CollectionError: the collection does not exist or cannot be reached.
        """
        known = self._matches.get(asked)
        if known is not None and time.monotonic() - known[0] < RECHECK_SECONDS and known[1].model in vectorizers:
            return known[1]
        names = [asked] if asked is not None else [default, *(name for name in vectorizers if name != default)]
        records = [ModelRecord.of(vectorizers[name]) for name in names]
        match = await self.call("info", lambda collection: _match(collection, records))
        self._matches[asked] = (time.monotonic(), match)
        return match

    def last_model(self) -> str | None:
        """Return the model that requests which name none searched with last; None if there were none."""
        known = self._matches.get(None)
        return None if known is None else known[1].model

    def close(self) -> None:
        """End the threads and close the collection; connections still in use stay open until the process ends."""
        self._pool.close()
        until = time.monotonic() + CLOSE_SECONDS
        for _ in range(self._count):
            try:
                collection = self._idle.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                log.warning("collection %s is still in use; its connection is left open", self.name)
                return
            collection.close()

    def _done(self, what: str, began: float, task: "asyncio.Task[Any]") -> None:
        self._running -= 1
        self._metrics.collection(self.name, what, time.perf_counter() - began)
        if not task.cancelled():
            task.exception()  # so that asyncio does not log it as unhandled if the caller has gone

    def _with_one(self, work: Callable[[Collection], Result]) -> Result:
        collection = self._idle.get()
        try:
            return work(collection)
        finally:
            self._idle.put(collection)


def _places(address: Address) -> "re.Pattern[str]":
    """Return a pattern that finds a collection's address, directory or server in a sentence."""
    host = address.host or ""
    texts = [str(address), address.server, f"grpc-{host}" if host else "", host]
    if address.path is not None and address.path.name:
        texts += [f"{address.scheme}:{address.path}", str(address.path.absolute()), str(address.path)]
    places = [re.escape(text) for text in sorted(filter(None, texts), key=len, reverse=True)]
    if host:
        places.append(r"ipv[46]:[\w.:%\[\]]*\w")  # gRPC writes the host's resolved address
    port = r"(?::\d+)?" if host else ""
    return re.compile(rf"(?<![\w.-])(?:{'|'.join(places)}){port}(?![\w-])")


def _match(collection: Collection, records: Sequence[ModelRecord]) -> Match:
    info = collection.info()
    if info is None:
        raise CollectionError(f"there is no collection {collection.address} yet; cir-vectorizer sync makes it")
    record = next((each for each in records if each.made(info.fingerprint)), records[0])
    return Match(record.name, check(collection, record))
