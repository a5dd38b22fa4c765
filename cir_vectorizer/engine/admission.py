"""Admission control: work is admitted, waits in line for room, or is rejected."""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from cir_vectorizer.engine.batching import BatchQueue, Lane
from cir_vectorizer.errors import OverloadError

NEARLY_FULL = 0.98

Promises = list[tuple[BatchQueue, int]]
"""Queues that a piece of work will pass through, and how many units it adds to each."""


@dataclass(eq=False)
class _Waiting:
    promises: Promises
    future: "asyncio.Future[None]"
    admitted: bool = False


class Admission:
    """Bounds the estimated seconds of work in each lane; use it on one event loop.

    Args:
        queues: all queues of the devices, a list that may grow and shrink.
        bounds: largest backlog in seconds of the lane of searches and of that of updates. A lane without backlog
            admits any request, however large.
    """

    def __init__(self, queues: Sequence[BatchQueue], bounds: tuple[float, float]) -> None:
        self._queues = queues
        self._bounds = bounds
        self._lines: tuple[deque[_Waiting], deque[_Waiting]] = (deque(), deque())

    def backlog(self, lane: Lane) -> float:
        """Return the estimated seconds of work that a lane has admitted and not finished."""
        return sum(queue.backlog(lane) for queue in self._queues)

    async def enter(self, promises: Promises, lane: Lane, wait: float) -> None:
        """Wait to be admitted, in the order of arrival.

        Args:
            wait: seconds to wait for room before being rejected.

        Raises:
            OverloadError: there was no room within `wait` seconds.
        """
        line = self._lines[lane]
        if not line and self._fits(promises, lane):
            _promise(promises, lane, 1)
            return
        if wait <= 0:
            raise self.refusal(lane)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(promises, loop.create_future())
        line.append(waiting)
        timer = loop.call_later(wait, self._give_up, waiting, lane)
        try:
            await waiting.future
        except BaseException:
            if waiting.admitted:
                self.leave(promises, lane)
            else:
                line.remove(waiting)
                self._let_in(lane)
            raise
        finally:
            timer.cancel()

    def leave(self, promises: Promises, lane: Lane) -> None:
        """Note that admitted work has finished, failed or been cancelled."""
        _promise(promises, lane, -1)
        self._let_in(lane)

    def refusal(self, lane: Lane) -> OverloadError:
        """Return the error for work that finds no room."""
        return OverloadError(min(60, max(1, math.ceil(self.backlog(lane)))))

    def full(self, lane: Lane) -> bool:
        """Tell whether a lane is so nearly full that a request can be rejected before it is read."""
        return bool(self._lines[lane]) or self.backlog(lane) > NEARLY_FULL * self._bounds[lane]

    def _fits(self, promises: Promises, lane: Lane) -> bool:
        backlog = self.backlog(lane)
        more = sum(queue.seconds(units) for queue, units in promises)
        return not backlog or backlog + more <= self._bounds[lane]

    def _let_in(self, lane: Lane) -> None:
        line = self._lines[lane]
        while line and not line[0].future.done() and self._fits(line[0].promises, lane):
            waiting = line.popleft()
            waiting.admitted = True
            _promise(waiting.promises, lane, 1)
            waiting.future.set_result(None)

    def _give_up(self, waiting: _Waiting, lane: Lane) -> None:
        if not waiting.future.done():
            waiting.future.set_exception(self.refusal(lane))


def _promise(promises: Promises, lane: Lane, sign: int) -> None:
    for queue, units in promises:
        queue.promise(lane, sign * units)
