"""Requests of a client and their answers, without a network; http.py sends them.

Each method of `Talk` is a generator: it yields a `Send` or a `Sleep`, receives the outcome, and returns the result. So
the blocking and the asynchronous client share every decision: batches, retries, splitting.
"""

import contextlib
import json
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import numpy as np
import numpy.typing as npt

from cir_vectorizer.client.names import find_model
from cir_vectorizer.errors import CirError, ModelError, ServiceError
from cir_vectorizer.query.wire import Composed, Query, picture_to_json, read_query, to_json
from cir_vectorizer.retry_after import retry_after

if TYPE_CHECKING:
    from cir_vectorizer.query.wire import Picture

Result = TypeVar("Result")

Vectors = npt.NDArray[np.float32]
Errors = dict[int, CirError]

LONGEST_WAIT = 30.0
"""Longest wait between two attempts, in seconds, unless the service asks for more."""

_BUSY = (429, 503)
_SPLIT = (413, 422, 500)
"""Statuses after which a request is split even if the answer names no item: with fewer items it may succeed."""


@dataclass(frozen=True)
class Send:
    """A request to make."""

    method: str
    path: str
    body: bytes | None = None


@dataclass(frozen=True)
class Sleep:
    """A wait before the next step."""

    seconds: float


Steps = Generator[Send | Sleep, httpx.Response | httpx.TransportError | None, Result]
"""A conversation without a network: yields the next step, receives its outcome, returns the result."""


@dataclass(frozen=True)
class Patience:
    """Limits for retries.

    Attributes:
        retries: attempts after the first, for each request.
        seconds: longest total wait between the attempts of one request.
    """

    retries: int = 6
    seconds: float = 60.0

    def wait(self, attempt: int, waited: float, asked: float | None) -> float | None:
        """Return the seconds until the next attempt, with jitter, or None to give up.

        Args:
            attempt: number of the failed attempt, counted from 1.
            waited: seconds already waited for this request.
            asked: seconds that the service asked for (Retry-After).
        """
        wait = max(asked or 0.0, min(0.25 * 2**attempt * random.uniform(0.5, 1), LONGEST_WAIT))
        wait *= random.uniform(1, 1.25)  # so that clients refused at the same time do not all return at the same time
        return None if attempt > self.retries or waited + wait > self.seconds else wait


