"""Dynamic batching on one thread for each device: many small pieces of work become few large batches, in two lanes that
never starve.

A device's thread takes a batch whenever it is free, so nothing waits while it is idle, and all work that arrives while
all devices are busy goes into the next batches. This module knows nothing of models: each queue gets a function that runs
its batches.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, TypeVar

from cir_vectorizer.errors import CirError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

Run = Callable[[Sequence[Any]], Sequence[Any]]
"""Turns the payloads of a batch into as many results, in order."""

SLOWEST_DECAY = 8.0
"""Seconds of recent work over which a queue's speed is averaged."""

MAX_WINDOW = 0.01
"""Longest time in seconds that a batch waits for more pieces."""


class Lane(IntEnum):
    """Priority of work: searches go before updates, but updates keep a share of the time."""

    SEARCH = 0
    UPDATE = 1


class Observer(Protocol):
    """Receiver of events for the service's metrics; its methods are cheap and are called from any thread."""

    def batch(self, queue: str, lane: Lane, size: int, seconds: float, waits: Sequence[float], device: str) -> None:
        """Note that a batch ran on a device for `seconds`; `waits` are the seconds that its pieces waited in the queue."""
        ...

    def dropped(self, count: int) -> None:
        """Note that `count` pieces of work were dropped because nobody waits for them any more."""
        ...

    def cache(self, hits: int, misses: int) -> None:
        """Count pictures whose embedding was cached (`hits`) or was not (`misses`)."""
        ...


class Share:
    """Choice of the next lane: searches, until updates are owed a whole turn.

    Args:
        of_updates: share of the time that updates get while both lanes wait, between 0 and 1.
    """

    def __init__(self, of_updates: float = 0.2) -> None:
        self._rate = of_updates / (1 - of_updates)
        self._owed = 0.0

    def choose(self, searches: bool, updates: bool, update_cost: float) -> Lane | None:
        """Return the next lane, given which lanes wait and what an update's next turn would cost."""
        if not updates:
            self._owed = 0.0
            return Lane.SEARCH if searches else None
        return Lane.SEARCH if searches and self._owed < update_cost else Lane.UPDATE

    def charge(self, lane: Lane, cost: float, both_wait: bool) -> None:
        """Note that a turn of `lane` cost `cost`; it counts only if both lanes were waiting."""
        if both_wait:
            self._owed = max(0.0, self._owed - cost) if lane is Lane.UPDATE else self._owed + cost * self._rate


