"""The door of clients that were written for OpenAI, Jina or Voyage: `/v1/embeddings` and `/v1/multimodalembeddings`.

An input is a text, a picture's data URI, or an object: a composed query, or Voyage's `{"content": […]}`. An object with a
picture and words is composed; one with a picture or a text alone is embedded as such, whichever composer the model names.
"""

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request, Response
from pydantic import AliasChoices, Field

from cir_vectorizer.engine import Answer
from cir_vectorizer.engine.batching import Lane
from cir_vectorizer.errors import QueryError
from cir_vectorizer.models import Vectorizer, Work
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.service.doors.requests import (
    ModelBody,
    Whole,
    check_items,
    check_pictures,
    check_text,
    kind_of,
    parse,
    picture_ref,
    read_json,
)
from cir_vectorizer.service.http.problems import naming, vectors_of
from cir_vectorizer.service.names import Target
from cir_vectorizer.service.state import Service, note

_INPUT = "send a text, a picture's data URI, or an object with image, text, or both"
_PIECE = "send {'type': 'text', 'text': …}, {'type': 'image_url', 'image_url': …} or {'type': 'image_base64', 'image_base64': …}"
_PICTURES = ("image_url", "image_base64")


class _Written(ModelBody):
    """The form of the vectors, with the names that OpenAI, Jina and Voyage give to it."""

    encoding_format: Literal["float", "base64"] | None = Field(
        None, validation_alias=AliasChoices("encoding_format", "embedding_type", "encoding_type")
    )
    dimensions: Whole | None = Field(None, validation_alias=AliasChoices("dimensions", "output_dimension"))
    normalized: Literal[True] | None = None
    output_dtype: Literal["float"] | None = None
    late_chunking: Literal[False] | None = None
    # sent by clients, and without meaning here: pictures and texts of every use share one space, and long texts are cut
    user: str | None = None
    task: str | None = None
    input_type: str | None = None
    truncate: bool | None = None
    truncation: bool | None = None


class EmbeddingsBody(_Written):
    """`POST /v1/embeddings` in the format of OpenAI and Jina."""

    field: ClassVar[str] = "input"
    input: Any

    def items(self) -> Sequence[Any]:
        """Return the inputs."""
        return self.input if isinstance(self.input, list) else [self.input]

    def usage(self, tokens: int) -> dict[str, int]:
        """Return what the answer says about its costs."""
        return {"prompt_tokens": tokens, "total_tokens": tokens}


class MultimodalBody(_Written):
    """`POST /v1/multimodalembeddings` in Voyage's format."""

    field: ClassVar[str] = "inputs"
    inputs: list[Any]

    def items(self) -> Sequence[Any]:
        """Return the inputs."""
        return self.inputs

    def usage(self, tokens: int) -> dict[str, int]:
        """Return what Voyage's client reads; pixels are not counted."""
        return {"text_tokens": tokens, "image_pixels": 0, "video_pixels": 0, "total_tokens": tokens}


Asked = EmbeddingsBody | MultimodalBody


def router(service: Service) -> APIRouter:
    """Return the routes of this door."""
    routes = APIRouter(prefix="/v1", include_in_schema=False)
    routes.add_api_route("/embeddings", _handler(service, EmbeddingsBody), methods=["POST"])
    routes.add_api_route("/multimodalembeddings", _handler(service, MultimodalBody), methods=["POST"])
    return routes


def _handler(service: Service, kind: type[Asked]) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        async def work(body: bytes) -> Response:
            asked, target, works = await service.engine.host(_read, service, kind, body)
            note(request, works)
            answers = await service.engine.run(works, Lane.SEARCH)
            found = vectors_of(answers, lambda error, i: error.within(kind.field, i))
            data = [
                {"object": "embedding", "index": i, "embedding": _written(answer, asked.encoding_format)}
                for i, answer in enumerate(found)
            ]
            usage = asked.usage(sum(work.tokens for work in works))
            content = {"object": "list", "data": data, "model": service.names.full_name(target.model), "usage": usage}
            return await service.json(content, sum(len(answer.vector) for answer in found))

        return await service.answer(request, work, (Lane.SEARCH,))

    return handle


def _read(service: Service, kind: type[Asked], body: bytes) -> tuple[Asked, Target, list[Work]]:
    asked = parse(kind, read_json(body))
    target = service.names.resolve(asked.model)
    vectorizer = service.engine.vectorizers[target.model]
    if asked.dimensions not in (None, vectorizer.dim):
        raise QueryError(
            "dimensions",
            f"is {asked.dimensions}, but vectors of {target.model!r} have {vectorizer.dim} numbers and no other length: a part of a "
            "vector is an embedding only of a model that was trained in nested sizes (Matryoshka), and it would not match the index; "
            f"leave it out or give {vectorizer.dim}",
        )
    check_items(len(asked.items()), service.settings)
    works = []
    for i, each in enumerate(asked.items()):
        with naming(asked.field, i):
            works.append(_work(service, target, vectorizer, each))
    check_pictures(works, service.settings)
    return asked, target, works


def _work(service: Service, target: Target, vectorizer: Vectorizer, given: Any) -> Work:
    if isinstance(given, str):
        if given[:11].lower() == "data:image/":
            return vectorizer.plan_picture(picture_ref(given))
        return vectorizer.plan_text(check_text(given, service.settings))
    if not isinstance(given, dict):
        raise QueryError("", f"is {kind_of(given)}; {_INPUT}")
    query = ComposedQuery.parse(_query(given))
    check_text(query.text or "", service.settings)
    return vectorizer.plan(query if query.plain else target.pin(query))


def _query(given: dict[str, Any]) -> dict[str, Any]:
    """Return an input as a composed query; LlamaIndex's client of Jina names a picture `url` or `bytes`."""
    if "content" in given:
        rest = {key: value for key, value in given.items() if key != "content"}
        if twice := {"image", "text"} & rest.keys():
            raise QueryError(min(twice), "stands beside content; put pictures and texts into content")
        return {**_content(given["content"]), **rest}
    if len(given) == 1 and (picture := given.get("url", given.get("bytes"))) is not None:
        return {"image": picture}
    return given


def _content(pieces: Any) -> dict[str, Any]:
    """Return Voyage's pieces of texts and pictures as fields of a query; several texts become one."""
    if not isinstance(pieces, list):
        raise QueryError("content", f"is {kind_of(pieces)}, not a list; {_PIECE}")
    images, texts = [], []
    for i, piece in enumerate(pieces):
        with naming(f"content.{i}"):
            kind = piece.get("type") if isinstance(piece, Mapping) else None
            if kind == "text" and isinstance(piece.get("text"), str):
                texts.append(piece["text"])
            elif kind in _PICTURES and piece.get(kind) is not None:
                images.append(picture_ref(piece[kind]))
            else:
                raise QueryError("", f"is no text and no picture; {_PIECE}")
    return {"image": images or None, "text": " ".join(texts) or None}


def _written(answer: Answer, encoding: str | None) -> Any:
    if encoding == "base64":
        return base64.b64encode(answer.vector.astype("<f4").tobytes()).decode("ascii")
    return answer.vector
