"""The served models: `GET /v1/models` lists them; with an admin key, POST loads a further one and DELETE unloads one."""

import asyncio
import re
import time
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cir_vectorizer import __version__
from cir_vectorizer.errors import QueryError
from cir_vectorizer.models.work import PICTURE, composer_stage
from cir_vectorizer.query import Options
from cir_vectorizer.service.doors.requests import NAME_LENGTH, parse, read_json
from cir_vectorizer.service.http.auth import secrets_of
from cir_vectorizer.service.http.limits import deadline
from cir_vectorizer.service.http.problems import RefusedError, refusal
from cir_vectorizer.service.live import Change
from cir_vectorizer.service.names import served_name
from cir_vectorizer.service.places import permitted
from cir_vectorizer.service.state import Service, key_of

LOOK_SECONDS = 0.5
"""Time between two looks whether the service is stopping, while a request waits for a model."""


class LoadBody(BaseModel):
    """`POST /v1/models`"""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(max_length=4096)
    name: str | None = Field(None, max_length=NAME_LENGTH)


def router(service: Service) -> APIRouter:
    """Return the routes of this door."""
    routes = APIRouter(prefix="/v1", include_in_schema=False)

    async def models() -> Response:
        return await service.json(_listed(service))

    async def load(request: Request) -> Response:
        _check_admin(service, request)
        seconds = deadline(request, service.settings.request_timeout)
        async with service.bodies.read(request, 0.0) as body:
            name, model = await service.engine.host(_read, service, body)
        change = service.live.load(name, model)
        if not await _over(service, change, seconds):
            return await service.json({"id": name, "state": "loading"}, status=202)
        if change.failure is not None:
            raise change.failure
        if name not in service.names.served:
            problem = f"model {name!r} was unloaded by another request before it was loaded; ask again if it is wanted"
            raise RefusedError(409, "model-busy", problem)
        return await service.json(_entry(service, name), status=201)

    async def unload(request: Request) -> Response:
        _check_admin(service, request)
        seconds = deadline(request, service.settings.request_timeout)
        name = request.path_params["name"]
        notes = service.notes_on_use(name)
        change = service.live.unload(name)
        gone = change is None or await _over(service, change, seconds)
        content = {"id": name, "state": "unloaded" if gone else "unloading", "notes": notes}
        return await service.json(content, status=200 if gone else 202)

    routes.add_api_route("/models", models, methods=["GET"])
    routes.add_api_route("/models", load, methods=["POST"])
    routes.add_api_route("/models/{name}", unload, methods=["DELETE"])
    return routes


def _check_admin(service: Service, request: Request) -> None:
    """Raises RefusedError unless the request has an admin key: 401 without a valid key, 403 with an ordinary one."""
    if not service.admin.configured:
        raise RefusedError(
            403,
            "admin",
            "models are not loaded or unloaded here, because no admin key is configured; the service's operator sets one "
            "by CIR_ADMIN_KEYS or --admin-keys-file",
        )
    if service.admin.who(secrets_of(request.headers.raw)) is None:
        if key_of(request) is not None:
            problem = (
                "this needs an admin key, and the key of this request is an ordinary one; send one of CIR_ADMIN_KEYS"
            )
            raise RefusedError(403, "admin", problem)
        raise RefusedError(
            401, "key", "no admin key came with this request; send it as Bearer, Basic or api-key header"
        )


def _read(service: Service, body: bytes) -> tuple[str, str]:
    """Return the name of a model to load, and the model."""
    asked = parse(LoadBody, read_json(body))
    settings = service.settings
    if asked.name is None:
        name, _ = served_name(asked.model)
    elif re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", name := asked.name) is None or name in ("plain", "."):
        raise QueryError("name", "cannot be a served model's name; write one with letters, digits, - and _")
    return name, permitted(asked.model, settings.model_folders, settings.allow_hub)


async def _over(service: Service, change: Change, seconds: float) -> bool:
    """Wait for a change to end, at most `seconds` and not while the service stops; tell whether it has ended."""
    assert change.task is not None
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while not change.task.done() and not service.draining and (left := until - loop.time()) > 0:
        await asyncio.wait((change.task,), timeout=min(left, LOOK_SECONDS))
    return change.task.done()


def _listed(service: Service) -> dict[str, Any]:
    names = service.names
    return {
        "object": "list",
        "data": [_entry(service, model) for model in names.served],
        "changes": [_change(change) for change in service.live.changes.values()],
        "aliases": names.aliases(names.default),
        "version": __version__,
    }


def _change(change: Change) -> dict[str, Any]:
    """Return a change for clients; `error` says why a model could not be loaded, or is None."""
    error = None if change.failure is None else refusal(change.failure).sentence
    seconds = round(time.monotonic() - change.began, 1)
    return {"id": change.name, "state": change.state, "seconds": seconds, "error": error}


def _entry(service: Service, model: str) -> dict[str, Any]:
    names, engine = service.names, service.engine
    vectorizer = names.served[model]
    composers = [
        {
            "name": name,
            "digest": vectorizer.digests.get(name),
            "seconds": engine.seconds(model, composer_stage(name)),
            "mask": composer.takes.reads("mask"),
            "takes": vectorizer.takes[name].to_json(),
            "defaults": vectorizer.defaults.get(name, Options()).to_json(),
        }
        for name, composer in vectorizer.composers.items()
    ]
    return {
        "id": model,
        "object": "model",
        "owned_by": "cir-vectorizer",
        "full_name": names.full_name(model),
        "fingerprint": vectorizer.fingerprint,
        "former_fingerprint": vectorizer.former_fingerprint,
        "precision": vectorizer.precision,
        "dim": vectorizer.dim,
        "mean_image_norm": vectorizer.mean_image_norm,
        "default": model == names.default,
        "default_composer": vectorizer.default_composer,
        "composers": composers,
        "picture_seconds": engine.seconds(model, PICTURE),
    }
