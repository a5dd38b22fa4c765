"""Middleware that every request passes: gives it an id, checks its key, logs and counts it, answers if it fails."""

import logging
import re
import time
import uuid
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cir_vectorizer.redaction import without_user
from cir_vectorizer.service.http.auth import no_key, secrets_of
from cir_vectorizer.service.http.problems import CLIENT_GONE, Refusal, refusal
from cir_vectorizer.service.logs import FIELDS
from cir_vectorizer.service.state import MODELS, NOTES, Service
from cir_vectorizer.service.tracing import trace_id

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OPEN = ("/.well-known/live", "/.well-known/ready")
_SLASHES = re.compile(r"/{2,}")
_WEAVIATES_KEY = (
    "Weaviate sends the one in its CLIP_INFERENCE_API, so set that to http://cir:KEY@HOST:PORT and start Weaviate again"
)
_QUIET = ("health", "meta", "metrics", "page")


class Front:
    """ASGI middleware around all doors.

    Args:
        app: the application that answers.
        service: has the keys and the metrics.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        path = scope["path"] = _SLASHES.sub("/", scope["path"]).rstrip("/") or "/"
        request_id, status = _request_id(scope), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                if self._service.draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        refused = None
        try:
            self._let_in(scope, path)
            await self._app(scope, receive, answer)
        except Exception as error:  # the last place that can answer with a sentence
            refused = refusal(error)
            if refused.status == CLIENT_GONE:
                status = refused.status
            elif refused.code in ("internal", "device", "device-memory"):
                log.error("request failed", exc_info=error, extra={FIELDS: {"request_id": request_id}})
            if not status:
                await refused.response()(scope, receive, answer)
            self._service.metrics.rejected(refused.reason)
        finally:
            self._note(scope, path, status, refused, time.perf_counter() - began, request_id)

    def _let_in(self, scope: Scope, path: str) -> None:
        """Check the key in the headers. Health checks need none; Qdrant's door looks for it in the body too."""
        keys = self._service.keys
        if not keys.configured:
            return
        scope["cir_key"] = key = self._service.who(secrets_of(scope["headers"]))
        if key is None and not path.endswith(_OPEN) and not path.endswith("/qdrant"):
            raise no_key(_WEAVIATES_KEY if door_of(path) in ("weaviate", "meta") else "")

    def _note(
        self, scope: Scope, path: str, status: int, refused: Refusal | None, seconds: float, request_id: str
    ) -> None:
        door = door_of(path)
        key = scope.get("cir_key") or "none"
        self._service.metrics.answered(door, status, key, seconds)
        self._service.note_use(scope.get(MODELS, ()), door)
        quiet = door in _QUIET and status < 400
        fields: dict[str, Any] = {
            "request_id": request_id,
            "door": door,
            "method": scope["method"],
            "status": status,
            "ms": round(1000 * seconds, 1),
            "key": key,
        }
        if refused is not None:
            fields |= {"reason": refused.reason, "error": self._service.hidden(without_user(refused.sentence))}
        if self._service.tracing is not None and (trace := trace_id()) is not None:
            fields["trace_id"] = trace
        if notes := scope.get(NOTES):
            fields["notes"] = notes
            self._service.metrics.noted(door, len(notes))
        log.log(logging.DEBUG if quiet else logging.INFO, "request", extra={FIELDS: fields})


def door_of(path: str) -> str:
    """Return the door that a path belongs to; logs and metrics have it in place of the path."""
    endings = {"/vectorize": "weaviate", "/meta": "meta", "/qdrant": "qdrant", "/metrics": "metrics"}
    if path.endswith(_OPEN):
        return "health"
    if path.startswith("/v1/"):
        return "rest"
    if path == "/" or path.startswith(("/page/", "/docs", "/openapi.json")):
        return "page"
    return next((door for ending, door in endings.items() if path.endswith(ending)), "other")


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(text):
                return text
    return uuid.uuid4().hex
