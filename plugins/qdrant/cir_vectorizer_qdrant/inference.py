"""Composed queries as Qdrant's `InferenceObject`, and the points that a refusal of the container names.

A composed query is for `query_points` of a client with `cloud_inference=True`. It needs a server whose
`QDRANT__INFERENCE__ADDRESS` is our container. The embedded mode has no server: there, compose in the process or through
`cir_vectorizer.client`, and pass the vector.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from cir_vectorizer.collections import RECORD_KEY, Id
from cir_vectorizer.collections.composing import Read, Stored, StoredReferences, compose_query
from cir_vectorizer.errors import CollectionError
from cir_vectorizer.query.inputs import digest_of, digests_in
from cir_vectorizer.query.wire import to_json
from cir_vectorizer_qdrant.connection import said_by

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
    """Return a composed query, which Qdrant's server has the container turn into a vector.

    Args:
        image: the reference picture or pictures: a `pathlib.Path`, bytes, a PIL image, base64, a URL (if the container
            fetches URLs), or a vector.
        text: what should be different.
        negative_text: what should not be there.
        mask: white where the picture may change; for CompoDiff.
        template, composer, options: as in `ComposedQuery`.
        model: a model, `model/composer` or an alias, as listed by the container's `/v1/models`. `@fingerprint` is
            added if the objects of `image_id` record which backbone made them.
        image_id: ids of objects that serve as reference pictures, after those of `image`. Their vectors are read, with
            the norm that sync recorded; each must have been made from a picture alone.
        client, collection, using: client and collection of those objects, and the name of the vector if it is named.

    Raises:
        QueryError: names the field at fault and the fix.
        ImageError: a file cannot be read, or a string is neither base64 nor a URL.
        CollectionError: an object is missing or has no such vector.
    """
    stored = None
    if client is not None and collection is not None:
        stored = StoredReferences(collection, _reader(client, collection, using), using)
    query, fingerprint = compose_query(
        image,
        image_id,
        stored,
        "client and collection",
        text=text,
        negative_text=negative_text,
        mask=mask,
        template=template,
        composer=composer,
        options=options,
    )
    if fingerprint and "@" not in model:
        model = f"{model}@{fingerprint[:12]}"
    return models.InferenceObject(object=to_json(query), model=model)


def refused_points(error: Exception, points: Iterable[models.PointStruct]) -> list[Id]:
    """Return the ids of the points whose input the container refused.

    Qdrant refuses the whole batch, and removes duplicates and changes the order before it asks the container, so the
    position in the sentence says nothing; the digest beside it does.

    Args:
        error: the error of `upsert`.
        points: the points of that call, with a `models.Image`, `Document` or `InferenceObject` as vector, or among
            their named vectors.
    """
    named = digests_in(said_by(error))
    return [point.id for point in points if not named.isdisjoint(map(_digest, _inputs(point.vector)))]


def _inputs(vector: Any) -> list[Any]:
    return list(vector.values()) if isinstance(vector, dict) else [vector]


def _digest(vector: Any) -> str:
    """Return the digest that the container gives this input; "" for a vector that needs no container."""
    if isinstance(vector, models.Image):
        return digest_of(vector.image, "image")
    if isinstance(vector, models.Document):
        return digest_of(vector.text, "text")
    return digest_of(vector.object, "object") if isinstance(vector, models.InferenceObject) else ""


def _reader(client: QdrantClient, collection: str, using: str | None) -> Read:
    """Return a function that reads the objects of a collection by their ids, with their vectors."""

    def read(ids: list[Id]) -> dict[str, Stored]:
        try:
            found = client.retrieve(collection, ids, with_payload=[RECORD_KEY], with_vectors=[using] if using else True)
        except (ResponseHandlingException, UnexpectedResponse, ValueError) as error:
            raise CollectionError(f"objects of collection {collection!r} cannot be read: {error}") from error
        return {str(each.id): Stored(_vectors(each.vector), (each.payload or {}).get(RECORD_KEY)) for each in found}

    return read


def _vectors(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {"": found}
