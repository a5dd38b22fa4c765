"""Refusals, made in one place: a status that the databases pass on well, and JSON with a sentence and data.

`error` is the sentence; `code` a word that never changes; `field`, `index` and `item_error` are there if they apply.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson
from fastapi import Response

from cir_vectorizer.engine import Answer
from cir_vectorizer.errors import (
    CirError,
    CollectionError,
    DeviceError,
    DeviceFullError,
    ImageError,
    ModelError,
    OverloadError,
    QueryError,
)

CLIENT_GONE = 499
"""Status that is logged if the client has gone, so that no answer can be sent."""

LONGEST_SENTENCE = 600
LONGEST_FIELD = 200

INTERNAL = "something went wrong in this service; its log tells more under the request's id"

_LATER = {"retry-after": "5"}
_CLOSE = {"connection": "close"}  # the rest of the body is not read
_HEADERS = {401: {"www-authenticate": 'Basic realm="cir-vectorizer"'}, 408: _CLOSE, 413: _CLOSE, 503: _LATER}
_REASONS = {QueryError: "query", ImageError: "image", ModelError: "model"}


class RefusedError(CirError):
    """A request that the service itself refuses.

    Args:
        status: of the HTTP answer.
        code: a word that never changes.
        problem: cause and remedy in one sentence.
        headers: of the HTTP answer, in addition to those of the status.
    """

    def __init__(self, status: int, code: str, problem: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


class ClientGoneError(CirError):
    """The client closed the connection, so no answer can be sent."""

    code = "gone"


@dataclass(frozen=True)
class Refusal:
    """The answer to a request that is refused.

    Attributes:
        status: of the HTTP answer.
        code: a word that never changes.
        sentence: cause and remedy.
        reason: label in the metrics: the code, or one word for all wrong queries, pictures or models.
        headers: of the HTTP answer.
        field: dotted name of the part of the request at fault, "" for the whole.
        index: position of the item at fault in its list.
        item_error: the sentence about that item alone, without its place.
    """

    status: int
    code: str
    sentence: str
    reason: str
    headers: Mapping[str, str]
    field: str = ""
    index: int | None = None
    item_error: str | None = None

    def response(self) -> Response:
        """Return the HTTP answer."""
        content = {
            "error": self.sentence,
            "code": self.code,
            "field": self.field or None,
            "index": self.index,
            "item_error": self.item_error,
        }
        body = orjson.dumps({key: value for key, value in content.items() if value is not None})
        return Response(body, self.status, dict(self.headers), media_type="application/json")


@contextlib.contextmanager
def naming(field: str, index: int | None = None, said: str | None = None) -> Iterator[None]:
    """Place errors in a part of the request; see `CirError.at` and, for an item of a list, `CirError.within`."""
    try:
        yield
    except CirError as error:
        placed = error.at(field, said) if index is None else error.within(field, index, said)
        raise placed from error.__cause__


def vectors_of(answers: Sequence[Answer | BaseException], place: Callable[[CirError, int], CirError]) -> list[Answer]:
    """Return the answers, if there is no error among them.

    Args:
        place: places an answer's error in the part of the request that it belongs to.

    Raises:
        CirError: the first error.
    """
    for i, answer in enumerate(answers):
        if isinstance(answer, CirError):
            raise place(answer, i) from answer.__cause__
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if isinstance(answer, Answer)]


def refusal(error: BaseException) -> Refusal:
    """Return the refusal that answers an error."""
    if not isinstance(error, CirError):
        return Refusal(500, "internal", INTERNAL, "internal", {})
    status, reason = 400, error.code.replace("-", " ")
    headers: Mapping[str, str] = {}
    if isinstance(error, RefusedError):
        status = error.status
        headers = {**_HEADERS.get(status, {}), **error.headers}
    elif isinstance(error, OverloadError):
        status, headers = 429, {"retry-after": str(error.retry_after)}
    elif isinstance(error, ClientGoneError):
        status = CLIENT_GONE
    elif isinstance(error, DeviceFullError):
        status, headers = 503, _LATER
    elif isinstance(error, DeviceError):
        status = 500
    elif isinstance(error, CollectionError) and error.__cause__ is not None and not _blames_request(error.__cause__):
        status, headers = 502, _LATER
    else:
        reason = next((word for kind, word in _REASONS.items() if isinstance(error, kind)), "other")
    sentence, field = _printable(str(error), LONGEST_SENTENCE), _printable(error.field, LONGEST_FIELD)
    item_error = None if error.item_error is None else _printable(error.item_error, LONGEST_SENTENCE)
    return Refusal(status, error.code, sentence, reason, headers, field, error.index, item_error)


def _blames_request(error: BaseException) -> bool:
    """Tell whether a database rejected the request as invalid, by the error of its REST or gRPC client."""
    if getattr(error, "status_code", None) in (400, 422):
        return True
    code = getattr(error, "code", None)
    return callable(code) and getattr(code(), "name", None) == "INVALID_ARGUMENT"


def _printable(text: str, longest: int) -> str:
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return text.encode("utf-8", "replace").decode()