class Talk:
    """The logic that both clients share: requests, retries and reading of answers.

    Args:
        model: model of calls that name none.
        patience: limits for retries.
        batch_items: most items in a request.
        batch_bytes: approximate largest size of a request's body.
    """

    def __init__(self, model: str | None, patience: Patience, batch_items: int, batch_bytes: int) -> None:
        self.model = model
        self._patience = patience
        self._batch_items = batch_items
        self._batch_bytes = batch_bytes

    def compose(self, queries: Sequence[Query], model: str | None, errors: Errors | None) -> Steps[Composed]:
        """Compose queries; see `Client.compose`."""

        def encode(query: Query) -> Any:
            return to_json(read_query(query))

        def read(answer: Any) -> list[tuple[list[float], list[str]]]:
            return list(zip(answer["vectors"], answer["notes"], strict=True))

        found = yield from self._batches("/v1/compose", "queries", queries, encode, read, model, errors)
        vectors = yield from self._stack([None if each is None else each[0] for each in found], model)
        return Composed(vectors, [[] if each is None else each[1] for each in found])

    def embed_texts(self, texts: Sequence[str], model: str | None, errors: Errors | None) -> Steps[Vectors]:
        """Embed texts; see `Client.embed_texts`."""
        found = yield from self._batches(
            "/v1/embed", "texts", texts, str, lambda answer: answer["text_vectors"], model, errors
        )
        vectors = yield from self._stack(found, model)
        return vectors

    def embed_images(self, images: "Sequence[Picture]", model: str | None, errors: Errors | None) -> Steps[Vectors]:
        """Embed pictures; see `Client.embed_images`."""

        def read(answer: Any) -> list[Vectors]:
            vectors, norms = answer["image_vectors"], answer["image_norms"]
            return [np.asarray(v, np.float32) * np.float32(norm) for v, norm in zip(vectors, norms, strict=True)]

        found = yield from self._batches("/v1/embed", "images", images, picture_to_json, read, model, errors)
        vectors = yield from self._stack(found, model)
        return vectors

    def models(self) -> Steps[dict[str, Any]]:
        """Return the served models; see `Client.models`."""
        answer: dict[str, Any] = yield from self._ask(Send("GET", "/v1/models"))
        return answer

    def explain(self, query: Query, words: int, model: str | None) -> Steps[dict[str, Any]]:
        """Explain a query; see `Client.explain`."""
        body = {"query": to_json(read_query(query)), "words": words, "model": model or self.model}
        answer: dict[str, Any] = yield from self._ask(Send("POST", "/v1/explain", _dump(body)))
        return answer

    def _stack(self, rows: Sequence[Any], model: str | None) -> Steps[Vectors]:
        """Return rows as (n, dim), with NaN for each None."""
        width = next((len(row) for row in rows if row is not None), None)
        if width is None:
            width = (yield from self._dim(model)) if rows else 0
        stacked = np.full((len(rows), width), np.nan, np.float32)
        for i, row in enumerate(rows):
            if row is not None:
                stacked[i] = row
        return stacked

    def _dim(self, model: str | None) -> Steps[int]:
        """Return the length of a model's vectors, or 0 if the service cannot tell: the items' own errors matter more."""
        with contextlib.suppress(ServiceError, ModelError):
            listed = yield from self.models()
            return int(find_model(listed, model or self.model)[0]["dim"])
        return 0

    def _batches(
        self,
        path: str,
        field: str,
        items: Sequence[Any],
        encode: Callable[[Any], Any],
        read: Callable[[Any], Sequence[Any]],
        model: str | None,
        errors: Errors | None,
    ) -> Steps[list[Any]]:
        """Return one result for each item; None for an item whose error is now in `errors`."""
        found: list[Any] = [None] * len(items)
        batch: list[tuple[int, str]] = []
        size = 0
        head = {"model": model or self.model} if model or self.model else {}

        def send() -> Steps[None]:
            yield from self._send(path, field, head, list(batch), read, found, errors)
            batch.clear()

        for i, item in enumerate(items):
            try:
                text = json.dumps(encode(item), ensure_ascii=False, separators=(",", ":"))
            except CirError as error:
                if errors is None:
                    raise error.within(field, i) from error.__cause__
                errors[i] = error.within(field, i, said="")
                continue
            if batch and (len(batch) >= self._batch_items or size + len(text) > self._batch_bytes):
                yield from send()
                size = 0
            batch.append((i, text))
            size += len(text)
        if batch:
            yield from send()
        return found

    def _send(
        self,
        path: str,
        field: str,
        head: dict[str, Any],
        batch: list[tuple[int, str]],
        read: Callable[[Any], Sequence[Any]],
        found: list[Any],
        errors: Errors | None,
    ) -> Steps[None]:
        opening = json.dumps(head, ensure_ascii=False)[:-1] + (", " if head else "")
        body = f'{opening}"{field}": [{",".join(text for _, text in batch)}]}}'.encode("utf-8", "replace")
        try:
            answer = yield from self._ask(Send("POST", path, body))
        except ServiceError as error:
            culprit = _culprit(error, field, len(batch))
            if errors is None and not (error.status == 413 and culprit is None and len(batch) > 1):
                if culprit is not None:
                    raise _moved(error, field, batch[culprit][0]) from error
                raise
            if culprit is not None and errors is not None:
                errors[batch[culprit][0]] = _moved(error, field, batch[culprit][0], said="")
                parts = [batch[:culprit], batch[culprit + 1 :]]
            elif error.status in _SPLIT and len(batch) > 1:
                parts = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
            elif error.status in _SPLIT and errors is not None:
                errors[batch[0][0]] = error.within(field, batch[0][0], said="")
                return
            else:
                raise
            for part in filter(None, parts):
                yield from self._send(path, field, head, part, read, found, errors)
            return
        results = read(answer)
        if len(results) != len(batch):
            raise ServiceError(
                f"the service returned {len(results)} vectors for {len(batch)} items; check that it is cir-vectorizer"
            )
        for (i, _), result in zip(batch, results, strict=True):
            found[i] = result

    def _ask(self, request: Send) -> Steps[Any]:
        """Return the JSON of the answer, after as many attempts as `patience` allows."""
        attempt, waited = 0, 0.0
        while True:
            attempt += 1
            answer = yield request
            if isinstance(answer, httpx.Response):
                if answer.is_success:
                    return _json_of(answer)
                error, asked = _refusal(answer), retry_after(answer.headers)
                passing = answer.status_code in _BUSY
            else:
                assert answer is not None
                error, asked = _unreachable(answer), None
                passing = not isinstance(answer, httpx.ReadTimeout | httpx.WriteTimeout | httpx.UnsupportedProtocol)
                error.__cause__ = answer
            wait = self._patience.wait(attempt, waited, asked) if passing else None
            if wait is None:
                raise error
            yield Sleep(wait)
            waited += wait


