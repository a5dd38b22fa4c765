"""Composed queries as Qdrant's `InferenceObject`, and the points that a refusal of the container names.

A composed query is for `query_points` of a client with `cloud_inference=True`. It needs a server whose
`QDRANT__INFERENCE__ADDRESS` is our container. The embedded mode has no server: there, compose in the process or through
`cir_vectorizer.client`, and pass the vector.
"""

import contextlib
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from qdrant_client import AsyncQdrantClient, QdrantClient, models
from typing_extensions import Unpack

from cir_vectorizer.collections import RECORD_KEY, Id
from cir_vectorizer.collections.composing import Asked, Parts, Place, Stored
from cir_vectorizer.errors import CollectionError
from cir_vectorizer.query.inputs import digest_of, digests_in
from cir_vectorizer.query.wire import to_json
from cir_vectorizer_qdrant.connection import SERVER_ERRORS, said_by, status_of

if TYPE_CHECKING:
    from cir_vectorizer.query.wire import Picture

DEFAULT_MODEL = "lincir"


@overload
def composed(
    *,
    client: AsyncQdrantClient,
    collection: str | None = None,
    using: str | None = None,
    model: str = DEFAULT_MODEL,
    image_id: Id | Sequence[Id] | None = None,
    **parts: Unpack[Parts],
) -> Coroutine[Any, Any, models.InferenceObject]: ...


@overload
def composed(
    *,
    client: QdrantClient | None = None,
    collection: str | None = None,
    using: str | None = None,
    model: str = DEFAULT_MODEL,
    image_id: Id | Sequence[Id] | None = None,
    **parts: Unpack[Parts],
) -> models.InferenceObject: ...


def composed(
    *,
    image: "Picture | Sequence[Picture] | None" = None,
    text: str | None = None,
    negative_text: str | Sequence[str] | None = None,
    mask: "Picture | None" = None,
    template: str | None = None,
    language: str | None = None,
    composer: str | None = None,
    options: Mapping[str, Any] | None = None,
    model: str = DEFAULT_MODEL,
    image_id: Id | Sequence[Id] | None = None,
    client: QdrantClient | AsyncQdrantClient | None = None,
    collection: str | None = None,
    using: str | None = None,
) -> models.InferenceObject | Coroutine[Any, Any, models.InferenceObject]:
    """Return a composed query, which Qdrant's server has the container turn into a vector.

    With an `AsyncQdrantClient`, await the result: `query = await composed(image_id=17, client=client, …)`.

    Args:
        image: the reference picture or pictures: a `pathlib.Path`, bytes, a PIL image, base64, a URL (if the container
            fetches URLs), or a vector.
        text: what should be different.
        negative_text: what should not be there; a text, or several.
        mask: white where the picture may change; for CompoDiff.
        template, language, composer, options: as in `ComposedQuery`.
        model: a model, `model/composer` or an alias, as listed by the container's `/v1/models`. `@fingerprint` is
            added if the objects of `image_id` record which backbone made them.
        image_id: ids of objects that serve as reference pictures, after those of `image`. Their vectors are read, with
            the norm that sync recorded; each must have been made from a picture alone.
        client, collection, using: client and collection of those objects, and the name of the vector if it is named.

    Raises:
        QueryError: names the field at fault and the fix.
        ImageError: a file cannot be read, or a string is neither base64 nor a URL.
        CollectionError: an object is missing, has no such vector or cannot be read.
    """
    place = Place(collection, using) if client is not None and collection is not None else None
    asked = Asked.of(
        image,
        image_id,
        place,
        "client and collection",
        text=text,
        negative_text=negative_text,
        mask=mask,
        template=template,
        language=language,
        composer=composer,
        options=options,
    )

    def made(found: Mapping[str, Stored]) -> models.InferenceObject:
        query, fingerprint = asked.query(found)
        pinned = f"{model}@{fingerprint[:12]}" if fingerprint and "@" not in model else model
        return models.InferenceObject(object=to_json(query), model=pinned)

    if isinstance(client, AsyncQdrantClient):
        return _made_later(client, asked, made)
    if client is None or asked.place is None or not asked.ids:
        return made({})
    with _sentences(asked.place.collection):
        found = client.retrieve(**_wanted(asked.place, asked.ids))
    return made(_stored(found))


async def _made_later(
    client: AsyncQdrantClient, asked: Asked, made: Callable[[Mapping[str, Stored]], models.InferenceObject]
) -> models.InferenceObject:
    if asked.place is None or not asked.ids:
        return made({})
    with _sentences(asked.place.collection):
        found = await client.retrieve(**_wanted(asked.place, asked.ids))
    return made(_stored(found))


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
    return [_id(point) for point in points if not named.isdisjoint(map(_digest, _inputs(point.vector)))]


def _id(point: models.PointStruct) -> Id:
    return point.id if isinstance(point.id, int) else str(point.id)


def _inputs(vector: Any) -> list[Any]:
    return list(vector.values()) if isinstance(vector, dict) else [vector]


def _digest(vector: Any) -> str:
    """Return the digest that the container gives this input; "" for a vector that needs no container."""
    if isinstance(vector, models.Image):
        return digest_of(vector.image, "image")
    if isinstance(vector, models.Document):
        return digest_of(vector.text, "text")
    return digest_of(vector.object, "object") if isinstance(vector, models.InferenceObject) else ""


def _wanted(place: Place, ids: Sequence[Id]) -> dict[str, Any]:
    """Return the arguments of `retrieve` for objects with their vectors."""
    return {
        "collection_name": place.collection,
        "ids": list(ids),
        "with_payload": [RECORD_KEY],
        "with_vectors": [place.using] if place.using else True,
    }


def _stored(found: Sequence[models.Record]) -> dict[str, Stored]:
    return {str(each.id): Stored(_vectors(each.vector), (each.payload or {}).get(RECORD_KEY)) for each in found}


def _vectors(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {"": found}


@contextlib.contextmanager
def _sentences(collection: str) -> Iterator[None]:
    """Raise CollectionError for errors of the client, with the same sentence over REST and gRPC."""
    try:
        yield
    except (*SERVER_ERRORS, ValueError) as error:
        raise CollectionError(_sentence(error, collection)) from error


def _sentence(error: Exception, collection: str) -> str:
    status, said = status_of(error), said_by(error)
    if status in (401, 403, "UNAUTHENTICATED", "PERMISSION_DENIED"):
        return f"the Qdrant server lets this client read nothing ({said}); give the client its api_key"
    if status in (404, "NOT_FOUND"):
        return f"the Qdrant server has no collection {collection!r} ({said}); correct collection=…"
    if status in (None, "UNAVAILABLE", "DEADLINE_EXCEEDED") and not isinstance(error, ValueError):
        return f"no Qdrant server answers this client ({said}); start it, or correct the client's address and port"
    return f"objects of collection {collection!r} cannot be read: {said}; correct image_id, collection or using"
