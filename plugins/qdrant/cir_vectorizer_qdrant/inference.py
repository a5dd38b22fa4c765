"""Composed queries as Qdrant's `InferenceObject`, for `query_points` of a client with `cloud_inference=True`.

Needs a server whose `QDRANT__INFERENCE__ADDRESS` is our container. The embedded mode has no server: compose in the
process or through `cir_vectorizer.client`, and pass the vector.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from cir_vectorizer.collections import RECORD_KEY, Id, SyncRecord
from cir_vectorizer.errors import CollectionError, QueryError
from cir_vectorizer.query.wire import is_vector, object_reference, read_query, references, to_json

if TYPE_CHECKING:
    from cir_vectorizer.query.wire import Picture

DEFAULT_MODEL = "lincir"


def composed(
    *,
    image: "Picture | Sequence[Picture] | None" = None,
    text: str | None = None,
    negative_text: str | None = None,
    mask: "Picture | None" = None,
    template: str | None = None,
    composer: str | None = None,
    options: Mapping[str, Any] | None = None,
    model: str = DEFAULT_MODEL,
    image_id: Id | Sequence[Id] | None = None,
    client: QdrantClient | None = None,
    collection: str | None = None,
    using: str | None = None,
) -> models.InferenceObject:
    """A composed query that Qdrant's server has the container turn into a vector.

    Args:
        image: the reference picture or pictures: a `pathlib.Path`, bytes, a PIL image, base64, a URL (if the container
            fetches them), or a vector.
        text: what should be different.
        negative_text: what should not be there.
        mask: white where the picture may change; for CompoDiff.
        template, composer, options: as in `ComposedQuery`.
        model: as the container's `/v1/models` lists it: a model, `model/composer`, or an alias; `@fingerprint` is added
            where objects of `image_id` say which backbone made them.
        image_id: ids of objects that serve as reference pictures, after those of `image`. Their vectors are read, with
            the norm that sync keeps; each must have been made from a picture alone.
        client, collection, using: where those objects are; `using` is the name of a named vector.

    Raises:
        QueryError: names the field at fault and the fix.
        ImageError: a file cannot be read, or a string is neither base64 nor a URL.
        CollectionError: an object is missing or has no such vector.
    """
    pictures = references(image)
    if image_id is not None:
        if client is None or collection is None:
            raise QueryError("image_id", "is known only where a collection is at hand; give client and collection too")
        ids = [image_id] if isinstance(image_id, str | int) else list(image_id)
        found, fingerprint = _stored(client, collection, ids, using)
        pictures += found
        if fingerprint and "@" not in model:
            model = f"{model}@{fingerprint[:12]}"
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
    return models.InferenceObject(object=to_json(query), model=model)


def _stored(
    client: QdrantClient, collection: str, ids: Sequence[Id], using: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """References of stored objects in the order of `ids`, and the fingerprint of what made them where sync noted it."""
    try:
        found = client.retrieve(collection, ids, with_payload=[RECORD_KEY], with_vectors=[using] if using else True)
    except (ResponseHandlingException, UnexpectedResponse, ValueError) as error:
        raise CollectionError(f"objects of collection {collection!r} cannot be read: {error}") from error
    records = {str(each.id): each for each in found}
    found_vectors, fingerprint = [], None
    for id_ in ids:
        record = records.get(str(id_))
        if record is None:
            raise CollectionError(f"collection {collection!r} has no object {id_!r}; correct image_id")
        vector: Any = record.vector
        if isinstance(vector, dict):
            dense = {name: each for name, each in vector.items() if isinstance(each, list) and is_vector(each)}
            vector = dense.get(using or "", dense)
        if not (isinstance(vector, list) and is_vector(vector)):
            names = f"; it has {', '.join(vector)}, so name one by using=…" if isinstance(vector, dict) else ""
            raise CollectionError(f"object {id_!r} of collection {collection!r} has no such dense vector{names}")
        synced = SyncRecord.read(record.payload)
        fingerprint = fingerprint or (synced.fingerprint if synced else None)
        found_vectors.append(object_reference(vector, synced.norm if synced else None))
    return found_vectors, fingerprint
