"""The served models, which are loaded and unloaded while requests run.

A new model is loaded on a thread of its own, warmed up behind the searches, and only then named. A model that leaves is
unnamed first; it stays in the engine until every request that began before has been answered.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from cir_vectorizer.engine import Engine
from cir_vectorizer.engine.devices import out_of_memory, use_threads
from cir_vectorizer.errors import CirError, DeviceFullError
from cir_vectorizer.models import Vectorizer
from cir_vectorizer.query.encoded import Limits
from cir_vectorizer.service import memory
from cir_vectorizer.service.http.metrics import Metrics
from cir_vectorizer.service.http.problems import RefusedError
from cir_vectorizer.service.names import Names

log = logging.getLogger(__name__)

Result = TypeVar("Result")

LOADS = "cir-load"
"""Name of threads that load models."""

OneLoader = Callable[[str], Vectorizer]
"""Loads a model by its folder or name."""


class Underway:
    """The requests that are being answered; use it on the event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[None]] = set()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as under way until the context ends."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running.add(done)
        try:
            yield
        finally:
            self._running.discard(done)
            done.set_result(None)

    async def finished(self) -> None:
        """Wait until every request that is under way now has ended."""
        if self._running:
            await asyncio.wait(set(self._running))


@dataclass(eq=False)
class Change:
    """A model that is being loaded or unloaded, or could not be loaded.

    Attributes:
        model: its folder or name; empty if it was loaded at the start.
        began: of `time.monotonic`.
        failure: why it could not be loaded.
    """

    name: str
    model: str
    state: Literal["loading", "unloading", "failed"]
    began: float = field(default_factory=time.monotonic)
    failure: Exception | None = None
    task: "asyncio.Task[None] | None" = None


