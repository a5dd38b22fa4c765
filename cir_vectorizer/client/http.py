"""A client of the service, with the methods of a local `Vectorizer`: `Client`, and `AsyncClient` with the same to await.

>>> with Client("http://localhost:8000", api_key="…") as client:
...     client.compose([{"image": Path("dress.jpg"), "text": "is red"}]).vectors

Many items go in several requests, one after another. A busy service (429, 503) or a broken connection is tried again
within bounds. A request that is refused for one item is split at that item, or in the middle where the refusal names
none, so that a bad picture fails alone. Imports no torch.

Errors: ServiceError for what the service or the network says; QueryError and ImageError as a local vectorizer, for what
is wrong before anything is sent. Each carries the service's `code`, `field` and `index`, counted in the caller's items.
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
    """What both clients are made of; the parameters of `Client`."""

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
    """Speaks with a service. Safe to use from several threads.

    Args:
        url: for example `http://localhost:8000`; a key may stand in it (`http://cir:KEY@host:8000`).
        api_key: the key, if the service asks for one.
        model: a model, `model/composer`, either with `@fingerprint`, or an alias; the service's default if None.
        timeout: seconds that one request may take.
        patience: when to try again.
        batch_items: most items in a request.
        batch_bytes: about how large a request's body may be.
        transport: in place of the network, for tests.
    """

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None, **options: Any) -> None:
        super().__init__(url, **options)
        self._http = httpx.Client(transport=transport, **self._options)

    def compose(self, queries: Sequence[Query], *, model: str | None = None, errors: Errors | None = None) -> Composed:
        """Composed queries -> unit vectors to search with.

        Args:
            queries: dicts, JSON texts or ComposedQuery; pictures as in `cir_vectorizer.query.wire.Picture`.
            errors: takes the errors of single items by position; their rows are NaN. Without it the first one is raised.

        Raises:
            ServiceError, QueryError, ImageError: see the module's docstring.
        """
        return self._run(self._talk.compose(queries, model, errors))

    def embed_texts(self, texts: Sequence[str], *, model: str | None = None, errors: Errors | None = None) -> Vectors:
        """Plain texts -> (n, dim) unit vectors; `errors` and what is raised as in `compose`."""
        return self._run(self._talk.embed_texts(texts, model, errors))

    def embed_images(
        self, images: "Sequence[Picture]", *, model: str | None = None, errors: Errors | None = None
    ) -> Vectors:
        """Pictures -> (n, dim) unnormalised embeddings; `errors` and what is raised as in `compose`."""
        return self._run(self._talk.embed_images(images, model, errors))

    def models(self) -> dict[str, Any]:
        """What is served: `data` (a dict for each model), `aliases`, `version`."""
        return self._run(self._talk.models())

    def explain(self, query: Query, *, words: int = 10, model: str | None = None) -> dict[str, Any]:
        """Nearest words of each picture's pseudo-word, and how far each part moves the query."""
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
    """`Client` for an event loop: the same parameters and methods, to be awaited. Bodies are made on threads."""

    def __init__(self, url: str, *, transport: httpx.AsyncBaseTransport | None = None, **options: Any) -> None:
        super().__init__(url, **options)
        self._http = httpx.AsyncClient(transport=transport, **self._options)

    async def compose(
        self, queries: Sequence[Query], *, model: str | None = None, errors: Errors | None = None
    ) -> Composed:
        """As `Client.compose`."""
        return await self._run(self._talk.compose(queries, model, errors))

    async def embed_texts(
        self, texts: Sequence[str], *, model: str | None = None, errors: Errors | None = None
    ) -> Vectors:
        """As `Client.embed_texts`."""
        return await self._run(self._talk.embed_texts(texts, model, errors))

    async def embed_images(
        self, images: "Sequence[Picture]", *, model: str | None = None, errors: Errors | None = None
    ) -> Vectors:
        """As `Client.embed_images`."""
        return await self._run(self._talk.embed_images(images, model, errors))

    async def models(self) -> dict[str, Any]:
        """As `Client.models`."""
        return await self._run(self._talk.models())

    async def explain(self, query: Query, *, words: int = 10, model: str | None = None) -> dict[str, Any]:
        """As `Client.explain`."""
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
    """The next step; a generator's end cannot leave a thread as the exception that it is."""
    try:
        return steps.send(outcome)
    except StopIteration as done:
        return _Done(done.value)


def _headers(step: Send) -> dict[str, str]:
    return {"content-type": "application/json"} if step.body is not None else {}
