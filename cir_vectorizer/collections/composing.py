"""The body of `composed(...)`, each plugin's helper for applications: it builds a checked query from its parts.

The plugin reads objects that are named by id, with the database's own client, blocking or not; this module chooses
their vectors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, TypedDict
from uuid import UUID

from cir_vectorizer.collections.records import TEXT_VECTOR, Id
from cir_vectorizer.errors import CollectionError, QueryError
from cir_vectorizer.identity import whole_number
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.wire import is_vector, object_reference, read_query, references

if TYPE_CHECKING:
    from cir_vectorizer.query.wire import Picture


class Parts(TypedDict, total=False):
    """Parts of a query that `composed(...)` of every database takes."""

    image: "Picture | Sequence[Picture] | None"
    text: str | None
    negative_text: str | Sequence[str] | None
    mask: "Picture | None"
    template: str | None
    language: str | None
    composer: str | None
    options: Mapping[str, Any] | None


@dataclass(frozen=True)
class Stored:
    """An object as a database's client read it.

    Attributes:
        vectors: by name, in the client's form; dense vectors are lists of numbers.
        record: the value of `RECORD_KEY` in its payload, or None.
    """

    vectors: Mapping[str, Any]
    record: Any = None


@dataclass(frozen=True)
class Place:
    """The collection whose objects serve as reference pictures.

    Attributes:
        collection: its name.
        using: name of the vector; None for the only one beside `TEXT_VECTOR`, or, if there are several, the one called
            `unnamed`.
        unnamed: the database's name for a vector without a name.
    """

    collection: str
    using: str | None
    unnamed: str = ""

    def references(self, ids: Sequence[Id], found: Mapping[str, Stored]) -> tuple[list[dict[str, Any]], str | None]:
        """Return a reference for each id, and the fingerprint of the backbone that made them if sync recorded it.

        Args:
            found: the objects that exist, by `str(id)`.

        Raises:
            CollectionError: an object is missing or has no such vector.
        """
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
            pictures = [each for each in dense if each != TEXT_VECTOR]
            name = pictures[0] if len(pictures) == 1 else self.unnamed
        if name not in dense:
            names = f"; it has {', '.join(dense)}, so name one by using=…" if dense else ""
            raise CollectionError(f"object {id_} of collection {self.collection!r} has no such dense vector{names}")
        return list(dense[name])


@dataclass(frozen=True)
class Asked:
    """An application's query, before the objects that it names by id are read.

    Attributes:
        pictures: pictures that are given as such.
        ids: ids of objects that serve as further pictures.
        place: the collection of those objects; None if the application named none.
        parts: the other fields of `ComposedQuery`.
    """

    pictures: Sequence[Any]
    ids: list[Id]
    place: Place | None
    parts: Mapping[str, Any]

    @classmethod
    def of(cls, image: Any, image_id: Any, place: Place | None, needs: str, **parts: Any) -> "Asked":
        """Return the query of an application.

        Args:
            image: one picture, or several.
            image_id: one id, several, or None.
            needs: the arguments of `composed` that name the collection, for the error.

        Raises:
            QueryError: there is an id, and no collection.
        """
        if image_id is None:
            return cls(references(image), [], place, parts)
        if place is None:
            raise QueryError("image_id", f"needs the collection that holds the object; give {needs} too")
        ids = [image_id] if isinstance(image_id, str | Real | UUID) else list(image_id)
        return cls(references(image), [_whole(str(id_) if isinstance(id_, UUID) else id_) for id_ in ids], place, parts)

    def query(self, found: Mapping[str, Stored]) -> tuple[ComposedQuery, str | None]:
        """Return the query, checked, and the fingerprint of the backbone that made its stored references.

        Args:
            found: the objects that exist, by `str(id)`.

        Raises:
            QueryError: names the field at fault and the fix.
            ImageError: a file cannot be read, or a string is neither base64 nor a URL.
            CollectionError: an object is missing or has no such vector.
        """
        made, fingerprint = self.place.references(self.ids, found) if self.place is not None else ([], None)
        return read_query({"image": [*self.pictures, *made] or None, **self.parts}), fingerprint


def _whole(id_: Any) -> Id:
    """Return an id with a whole number in any spelling as a number."""
    number = whole_number(id_)
    return id_ if number is None else number
