"""The server of the Model Context Protocol and its tool."""

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastmcp import FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.tools import ToolResult
from fastmcp.utilities.types import Image
from mcp.types import TextContent
from pydantic import BaseModel, Field

from cir_vectorizer import __version__
from cir_vectorizer.collections import Hit, shown_columns
from cir_vectorizer.errors import CirError, ImageError
from cir_vectorizer.query import MAX_REFERENCES
from cir_vectorizer.searcher import Searcher
from cir_vectorizer_mcp.pictures import Pictures

MOST_RESULTS = 50
LONGEST_TEXT = 10_000

INSTRUCTIONS = (
    "Searches a collection of pictures by a picture, by words, or by a picture and words that say what should be different. "
    "To refine a search, name a result by its id as the picture, and say what should change."
)

_Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
_Texts = Annotated[list[_Text], Field(max_length=16)]


class Result(BaseModel):
    """An object that was found."""

    id: str = Field(description="names the object as image_id of a further search")
    score: float = Field(description="how near it is; comparable within one search only")
    picture: str | None = Field(description="name of its picture's file")
    columns: dict[str, Any] = Field(description="what the collection says about it")


class Results(BaseModel):
    """The objects that a search found, the nearest first."""

    results: list[Result]
    notes: list[str] = Field(description="what the searcher should know, for example that a text was cut")


def make_server(searcher: Searcher, pictures: Pictures) -> FastMCP:
    """Return the server; a client of any transport may connect to it.

    Args:
        searcher: searches the collection.
        pictures: reads the pictures that an agent names.
    """
    server: FastMCP = FastMCP("cir-vectorizer", instructions=INSTRUCTIONS, version=__version__, mask_error_details=True)

    @server.tool(
        title="Composed search",
        output_schema=Results.model_json_schema(),
        annotations={"readOnlyHint": True, "idempotentHint": True},
    )
    async def composed_search(
        text: Annotated[
            _Text | None,
            Field(description="what should be different from the picture, or what to look for without one"),
        ] = None,
        image: Annotated[
            str | Annotated[list[str], Field(max_length=MAX_REFERENCES)] | None,
            Field(description="reference picture, or several: a file's path, an http(s) URL, base64, or a data URI"),
        ] = None,
        image_id: Annotated[
            str | Annotated[list[str], Field(max_length=MAX_REFERENCES)] | None,
            Field(description="id of an earlier result as reference picture, or several"),
        ] = None,
        negative_text: Annotated[_Text | _Texts | None, Field(description="what results should not show")] = None,
        must_text: Annotated[_Text | _Texts | None, Field(description="what every result should show")] = None,
        filter: Annotated[
            _Text | None, Field(description="conditions on columns, such as: colour=red and price<50")
        ] = None,
        limit: Annotated[int, Field(ge=1, le=MOST_RESULTS, description="largest number of results")] = 10,
        offset: Annotated[int, Field(ge=0, le=1000, description="number of results to skip")] = 0,
        thumbnails: Annotated[bool, Field(description="also return small pictures of the results")] = False,
    ) -> ToolResult:
        """Find pictures by a picture, by words, or by a picture and words that say what should be different.

        For example a photo of a dress as `image` and "in red, long sleeves" as `text`. `image_id` refines: it takes a
        result of an earlier search as the picture.
        """
        try:
            given: list[Any] = await _images(pictures, _listed(image))
            query = {
                "text": text,
                "image": [*given, *({"id": each} for each in _listed(image_id))] or None,
                "negative_text": negative_text,
                "must_text": must_text,
            }
            found = await asyncio.to_thread(searcher.search, query, where=filter, limit=limit, offset=offset)
            places = await asyncio.to_thread(lambda: [searcher.place(hit.payload) for hit in found])
        except CirError as error:
            raise ToolError(str(error)) from error
        notes = list(found.notes)
        results = [_result(hit, place) for hit, place in zip(found, places, strict=True)]
        shown: list[Any] = []
        if thumbnails:
            for result, place in zip(results, places, strict=True):
                try:
                    small = await pictures.thumbnail(place)
                except ImageError as error:
                    notes.append(f"no thumbnail of {result.id}: its picture {error.problem}")
                else:
                    shown += [f"{result.id}:", Image(data=small, format="jpeg")]
        answer = Results(results=results, notes=notes).model_dump(mode="json")
        whole = TextContent(type="text", text=json.dumps(answer, ensure_ascii=False))
        return ToolResult([whole, *shown], answer)

    return server


async def _images(pictures: Pictures, named: Sequence[str]) -> list[bytes]:
    content = []
    for i, each in enumerate(named):
        try:
            content.append(await pictures.read(each))
        except ImageError as error:
            raise error.at(f"image.{i}") from error.__cause__
    return content


def _listed(given: str | list[str] | None) -> list[str]:
    return [] if given is None else [given] if isinstance(given, str) else given


def _result(hit: Hit, place: object) -> Result:
    columns = {key: value for key, value in shown_columns(hit.payload).items() if key != "path" or key in hit.payload}
    name = place.partition("?")[0].rstrip("/").rpartition("/")[2] if isinstance(place, str) else ""
    return Result(id=str(hit.id), score=hit.score, picture=name or None, columns=columns)
