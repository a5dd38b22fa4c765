"""The door of Qdrant's server-side inference: `POST /qdrant`, or `/m/<name>/qdrant` to set the default model.

Empty names and aliases in the inputs refer to the default model. A key may also come as the body's `token`. Qdrant removes
duplicates from a batch's inputs and puts them in any order, so refusals name an input by its digest too.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response

from cir_vectorizer.engine.batching import Lane
from cir_vectorizer.errors import CirError, QueryError
from cir_vectorizer.models import Work
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.inputs import name_of
from cir_vectorizer.service.doors.requests import (
    check_items,
    check_pictures,
    check_text,
    kind_of,
    picture_ref,
    read_json,
)
from cir_vectorizer.service.http.auth import no_key
from cir_vectorizer.service.http.problems import vectors_of
from cir_vectorizer.service.names import Target
from cir_vectorizer.service.state import Service, key_of, note, set_key

_NOUNS = {"text": "text", "image": "picture", "object": "query"}
_LANES = {"search": Lane.SEARCH, "update": Lane.UPDATE, None: Lane.SEARCH}
_KEY = (
    "Qdrant sends the one in its QDRANT__INFERENCE__ADDRESS, so set that to http://cir:KEY@HOST:PORT/qdrant and start "
    "Qdrant again"
)


@dataclass(frozen=True)
class _Asked:
    inputs: list[Mapping[str, Any]]
    models: list[str]
    works: list[Work]
    lane: Lane


def router(service: Service) -> APIRouter:
    """Return the routes of this door."""
    routes = APIRouter(include_in_schema=False)

    async def infer(request: Request) -> Response:
        async def work(body: bytes) -> Response:
            content = await service.engine.host(read_json, body)
            _let_in(service, request, content)
            base = service.names.resolve(request.path_params.get("name"))  # after the key: its error lists models
            asked = await service.engine.host(_read, service, base, content)
            note(request, asked.works)
            answers = await service.engine.run(asked.works, asked.lane)
            found = vectors_of(answers, lambda error, i: error.within("inputs", i, _label(i, asked.inputs)))
            tokens: Counter[str] = Counter()
            for model, each in zip(asked.models, asked.works, strict=True):
                tokens[model] += each.tokens
            vectors = [answer.vector for answer in found]
            usage = {"models": {model: {"tokens": count} for model, count in tokens.items()}}
            return await service.json({"embeddings": vectors, "usage": usage}, sum(len(v) for v in vectors))

        return await service.answer(request, work, (Lane.SEARCH, Lane.UPDATE))

    for prefix in ("", "/m/{name:path}"):
        routes.add_api_route(f"{prefix}/qdrant", infer, methods=["POST"])
    return routes


def _let_in(service: Service, request: Request, content: dict[str, object]) -> None:
    """Check the key in the body's token, if the headers held none."""
    if key_of(request) is not None or not service.keys.configured:
        return
    token = content.get("token")
    key = service.keys.who([token]) if isinstance(token, str) else None
    if key is None:
        raise no_key(_KEY)
    set_key(request, key)


def _read(service: Service, base: Target, content: dict[str, object]) -> _Asked:
    inputs, inference = content.get("inputs"), content.get("inference")
    if not isinstance(inputs, list):
        raise QueryError("inputs", f"is {kind_of(inputs)}, not a list of inputs")
    if not (inference is None or isinstance(inference, str)) or inference not in _LANES:
        raise QueryError("inference", "is neither 'search' nor 'update'")
    check_items(len(inputs), service.settings)
    asked = _Asked(inputs, [], [], _LANES[inference])
    for i, each in enumerate(inputs):
        if not isinstance(each, dict) or not isinstance(each.get("model", ""), str):
            raise QueryError("", "is not an object with data, data_type and a model's name").within("inputs", i)
        model = each.get("model", "")
        with _naming(i, inputs):
            asked.works.append(_work(service, base, model, each))
            asked.models.append(model)
    check_pictures(asked.works, service.settings)
    return asked


def _work(service: Service, base: Target, model: str, each: Mapping[str, Any]) -> Work:
    target = service.names.resolve(model, base.model)
    if target == Target(base.model):
        target = replace(target, composer=base.composer)
    vectorizer = service.engine.vectorizers[target.model]
    data, kind = each.get("data"), each.get("data_type", "text")
    if kind == "text":
        if not isinstance(data, str):
            raise QueryError("data", f"is {kind_of(data)}, not a text")
        return vectorizer.plan_text(check_text(data, service.settings))
    if kind == "image":
        return vectorizer.plan_picture(picture_ref(data))
    if kind == "object":
        return vectorizer.plan(target.pin(_query(data, each.get("options"))))
    raise QueryError("data_type", "is none of 'text', 'image' and 'object'")


def _query(data: Any, options: Any) -> ComposedQuery:
    """Return the object as a query; its own options override those beside it."""
    if not options or not isinstance(data, Mapping):
        return ComposedQuery.parse(data)
    own = data.get("options") or {}
    if not isinstance(options, Mapping) or not isinstance(own, Mapping):
        raise QueryError("options", "is not an object")
    return ComposedQuery.parse({**data, "options": {**options, **own}})


@contextlib.contextmanager
def _naming(position: int, inputs: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Place errors in an input; its digest is only computed if there is an error."""
    try:
        yield
    except CirError as error:
        raise error.within("inputs", position, _label(position, inputs)) from error.__cause__


def _label(position: int, inputs: Sequence[Mapping[str, Any]]) -> str:
    """Return the place of an input in sentences: in a batch its position, which Qdrant chose, and its name."""
    each = inputs[position]
    place = f"inputs[{position}] (model {each.get('model', '')[:80]!r}): "
    if len(inputs) == 1:
        return place
    kind = str(each.get("data_type", "text"))
    return f"{place}{_NOUNS.get(kind, 'input')} {name_of(each.get('data'), kind)} (the position is Qdrant's choice): "
