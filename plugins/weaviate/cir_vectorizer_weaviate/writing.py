"""Writes to Weaviate, in messages of limited size; collects a sentence for each rejected object."""

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
"""Largest message. The server's default limit is 100 MiB, but it only answers once the whole message is vectorised."""

Object = DataObject[Any, Any]
Send = Callable[[Callable[[Collection[Any, Any]], Any]], Any]
"""Function that runs a call on the collection, with the connection's retries."""


class _BusyError(Exception):
    """Raised for objects that the server rejected but may accept later."""

    def __init__(self, sentences: dict[Id, str]) -> None:
        super().__init__("busy")
        self.sentences = sentences


def write(objects: Sequence[Object], send: Send, failed: dict[Id, str], total: int) -> None:
    """Write objects, with retries for those that the server may accept later.

    Args:
        failed: sentences for objects of the same batch that cannot be sent; rejected objects are added.
        total: number of objects in the batch.

    Raises:
        PartialWriteError: names the objects in `failed`; all others were written.
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
    """Send one message; return the rejected objects' sentences by id."""

    def send_whole(some: Sequence[Object]) -> dict[Id, str]:
        try:
            answer = send(lambda collection: collection.data.insert_many(list(some)))
        except CollectionError as error:
            if _refusal(error) is None or "\n" in str(error.__cause__):
                raise  # the client lists several reasons, but not which object each belongs to
            return {_id_of(each): said_by(error.__cause__ or error) for each in some}
        return {_id_of(some[index]): " ".join(found.message.split()) for index, found in answer.errors.items()}

    return by_halves(lot, send_whole, _refusal, _id_of)[0]


def _refusal(error: Exception) -> str | None:
    """Return the sentence with which the server rejected every object of a message; None for any other error."""
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
