"""Composed queries as the concept string of Weaviate's `near_text`.

Needs a collection vectorised by `multi2vec-clip`, whose `CLIP_INFERENCE_API` (or `inference_url`) is our container. The
model is chosen by that address (`http://host:8000/m/<model>`), a composer by the query.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from weaviate.exceptions import WeaviateBaseError

from cir_vectorizer.collections import RECORD_KEY
from cir_vectorizer.errors import CollectionError, QueryError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.wire import is_vector, object_reference, read_query, references, to_json

if TYPE_CHECKING:
    from weaviate.collections import Collection

    from cir_vectorizer.query.wire import Picture


def composed(
    *,
    image: "Picture | Sequence[Picture] | None" = None,
    text: str | None = None,
    negative_text: str | None = None,
    mask: "Picture | None" = None,
    template: str | None = None,
    composer: str | None = None,
    options: Mapping[str, Any] | None = None,
    image_id: str | UUID | Sequence[str | UUID] | None = None,
    collection: "Collection[Any, Any] | None" = None,
    using: str | None = None,
) -> str:
    """A composed query that Weaviate's server has the container turn into a vector: pass it to `near_text`.

    In a hybrid search pass it as `HybridVector.near_text(...)` and plain words as `query`, since the keyword side
    would search for the JSON.

    Args:
        image: the reference picture or pictures: a `pathlib.Path`, bytes, a PIL image, base64, a URL (if the container
            fetches them), or a vector.
        text: what should be different.
        negative_text: what should not be there.
        mask: white where the picture may change; for CompoDiff.
        template, composer, options: as in `ComposedQuery`.
        image_id: UUIDs of objects that serve as reference pictures, after those of `image`. Their vectors are read, with
            the norm where the property `_cir` keeps one; each must have been made from a picture alone.
        collection, using: where those objects are; `using` is the name of a named vector.

    Raises:
        QueryError: names the field at fault and the fix.
        ImageError: a file cannot be read, or a string is neither base64 nor a URL.
        CollectionError: an object is missing or has no such vector.
    """
    pictures = references(image)
    if image_id is not None:
        if collection is None:
            raise QueryError("image_id", "is known only where a collection is at hand; give collection too")
        ids = [image_id] if isinstance(image_id, str | UUID) else list(image_id)
        pictures += [_stored(collection, id_, using) for id_ in ids]
    query = read_query(
        {
            "image": pictures or None,
            "text": text,
            "negative_text": negative_text,
            "mask": mask,
            "template": template,
            "composer": composer,
            "options": options,
        }
    )
    return concept(query)


def concept(query: ComposedQuery) -> str:
    """A query as `near_text` carries it: JSON, or the text itself where nothing else is said (the container reads JSON
    without a picture as plain text).

    Raises:
        ImageError: a file cannot be read.
    """
    if query.plain and not query.image:
        text = query.text or ""
        return json.dumps({"text": text, "composer": "text"}) if text.lstrip().startswith("{") else text
    return json.dumps(to_json(query), ensure_ascii=False, separators=(",", ":"))


def _stored(collection: "Collection[Any, Any]", id_: str | UUID, using: str | None) -> dict[str, Any]:
    """The reference that a stored object makes."""
    try:
        found = collection.query.fetch_object_by_id(id_, include_vector=[using] if using else True)
    except (WeaviateBaseError, ValueError) as error:
        raise CollectionError(f"object {id_} of collection {collection.name!r} cannot be read: {error}") from error
    if found is None:
        raise CollectionError(f"collection {collection.name!r} has no object {id_}; correct image_id")
    vector = found.vector.get(using or ("default" if len(found.vector) != 1 else next(iter(found.vector))))
    if not (isinstance(vector, list) and is_vector(vector)):
        names = f"; it has {', '.join(found.vector)}, so name one by using=…" if found.vector else ""
        raise CollectionError(f"object {id_} of collection {collection.name!r} has no such dense vector{names}")
    return object_reference(vector, _norm(found.properties.get(RECORD_KEY)))


def _norm(record: Any) -> float | None:
    if isinstance(record, str):
        try:
            record = json.loads(record)
        except ValueError:
            return None
    norm = record.get("norm") if isinstance(record, Mapping) else None
    return float(norm) if isinstance(norm, int | float) and norm > 0 else None
