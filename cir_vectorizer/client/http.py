"""Clients of the service, with the methods of a local `Vectorizer`: `Client`, and `AsyncClient` for asyncio.

>>> with Client("http://localhost:8000", api_key="…") as client:
...     client.compose([{"image": Path("dress.jpg"), "text": "is red"}]).vectors

Many items are sent in several requests, one after another. A request is retried, within limits, if the service is busy
(429, 503) or the connection breaks. A request that is refused for one item is split at that item, or in the middle if
the refusal names none, so that a bad picture fails alone. Imports no torch.

Errors: ServiceError for errors of the service and the network; QueryError and ImageError, as from a local vectorizer,
for items that are refused before sending. Each has `code`, `field` and `index`, the position among the caller's items.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx
from typing_extensions import Self

from cir_vectorizer.client.conversation import (
    Errors,
    Patience,
    Result,
    Send,
    Sleep,
    Steps,
    Talk,
    Vectors,
)
from cir_vectorizer.errors import ServiceError
from cir_vectorizer.query.wire import Composed, Query

if TYPE_CHECKING:
    from cir_vectorizer.query.wire import Picture


class _Base:
    """Common part of both clients; for the parameters see `Client`."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = 60.0,
        patience: Patience | None = None,
        batch_items: int = 128,
        batch_bytes: int = 16 * 2**20,
    ) -> None:
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ServiceError(f"the service's address is no URL ({error}); write http://HOST:PORT") from error
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise ServiceError("the service's address is no URL of http or https; write http://HOST:PORT")
        self._talk = Talk(model, patience or Patience(), batch_items, batch_bytes)
        self._options: dict[str, Any] = {
            "base_url": self._url.copy_with(userinfo=b""),
            "timeout": httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            "headers": {"cir-api-key": api_key} if api_key else None,
            "auth": (self._url.username, self._url.password) if self._url.userinfo else None,
        }


class Client(_Base):
    """A blocking client of the service. Thread-safe.

    Args:
        url: for example `http://localhost:8000`; it may include a key (`http://cir:KEY@host:8000`).
        api_key: the key, if the service asks for one.
        model: a model, `model/composer`, either with `@fingerprint`, or an alias; the service's default if None.
        timeout: seconds that one request may take.
        patience: limits for retries.
        batch_items: most items in a request.
        batch_bytes: approximate largest size of a request's body.
        transport: replaces the network, for tests.
    """

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None, **options: Any) -> None:
        super().__init__(url, **options)
        self._http = httpx.Client(transport=transport, **self._options)

    def compose(self, queries: Sequence[Query], *, model: str | None = None, errors: Errors | None = None) -> Composed:
        """Turn composed queries into unit vectors to search with.

        Args:
            queries: dicts, JSON texts or ComposedQuery; pictures as in `cir_vectorizer.query.wire.Picture`.
            errors: collects the errors of single items by position; their rows are NaN. If None, the first is raised.

        Raises:
            ServiceError, QueryError, ImageError: see the module's docstring.
        """
        return self._run(self._talk.compose(queries, model, errors))

    def embed_texts(self, texts: Sequence[str], *, model: str | None = None, errors: Errors | None = None) -> Vectors:
        """Embed plain texts as (n, dim) unit vectors; `errors` and exceptions as in `compose`."""
        return self._run(self._talk.embed_texts(texts, model, errors))

    def embed_images(
        self, images: "Sequence[Picture]", *, model: str | None = None, errors: Errors | None = None
    ) -> Vectors:
        """Embed pictures as (n, dim) unnormalised embeddings; `errors` and exceptions as in `compose`."""
        return self._run(self._talk.embed_images(images, model, errors))

    def models(self) -> dict[str, Any]:
        """Return the served models: `data` (a dict for each model), `aliases` and `version`."""
        return self._run(self._talk.models())

    def explain(self, query: Query, *, words: int = 10, model: str | None = None) -> dict[str, Any]:
        """Return the nearest words of each picture's pseudo-word, and how far each part moves the query."""
        return self._run(self._talk.explain(query, words, model))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[Result]) -> Result:
        outcome: httpx.Response | httpx.TransportError | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                result: Result = done.value
                return result
            if isinstance(step, Sleep):
                time.sleep(step.seconds)
                outcome = None
                continue
            try:
                outcome = self._http.request(step.method, step.path, content=step.body, headers=_headers(step))
            except httpx.TransportError as error:
                outcome = error


class AsyncClient(_Base):
    """`Client` for asyncio: the same parameters and methods, which are awaited. Bodies are built on threads."""

    def __init__(self, url: str, *, transport: httpx.AsyncBaseTransport | None = None, **options: Any) -> None:
        super().__init__(url, **options)
        self._http = httpx.AsyncClient(transport=transport, **self._options)

    async def compose(
        self, queries: Sequence[Query], *, model: str | None = None, errors: Errors | None = None
    ) -> Composed:
        """Compose queries; see `Client.compose`."""
        return await self._run(self._talk.compose(queries, model, errors))

    async def embed_texts(
        self, texts: Sequence[str], *, model: str | None = None, errors: Errors | None = None
    ) -> Vectors:
        """Embed texts; see `Client.embed_texts`."""
        return await self._run(self._talk.embed_texts(texts, model, errors))

    async def embed_images(
        self, images: "Sequence[Picture]", *, model: str | None = None, errors: Errors | None = None
    ) -> Vectors:
        """Embed pictures; see `Client.embed_images`."""
        return await self._run(self._talk.embed_images(images, model, errors))

    async def models(self) -> dict[str, Any]:
        """Return the served models; see `Client.models`."""
        return await self._run(self._talk.models())

    async def explain(self, query: Query, *, words: int = 10, model: str | None = None) -> dict[str, Any]:
        """Explain a query; see `Client.explain`."""
        return await self._run(self._talk.explain(query, words, model))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[Result]) -> Result:
        outcome: httpx.Response | httpx.TransportError | None = None
        while True:
            step = await asyncio.to_thread(_advance, steps, outcome)
            if isinstance(step, _Done):
                result: Result = step.value
                return result
            if isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
                outcome = None
                continue
            try:
                outcome = await self._http.request(step.method, step.path, content=step.body, headers=_headers(step))
            except httpx.TransportError as error:
                outcome = error


@dataclass(frozen=True)
class _Done:
    value: Any


def _advance(steps: Steps[Any], outcome: httpx.Response | httpx.TransportError | None) -> Send | Sleep | _Done:
    """Return the next step, or `_Done` at the end: a StopIteration cannot be passed from thread to event loop."""
    try:
        return steps.send(outcome)
    except StopIteration as done:
        return _Done(done.value)


def _headers(step: Send) -> dict[str, str]:
    return {"content-type": "application/json"} if step.body is not None else {}
