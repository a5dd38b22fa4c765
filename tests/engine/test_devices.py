"""Several devices in one process: one queue, each device's thread takes batches, and each gives the same vectors.

Two devices `cpu` stand in for two GPUs.
"""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from cir_vectorizer.cli.serve import _load
from cir_vectorizer.engine import Answer, Engine, EngineOptions
from cir_vectorizer.engine.batching import BatchQueue, Device, Lane
from cir_vectorizer.engine.devices import device_names
from cir_vectorizer.engine.samples import samples
from cir_vectorizer.models import Vectorizer
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.service.settings import Settings
from tests.engine.test_engine import Watcher
from tests.support.serving import Running, drawn, serving, tiny

PAIR = ("cpu", "cpu/2")
QUERIES = [
    {"image": drawn(1), "text": "is red"},
    {"image": [drawn(2), drawn(3)], "text": "is blue", "composer": "sum"},
    {"image": drawn(4), "text": "is green", "composer": "compodiff", "options": {"seed": 3, "steps": 2}},
    {"image": drawn(5)},
    {"text": "a red shirt"},
]


@pytest.fixture(scope="module")
def pair() -> Vectorizer:
    """The packaged model with a copy, as `serve --device cpu,cpu` loads it."""
    return _load(Settings(model=("tiny",), device="cpu,cpu"))["tiny"]


def test_devices_are_read_from_every_place(monkeypatch):
    assert Settings(device="cuda:0,cuda:1").device == ("cuda:0", "cuda:1")
    assert Settings(device=("cuda:0", "cuda:1,cuda:2")).device == ("cuda:0", "cuda:1", "cuda:2")
    monkeypatch.setenv("CIR_DEVICE", "cpu,cpu")
    assert Settings().device == ("cpu", "cpu")
    monkeypatch.setenv("CIR_DEVICE", "cuda:0 cuda:1")
    assert Settings().device == ("cuda:0", "cuda:1")
    monkeypatch.delenv("CIR_DEVICE")
    assert Settings().device == ()


def test_a_device_that_is_there_twice_has_two_names():
    cpu, first, second = torch.device("cpu"), torch.device("cuda:0"), torch.device("cuda:1")
    assert device_names([cpu, cpu, cpu]) == ["cpu", "cpu/2", "cpu/3"]
    assert device_names([first, second]) == ["cuda:0", "cuda:1"]


def test_each_device_has_weights_of_its_own(pair):
    (copy,) = pair.copies
    assert pair.weights_bytes == copy.weights_bytes > 10_000_000
    one, other = (next(iter(each.backbone.towers.parameters())) for each in (pair, copy))
    assert one.data_ptr() != other.data_ptr()
    assert pair.fingerprint == copy.fingerprint


def test_both_devices_work_at_once_on_one_queue():
    async def main() -> None:
        watcher, together = Watcher(), threading.Barrier(2)

        def run(payloads: Sequence[Any]) -> Sequence[Any]:
            together.wait(10)  # only two threads at once pass it
            return list(payloads)

        device = Device(asyncio.get_running_loop(), watcher, lambda _: None, lambda _: False, PAIR)
        queue = BatchQueue("queue", run, 1, others=[run])
        device.add([queue])
        assert await asyncio.gather(*(device.submit(queue, Lane.SEARCH, i, 1) for i in range(8))) == list(range(8))
        assert sorted(watcher.devices) == ["cpu"] * 4 + ["cpu/2"] * 4
        device.close()

    asyncio.run(main())


def test_a_call_for_one_device_runs_on_its_thread():
    async def main() -> None:
        device = Device(asyncio.get_running_loop(), Watcher(), lambda _: None, lambda _: False, PAIR)
        calls = [BatchQueue("call", lambda calls: [call() for call in calls], 1, only=i) for i in range(2)]
        device.add(calls)
        names = [
            await device.submit(calls[i % 2], Lane.SEARCH, lambda: threading.current_thread().name, 1) for i in range(6)
        ]
        assert names == ["cir-device-0", "cir-device-1"] * 3
        device.close()

    asyncio.run(main())


def test_a_broken_device_is_told_by_its_own_failures():
    async def main() -> None:
        def fail(_: Sequence[Any]) -> Sequence[Any]:
            raise RuntimeError("broken")

        device = Device(asyncio.get_running_loop(), Watcher(), lambda _: None, lambda _: False, PAIR)
        calls = [BatchQueue("good", list, 1, only=0), BatchQueue("bad", fail, 1, only=1)]
        device.add(calls)
        for _ in range(3):
            await device.submit(calls[0], Lane.SEARCH, 0, 1)
            with pytest.raises(RuntimeError):
                await device.submit(calls[1], Lane.SEARCH, 0, 1)
        assert device.failures == 3
        device.close()

    asyncio.run(main())


