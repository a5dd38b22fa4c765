"""Batches on their way to Weaviate: cut to size, and each object's refusal collected."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from weaviate.classes.data import DataObject
from weaviate.collections import Collection
from weaviate.exceptions import WeaviateInsertManyAllFailedError

from cir_vectorizer.collections import Id
from cir_vectorizer.collections.retry import persist
from cir_vectorizer.errors import CollectionError, PartialWriteError
from cir_vectorizer_weaviate.connection import ATTEMPTS, may_pass, said_by

MOST_OBJECTS, MOST_BYTES = 256, 16 * 2**20
"""In one message; the server takes 100 MiB unless told otherwise, and answers only when all is vectorised."""

Object = DataObject[Any, Any]
Send = Callable[[Callable[[Collection[Any, Any]], Any]], Any]
"""Runs a call on the collection, with the connection's own patience."""


class _BusyError(Exception):
    """Objects that were refused for a reason that may pass."""

    def __init__(self, sentences: dict[str, str]) -> None:
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
        refused: dict[str, str] = {}
        for lot in _lots(waiting):
            refused |= _insert(lot, send)
        busy = {uuid: sentence for uuid, sentence in refused.items() if may_pass(sentence)}
        failed.update((uuid, sentence) for uuid, sentence in refused.items() if uuid not in busy)
        waiting = [each for each in waiting if str(each.uuid) in busy]
        if busy:
            raise _BusyError(busy)

    try:
        persist(once, lambda error: isinstance(error, _BusyError), ATTEMPTS)
    except _BusyError as error:
        failed.update(error.sentences)
    if failed:
        raise PartialWriteError(failed, total)


def _insert(lot: Sequence[Object], send: Send) -> dict[str, str]:
    """Send one message; the refused objects' sentences by id."""
    try:
        answer = send(lambda collection: collection.data.insert_many(list(lot)))
    except CollectionError as error:
        if not isinstance(error.__cause__, WeaviateInsertManyAllFailedError):
            raise
        said = str(error.__cause__)
        if len(lot) == 1 or "\n" not in said:
            return {str(each.uuid): said_by(error.__cause__) for each in lot}
        middle = len(lot) // 2  # the client tells the reasons, but not whose each is
        return _insert(lot[:middle], send) | _insert(lot[middle:], send)
    return {str(lot[index].uuid): " ".join(found.message.split()) for index, found in answer.errors.items()}


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
