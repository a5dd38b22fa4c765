"""The door of Weaviate's module `multi2vec-clip`: at the root for the default model, at `/m/<name>` for others.

Under `…/plain` every text is plain text, never a composed query.
"""

from fastapi import APIRouter, Request, Response

from cir_vectorizer import __version__
from cir_vectorizer.engine.batching import Lane
from cir_vectorizer.errors import ModelError, QueryError
from cir_vectorizer.models import Vectorizer, Work
from cir_vectorizer.query import ComposedQuery, ImageRef, read_text
from cir_vectorizer.service.doors.requests import (
    check_items,
    check_pictures,
    check_text,
    in_texts_or_images,
    kind_of,
    read_json,
)
from cir_vectorizer.service.http.problems import RefusedError, naming, vectors_of
from cir_vectorizer.service.names import Target
from cir_vectorizer.service.settings import Settings
from cir_vectorizer.service.state import Service, key_of, note

PREFIXES = ("", "/plain", "/m/{name:path}")


def router(service: Service) -> APIRouter:
    """Return the routes of this door."""
    routes = APIRouter(include_in_schema=False)

    async def live() -> Response:
        if not service.alive:
            raise RefusedError(503, "dead", "the device has failed many times in a row; start this service again")
        return Response(status_code=204)

    async def ready(request: Request) -> Response:
        if service.ready:
            _check_name(service, request)  # a wrong name in the address shows at once, not with the first import
        else:
            problem = "stopping; new work goes elsewhere" if service.draining else "the models are being loaded"
            raise RefusedError(503, "not-ready", problem)
        return Response(status_code=204)

    async def meta(request: Request) -> Response:
        target, _ = _target(service, request)
        vectorizer = service.engine.vectorizers[target.model]
        return await service.json(
            {
                "model": target.model,
                "fingerprint": vectorizer.fingerprint,
                "dim": vectorizer.dim,
                "composers": list(vectorizer.composers),
                "digests": vectorizer.digests,
                "version": __version__,
            }
        )

    async def vectorize(request: Request) -> Response:
        target, plain = _target(service, request)
        wait = service.settings.import_wait

        async def work(body: bytes) -> Response:
            vectorizer = service.engine.vectorizers[target.model]
            texts, images = await service.engine.host(_read, vectorizer, target, plain, service.settings, body)
            note(request, [*texts, *images])
            lane = Lane.SEARCH if len(texts) + len(images) == 1 else Lane.UPDATE
            answers = await service.engine.run([*texts, *images], lane, wait)
            count = len(texts)
            found = vectors_of(answers, lambda error, i: in_texts_or_images(error, i, count))
            vectors = [answer.vector for answer in found]
            content = {"textVectors": vectors[:count], "imageVectors": vectors[count:]}
            return await service.json(content, sum(len(vector) for vector in vectors))

        return await service.answer(request, work, (Lane.SEARCH, Lane.UPDATE), wait)

    for prefix in PREFIXES:
        routes.add_api_route(f"{prefix}/vectorize", vectorize, methods=["POST"])
        routes.add_api_route(f"{prefix}/meta", meta, methods=["GET"])
        routes.add_api_route(f"{prefix}/.well-known/live", live, methods=["GET", "HEAD"])
        routes.add_api_route(f"{prefix}/.well-known/ready", ready, methods=["GET", "HEAD"])
    return routes


def _target(service: Service, request: Request) -> tuple[Target, bool]:
    """Return the model that the path names, and True if every text is plain, even one that looks like a query."""
    name = request.path_params.get("name", "").strip("/")
    plain = name == "plain" or name.endswith("/plain") or request.url.path.startswith("/plain/")
    return service.names.resolve(name.removesuffix("plain").strip("/") if plain else name), plain


def _check_name(service: Service, request: Request) -> None:
    """Check the model that the path names; only a request with a valid key is told the names of other models."""
    try:
        _target(service, request)
    except ModelError as error:
        if service.keys.configured and key_of(request) is None:
            problem = "the model in the address is not served here; correct it, or send a key to see which are"
            raise RefusedError(400, "model", problem) from error
        raise


def _read(
    vectorizer: Vectorizer, target: Target, plain: bool, settings: Settings, body: bytes
) -> tuple[list[Work], list[Work]]:
    content = read_json(body)
    texts, images = _strings(content, "texts"), _strings(content, "images")
    check_items(len(texts) + len(images), settings)
    composes = not plain and not images
    works = []
    for i, text in enumerate(texts):
        with naming("texts", i):
            query = read_text(text) if composes else text
            if isinstance(query, ComposedQuery):
                works.append(vectorizer.plan(target.pin(query)))
            else:
                works.append(vectorizer.plan_text(check_text(query, settings)))
    pictures = []
    for i, image in enumerate(images):
        with naming("images", i):
            pictures.append(vectorizer.plan_picture(ImageRef.model_construct(base64=image)))
    check_pictures([*works, *pictures], settings)
    return works, pictures


def _strings(content: dict[str, object], field: str) -> list[str]:
    values = content.get(field)
    if values is None:
        return []
    if not isinstance(values, list):
        raise QueryError(field, "is not a list; send a list of strings, or leave it out")
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise QueryError("", f"is {kind_of(value)}, not a string").within(field, i)
    return values
