"""Composed queries as the concept string of Weaviate's `near_text`.

This needs a collection vectorised by `multi2vec-clip`, whose `CLIP_INFERENCE_API` (or `inference_url`) is our
container. That address selects the model (`http://host:8000/m/<model>`); the query selects the composer.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from weaviate.exceptions import WeaviateBaseError

from cir_vectorizer.collections import Id
from cir_vectorizer.collections.composing import Read, Stored, StoredReferences, compose_query
from cir_vectorizer.errors import CollectionError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.wire import to_json
from cir_vectorizer_weaviate.objects import record_in

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
    """Return a composed query for `near_text`; Weaviate's server has the container turn it into a vector.

    In a hybrid search, pass it as `HybridVector.near_text(...)` and plain words as `query`; as `query`, its JSON would
    be searched for as words.

    Args:
        image: the reference picture or pictures: a `pathlib.Path`, bytes, a PIL image, base64, a URL (if the container
            fetches URLs), or a vector.
        text: what should be different.
        negative_text: what should not be there.
        mask: white where the picture may change; for CompoDiff.
        template, composer, options: as in `ComposedQuery`.
        image_id: UUIDs of objects that serve as reference pictures, after those of `image`. Their vectors are read, with
            the norm if the property `_cir` holds one; each must have been made from a picture alone.
        collection, using: collection of those objects, and the name of the vector if it is named.

    Raises:
        QueryError: names the field at fault and the fix.
        ImageError: a file cannot be read, or a string is neither base64 nor a URL.
        CollectionError: an object is missing or has no such vector.
    """
    stored = None
    if collection is not None:
        stored = StoredReferences(collection.name, _reader(collection, using), using, unnamed="default")
    query, _ = compose_query(
        image,
        image_id,
        stored,
        "collection",
        text=text,
        negative_text=negative_text,
        mask=mask,
        template=template,
        composer=composer,
        options=options,
    )
    return concept(query)


def concept(query: ComposedQuery) -> str:
    """Return a query as text for `near_text`: JSON, or, if the query is only a text, that text itself.

    A text that starts with { is sent as JSON too, since the container might read it as a query.

    Raises:
        ImageError: a file cannot be read.
    """
    if query.plain and not query.image:
        text = query.text or ""
        return json.dumps({"text": text, "composer": "text"}) if text.lstrip().startswith("{") else text
    return json.dumps(to_json(query), ensure_ascii=False, separators=(",", ":"))


def _reader(collection: "Collection[Any, Any]", using: str | None) -> Read:
    """Return a function that reads the objects of a collection by their ids, with their vectors."""

    def fetch(id_: Id) -> Any:
        try:
            return collection.query.fetch_object_by_id(str(id_), include_vector=[using] if using else True)
        except (WeaviateBaseError, ValueError) as error:
            raise CollectionError(f"object {id_} of collection {collection.name!r} cannot be read: {error}") from error

    def read(ids: list[Id]) -> dict[str, Stored]:
        found = {str(id_): fetch(id_) for id_ in ids}
        return {id_: Stored(each.vector, record_in(each.properties)) for id_, each in found.items() if each is not None}

    return read