def _dump(content: dict[str, Any]) -> bytes:
    said = {key: value for key, value in content.items() if value is not None}
    return json.dumps(said, ensure_ascii=False).encode("utf-8", "replace")


def _json_of(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        problem = "the server at this address is no cir-vectorizer service (it sent no JSON); check host, port and path"
        raise ServiceError(problem, answer.status_code) from error


def _refusal(answer: httpx.Response) -> ServiceError:
    """Convert a refusal to an error; a service of release 0.1.0 sends only the sentence."""
    status = answer.status_code
    try:
        said = answer.json()
        sentence = str(said["error"])
    except (ValueError, KeyError, TypeError):
        return ServiceError(f"the service answered {status} {answer.reason_phrase}; check its address", status)
    code, field = str(said.get("code", "service")), str(said.get("field", ""))
    index, item_error = said.get("index"), said.get("item_error")
    items, *inner = field.split(".")
    if status == 401:
        sentence = "the service got no valid key; give it as api_key, or to a command in CIR_API_KEY"
    elif status == 404 and code == "address":
        sentence = f"the service has nothing at {answer.request.url.path}; check the path of its address"
    if isinstance(index, int) and inner[:1] == [str(index)] and isinstance(item_error, str):
        return ServiceError(item_error, status, code, ".".join(inner[1:])).within(items, index)
    return ServiceError(sentence, status, code, field)


def _culprit(error: ServiceError, items: str, count: int) -> int | None:
    """Return the position of the item at fault among the request's `count` items; None if the error names none."""
    if error.status not in (400, *_SPLIT) or error.index is None or error.index >= count:
        return None
    return error.index if error.field.split(".")[0] == items else None


def _moved(error: ServiceError, items: str, position: int, said: str | None = None) -> ServiceError:
    """Return the error of a request's item as one of the caller's item at `position`; `said` as in `within`."""
    inner = ".".join(error.field.split(".")[2:])
    item = ServiceError(error.item_error or error.problem, error.status, error.code, inner)
    return item.within(items, position, said)


def _unreachable(error: httpx.TransportError) -> ServiceError:
    where = ""
    with contextlib.suppress(RuntimeError):  # the error has no request
        where = f" at {error.request.url.netloc.decode()}"
    if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
        return ServiceError(
            f"the service{where} did not answer in time; try again later, or in Python give a longer timeout or fewer items"
        )
    return ServiceError(
        f"no service answers{where} ({error or type(error).__name__}); start it, or correct the address"
    )
