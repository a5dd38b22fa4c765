"""The engine: few large batches out of many small requests, fair lanes, bounds, and no wasted work."""

import asyncio
import io
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cir_vectorizer.engine import Answer, Engine, EngineOptions
from cir_vectorizer.engine.admission import Admission
from cir_vectorizer.engine.batching import BatchQueue, Device, HostPool, Lane, Share
from cir_vectorizer.errors import DeviceError, ImageError, OverloadError, QueryError
from cir_vectorizer.query import ComposedQuery, ImageRef
from tests.support.serving import RED, drawn, tiny


class Watcher:
    """An observer that records every call."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, Lane, int]] = []
        self.waits: list[float] = []
        self.devices: list[str] = []
        self.abandoned = 0
        self.hits = self.misses = 0

    def batch(self, queue: str, lane: Lane, size: int, seconds: float, waits: Sequence[float], device: str) -> None:
        self.devices.append(device)
        self.batches.append((queue, lane, size))
        self.waits += waits

    def dropped(self, count: int) -> None:
        self.abandoned += count

    def cache(self, hits: int, misses: int) -> None:
        self.hits += hits
        self.misses += misses

    def sizes(self, queue: str) -> list[int]:
        return [size for name, _, size in self.batches if name == queue]


def with_device(test: Callable[[Device, Watcher], Awaitable[None]]) -> None:
    async def main() -> None:
        watcher = Watcher()
        device = Device(
            asyncio.get_running_loop(), watcher, lambda _: None, lambda error: isinstance(error, MemoryError)
        )
        try:
            await test(device, watcher)
        finally:
            device.close()

    asyncio.run(main())


def with_engine(test: Callable[[Engine, Watcher], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        watcher = Watcher()
        engine = Engine({"tiny": tiny()}, EngineOptions(host_threads=2, **options), watcher)
        await engine.warm_up()
        watcher.batches.clear()
        try:
            await test(engine, watcher)
        finally:
            engine.close()

    asyncio.run(main())


def queue_on(device: Device, run: Callable[[Sequence[Any]], Sequence[Any]], limit: int = 64, **more: Any) -> BatchQueue:
    queue = BatchQueue("queue", run, limit, **more)
    device.queues.append(queue)
    return queue


def gated() -> tuple[threading.Event, Callable[[Sequence[Any]], Sequence[Any]]]:
    """A run that returns its input once the gate is open."""
    gate = threading.Event()

    def run(payloads: Sequence[Any]) -> Sequence[Any]:
        assert gate.wait(10)
        return list(payloads)

    return gate, run


async def behind(gate: threading.Event, device: Device, queue: BatchQueue) -> "asyncio.Future[Any]":
    """Occupy the device until the gate opens."""
    first = device.submit(queue, Lane.SEARCH, "first", 1)
    await asyncio.sleep(0.05)
    return first


def test_a_lone_request_does_not_wait_and_what_comes_meanwhile_is_one_batch():
    async def test(device: Device, watcher: Watcher) -> None:
        gate, run = gated()
        queue = queue_on(device, run)
        first = await behind(gate, device, queue)
        rest = [device.submit(queue, Lane.SEARCH, i, 1) for i in range(20)]
        gate.set()
        assert await first == "first"
        assert await asyncio.gather(*rest) == list(range(20))
        assert watcher.sizes("queue") == [1, 20]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await device.submit(queue, Lane.SEARCH, 0, 1)
        assert time.monotonic() - began < 0.05
        assert watcher.waits[-1] < 0.02

    with_device(test)


def test_batches_keep_to_their_limit_and_to_their_time():
    async def test(device: Device, watcher: Watcher) -> None:
        gate, run = gated()
        queue = queue_on(device, run, limit=8, seconds_per_batch=0.5)
        first = await behind(gate, device, queue)
        few = [device.submit(queue, Lane.SEARCH, i, 1) for i in range(20)]
        gate.set()
        await asyncio.gather(first, *few)
        assert watcher.sizes("queue") == [1, 8, 8, 4]
        gate.clear()
        watcher.batches.clear()
        first = await behind(gate, device, queue)
        queue.learn(seconds=8.0, units=80)  # 0.1 s a unit
        slow = [device.submit(queue, Lane.SEARCH, i, 1) for i in range(10)]
        gate.set()
        await asyncio.gather(first, *slow)
        assert watcher.sizes("queue") == [1, 5, 5]

    with_device(test)


def test_searches_overtake_updates_and_updates_keep_a_fifth():
    async def test(device: Device, watcher: Watcher) -> None:
        def run(payloads: Sequence[Any]) -> Sequence[Any]:
            time.sleep(0.002 * len(payloads))
            return list(payloads)

        queue = queue_on(device, run, limit=4)
        queue.learn(seconds=2.0, units=1000)
        updates = [device.submit(queue, Lane.UPDATE, i, 1) for i in range(200)]
        searches = [device.submit(queue, Lane.SEARCH, i, 1) for i in range(200)]
        await asyncio.gather(*searches)
        done = sum(update.done() for update in updates)
        lanes = [lane for _, lane, _ in watcher.batches]
        assert Lane.SEARCH in lanes[:2]
        assert 20 <= done <= 90, f"{done} of 200 updates were done when all 200 searches were"
        await asyncio.gather(*updates)

    with_device(test)


def test_a_share_is_not_saved_up_while_only_one_lane_works():
    share = Share(0.2)
    for _ in range(1000):
        share.charge(Lane.UPDATE, 1.0, both_wait=False)
    turns = []
    for _ in range(100):
        lane = share.choose(True, True, 1.0)
        assert lane is not None
        share.charge(lane, 1.0, both_wait=True)
        turns.append(lane)
    assert 15 <= turns.count(Lane.UPDATE) <= 25
    assert share.choose(True, False, 0.0) is Lane.SEARCH
    assert share.choose(False, False, 0.0) is None


def test_abandoned_work_never_reaches_the_device():
    async def test(device: Device, watcher: Watcher) -> None:
        gate, run = gated()
        queue = queue_on(device, run)
        first = await behind(gate, device, queue)
        rest = [device.submit(queue, Lane.SEARCH, i, 1) for i in range(10)]
        for future in rest[:7]:
            future.cancel()
        gate.set()
        await first
        assert await asyncio.gather(*rest[7:]) == [7, 8, 9]
        assert watcher.sizes("queue") == [1, 3]
        assert watcher.abandoned == 7

    with_device(test)


def test_a_poisoned_piece_fails_alone():
    async def test(device: Device, watcher: Watcher) -> None:
        def run(payloads: Sequence[Any]) -> Sequence[Any]:
            if 13 in payloads:
                raise ValueError("thirteen")
            return list(payloads)

        queue = queue_on(device, run)
        results = await asyncio.gather(
            *(device.submit(queue, Lane.SEARCH, i, 1) for i in range(40)), return_exceptions=True
        )
        assert [i for i, result in enumerate(results) if isinstance(result, ValueError)] == [13]
        assert [result for result in results if not isinstance(result, ValueError)] == [i for i in range(40) if i != 13]
        assert device.failures == 0

    with_device(test)


def test_out_of_memory_halves_the_batch_and_goes_on():
    async def test(device: Device, watcher: Watcher) -> None:
        sizes = []

        def run(payloads: Sequence[Any]) -> Sequence[Any]:
            sizes.append(len(payloads))
            if len(payloads) > 8:
                raise MemoryError
            return list(payloads)

        queue = queue_on(device, run, limit=64)
        gate_open = await asyncio.gather(*(device.submit(queue, Lane.UPDATE, i, 1) for i in range(200)))
        assert gate_open == list(range(200))
        assert queue.limit <= 16
        assert sizes[-3] <= 16

    with_device(test)


def test_admission_refuses_at_once_lets_in_by_turn_and_gives_up_in_time():
    async def main() -> None:
        queue = BatchQueue("queue", list, 8)
        queue.learn(1.0, 10)  # 0.1 s a unit
        admission = Admission([queue], (1.0, 1.0))
        await admission.enter([(queue, 50)], Lane.SEARCH, 0)  # an empty queue admits work of any size
        with pytest.raises(OverloadError) as refused:
            await admission.enter([(queue, 1)], Lane.SEARCH, 0)
        assert refused.value.retry_after == 5
        await admission.enter([(queue, 10)], Lane.UPDATE, 0)  # each lane has its own bound
        turns = []

        async def come(name: str) -> None:
            await admission.enter([(queue, 6)], Lane.UPDATE, 5)
            turns.append(name)

        tasks = [asyncio.ensure_future(come(name)) for name in "abc"]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        await asyncio.sleep(0.01)
        assert turns == []
        admission.leave([(queue, 10)], Lane.UPDATE)
        await asyncio.sleep(0.01)
        assert turns == ["a"]
        admission.leave([(queue, 6)], Lane.UPDATE)
        await asyncio.sleep(0.01)
        assert turns == ["a", "c"]
        began = time.monotonic()
        with pytest.raises(OverloadError):
            await admission.enter([(queue, 6)], Lane.UPDATE, 0.2)
        assert 0.15 < time.monotonic() - began < 1
        admission.leave([(queue, 6)], Lane.UPDATE)
        assert admission.backlog(Lane.UPDATE) == 0

    asyncio.run(main())


def test_what_is_admitted_at_ten_times_the_capacity_waits_no_longer_than_twice_the_bound():
    async def test(device: Device, watcher: Watcher) -> None:
        def run(payloads: Sequence[Any]) -> Sequence[Any]:
            time.sleep(0.004 + 0.001 * len(payloads))
            return list(payloads)

        bound = 0.3
        queue = queue_on(device, run, limit=16)
        admission = Admission([queue], (bound, bound))
        times, refused = [], 0

        async def ask() -> None:
            nonlocal refused
            began = time.monotonic()
            try:
                await admission.enter([(queue, 1)], Lane.SEARCH, 0)
            except OverloadError:
                refused += 1
                return
            await device.submit(queue, Lane.SEARCH, 0, 1)
            admission.leave([(queue, 1)], Lane.SEARCH)
            times.append(time.monotonic() - began)

        tasks: list[asyncio.Task[None]] = []
        for _ in range(150):
            tasks = [task for task in tasks if not task.done()]
            tasks += [asyncio.ensure_future(ask()) for _ in range(80)]
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
        assert refused > len(times) > 300
        assert np.percentile(times, 99) < 2 * bound

    with_device(test)


def test_host_work_of_searches_overtakes_that_of_updates():
    async def main() -> None:
        order: list[str] = []
        gate = threading.Event()
        pool = HostPool(1, lambda: None)
        blocked = asyncio.ensure_future(pool.run(Lane.UPDATE, gate.wait, 10))
        await asyncio.sleep(0.05)
        updates = [asyncio.ensure_future(pool.run(Lane.UPDATE, order.append, "update")) for _ in range(10)]
        searches = [asyncio.ensure_future(pool.run(Lane.SEARCH, order.append, "search")) for _ in range(4)]
        gone = asyncio.ensure_future(pool.run(Lane.SEARCH, order.append, "gone"))
        await asyncio.sleep(0.05)
        gone.cancel()
        gate.set()
        await asyncio.gather(blocked, *updates, *searches)
        assert order.index("update") >= 3
        assert sorted(order) == ["search"] * 4 + ["update"] * 10
        with pytest.raises(ZeroDivisionError):
            await pool.run(Lane.SEARCH, lambda: 1 // 0)
        pool.close()

    asyncio.run(main())


def test_the_same_picture_a_hundred_times_at_once_is_embedded_once():
    async def test(engine: Engine, watcher: Watcher) -> None:
        works = [engine.vectorizers["tiny"].plan_picture(ImageRef(base64=RED)) for _ in range(100)]
        answers = await asyncio.gather(*(engine.run([work], Lane.SEARCH) for work in works))
        assert sum(watcher.sizes("tiny/picture")) == 1
        assert (watcher.misses, watcher.hits) == (1, 99)
        first = answers[0][0]
        assert isinstance(first, Answer)
        assert all(np.array_equal(answer[0].vector, first.vector) for answer in answers)
        again = await engine.run([engine.vectorizers["tiny"].plan_picture(ImageRef(base64=RED))], Lane.UPDATE)
        assert sum(watcher.sizes("tiny/picture")) == 1
        assert again[0].norm == pytest.approx(first.norm)

    with_engine(test)


def test_the_cache_keeps_to_its_budget_and_forgets_the_oldest():
    async def test(engine: Engine, watcher: Watcher) -> None:
        for number in range(20):
            await engine.run([engine.vectorizers["tiny"].plan_picture(ImageRef(base64=drawn(number)))], Lane.SEARCH)
        assert 0 < engine.cached_bytes <= 5000
        await engine.run([engine.vectorizers["tiny"].plan_picture(ImageRef(base64=drawn(19)))], Lane.SEARCH)
        assert sum(watcher.sizes("tiny/picture")) == 20
        await engine.run([engine.vectorizers["tiny"].plan_picture(ImageRef(base64=drawn(0)))], Lane.SEARCH)
        assert sum(watcher.sizes("tiny/picture")) == 21

    with_engine(test, cache_bytes=5000)


def test_a_client_that_goes_does_not_take_a_shared_picture_with_it():
    async def test(engine: Engine, watcher: Watcher) -> None:
        hold = threading.Event()
        busy = asyncio.ensure_future(engine.call(lambda: hold.wait(10)))
        await asyncio.sleep(0.05)
        runs = [
            asyncio.ensure_future(
                engine.run([engine.vectorizers["tiny"].plan_picture(ImageRef(base64=RED))], Lane.SEARCH)
            )
            for _ in range(3)
        ]
        alone = asyncio.ensure_future(
            engine.run([engine.vectorizers["tiny"].plan_picture(ImageRef(base64=drawn(5)))], Lane.SEARCH)
        )
        await asyncio.sleep(0.2)
        runs[0].cancel()
        alone.cancel()
        await asyncio.sleep(0.05)
        hold.set()
        await busy
        answers = await asyncio.gather(*runs, alone, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert isinstance(answers[1][0], Answer)
        assert isinstance(answers[2][0], Answer)
        assert sum(watcher.sizes("tiny/picture")) == 1
        assert watcher.abandoned == 1
        assert engine.admission.backlog(Lane.SEARCH) == 0

    with_engine(test)


def test_vectors_are_those_of_the_library_and_one_bad_picture_fails_alone():
    async def test(engine: Engine, watcher: Watcher) -> None:
        queries = [{"image": drawn(i), "text": f"is {i}", "composer": ("lincir", "sum")[i % 2]} for i in range(10)]
        works = [engine.vectorizers["tiny"].plan(ComposedQuery.parse(query)) for query in queries]
        cut_short = ImageRef(base64=RED[:60])
        answers = await engine.run(
            [*works, engine.vectorizers["tiny"].plan_picture(cut_short), engine.vectorizers["tiny"].plan_text("red")],
            Lane.UPDATE,
        )
        expected = tiny().compose(queries).vectors
        np.testing.assert_allclose([answer.vector for answer in answers[:10]], expected, atol=1e-5)
        assert isinstance(answers[10], ImageError)
        assert str(answers[10]).startswith("the picture is a cut short")
        assert isinstance(answers[11], Answer)

    with_engine(test)


def test_errors_of_the_device_are_sentences_and_those_of_a_query_stay_what_they_are():
    async def test(engine: Engine, watcher: Watcher) -> None:
        cancels = {"image": RED, "text": "a", "composer": "sum", "options": {"weights": {"image": 0.0, "text": 0.0}}}
        fine = {"image": RED, "text": "a", "composer": "sum"}
        works = [engine.vectorizers["tiny"].plan(ComposedQuery.parse(query)) for query in (fine, cancels, fine)]
        answers = await engine.run(works, Lane.SEARCH)
        assert [type(answer) for answer in answers] == [Answer, QueryError, Answer]
        (queue,) = [queue for queue in engine.device.queues if queue.name == "tiny/text"]
        working, queue.run = queue.run, lambda payloads: 1 / 0
        (failed,) = await engine.run([engine.vectorizers["tiny"].plan_text("red")], Lane.SEARCH)
        assert isinstance(failed, DeviceError)
        assert "log" in str(failed)
        queue.run = working
        assert isinstance((await engine.run([engine.vectorizers["tiny"].plan_text("red")], Lane.SEARCH))[0], Answer)

    with_engine(test)


def test_urls_are_refused_where_nothing_fetches_them():
    async def test(engine: Engine, watcher: Watcher) -> None:
        (answer,) = await engine.run(
            [engine.vectorizers["tiny"].plan_picture(ImageRef(url="http://shop.example/a.jpg"))], Lane.SEARCH
        )
        assert isinstance(answer, ImageError)
        assert "URLs are not fetched here" in str(answer)

    with_engine(test)


def test_few_fetched_pictures_wait_with_their_bytes():
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "green").save(stream, "PNG")
    waiting, most = 0, 0

    async def fetch(url: str) -> bytes:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        return stream.getvalue() + url.encode()  # a different picture for each URL

    async def main() -> None:
        nonlocal waiting
        engine = Engine({"tiny": tiny()}, EngineOptions(host_threads=2), Watcher(), fetch)
        shared = engine._shared

        async def slow(*arguments: Any) -> Any:
            nonlocal waiting
            await asyncio.sleep(0.01)
            try:
                return await shared(*arguments)
            finally:
                waiting -= 1

        engine._shared = slow
        refs = [ImageRef(url=f"http://shop.example/{i}.png") for i in range(50)]
        answers = await engine.run([engine.vectorizers["tiny"].plan_picture(ref) for ref in refs], Lane.UPDATE)
        assert all(isinstance(answer, Answer) for answer in answers)
        engine.close()

    asyncio.run(main())
    assert most == 16


def test_many_clients_share_batches():
    async def test(engine: Engine, watcher: Watcher) -> None:
        async def client(number: int) -> None:
            for turn in range(5):
                work = await engine.host(
                    engine.vectorizers["tiny"].plan_text, f"a dress of client {number}, turn {turn}"
                )
                assert isinstance((await engine.run([work], Lane.SEARCH))[0], Answer)

        await asyncio.gather(*(client(number) for number in range(32)))
        sizes = watcher.sizes("tiny/text")
        assert sum(sizes) == 160
        assert len(sizes) < 60

    with_engine(test)


def test_pictures_are_decoded_with_the_models_limits():
    async def test(engine: Engine, watcher: Watcher) -> None:
        stream = io.BytesIO()
        Image.new("1", (9000, 9000)).save(stream, "PNG")
        (answer,) = await engine.run(
            [engine.vectorizers["tiny"].plan_picture(ImageRef(data=stream.getvalue()))], Lane.SEARCH
        )
        assert isinstance(answer, ImageError)
        assert "megapixels" in str(answer)

    with_engine(test)
