"""Searching the collections that the service was started with: `/v1/search`, `/v1/collections`, thumbnails.

Without a collection, `/v1/collections` is an empty list and the other routes answer with a refusal.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from pydantic import Field

from cir_vectorizer.collections import RECORD_KEY, Hit, Id, Info, Payload, SyncRecord, picture_cell
from cir_vectorizer.collections.rescoring import STRENGTH
from cir_vectorizer.collections.searching import MAX_GROUP_SIZE, MAX_STRENGTH, Search, weight_of_texts
from cir_vectorizer.collections.stored import read_id
from cir_vectorizer.engine.batching import Lane
from cir_vectorizer.errors import CirError, OverloadError, QueryError
from cir_vectorizer.identity import json_id
from cir_vectorizer.models import Work
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.service.collection import ServedCollection
from cir_vectorizer.service.doors.requests import (
    NAME_LENGTH,
    ModelBody,
    Whole,
    check_items,
    check_text,
    parse,
    read_json,
)
from cir_vectorizer.service.http.limits import deadline, until_gone
from cir_vectorizer.service.http.problems import RefusedError, naming, refusal, vectors_of
from cir_vectorizer.service.page.thumbnails import DEFAULT_SIDE, MEDIA_TYPE, SIDES, is_web, side_for
from cir_vectorizer.service.state import Service, note

MOST_DRAWN = 256
"""Most requests for thumbnails that are handled at once; more are rejected."""

THUMBNAIL_SECONDS = 300
"""Time for which a client may show a thumbnail without asking again."""


class SearchBody(ModelBody):
    """`POST /v1/search`; without `model`, the one that the collection was made with is used."""

    collection: str | None = Field(None, max_length=NAME_LENGTH)
    query: dict[str, Any] | None = None
    like: list[str | dict[str, Any]] = Field(default_factory=list)
    unlike: list[str | dict[str, Any]] = Field(default_factory=list)
    filter: str | None = Field(None, max_length=10_000)
    limit: Annotated[Whole, Field(ge=1)] = 10
    offset: Annotated[Whole, Field(ge=0)] = 0
    hybrid: bool = False
    group_by: str | None = Field(None, max_length=NAME_LENGTH)
    group_size: Annotated[Whole, Field(ge=1, le=MAX_GROUP_SIZE)] = 1
    include_reference: bool = False
    text_weight: Annotated[float, Field(ge=0, le=1)] | None = None
    strength: Annotated[float, Field(ge=0, le=MAX_STRENGTH)] = STRENGTH
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    min_score: float | None = None


@dataclass(frozen=True)
class _Asked:
    body: SearchBody
    model: str | None
    search: Search


def router(service: Service) -> APIRouter:
    """Return the routes of this door."""
    routes = APIRouter(prefix="/v1", include_in_schema=False)
    drawing = 0

    async def collections(request: Request) -> Response:
        described = asyncio.gather(*(_described(service, each) for each in service.collections.values()))
        seconds = deadline(request, service.settings.request_timeout)
        content = {
            "collections": await until_gone(request, described, seconds),
            "key_needed": service.keys.configured,
        }
        return await service.json(content)

    async def search(request: Request) -> Response:
        return await service.answer(request, lambda body: _search(service, request, body), (Lane.SEARCH,))

    async def thumbnail(request: Request) -> Response:
        nonlocal drawing
        if drawing >= MOST_DRAWN:
            raise OverloadError(1)
        drawing += 1
        try:
            seconds = deadline(request, service.settings.request_timeout)
            return await until_gone(request, _thumbnail(service, request), seconds)
        finally:
            drawing -= 1

    routes.add_api_route("/collections", collections, methods=["GET"])
    routes.add_api_route("/search", search, methods=["POST"])
    routes.add_api_route("/objects/{id}/thumbnail", thumbnail, methods=["GET"])
    return routes


async def _search(service: Service, request: Request, body: bytes) -> Response:
    asked = await service.engine.host(_read, service, body)
    served = service.collection(asked.body.collection)
    match = await service.match(served, asked.model)
    search = asked.search
    if search.ids:
        search = await served.call("get", lambda collection: search.resolved(collection, match.info))
    search.texts_weigh(match.info)  # refuses before anything is composed
    parts, works = await service.engine.host(_works, service, match.model, search)
    note(request, works)
    answers = vectors_of(await service.engine.run(works, Lane.SEARCH), lambda error, i: error.at(parts[i]))
    vectors = [answer.vector for answer in answers]
    vector = search.blend(vectors)
    hits = await served.call("search", lambda collection: search.run(collection, vectors, match.info))
    doubts = (
        [] if hits else await served.call("search", lambda collection: search.doubts(collection, vector, match.info))
    )
    content = {
        "model": service.names.full_name(match.model),
        "collection": served.name,
        "hits": [_with_others(hit, served, match.info, _is_default(service, served)) for hit in hits],
        "notes": search.notes(parts, [work.notes for work in works])
        + search.unheard(match.info)
        + doubts
        + match.info.precision_notes(service.engine.vectorizers[match.model].precision),
    }
    return await service.json(content)


def _read(service: Service, body: bytes) -> _Asked:
    asked = parse(SearchBody, read_json(body))
    most = service.settings.max_results
    if asked.limit > most:
        raise QueryError("limit", f"is over this service's {most:,}; ask for fewer and continue with offset")
    target = service.names.resolve(asked.model) if asked.model else None
    query = None
    if asked.query is not None:
        with naming("query"):
            query = ComposedQuery.parse(asked.query)
            query = target.pin(query) if target is not None else query
            check_text(query.text or "", service.settings)
    check_items(len(asked.like) + len(asked.unlike), service.settings)
    search = Search.read(
        query,
        asked.like,
        asked.unlike,
        asked.filter,
        limit=asked.limit,
        offset=asked.offset,
        hybrid=asked.hybrid,
        group_by=asked.group_by,
        group_size=asked.group_size,
        include_reference=asked.include_reference,
        text_weight=asked.text_weight,
        strength=asked.strength,
        diversity=asked.diversity,
        min_score=asked.min_score,
    )
    return _Asked(asked, None if target is None else target.model, search)


def _works(service: Service, model: str, search: Search) -> tuple[list[str], list[Work]]:
    """Return, for each part of a search, its name in messages and the `Work` that makes its vector."""
    vectorizer = service.engine.vectorizers[model]
    works = []
    parts = search.parts(vectorizer)
    for name, query in parts.items():
        with naming(name):
            works.append(vectorizer.plan(query))
    return list(parts), works


def _is_default(service: Service, served: ServedCollection) -> bool:
    return served is service.collection(None)


def _with_others(hit: Hit, served: ServedCollection, info: Info, default: bool) -> dict[str, Any]:
    others = [_hit(each, served, info, default) for each in hit.others]
    return {**_hit(hit, served, info, default), **({"others": others} if others else {})}


def _hit(hit: Hit, served: ServedCollection, info: Info, default: bool) -> dict[str, Any]:
    record = SyncRecord.read(hit.payload)
    place = _named(hit.payload, served, info) if record is None else record.path if record.sha256 else None
    thumbnail = None
    if place is not None:
        thumbnail = f"/v1/objects/{quote(str(hit.id), safe='')}/thumbnail"
        thumbnail += "" if default else f"?collection={quote(served.name)}"
    return {
        **json_id(hit.id),
        "score": hit.score,
        "signals": dict(hit.signals),
        "payload": {key: value for key, value in hit.payload.items() if key != RECORD_KEY},
        "name": _last_part(record.path if record is not None else place.partition("?")[0] if place else ""),
        "thumbnail": thumbnail,
    }


def _named(payload: Payload, served: ServedCollection, info: Info) -> str | None:
    """Return the place of a picture that a column names; None if it names none that may be shown.

    Whoever writes into the collection could name any file, so paths count only if the operator named the column.
    """
    column = served.picture_column or info.picture_column
    cell = None if column is None else picture_cell(payload, column)
    if not isinstance(cell, str) or not cell:
        return None
    return cell if is_web(cell) or served.picture_column is not None else None


def _last_part(place: str) -> str | None:
    return place.rstrip("/").rpartition("/")[2] or None


async def _thumbnail(service: Service, request: Request) -> Response:
    engine = service.engine
    side = _side(request.query_params.get("size"))
    served = service.collection(request.query_params.get("collection"))
    id_ = read_id(request.path_params["id"], "id")
    records = await served.call("records", lambda collection: collection.records([id_]))
    record = next(iter(records.values()), None)
    asked = request.headers.get("if-none-match", "")

    async def on_host(call: Any, *arguments: Any) -> bytes:
        made: bytes = await engine.host(call, *arguments, lane=Lane.UPDATE)  # searches go first
        return made

    if record is None:
        picture, kept = await service.thumbnails.named(await _place(service, served, id_), side, on_host)
        tag = f'"{hashlib.sha256(picture).hexdigest()[:32]}-{side}"'
    elif (tag := service.thumbnails.tag(record, side)) not in asked:
        picture, kept = await service.thumbnails.get(record, side, on_host)
    headers = {
        "etag": tag,
        "cache-control": f"private, max-age={THUMBNAIL_SECONDS}",
        "x-content-type-options": "nosniff",
    }
    if tag in asked:
        service.metrics.thumbnail("same")
        return Response(status_code=304, headers=headers)
    service.metrics.thumbnail("kept" if kept else "made")
    return Response(picture, headers=headers, media_type=MEDIA_TYPE)


async def _place(service: Service, served: ServedCollection, id_: Id) -> str:
    """Return the place that a column names for the picture of an object without sync's record.

    Raises:
        RefusedError: 404, there is no such object, or no such place.
    """
    info = (await service.match(served)).info
    column_known = served.picture_column is not None or info.picture_column is not None
    points = await served.call("get", lambda collection: collection.get([id_])) if column_known else []
    place = _named(points[0].payload, served, info) if points else None
    if place is None:
        sentence = f"collection {served.name!r} has no object {id_} that sync wrote"
        if not column_known:
            sentence += (
                "; if another program did, the service's operator names its column of pictures by --picture-column"
            )
        raise RefusedError(404, "thumbnail", sentence)
    return place


def _side(text: str | None) -> int:
    if text is None:
        return DEFAULT_SIDE
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise QueryError("size", f"is not a number of pixels; give one up to {SIDES[-1]}, or leave it out")
    return side_for(int(text))


async def _described(service: Service, served: ServedCollection) -> dict[str, Any]:
    """Return a collection's description for clients; `problem` says why it cannot be searched, or is None."""
    described: dict[str, Any] = {"name": served.name, "default": _is_default(service, served)}
    try:
        match = await service.match(served)
    except CirError as error:
        return {**described, "problem": refusal(error).sentence}
    info = match.info
    return {
        **described,
        "problem": None,
        "count": info.count,
        "model": match.model,
        "made_with": info.model,
        "references": not info.blends_text,
        "texts": bool(info.text_columns),
        "text_weight": weight_of_texts(info) if info.text_columns else None,
        "database": served.address.scheme,
        "stored_as": served.address.collection,
        "tenant": served.tenant,
        "vector": info.using,
        "vectorize": info.vectorize,
    }
