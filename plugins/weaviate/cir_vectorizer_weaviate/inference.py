"""Composed queries as the concept string of Weaviate's `near_text`.

This needs a collection vectorised by `multi2vec-clip`, whose `CLIP_INFERENCE_API` (or `inference_url`) is our
container. That address selects the model (`http://host:8000/m/<model>`); the query selects the composer.
"""

import contextlib
import json
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload
from uuid import UUID

import grpc
import httpx
from typing_extensions import Unpack
from weaviate.collections import CollectionAsync
from weaviate.exceptions import InsufficientPermissionsError, UnexpectedStatusCodeError, WeaviateBaseError

from cir_vectorizer.collections.composing import Asked, Parts, Place, Stored
from cir_vectorizer.errors import CollectionError, QueryError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.wire import to_json
from cir_vectorizer_weaviate.connection import UNREACHABLE, grpc_code, said_by
from cir_vectorizer_weaviate.objects import record_in
from cir_vectorizer_weaviate.schema import UNNAMED, blends_text

if TYPE_CHECKING:
    from weaviate.collections import Collection

    from cir_vectorizer.query.wire import Picture


@overload
def composed(
    *,
    collection: "CollectionAsync[Any, Any]",
    using: str | None = None,
    image_id: str | UUID | Sequence[str | UUID] | None = None,
    **parts: Unpack[Parts],
) -> Coroutine[Any, Any, str]: ...


@overload
def composed(
    *,
    collection: "Collection[Any, Any] | None" = None,
    using: str | None = None,
    image_id: str | UUID | Sequence[str | UUID] | None = None,
    **parts: Unpack[Parts],
) -> str: ...


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
    image_id: str | UUID | Sequence[str | UUID] | None = None,
    collection: "Collection[Any, Any] | CollectionAsync[Any, Any] | None" = None,
    using: str | None = None,
) -> str | Coroutine[Any, Any, str]:
    """Return a composed query for `near_text`; Weaviate's server has the container turn it into a vector.

    With a collection of Weaviate's async client, await the result: `await composed(image_id=…, collection=shop)`.

    In a hybrid search, pass it as `HybridVector.near_text(...)` and plain words as `query`; as `query`, its JSON would
    be searched for as words.

    Args:
        image: the reference picture or pictures: a `pathlib.Path`, bytes, a PIL image, base64, a URL (if the container
            fetches URLs), or a vector.
        text: what should be different.
        negative_text: what should not be there; a text, or several.
        mask: white where the picture may change; for CompoDiff.
        template, language, composer, options: as in `ComposedQuery`.
        image_id: UUIDs of objects that serve as reference pictures, after those of `image`. Their vectors are read, with
            the norm if the property `_cir` holds one; each must have been made from a picture alone.
        collection, using: collection of those objects, and the name of the vector if it is named.

    Raises:
        QueryError: names the field at fault and the fix; or the server makes the vectors of pictures and texts together,
            so that none of them stands for a picture.
        ImageError: a file cannot be read, or a string is neither base64 nor a URL.
        CollectionError: an object is missing, has no such vector or cannot be read.
    """
    asked = Asked.of(
        image,
        image_id,
        Place(collection.name, using, UNNAMED) if collection is not None else None,
        "collection",
        text=text,
        negative_text=negative_text,
        mask=mask,
        template=template,
        language=language,
        composer=composer,
        options=options,
    )
    if isinstance(collection, CollectionAsync):
        return _composed_later(asked, collection)
    found: dict[str, Any] = {}
    if collection is not None and asked.ids:
        with _sentences(collection.name):
            with contextlib.suppress(
                InsufficientPermissionsError
            ):  # an application may be allowed to read objects only
                _check_pictures(collection.name, collection.config.get(), using)
            for id_ in asked.ids:
                found[str(id_)] = collection.query.fetch_object_by_id(str(id_), include_vector=_vectors(using))
    return concept(asked.query(_stored(found))[0])


async def _composed_later(asked: Asked, collection: "CollectionAsync[Any, Any]") -> str:
    found: dict[str, Any] = {}
    using = asked.place.using if asked.place is not None else None
    if asked.ids:
        with _sentences(collection.name):
            with contextlib.suppress(
                InsufficientPermissionsError
            ):  # an application may be allowed to read objects only
                _check_pictures(collection.name, await collection.config.get(), using)
            for id_ in asked.ids:
                found[str(id_)] = await collection.query.fetch_object_by_id(str(id_), include_vector=_vectors(using))
    return concept(asked.query(_stored(found))[0])


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


def _vectors(using: str | None) -> list[str] | bool:
    return [using] if using else True


def _stored(found: Mapping[str, Any]) -> dict[str, Stored]:
    return {id_: Stored(each.vector, record_in(each.properties)) for id_, each in found.items() if each is not None}


def _check_pictures(name: str, config: Any, using: str | None) -> None:
    """Raise QueryError if the server makes the vectors of pictures and texts together."""
    if blends_text(config, using):
        raise QueryError(
            "image_id",
            f"vectors of collection {name!r} were made of pictures and texts together, so none of them stands for a "
            "picture; give the picture itself as image",
        )


@contextlib.contextmanager
def _sentences(name: str) -> Iterator[None]:
    """Raise CollectionError for errors of the client, with the same sentence over REST and gRPC."""
    try:
        yield
    except QueryError:
        raise
    except (WeaviateBaseError, httpx.HTTPError, grpc.RpcError, ValueError) as error:
        raise CollectionError(_sentence(error, name)) from error


def _sentence(error: Exception, name: str) -> str:
    said, code = said_by(error), grpc_code(error)
    status = error.status_code if isinstance(error, UnexpectedStatusCodeError) else None
    if status in (401, 403) or code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return f"the Weaviate server lets this client read nothing of collection {name!r} ({said}); give the client its key"
    if status == 404 or "could not find class" in said:
        return f"the Weaviate server has no collection {name!r}; correct the name of the collection"
    if isinstance(error, UNREACHABLE) or code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return f"no Weaviate server answers this client ({said}); start it, or correct the client's address and ports"
    return f"objects of collection {name!r} cannot be read: {said}; correct image_id, collection or using"
