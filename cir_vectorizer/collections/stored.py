"""Objects of a collection as reference pictures: an id is replaced by the stored vector, and no picture is fetched.

Sync's record holds the length of the embedding before it was normalised. Objects of other programs have no record;
`Vectorizer.given_embedding` gives their vectors the model's mean length.
"""

from collections.abc import Mapping
from uuid import UUID

from cir_vectorizer.collections import Collection, Id, Info, Point, SyncRecord
from cir_vectorizer.errors import CollectionError, QueryError
from cir_vectorizer.identity import lost_digits, whole_number
from cir_vectorizer.query import ComposedQuery, ImageRef


def resolve(query: ComposedQuery, collection: Collection, info: Info | None = None) -> ComposedQuery:
    """Return the query with vectors in place of ids; the same query if it holds no ids.

    Args:
        collection: the collection that holds the objects.
        info: the result of `collection.info()`, if already known.

    Raises:
        QueryError: an object does not exist or has no vector, or the collection's vectors were made from pictures and
            texts together.
        CollectionError: the collection cannot be read.
    """
    found = resolve_refs({f"image.{i}": ref for i, ref in enumerate(query.image)}, collection, info)
    return query.model_copy(update={"image": tuple(found.values())})


def resolve_refs(refs: Mapping[str, ImageRef], collection: Collection, info: Info | None = None) -> dict[str, ImageRef]:
    """Return the references, by field name, with vectors in place of ids; reads the collection at most once.

    Raises:
        QueryError, CollectionError: as for `resolve`.
    """
    ids = {field: read_id(ref.id, field) for field, ref in refs.items() if ref.id is not None}
    if not ids:
        return dict(refs)
    info = info or collection.info()
    if info is None:
        raise CollectionError(f"there is no collection {collection.address}; correct the address")
    if info.blends_text:
        raise QueryError(
            next(iter(ids)),
            f"is an id, and vectors of {collection.address} were made of pictures and texts together, so none of them "
            "stands for a picture; give the picture itself",
        )
    points = {_key(point.id): point for point in collection.get(list(dict.fromkeys(ids.values())))}
    return {
        field: _reference(field, ids[field], points, collection) if field in ids else ref for field, ref in refs.items()
    }


def read_id(text: Id | float, field: str) -> Id:
    """Return an id as databases store it: a number, or a UUID in lower case; 101.0 and " 101 " are the number 101.

    Raises:
        QueryError: the text is neither.
    """
    if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) <= 20:
        text = int(text)
    elif lost_digits(text):
        raise QueryError(field, f"is {text}, a number that may have lost its last digits; give the id as text")
    elif (number := whole_number(text)) is not None:
        text = number
    try:
        if isinstance(text, int):
            if 0 <= text < 2**64:
                return text
            raise ValueError("no database has such a number")
        return str(UUID(str(text)))
    except ValueError as error:
        text = str(text)
        shown = repr(text if len(text) <= 80 else f"{text[:79]}…")
        raise QueryError(field, f"names {shown}, which is no id; give a whole number or a UUID") from error


def _reference(field: str, id_: Id, points: Mapping[str, Point], collection: Collection) -> ImageRef:
    point = points.get(_key(id_))
    if point is None:
        raise QueryError(field, f"names object {id_}, which is not in {collection.address}; correct the id")
    if point.vector is None or not point.vector.any():
        raise QueryError(field, f"names object {id_}, which has no vector in {collection.address}; name another")
    record = SyncRecord.read(point.payload)
    norm = None if record is None or not record.norm else record.norm
    return ImageRef(vector=point.vector.tolist(), norm=norm)


def _key(id_: Id) -> str:
    return str(id_).lower()