class HostPool:
    """Threads for work on the host: searches go first, but every fifth turn is an update's.

    Args:
        threads: number of threads.
        prepare: called once on each thread.
        name: prefix of the threads' names.
    """

    def __init__(self, threads: int, prepare: Callable[[], None], name: str = "cir-host") -> None:
        self._waiting: tuple[deque[Any], deque[Any]] = (deque(), deque())
        self._share = Share()
        self._ready = threading.Condition()
        self._prepare = prepare
        self._open = True
        for number in range(threads):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    async def run(self, lane: Lane, call: Callable[..., Result], *arguments: Any) -> Result:
        """Run `call` on one of the threads and return its result; if cancelled while it waits, it is not run."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        with self._ready:
            self._waiting[lane].append((loop, future, call, arguments))
            self._ready.notify()
        return await future

    def close(self) -> None:
        """End the threads after their present calls."""
        with self._ready:
            self._open = False
            self._ready.notify_all()

    def _next(self) -> Any:
        with self._ready:
            while self._open:
                waiting = bool(self._waiting[0]), bool(self._waiting[1])
                lane = self._share.choose(*waiting, update_cost=1.0)
                if lane is not None:
                    self._share.charge(lane, 1.0, both_wait=all(waiting))
                    return self._waiting[lane].popleft()
                self._ready.wait()
        return None

    def _work(self) -> None:
        self._prepare()
        while (task := self._next()) is not None:
            loop, future, call, arguments = task
            if future.cancelled():
                continue
            try:
                outcome: tuple[Any, BaseException | None] = (call(*arguments), None)
            except BaseException as error:  # raised again on the caller's own thread
                outcome = (None, error)
            _call_soon(loop, _settle, [future], [outcome[1] or outcome[0]])
            del task, call, arguments, future, outcome  # so that an idle thread keeps no picture in memory


@dataclass(eq=False)
class Piece:
    """A piece of work in a queue; `future` belongs to the event loop, and cancelling it drops the piece.

    Attributes:
        batch: the batch that it ran in; None until it ran.
    """

    payload: Any
    units: float
    future: "asyncio.Future[Any]"
    arrived: float = field(default_factory=time.monotonic)
    batch: "Ran | None" = None


@dataclass(frozen=True)
class Ran:
    """A batch that ran; times are those of `time.monotonic`."""

    device: str
    size: int
    began: float
    ended: float


class BatchQueue:
    """Queue of the pieces that wait for one stage of one model.

    Args:
        name: for metrics and logs.
        run: runs a batch; called only on a device's thread.
        limit: largest number of pieces in a batch.
        seconds_per_batch: longest time that a batch should take, so that searches do not wait long behind it.
        others: the same for each device after the first.
        only: number of the one device that serves this queue; None for all.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        limit: int,
        seconds_per_batch: float = 0.5,
        others: Sequence[Run] = (),
        only: int | None = None,
    ) -> None:
        self.name = name
        self.run = run
        self.others = others
        self.only = only
        self.most = limit
        self.limit = limit
        self.seconds_per_batch = seconds_per_batch
        self.waiting: tuple[deque[Piece], deque[Piece]] = (deque(), deque())
        self._promised = [0.0, 0.0]
        self._busy_since = 0.0
        self._seconds = 0.0
        self._units = 0.0
        self._usual = 1.0
        self._ended = 0.0
        self._lasted = 0.0

    @property
    def seconds_per_unit(self) -> float:
        """Recently measured time of a unit under load; a guess before the first measurement."""
        return self._seconds / self._units if self._units else 0.001

    def promise(self, lane: Lane, units: float) -> None:
        """Note that `units` will come to this queue or, if negative, that they are done."""
        if not any(self._promised):
            self._busy_since = time.monotonic()
        self._promised[lane] = max(0.0, self._promised[lane] + units)

    def backlog(self, lane: Lane) -> float:
        """Return the estimated seconds of promised work that is not done, in the queue or on its way there."""
        return self.seconds(self._promised[lane])

    def seconds(self, units: float) -> float:
        """Return the estimated seconds that all devices together need for `units`."""
        return units * self.seconds_per_unit / (1 + len(self.others))

    def run_on(self, device: int) -> Run:
        """Return the function that runs a batch on a device."""
        return self.run if device == 0 or self.only is not None else self.others[device - 1]

    def learn(self, seconds: float, units: float) -> None:
        """Note that `units` took `seconds`."""
        keep = 1 - min(1.0, seconds / SLOWEST_DECAY)
        self._seconds = self._seconds * keep + seconds
        self._units = self._units * keep + units

    def drop_abandoned(self) -> int:
        """Drop the pieces at the head of each lane that nobody waits for; return their number."""
        count = 0
        for lane in self.waiting:
            while lane and lane[0].future.done():
                lane.popleft()
                count += 1
        return count

    def window(self, lane: Lane, now: float) -> float:
        """Return the seconds to wait for a fuller batch: a fraction of the last batch's time, and only right after it.

        Clients that were answered together ask again together; without this wait, batches of one piece would
        alternate with batches of all the others.
        """
        if len(self.waiting[lane]) >= min(self._usual * 0.75, self.limit):
            return 0.0
        return min(MAX_WINDOW, self._lasted / 4) - (now - self._ended)

    def cost_of_next(self, lane: Lane) -> float:
        """Return the estimated seconds of the lane's next batch."""
        units = sum(piece.units for piece, _ in zip(self.waiting[lane], range(self.limit), strict=False))
        return min(units * self.seconds_per_unit, self.seconds_per_batch)

    def take(self, lane: Lane) -> tuple[list[Piece], int]:
        """Take a lane's next batch; also return how many abandoned pieces were dropped on the way."""
        batch: list[Piece] = []
        seconds, dropped = 0.0, 0
        waiting = self.waiting[lane]
        while waiting and len(batch) < self.limit:
            piece = waiting[0]
            if piece.future.done():
                waiting.popleft()
                dropped += 1
                continue
            seconds += piece.units * self.seconds_per_unit
            if batch and seconds > self.seconds_per_batch:
                break
            batch.append(waiting.popleft())
        return batch, dropped

    def finished(self, batch: Sequence[Piece], began: float, ended: float, last_ended: float) -> None:
        """Learn from a batch that ran: its size and, under load, its speed, including the device's wait for the host."""
        units = sum(piece.units for piece in batch)
        if sum(self._promised) > units:
            self.learn(ended - min(began, max(last_ended, self._busy_since)), units)
        if len(batch) >= self.limit and self.limit < self.most:
            self.limit += 1
        self._usual += 0.3 * (len(batch) - self._usual)
        self._ended, self._lasted = ended, ended - began


