"""The door of applications: `/v1/…`, JSON in and out. All its work is queued as searches, and none waits for room."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from cir_vectorizer.collections.stored import resolve
from cir_vectorizer.engine import Answer
from cir_vectorizer.engine.batching import Lane
from cir_vectorizer.engine.explain import Part, moved, works_of_parts
from cir_vectorizer.models import Vectorizer, Work
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.service.doors.requests import (
    NAME_LENGTH,
    ModelBody,
    Whole,
    check_items,
    check_pictures,
    check_text,
    in_texts_or_images,
    parse,
    picture_ref,
    read_json,
)
from cir_vectorizer.service.http.problems import naming, vectors_of
from cir_vectorizer.service.names import Target
from cir_vectorizer.service.state import Service, note


class ComposeBody(ModelBody):
    """`POST /v1/compose`"""

    queries: list[dict[str, Any]]


class EmbedBody(ModelBody):
    """Body of `POST /v1/embed`: plain texts and pictures to embed."""

    texts: list[str] = Field(default_factory=list)
    images: list[str | dict[str, Any]] = Field(default_factory=list)


class ExplainBody(ModelBody):
    """`POST /v1/explain`"""

    query: dict[str, Any]
    collection: str | None = Field(None, max_length=NAME_LENGTH)
    words: Annotated[Whole, Field(ge=1, le=50)] = 10


def router(service: Service) -> APIRouter:
    """Return the routes of this door."""
    routes = APIRouter(prefix="/v1", include_in_schema=False)
    for path, work in (
        ("/compose", _compose),
        ("/embed", _embed),
        ("/explain", _explain),
    ):
        routes.add_api_route(path, _handler(service, work), methods=["POST"])
    return routes


def _handler(
    service: Service, work: Callable[[Service, Request, bytes], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        return await service.answer(request, lambda body: work(service, request, body), (Lane.SEARCH,))

    return handle


async def _compose(service: Service, request: Request, body: bytes) -> Response:
    target, works = await service.engine.host(_read_compose, service, body)
    note(request, works)
    found = vectors_of(await service.engine.run(works, Lane.SEARCH), lambda error, i: error.within("queries", i))
    vectors = [answer.vector for answer in found]
    content = {
        "model": service.names.full_name(target.model),
        "vectors": vectors,
        "notes": [list(work.notes) for work in works],
    }
    return await service.json(content, sum(len(vector) for vector in vectors))


def _read_compose(service: Service, body: bytes) -> tuple[Target, list[Work]]:
    asked = parse(ComposeBody, read_json(body))
    target = service.names.resolve(asked.model)
    check_items(len(asked.queries), service.settings)
    works = []
    for i, query in enumerate(asked.queries):
        with naming("queries", i):
            works.append(_composed(service, target, query))
    check_pictures(works, service.settings)
    return target, works


def _composed(service: Service, target: Target, query: dict[str, Any]) -> Work:
    parsed = target.pin(ComposedQuery.parse(query))
    check_text(parsed.text or "", service.settings)
    return service.engine.vectorizers[target.model].plan(parsed)


async def _embed(service: Service, request: Request, body: bytes) -> Response:
    target, texts, images = await service.engine.host(_read_embed, service, body)
    note(request, [*texts, *images])
    count = len(texts)
    answers = await service.engine.run([*texts, *images], Lane.SEARCH)
    found = vectors_of(answers, lambda error, i: in_texts_or_images(error, i, count))
    content = {
        "model": service.names.full_name(target.model),
        "text_vectors": [answer.vector for answer in found[:count]],
        "image_vectors": [answer.vector for answer in found[count:]],
        "image_norms": [answer.norm for answer in found[count:]],
    }
    return await service.json(content, sum(len(answer.vector) for answer in found))


def _read_embed(service: Service, body: bytes) -> tuple[Target, list[Work], list[Work]]:
    asked = parse(EmbedBody, read_json(body))
    target = service.names.resolve(asked.model)
    check_items(len(asked.texts) + len(asked.images), service.settings)
    vectorizer = service.engine.vectorizers[target.model]
    texts = []
    for i, text in enumerate(asked.texts):
        with naming("texts", i):
            texts.append(vectorizer.plan_text(check_text(text, service.settings)))
    images = []
    for i, image in enumerate(asked.images):
        with naming("images", i):
            images.append(vectorizer.plan_picture(picture_ref(image)))
    return target, texts, images


async def _explain(service: Service, request: Request, body: bytes) -> Response:
    asked, target, query = await service.engine.host(_read_explain, service, body)
    model, ids = target.model, any(ref.id is not None for ref in query.image)
    if asked.model is None and (ids or asked.collection is not None):
        model = (await service.match(service.collection(asked.collection))).model
    if ids:
        query = await _with_vectors(service, query, asked.collection, model)
    urls = any(ref.url is not None for ref in query.image)
    async with service.explaining if urls else contextlib.nullcontext():
        with naming("query"):
            query = await service.engine.with_bytes(query)
        content = await _explained(service, request, model, query, asked.words)
    return await service.json(content)


async def _explained(
    service: Service, request: Request, model: str, query: ComposedQuery, count: int
) -> dict[str, Any]:
    works, parts = await service.engine.host(_works_of_parts, service.engine.vectorizers[model], query)
    note(request, works[:1])
    answers = await service.engine.run(works, Lane.SEARCH)
    whole = vectors_of(answers[:1], lambda error, _: error.at("query"))[0].vector
    moves = []
    for part, answer in zip(parts, answers[1:], strict=True):
        if isinstance(answer, Answer):
            moves.append({"part": part.field, "word": part.word, "moves": round(moved(whole, answer.vector), 6)})
    embeddings = await service.engine.embeddings(works[0], Lane.SEARCH)
    words = await service.engine.host(service.engine.vectorizers[model].explain, works[0], embeddings, count)
    pictures = [[{"word": word, "similarity": round(value, 4)} for word, value in each] for each in words]
    return {
        "model": service.names.full_name(model),
        "composer": works[0].composer_name,
        "pictures": pictures,
        "parts": moves,
        "notes": list(works[0].notes),
    }


def _read_explain(service: Service, body: bytes) -> tuple[ExplainBody, Target, ComposedQuery]:
    asked = parse(ExplainBody, read_json(body))
    target = service.names.resolve(asked.model)
    with naming("query"):
        query = target.pin(ComposedQuery.parse(asked.query)).model_copy(update={"must_text": None})  # moves no vector
        check_text(query.text or "", service.settings)
    return asked, target, query


async def _with_vectors(service: Service, query: ComposedQuery, collection: str | None, model: str) -> ComposedQuery:
    served = service.collection(collection)
    match = await service.match(served, model)
    return await served.call("get", lambda opened: resolve(query, opened, match.info))


def _works_of_parts(vectorizer: Vectorizer, query: ComposedQuery) -> tuple[list[Work], list[Part]]:
    with naming("query"):
        return works_of_parts(vectorizer, query)
