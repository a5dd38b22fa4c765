"""Batches on their way to Weaviate: cut to size, and each object's refusal collected."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from weaviate.classes.data import DataObject
from weaviate.collections import Collection
from weaviate.exceptions import WeaviateInsertManyAllFailedError

from cir_vectorizer.collections import Id
from cir_vectorizer.collections.base import by_halves, check_written
from cir_vectorizer.collections.connection import ATTEMPTS
from cir_vectorizer.collections.retry import persist
from cir_vectorizer.errors import CollectionError
from cir_vectorizer_weaviate.connection import may_pass, said_by

MOST_OBJECTS, MOST_BYTES = 256, 16 * 2**20
"""Largest message; the server takes 100 MiB unless told otherwise, and answers only when all is vectorised."""

Object = DataObject[Any, Any]
Send = Callable[[Callable[[Collection[Any, Any]], Any]], Any]
"""Runs a call on the collection, with the connection's own patience."""


class _BusyError(Exception):
    """Objects that were refused for a reason that may pass."""

    def __init__(self, sentences: dict[Id, str]) -> None:
        super().__init__("busy")
        self.sentences = sentences


def write(objects: Sequence[Object], send: Send, failed: dict[Id, str], total: int) -> None:
    """Write objects.

    Args:
        failed: objects of the same batch that could not be sent at all.
        total: how many the batch had.

    Raises:
        PartialWriteError: those, and what the server refuses for good, or for long; all others were written.
    """
    waiting = list(objects)

    def once() -> None:
        nonlocal waiting
        refused: dict[Id, str] = {}
        for lot in _lots(waiting):
            refused |= _insert(lot, send)
        busy = {uuid: sentence for uuid, sentence in refused.items() if may_pass(sentence)}
        failed.update((uuid, sentence) for uuid, sentence in refused.items() if uuid not in busy)
        waiting = [each for each in waiting if _id_of(each) in busy]
        if busy:
            raise _BusyError(busy)

    try:
        persist(once, lambda error: isinstance(error, _BusyError), ATTEMPTS)
    except _BusyError as error:
        failed.update(error.sentences)
    check_written(failed, total)


def _insert(lot: Sequence[Object], send: Send) -> dict[Id, str]:
    """Send one message; the refused objects' sentences by id."""

    def send_whole(some: Sequence[Object]) -> dict[Id, str]:
        try:
            answer = send(lambda collection: collection.data.insert_many(list(some)))
        except CollectionError as error:
            if _refusal(error) is None or "\n" in str(error.__cause__):
                raise  # the client tells several reasons, but not whose each is
            return {_id_of(each): said_by(error.__cause__ or error) for each in some}
        return {_id_of(some[index]): " ".join(found.message.split()) for index, found in answer.errors.items()}

    return by_halves(lot, send_whole, _refusal, _id_of)[0]


def _refusal(error: Exception) -> str | None:
    """The sentence with which every object of a message was refused."""
    return said_by(error.__cause__) if isinstance(error.__cause__, WeaviateInsertManyAllFailedError) else None


def _id_of(each: Object) -> str:
    return str(each.uuid)


def _lots(objects: Sequence[Object]) -> Iterator[list[Object]]:
    lot: list[Object] = []
    size = 0
    for each in objects:
        bytes_ = sum(len(value) for value in (each.properties or {}).values() if isinstance(value, str)) + 8192
        if lot and (len(lot) >= MOST_OBJECTS or size + bytes_ > MOST_BYTES):
            yield lot
            lot, size = [], 0
        lot.append(each)
        size += bytes_
    if lot:
        yield lot