class Device:
    """The thread that runs the batches of all queues; with several devices, one thread for each.

    Args:
        loop: event loop on which results are delivered.
        observer: told of each batch.
        prepare: called once on each thread, with the number of its device.
        out_of_memory: tells whether an error means that a batch was too large, and frees what can be freed.
        names: names of the devices.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        observer: Observer,
        prepare: Callable[[int], None],
        out_of_memory: Callable[[Exception], bool],
        names: Sequence[str] = ("cpu",),
    ) -> None:
        self.queues: list[BatchQueue] = []
        self.names = names
        self._failures = [0] * len(names)
        self._loop = loop
        self._observer = observer
        self._prepare = prepare
        self._out_of_memory = out_of_memory
        self._ready = threading.Condition()
        self._share = Share()
        self._open = True
        self._last_ended = [0.0] * len(names)
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"cir-device-{number}", daemon=True)
            for number in range(len(names))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def failures(self) -> int:
        """Number of batches in a row, on one device, whose pieces all failed, and not because of the requests' content."""
        return max(self._failures)

    def add(self, queues: Sequence[BatchQueue]) -> None:
        """Serve more queues."""
        with self._ready:
            self.queues += queues

    def remove(self, queues: Sequence[BatchQueue]) -> None:
        """Serve these queues no more; call it only after all their accepted work has finished."""
        with self._ready:
            self.queues[:] = [queue for queue in self.queues if queue not in queues]

    def put(self, queue: BatchQueue, lane: Lane, payload: Any, units: float) -> Piece:
        """Add a piece to a queue; call this on the event loop. Cancel its future to drop it."""
        piece = Piece(payload, units, self._loop.create_future())
        with self._ready:
            queue.waiting[lane].append(piece)
            self._ready.notify_all()  # one that waits for a fuller batch of another queue would not take it
        return piece

    def submit(self, queue: BatchQueue, lane: Lane, payload: Any, units: float) -> "asyncio.Future[Any]":
        """Add a piece to a queue, as `put`, and return its future."""
        return self.put(queue, lane, payload, units).future

    def depth(self, lane: Lane) -> int:
        """Return the number of pieces that wait in a lane."""
        return sum(len(queue.waiting[lane]) for queue in self.queues)

    def close(self) -> None:
        """End the threads after their present batches."""
        with self._ready:
            self._open = False
            self._ready.notify_all()
        for thread in self._threads:
            thread.join(timeout=60)

    def _work(self, number: int) -> None:
        self._prepare(number)
        while True:
            with self._ready:
                choice = self._choose(number)
                while choice is None:
                    if not self._open:
                        return
                    self._ready.wait()
                    choice = self._choose(number)
                queue, lane, both_wait = choice
                while (window := queue.window(lane, time.monotonic())) > 0 and self._open:
                    self._ready.wait(window)
                batch, dropped = queue.take(lane)
            if dropped:
                self._observer.dropped(dropped)
            if batch:
                self._run(number, queue, lane, batch, both_wait)
            del batch, choice, queue  # so that an idle thread keeps no model in memory

    def _choose(self, number: int) -> tuple[BatchQueue, Lane, bool] | None:
        """Return the queue with the oldest piece in the lane whose turn it is, that lane, and whether both lanes wait."""
        if dropped := sum(queue.drop_abandoned() for queue in self.queues):
            self._observer.dropped(dropped)
        first = [self._oldest(lane, number) for lane in Lane]
        search, update = first
        both = search is not None and update is not None
        lane = self._share.choose(
            search is not None,
            update is not None,
            update.cost_of_next(Lane.UPDATE) if update is not None and both else 0.0,
        )
        queue = None if lane is None else first[lane]
        return None if lane is None or queue is None else (queue, lane, both)

    def _oldest(self, lane: Lane, number: int) -> BatchQueue | None:
        waiting = [queue for queue in self.queues if queue.waiting[lane] and queue.only in (None, number)]
        return min(waiting, key=lambda queue: queue.waiting[lane][0].arrived, default=None)

    def _run(self, number: int, queue: BatchQueue, lane: Lane, batch: list[Piece], both_wait: bool) -> None:
        began = time.monotonic()
        results = self._attempt(number, queue, [piece.payload for piece in batch])
        ended = time.monotonic()
        broken = [isinstance(result, Exception) and not isinstance(result, CirError) for result in results]
        self._failures[number] = self._failures[number] + 1 if all(broken) else 0
        with self._ready:
            self._share.charge(lane, ended - began, both_wait)
            queue.finished(batch, began, ended, self._last_ended[number])
        self._last_ended[number] = ended
        device = self.names[number]
        waits = [began - piece.arrived for piece in batch]
        self._observer.batch(queue.name, lane, len(batch), ended - began, waits, device)
        ran = Ran(device, len(batch), began, ended)
        for piece in batch:
            piece.batch = ran
        _call_soon(self._loop, _settle, [piece.future for piece in batch], results)

    def _attempt(self, number: int, queue: BatchQueue, payloads: Sequence[Any]) -> list[Any]:
        """Return a result or an error for each piece; a batch that fails is halved until the culprit is alone."""
        try:
            return list(queue.run_on(number)(payloads))
        except Exception as error:
            half = len(payloads) // 2
            if self._out_of_memory(error) and half:
                queue.limit = min(queue.limit, half)
                log.warning(
                    "the device is out of memory with %d in a batch of %s; going on with %d",
                    len(payloads),
                    queue.name,
                    half,
                )
            if not half:
                return [error]
        return self._attempt(number, queue, payloads[:half]) + self._attempt(number, queue, payloads[half:])


def _settle(futures: "Sequence[asyncio.Future[Any]]", results: Sequence[Any]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *arguments)
