"""A real service for the tests: the packaged model, real HTTP on a free port of this machine."""

import base64
import functools
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import httpx
from PIL import Image

from cir_vectorizer.collections import Collection
from cir_vectorizer.models import Vectorizer, load
from cir_vectorizer.pictures.fetch import Fetcher
from cir_vectorizer.service.app import create_app
from cir_vectorizer.service.run import make_server
from cir_vectorizer.service.settings import Settings
from cir_vectorizer.service.tracing import Tracing


@functools.cache
def tiny() -> Vectorizer:
    return load("tiny", "cpu")


def on_cpu(model: str) -> Vectorizer:
    return load(model, "cpu")


def encoded(picture: Image.Image, kind: str = "PNG") -> str:
    stream = io.BytesIO()
    picture.save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()


def drawn(number: int, size: int = 8) -> str:
    """Draw a picture in base64, a different one for each number."""
    colour = number * 7919 % 2**24
    return encoded(Image.new("RGB", (size, size), (colour >> 16, colour >> 8 & 255, colour & 255)))


RED = drawn(0xFF0000)


class Running:
    """A service that runs in a thread of this process."""

    def __init__(
        self,
        settings: Settings,
        vectorizers: dict[str, Vectorizer] | None = None,
        fetcher: Fetcher | None = None,
        collections: dict[str, list[Collection]] | None = None,
        load_one: Callable[[str], Vectorizer] = on_cpu,
        tracing: Tracing | None = None,
    ):
        models = dict(vectorizers or {"tiny": tiny()})
        self.app = create_app(lambda: models, settings, fetcher, collections, load_one, tracing)
        self.service = self.app.state.service
        self.server = make_server(self.app, settings)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def start(self) -> None:
        self.thread.start()
        wait_for(lambda: self.server.started, 20)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)
        wait_for(lambda: self.client.get("/.well-known/ready").status_code == 204, 60)

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(30)

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.client.post(path, json=body, **more)


@contextmanager
def serving(
    fetcher: Fetcher | None = None,
    vectorizers: dict[str, Vectorizer] | None = None,
    collections: dict[str, list[Collection]] | None = None,
    load_one: Callable[[str], Vectorizer] = on_cpu,
    tracing: Tracing | None = None,
    **given: Any,
) -> Iterator[Running]:
    running = Running(Settings(**{"port": 0, **given}), vectorizers, fetcher, collections, load_one, tracing)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def at_every_door(service: Running, query: dict[str, Any]) -> Iterator[list[float]]:
    """Yield the vector of a query, which names its composer, at each door."""
    one = {"data": query, "data_type": "object", "model": query["composer"], "options": None}
    for answer, vector in (
        (service.post("/m/tiny/vectorize", {"texts": [json.dumps(query)]}), lambda body: body["textVectors"][0]),
        (service.post("/qdrant", {"inputs": [one], "inference": "search"}), lambda body: body["embeddings"][0]),
        (service.post("/v1/compose", {"queries": [query]}), lambda body: body["vectors"][0]),
    ):
        assert answer.status_code == 200, answer.text
        yield vector(answer.json())


def wait_for(done: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
