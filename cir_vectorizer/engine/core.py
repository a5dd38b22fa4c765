"""The engine: one for all models, doors and devices, it turns many small concurrent requests into few large batches.

The path of a request: a vectorizer plans `Work` on a host thread (tokenise, base64, hash); `run` admits or rejects it,
embeds its pictures unless they are cached (decode and resize on host threads, then the model's picture queue), then
puts it into the queue of its stage. Cancelling `run` drops all work that has not reached the device, so clients that
left and deadlines that passed cost nothing more.
"""

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cir_vectorizer.composers import Composer, Plan, fusion
from cir_vectorizer.engine.admission import Admission, Promises
from cir_vectorizer.engine.batching import BatchQueue, Device, HostPool, Lane, Observer, Run
from cir_vectorizer.engine.cache import ByteCache
from cir_vectorizer.engine.devices import device_names, free_memory, out_of_memory, use_device, use_threads
from cir_vectorizer.engine.samples import samples
from cir_vectorizer.errors import CirError, DeviceError, DeviceFullError, ImageError, QueryError
from cir_vectorizer.models import Vectorizer, Work
from cir_vectorizer.models.work import PICTURE, EncodedPicture
from cir_vectorizer.query import ComposedQuery, ImageRef

Result = TypeVar("Result")

Vector = npt.NDArray[np.float32]
"""An embedding or a query vector, (dim,)."""

MOST_FETCHED = 16
"""Largest number of pictures by URL that are being fetched, or are fetched and wait to be embedded."""
EMBEDDING_OVERHEAD = 400
"""Bytes of memory that Python needs to keep an embedding, without its numbers."""


@dataclass(frozen=True)
class EngineOptions:
    """Bounds of the engine's queues, batches and cache.

    Attributes:
        host_threads: number of threads that decode and tokenise; one for each core if None.
        max_search_wait: seconds of searches that may wait before more are rejected.
        max_update_wait: seconds of updates that may wait before more are rejected.
        cache_bytes: size of the cache for picture embeddings.
        picture_batch: largest number of pictures in a batch; depends on the device if None.
        text_batch: largest number of texts or queries in a batch; depends on the device if None.
        seconds_per_batch: longest time that a batch should take.
    """

    host_threads: int | None = None
    max_search_wait: float = 2.5
    max_update_wait: float = 15.0
    cache_bytes: int = 256 * 2**20
    picture_batch: int | None = None
    text_batch: int | None = None
    seconds_per_batch: float = 0.5


class Trace(Protocol):
    """Receiver of the steps of a request; its methods are called on the event loop, in the request's own context."""

    def span(self, name: str, began: float, ended: float, **attributes: str | int) -> None:
        """Note a step that took from `began` to `ended`, both as of `time.monotonic`."""
        ...


@dataclass(frozen=True)
class Answer:
    """A unit vector (dim,) and, for a picture alone, the length of its unnormalised embedding."""

    vector: Vector
    norm: float = 1.0


@dataclass(eq=False)
class _Flight:
    """A picture that is being embedded, and the number of requests that wait for it."""

    task: "asyncio.Task[Vector]"
    lane: Lane
    waiters: int = 0