class LiveModels:
    """The models of a running service; use it on the event loop.

    Args:
        engine: runs them; its models are served already.
        load: loads a further one.
        limits: limits on one picture.
        metrics: has figures for each model.
        underway: the requests that may use them.
    """

    def __init__(self, engine: Engine, load: OneLoader, limits: Limits, metrics: Metrics, underway: Underway) -> None:
        self.names = Names(engine.vectorizers)
        self.changes: dict[str, Change] = {}
        """Models that are neither quite there nor quite gone, by name."""
        self._engine = engine
        self._load = load
        self._limits = limits
        self._metrics = metrics
        self._underway = underway
        self._one_at_a_time = asyncio.Lock()
        for model, vectorizer in engine.vectorizers.items():
            self._add_gauges(model, vectorizer)

    def load(self, name: str, model: str) -> Change:
        """Begin to load a model; the change's task ends once requests can use it, or once it has failed.

        Raises:
            RefusedError: 409, the name is taken.
        """
        change = self.changes.get(name)
        if change is not None and change.state != "failed":
            raise RefusedError(
                409,
                "model-busy",
                f"model {name!r} is {change.state}; wait until GET /v1/models shows that this is over",
            )
        if name in self.names.served:
            problem = f"a model {name!r} is served already; give another name, or unload it by DELETE /v1/models/{name}"
            raise RefusedError(409, "model-exists", problem)
        owner = next((each for each, vectorizer in self.names.served.items() if name in vectorizer.composers), None)
        if owner is not None:
            problem = f"{name!r} is the short name of {owner}/{name}, which requests use; give the model another name"
            raise RefusedError(409, "model-exists", problem)
        change = self.changes[name] = Change(name, model, "loading")
        change.task = asyncio.ensure_future(self._bring(change))
        return change

    def unload(self, name: str) -> Change | None:
        """Begin to unload a model, or to stop its loading; return the change, or None if nothing of it is left.

        Raises:
            RefusedError: 404, there is no such model; 409, it is the default one.
        """
        change = self.changes.get(name)
        if change is not None and change.state == "failed":
            del self.changes[name]
            return None
        if change is not None:
            change.state = "unloading"  # its task sees this once the loading thread is done
            return change
        if name not in self.names.served:
            there = ", ".join(self.names.served)
            raise RefusedError(404, "model", f"no model {name[:80]!r} is served here; there is {there}")
        if name == self.names.default:
            raise RefusedError(
                409,
                "default-model",
                f"{name!r} is the default model, which requests that name none use; start the service with another --model "
                "first to be rid of it",
            )
        change = self.changes[name] = Change(name, "", "unloading")
        self._publish()
        change.task = asyncio.ensure_future(self._remove(change))
        return change

    def close(self) -> None:
        """Give up what is under way."""
        for change in self.changes.values():
            if change.task is not None:
                change.task.cancel()

    async def _bring(self, change: Change) -> None:
        began = time.monotonic()
        try:
            async with self._one_at_a_time:
                if change.state == "loading":
                    vectorizer = await on_own_thread(partial(self._prepare, change), LOADS)
                    if change.state == "loading":
                        await self._engine.add(change.name, vectorizer)
                    del vectorizer
        except Exception as error:
            if change.state == "unloading":
                self._end(change)
                return
            change.failure, change.state = _explained(error), "failed"
            log.warning("model %s could not be loaded: %s", change.name, change.failure, exc_info=_unexpected(error))
            return
        if change.state == "unloading":
            if change.name in self._engine.vectorizers:
                await self._engine.remove(change.name)
            self._end(change)
            return
        self._add_gauges(change.name, self._engine.vectorizers[change.name])
        self._end(change)
        log.info("loaded model %s in %.1f s", self.names.full_name(change.name), time.monotonic() - began)

    async def _remove(self, change: Change) -> None:
        await self._underway.finished()
        queues = self._engine.queue_names(change.name)
        await self._engine.remove(change.name)
        self._metrics.forget(change.name, queues, self._engine.device.names)
        await self._engine.host(memory.give_back)
        self._end(change)
        log.info("unloaded model %s", change.name)

    def _prepare(self, change: Change) -> Vectorizer:
        use_threads(1)  # the rest is left to the requests
        vectorizer = self._load(change.model).served_as(change.name, self._limits)
        _ = vectorizer.fingerprint  # hashes all weights, once
        return vectorizer

    def _end(self, change: Change) -> None:
        del self.changes[change.name]
        self._publish()

    def _publish(self) -> None:
        leaving = {change.name for change in self.changes.values() if change.state == "unloading"}
        self.names = Names(self._engine.vectorizers, leaving)

    def _add_gauges(self, model: str, vectorizer: Vectorizer) -> None:
        for composer, digest in vectorizer.digests.items():
            labels = {"model": model, "fingerprint": vectorizer.fingerprint, "composer": composer, "digest": digest}
            about = "1 for each composer served, with the digest of its weights and settings."
            self._metrics.gauge("cir_composer_info", about, lambda: 1.0, **labels)
        for device, copy in zip(self._engine.device.names, vectorizer.on_all_devices, strict=True):
            size = float(copy.weights_bytes)
            about = "Memory of a model's weights."
            self._metrics.gauge("cir_weights_bytes", about, partial(float, size), model=model, device=device)


def loading() -> bool:
    """Tell whether a thread of this process still loads a model."""
    return any(thread.name == LOADS for thread in threading.enumerate())


async def on_own_thread(call: Callable[[], Result], name: str) -> Result:
    """Run `call` on a thread that does not keep the process from ending, and return its result."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not future.done():
            outcome()

    def run() -> None:
        try:
            outcome = partial(future.set_result, call())
        except BaseException as error:  # raised again where the result is awaited
            outcome = partial(future.set_exception, error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future


def _explained(error: Exception) -> Exception:
    if not isinstance(error, CirError) and out_of_memory(error):
        return DeviceFullError(
            "there is too little memory for this model; unload another first (DELETE /v1/models/NAME), or load it elsewhere"
        )
    return error


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, CirError) else error