def test_two_devices_halve_the_backlog():
    one, two = BatchQueue("one", list, 8), BatchQueue("two", list, 8, others=[list])
    for queue in (one, two):
        queue.learn(1.0, 10)
        queue.promise(Lane.SEARCH, 20)
    assert (one.backlog(Lane.SEARCH), two.backlog(Lane.SEARCH)) == (pytest.approx(2), pytest.approx(1))


def test_each_device_gives_the_vectors_of_the_other(pair):
    async def main() -> None:
        engine = Engine({"tiny": pair}, EngineOptions(host_threads=1), Watcher())
        for sample in samples(pair):
            (queue,) = [each for each in engine.device.queues if each.name == f"tiny/{sample.stage}"]
            first, second = (queue.run_on(number)([sample.payload])[0] for number in range(2))
            np.testing.assert_allclose(first, second, atol=1e-6)
        await engine.warm_up()
        answers = await engine.run([pair.plan(ComposedQuery.parse(query)) for query in QUERIES], Lane.SEARCH)
        expected = tiny().compose(QUERIES).vectors
        for answer, vector in zip(answers, expected, strict=True):
            assert isinstance(answer, Answer), answer
            np.testing.assert_allclose(answer.vector, vector, atol=1e-5)
        engine.close()

    asyncio.run(main())


@pytest.fixture(scope="module")
def service(pair: Vectorizer) -> Iterator[Running]:
    with serving(vectorizers={"tiny": pair}, picture_batch=1, cache_mib=0) as running:
        yield running


def test_the_service_uses_both_and_counts_them(service):
    pictures = [drawn(number) for number in range(40)]
    expected = service.post("/v1/embed", {"images": pictures}).json()["image_vectors"]
    queue = next(each for each in service.service.engine.device.queues if each.name == "tiny/picture")
    taken = []
    for number, run in enumerate([queue.run, *queue.others]):

        def slow(payloads: Sequence[Any], number: int = number, run: Any = run) -> Sequence[Any]:
            taken.append(number)
            time.sleep(0.005)  # so that one device cannot be done before the other has looked
            return run(payloads)

        if number == 0:
            queue.run = slow
        else:
            queue.others = [slow]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: service.post("/v1/embed", {"images": [each]}).json(), pictures))
    assert len(taken) == 40
    assert min(taken.count(number) for number in (0, 1)) >= 5
    for answer, vector in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer["image_vectors"][0], vector, atol=1e-5)
    figures = service.client.get("/metrics").text
    for device in PAIR:
        assert f'cir_device_seconds_total{{device="{device}",lane="search",queue="tiny/picture"}}' in figures
        assert f'cir_weights_bytes{{device="{device}",model="tiny"}}' in figures


def test_a_live_loaded_model_has_a_copy_on_each_too(pair, tmp_path):
    def load_one(model: str) -> Vectorizer:
        return _load(Settings(model=(model,), device="cpu,cpu"))[model]

    with serving(vectorizers={"tiny": pair}, load_one=load_one, admin_keys="boss") as service:
        key = {"cir-api-key": "boss"}
        assert service.post("/v1/models", {"model": "tiny", "name": "second"}, headers=key).status_code == 201
        figures = service.client.get("/metrics").text
        assert all(f'cir_weights_bytes{{device="{device}",model="second"}}' in figures for device in PAIR)
        assert service.client.delete("/v1/models/second", headers=key).json()["state"] == "unloaded"
        assert "second" not in service.client.get("/metrics").text.replace("_seconds", "")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_two_copies_on_gpus_give_the_vectors_of_the_cpu():
    places = "cuda:0,cuda:1" if torch.cuda.device_count() > 1 else "cuda:0,cuda:0"
    model = _load(Settings(model=("tiny",), device=places))["tiny"]
    expected = tiny().compose(QUERIES).vectors
    with serving(vectorizers={"tiny": model}) as service, ThreadPoolExecutor(16) as pool:
        asked = [{"queries": [query]} for query in QUERIES * 20]
        answers = list(pool.map(lambda body: service.post("/v1/compose", body).json()["vectors"][0], asked))
        for answer, vector in zip(answers, list(expected) * 20, strict=True):
            assert float(np.dot(answer, vector)) > 0.9999
        figures = service.client.get("/metrics").text
        names = device_names([torch.device(place) for place in places.split(",")])
        assert all(f'cir_device_seconds_total{{device="{name}"' in figures for name in names)
