"""Pages for a browser: one to try composed search at `/`, and the API's documentation at `/docs`.

They load everything from this service.
"""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

_FOLDER = Path(__file__).parent / "assets"
"""Everything in this folder is served; so the modules beside it stand outside."""

_SWAGGER_UI = Path(str(files("fastapi_offline"))) / "static"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy of the pages."""

_DOCS_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")  # Swagger UI sets inline styles
_HEADERS = {"cache-control": "no-cache", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


class _Assets(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def add_pages(app: FastAPI) -> None:
    """Add the pages and their assets to the application."""
    routes = APIRouter(include_in_schema=False)
    index, docs = ((_FOLDER / name).read_bytes() for name in ("index.html", "docs.html"))

    @routes.get("/")
    async def try_it() -> Response:
        return _page(index, POLICY)

    @routes.get("/docs")
    async def api_documentation() -> Response:
        return _page(docs, _DOCS_POLICY)

    app.include_router(routes)
    app.mount("/docs/assets", _Assets(directory=_SWAGGER_UI))
    app.mount("/page", _Assets(directory=_FOLDER))


def _page(content: bytes, policy: str) -> Response:
    headers = {**_HEADERS, "content-security-policy": policy}
    return Response(content, headers=headers, media_type="text/html; charset=utf-8")
