"""Writes to Qdrant, which accepts or rejects a batch as a whole."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from cir_vectorizer.collections import Id
from cir_vectorizer.collections.base import by_halves, check_written
from cir_vectorizer.errors import CollectionError
from cir_vectorizer_qdrant.connection import said_by, status_of

_T = TypeVar("_T")


def write(batch: Sequence[_T], send: Callable[[Sequence[_T]], None], id_of: Callable[[_T], Id]) -> None:
    """Write objects.

    Raises:
        PartialWriteError: names the objects that were rejected; all others were written.
    """

    def send_whole(some: Sequence[_T]) -> dict[Id, str]:
        send(some)
        return {}

    failed, cause = by_halves(batch, send_whole, _refusal, id_of)
    check_written(failed, len(batch), cause)


def _refusal(error: Exception) -> str | None:
    """Return the server's sentence if it rejected a request's content; None for any other error."""
    cause = error.__cause__
    refused = status_of(cause) in (400, 413, 422, "INVALID_ARGUMENT", "OUT_OF_RANGE") or isinstance(cause, ValueError)
    if isinstance(error, CollectionError) and not refused:
        return None
    return said_by(cause or error)
