"""Refusals: every one is `{"error": sentence}`, with a status that the databases pass on well."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

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
from cir_vectorizer.service.http.limits import CLIENT_GONE, ClientGoneError, RefusedError

LONGEST_SENTENCE = 600

INTERNAL = "something went wrong in this service; its log tells more under the request's id"


class NamedError(CirError):
    """An error of one part of a request, with the part's name before its sentence; `cause` says what kind it is."""

    def __init__(self, where: str, cause: CirError) -> None:
        super().__init__(f"{where}: {cause}")
        self.cause = cause


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """Put the name of a request's part before the sentence of an error."""
    try:
        yield
    except CirError as error:
        raise NamedError(where, error) from error


def vectors_of(answers: Sequence[Answer | BaseException], where: Callable[[int], str]) -> list[Answer]:
    """The answers, if there is no error among them.

    Args:
        where: names the part of the request that an answer belongs to.

    Raises:
        NamedError: the first error.
    """
    for i, answer in enumerate(answers):
        if isinstance(answer, CirError):
            raise NamedError(where(i), answer) from answer
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if isinstance(answer, Answer)]


def refusal(error: BaseException) -> tuple[int, str, dict[str, str], str]:
    """Status, sentence and headers of the answer to an error, and a short code of its reason for the metrics."""
    cause = error.cause if isinstance(error, NamedError) else error
    status, reason, headers = 500, "internal", {}
    if isinstance(cause, RefusedError):
        status, reason = cause.status, cause.reason
        if status == 503:
            headers = {"retry-after": "5"}
    elif isinstance(cause, OverloadError):
        status, reason, headers = 429, "overload", {"retry-after": str(cause.retry_after)}
    elif isinstance(cause, ClientGoneError):
        status, reason = CLIENT_GONE, "gone"
    elif isinstance(cause, DeviceFullError):
        status, reason, headers = 503, "device memory", {"retry-after": "5"}
    elif isinstance(cause, DeviceError):
        status, reason = 500, "device"
    elif isinstance(cause, CollectionError) and cause.__cause__ is not None and not _blames_request(cause.__cause__):
        status, reason, headers = 502, "collection", {"retry-after": "5"}
    elif isinstance(cause, CirError):
        reasons = {QueryError: "query", ImageError: "image", ModelError: "model"}
        status, reason = 400, next((code for kind, code in reasons.items() if isinstance(cause, kind)), "other")
    sentence = str(error) if isinstance(error, CirError) else INTERNAL
    if len(sentence) > LONGEST_SENTENCE:
        sentence = f"{sentence[: LONGEST_SENTENCE - 1]}…"
    return status, sentence, headers, reason


def _blames_request(error: BaseException) -> bool:
    """Whether a database's client says that the database would not take what it was asked, by REST or by gRPC."""
    if getattr(error, "status_code", None) in (400, 422):
        return True
    code = getattr(error, "code", None)
    return callable(code) and getattr(code(), "name", None) == "INVALID_ARGUMENT"


def problem(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """An answer that refuses."""
    body = orjson.dumps({"error": sentence.encode("utf-8", "replace").decode()})
    return Response(body, status, headers, media_type="application/json")
