"""The FastAPI application, assembled from the doors. Everything it needs comes in as an argument."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from cir_vectorizer import __version__
from cir_vectorizer.collections import Collection
from cir_vectorizer.models import load as load_model
from cir_vectorizer.pictures.fetch import Fetcher
from cir_vectorizer.service.doors import embeddings, models, qdrant, rest, search, weaviate
from cir_vectorizer.service.http.front import Front
from cir_vectorizer.service.http.openapi import document
from cir_vectorizer.service.http.problems import RefusedError, refusal
from cir_vectorizer.service.live import OneLoader
from cir_vectorizer.service.page.pages import add_pages
from cir_vectorizer.service.settings import Settings
from cir_vectorizer.service.state import Loader, Service
from cir_vectorizer.service.tracing import Tracing

_SENTENCES = {
    404: "there is nothing at this address; /docs lists all addresses",
    405: "this address does not take that method",
}


def create_app(
    load: Loader,
    settings: Settings,
    fetcher: Fetcher | None = None,
    collections: Mapping[str, Sequence[Collection]] | None = None,
    load_one: OneLoader = load_model,
    tracing: Tracing | None = None,
) -> FastAPI:
    """Return the service as an ASGI application; its `state.service` is the `Service`.

    Args:
        load: loads the models, by the names that they are served under, the default one first; called on a thread
            after the start, so that the service is alive, but not ready, while weights are loaded.
        settings: the operator's settings.
        fetcher: fetches pictures by URL; made from the settings if None.
        collections: the collections to search, by name; see `Service`.
        load_one: loads a further model for `POST /v1/models`.
        tracing: sends traces of the requests away; None for no traces.

    Raises:
        CirError: the keys cannot be read.
    """
    service = Service(load, settings, fetcher, collections, load_one, tracing)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="cir-vectorizer",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(Front, service=service)
    if settings.cors:  # outside of Front, because a browser asks for permission without a key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["retry-after", "x-request-id"],
        )
    for door in (weaviate, qdrant, rest, embeddings, models, search):
        app.include_router(door.router(service))
    add_pages(app)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(HTTPException)
    async def no_such_address(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        sentence = _SENTENCES.get(error.status_code, str(error.detail))
        return refusal(RefusedError(error.status_code, "address", sentence, error.headers)).response()

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(_: Request, __: Exception) -> Response:
        sentence = "a parameter in the address is wrong; /docs lists the parameters"
        return refusal(RefusedError(422, "address", sentence)).response()

    if tracing is not None:
        tracing.instrument(app)
    app.openapi = lambda: document(service)  # type: ignore[method-assign]
    return app