class Engine:
    """Runs the models for all doors. Create it, and call its coroutines, on one event loop.

    Args:
        vectorizers: by the name that they are served under; each has as many copies, on the same devices.
        options: bounds of queues, batches and cache.
        observer: told of batches, drops and cache hits.
        fetch: downloads the picture at a URL; if None, URLs are rejected.
        trace: told of each request's steps.
    """

    def __init__(
        self,
        vectorizers: Mapping[str, Vectorizer],
        options: EngineOptions,
        observer: Observer,
        fetch: Callable[[str], Awaitable[bytes]] | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.vectorizers: Mapping[str, Vectorizer] = dict(vectorizers)
        """The models, by name: replaced as a whole when one is added or removed, because host threads read it."""
        self._options = options
        self._trace = trace
        self._observer = observer
        self._fetch = fetch
        self._fetching = asyncio.Semaphore(MOST_FETCHED)
        self._cache: ByteCache[tuple[str, bytes], Vector] = ByteCache(
            options.cache_bytes, lambda vector: vector.nbytes + EMBEDDING_OVERHEAD
        )
        self._flights: dict[tuple[str, bytes], _Flight] = {}
        self._pool = HostPool(options.host_threads or os.cpu_count() or 1, lambda: use_threads(1))
        places = [each.backbone.device for each in next(iter(self.vectorizers.values())).on_all_devices]
        threads = max(1, torch.get_num_threads() // max(1, sum(place.type == "cpu" for place in places)))
        self.device = Device(
            asyncio.get_running_loop(),
            observer,
            lambda number: use_device(places[number], threads),
            out_of_memory,
            device_names(places),
        )
        self._calls = [BatchQueue("call", _call_all, 1, only=number) for number in range(len(places))]
        self.device.add(self._calls)
        self._queues: dict[tuple[str, str], BatchQueue] = {}
        self._sample_units: dict[tuple[str, str], int] = {}
        self._ahead: dict[tuple[str, Lane], asyncio.Semaphore] = {}
        for model, vectorizer in self.vectorizers.items():
            self._add_queues(model, vectorizer)
        self.admission = Admission(self.device.queues, (options.max_search_wait, options.max_update_wait))

    async def warm_up(self) -> None:
        """Run each stage once alone and once in a batch, so that its speed is known and the first request is fast."""
        for model, vectorizer in self.vectorizers.items():
            await self._warm_up(model, vectorizer, Lane.SEARCH)

    async def add(self, model: str, vectorizer: Vectorizer) -> None:
        """Serve one more model, which requests can use once this returns; its warm-up gives way to searches.

        Raises:
            CirError: a stage of the model cannot be run; nothing of it is kept.
        """
        self._add_queues(model, vectorizer)
        try:
            await self._warm_up(model, vectorizer, Lane.UPDATE)
        except BaseException:
            await self.remove(model)
            raise
        self.vectorizers = {**self.vectorizers, model: vectorizer}

    async def remove(self, model: str) -> None:
        """Stop serving a model, and free its memory; call it only after all its accepted work has finished."""
        self.vectorizers = {name: each for name, each in self.vectorizers.items() if name != model}
        for number in range(len(self._calls)):  # a batch that nobody waits for may be running
            await self.call(_nothing, number)
        self.device.remove([queue for (owner, _), queue in self._queues.items() if owner == model])
        for kept in (self._queues, self._sample_units, self._ahead):
            for key in [key for key in kept if key[0] == model]:
                del kept[key]  # type: ignore[arg-type]
        self._cache.drop(lambda key: key[0] == model)
        await self.host(free_memory)

    def close(self) -> None:
        """End the threads; call it only after all accepted work has finished."""
        self._pool.close()
        self.device.close()

    async def host(self, call: Callable[..., Result], *arguments: Any, lane: Lane = Lane.SEARCH) -> Result:
        """Run `call` on a host thread and return its result."""
        if self._trace is None:
            return await self._pool.run(lane, call, *arguments)
        began = time.monotonic()
        try:
            return await self._pool.run(lane, call, *arguments)
        finally:
            self._trace.span("host work", began, time.monotonic())

    async def run(self, works: Sequence[Work], lane: Lane, wait: float = 0.0) -> list[Answer | BaseException]:
        """Run work; return the answers in order, with an error in place of each that failed.

        Cancelling it drops the work that has not run.

        Args:
            wait: seconds to wait for room before rejecting.

        Raises:
            OverloadError: there was no room within `wait` seconds.
        """
        if not works:
            return []
        promises = [self._promises(work) for work in works]
        await self.admission.enter([promise for mine in promises for promise in mine], lane, wait)
        if len(works) == 1:
            try:
                return [await self._answer(works[0], lane)]
            except Exception as error:
                return [error]
            finally:
                self.admission.leave(promises[0], lane)
        tasks = [asyncio.ensure_future(self._answer(work, lane)) for work in works]
        for task, mine in zip(tasks, promises, strict=True):
            task.add_done_callback(partial(self._left, mine, lane))
        return await asyncio.gather(*tasks, return_exceptions=True)

    async def embeddings(self, work: Work, lane: Lane) -> list[Vector]:
        """Return the unnormalised (dim,) embeddings of the pictures of a piece of work."""
        return list(await asyncio.gather(*(self._embedding(work.model, picture, lane) for picture in work.pictures)))

    async def with_bytes(self, query: ComposedQuery) -> ComposedQuery:
        """Return the query with the pictures' bytes in place of URLs; each URL is fetched once.

        Raises:
            ImageError: a picture cannot be fetched.
        """
        refs: dict[str, ImageRef] = {}
        for i, ref in enumerate(query.image):
            if ref.url is not None and ref.url not in refs:
                try:
                    refs[ref.url] = ImageRef(data=await self._fetched(ref.url))
                except ImageError as error:
                    raise EncodedPicture(f"image.{i}").placed(error) from error.__cause__
        image = tuple(ref if ref.url is None else refs[ref.url] for ref in query.image)
        return query.model_copy(update={"image": image})

    async def call(self, function: Callable[[], Result], number: int = 0, lane: Lane = Lane.SEARCH) -> Result:
        """Run `function` on the thread of a device and return its result."""
        result: Result = await self.device.submit(self._calls[number], lane, function, 1)
        return result

    def queue_names(self, model: str) -> list[str]:
        """Return the names of a model's queues."""
        return [queue.name for (owner, _), queue in self._queues.items() if owner == model]

    def seconds(self, model: str, stage: str) -> float:
        """Return the estimated seconds of one typical piece of work in a stage's full batch, without its pictures."""
        return self._queues[model, stage].seconds_per_unit * self._sample_units.get((model, stage), 1)

    @property
    def cached_bytes(self) -> int:
        """Size of the cached embeddings."""
        return self._cache.bytes

    def _add_queues(self, model: str, vectorizer: Vectorizer) -> None:
        cpu = vectorizer.backbone.device.type == "cpu"
        pictures = self._options.picture_batch or (16 if cpu else 128)
        texts = self._options.text_batch or (64 if cpu else 512)
        copies = vectorizer.on_all_devices
        stages: dict[str, tuple[list[Run], int]] = {PICTURE: ([partial(_embed, copy) for copy in copies], pictures)}
        for stage in vectorizer.stages:
            stages[stage] = ([partial(_compose, copy, copy.stages[stage]) for copy in copies], texts)
        for stage, (runs, limit) in stages.items():
            seconds = self._options.seconds_per_batch
            queue = BatchQueue(f"{model}/{stage}", runs[0], limit, seconds, others=runs[1:])
            self._queues[model, stage] = queue
            self.device.add([queue])
        for lane in Lane:
            self._ahead[model, lane] = asyncio.Semaphore(3 * pictures * len(copies))

    async def _warm_up(self, model: str, vectorizer: Vectorizer, lane: Lane) -> None:
        most, seconds = self._options.seconds_per_batch, 0.0
        for sample in samples(vectorizer):
            queue = self._queues[model, sample.stage]
            self._sample_units[model, sample.stage] = sample.units
            for number in range(len(self._calls)):
                for several in (False, False, True):
                    fit = int(most / max(seconds, 1e-6)) if several else 1  # so that others never wait longer for it
                    count = max(1, min(queue.limit, 16, fit))
                    run = partial(_seconds, queue.run_on(number), [sample.payload] * count)
                    seconds = await self.call(run, number, lane)
                queue.learn(seconds, sample.units * count)

    def _left(self, promises: Promises, lane: Lane, task: object) -> None:
        self.admission.leave(promises, lane)

    def _promises(self, work: Work) -> Promises:
        promises = []
        new = sum(
            isinstance(picture, EncodedPicture) and (work.model, picture.digest) not in self._cache
            for picture in work.pictures
        )
        if new:
            promises.append((self._queues[work.model, PICTURE], new))
        if work.stage != PICTURE:
            promises.append((self._queues[work.model, work.stage], work.plan.units))
        return promises

    async def _answer(self, work: Work, lane: Lane) -> Answer:
        if len(work.pictures) == 1:
            embeddings = [await self._embedding(work.model, work.pictures[0], lane)]
        else:
            embeddings = await self.embeddings(work, lane)
        if work.stage == PICTURE:
            norm = float(np.linalg.norm(embeddings[0]))
            return Answer(embeddings[0] / np.float32(norm), norm)
        queue = self._queues[work.model, work.stage]
        return Answer(await self._on_device(queue, lane, (work.plan, embeddings), work.plan.units))

    async def _embedding(self, model: str, picture: EncodedPicture | Tensor, lane: Lane) -> Vector:
        if isinstance(picture, Tensor):
            return _checked(picture.numpy())
        try:
            if picture.url is None:
                return await self._shared(model, picture, lane)
            async with self._fetching:
                data = await self._fetched(picture.url)
                fetched = await self.host(picture.holding, data, lane=lane)
                return await self._shared(model, fetched, lane)
        except ImageError as error:
            raise picture.placed(error) from error.__cause__

    async def _fetched(self, url: str) -> bytes:
        if self._fetch is None:
            raise ImageError(
                "url",
                "is a URL, and URLs are not fetched here; send the picture as base64, or start the service with --allow-urls",
            )
        return await self._fetch(url)

    async def _shared(self, model: str, picture: EncodedPicture, lane: Lane) -> Vector:
        """Return the embedding from the cache, from a flight under way, or from a new flight."""
        key = (model, picture.digest)
        if (known := self._cache.get(key)) is not None:
            self._observer.cache(1, 0)
            return known
        flight = self._flights.get(key)
        if flight is None or flight.lane > lane:  # a search does not wait for an update's flight
            self._observer.cache(0, 1)
            flight = _Flight(asyncio.ensure_future(self._embed(key, picture, lane)), lane)
            self._flights[key] = flight
        else:
            self._observer.cache(1, 0)
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if not flight.waiters:
                flight.task.cancel()
                if self._flights.get(key) is flight:
                    del self._flights[key]

    async def _embed(self, key: tuple[str, bytes], picture: EncodedPicture, lane: Lane) -> Vector:
        model = key[0]
        async with self._ahead[model, lane]:
            pixels = await self._pool.run(lane, self.vectorizers[model].decode, picture)
            embedding = await self._on_device(self._queues[model, PICTURE], lane, pixels, 1)
        self._cache.put(key, embedding.copy())  # a view would keep the whole batch in memory
        return embedding

    async def _on_device(self, queue: BatchQueue, lane: Lane, payload: Any, units: int) -> Vector:
        try:
            piece = self.device.put(queue, lane, payload, units)
            vector: Vector = await piece.future
            if self._trace is not None and (ran := piece.batch) is not None:
                self._trace.span("queue wait", piece.arrived, ran.began, **{"cir.queue": queue.name})
                about: dict[str, str | int] = {
                    "cir.queue": queue.name,
                    "cir.batch_size": ran.size,
                    "cir.device": ran.device,
                }
                self._trace.span("forward pass", ran.began, ran.ended, **about)
        except CirError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise DeviceFullError(
                    "the device has too little memory for this; try again later, or send less at a time"
                ) from error
            raise DeviceError(
                "the model could not be run on this; try another input; the service's log says more"
            ) from error
        return _checked(vector)


def _embed(vectorizer: Vectorizer, pixels: Sequence[Tensor]) -> Sequence[Vector]:
    """(3, height, width) pixels -> (dim,) unnormalised embeddings."""
    return list(vectorizer.embed_pixels(torch.stack(list(pixels))))


@torch.inference_mode()
def _compose(
    vectorizer: Vectorizer, composer: Composer, payloads: Sequence[tuple[Plan, Sequence[Vector]]]
) -> Sequence[Vector]:
    """Plans, each with its (dim,) unnormalised picture embeddings -> unit vectors."""
    counts = [len(embeddings) for _, embeddings in payloads]
    rows = [embedding for _, embeddings in payloads for embedding in embeddings]
    pictures = torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, vectorizer.dim)
    references = pictures.to(vectorizer.backbone.device).split(counts)  # type: ignore[no-untyped-call]
    return list(fusion.compose(composer, [plan for plan, _ in payloads], references).float().cpu().numpy())


def _seconds(run: Run, payloads: Sequence[Any]) -> float:
    """Run a batch and return the seconds that it took."""
    began = time.monotonic()
    run(payloads)
    return time.monotonic() - began


def _call_all(calls: Sequence[Callable[[], Any]]) -> Sequence[Any]:
    return [call() for call in calls]


def _nothing() -> None:
    pass


def _checked(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    if not (math.isfinite(length) and length > 1e-6):
        raise QueryError("", "the vector is zero or not finite; change the query's weights or its vector")
    return vector
