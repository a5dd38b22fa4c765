"""The body of `composed(...)`, each plugin's helper for applications: it builds a checked query from its parts.

The plugin reads objects that are named by id, with the database's own client; this module chooses their vectors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any
from uuid import UUID

from cir_vectorizer.collections.records import Id
from cir_vectorizer.errors import CollectionError, QueryError
from cir_vectorizer.identity import whole_number
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.wire import is_vector, object_reference, read_query, references


@dataclass(frozen=True)
class Stored:
    """An object as a database's client read it.

    Attributes:
        vectors: by name, in the client's form; dense vectors are lists of numbers.
        record: the value of `RECORD_KEY` in its payload, or None.
    """

    vectors: Mapping[str, Any]
    record: Any = None


Read = Callable[[list[Id]], Mapping[str, Stored]]
"""Function that reads objects and returns those that exist, by `str(id)`."""


@dataclass(frozen=True)
class StoredReferences:
    """Objects of a collection that serve as reference pictures.

    Args:
        collection: its name.
        read: reads objects.
        using: name of the vector; None for the only one, or, if there are several, the one called `unnamed`.
        unnamed: the database's name for a vector without a name.
    """

    collection: str
    read: Read
    using: str | None
    unnamed: str = ""

    def get(self, ids: Sequence[Id]) -> tuple[list[dict[str, Any]], str | None]:
        """Return a reference for each id, and the fingerprint of the backbone that made them if sync recorded it.

        Raises:
            CollectionError: an object is missing or has no such vector.
        """
        found = self.read(list(ids))
        made, fingerprint = [], None
        for id_ in ids:
            stored = found.get(str(id_))
            if stored is None:
                raise CollectionError(f"collection {self.collection!r} has no object {id_}; correct image_id")
            record = stored.record if isinstance(stored.record, Mapping) else {}
            fingerprint = fingerprint or record.get("fingerprint")
            norm = record.get("norm")
            known = isinstance(norm, int | float) and norm > 0
            made.append(object_reference(self._vector(id_, stored), norm if known else None))
        return made, fingerprint

    def _vector(self, id_: Id, stored: Stored) -> list[float]:
        dense = {name: each for name, each in stored.vectors.items() if is_vector(each)}
        name = self.using
        if name is None:
            name = next(iter(dense)) if len(dense) == 1 else self.unnamed
        if name not in dense:
            names = f"; it has {', '.join(dense)}, so name one by using=…" if dense else ""
            raise CollectionError(f"object {id_} of collection {self.collection!r} has no such dense vector{names}")
        return list(dense[name])


def compose_query(
    image: Any, image_id: Any, stored: StoredReferences | None, needs: str, **parts: Any
) -> tuple[ComposedQuery, str | None]:
    """Return an application's query, checked, and the fingerprint of the backbone that made its stored references.

    Args:
        image: one picture, or several.
        image_id: one id, several, or None.
        stored: the collection's objects; None if the application named no collection.
        needs: the arguments of `composed` that name the collection, for the error.
        parts: the other fields of `ComposedQuery`.

    Raises:
        QueryError: names the field at fault and the fix.
        ImageError: a file cannot be read, or a string is neither base64 nor a URL.
        CollectionError: an object is missing or has no such vector.
    """
    pictures, fingerprint = references(image), None
    if image_id is not None:
        if stored is None:
            raise QueryError("image_id", f"needs the collection that holds the object; give {needs} too")
        ids = [image_id] if isinstance(image_id, str | Real | UUID) else list(image_id)
        found, fingerprint = stored.get([_whole(str(id_) if isinstance(id_, UUID) else id_) for id_ in ids])
        pictures += found
    return read_query({"image": pictures or None, **parts}), fingerprint


def _whole(id_: Any) -> Id:
    """Return an id with a whole number in any spelling as a number."""
    number = whole_number(id_)
    return id_ if number is None else number
