"""Reading request bodies: JSON, and the checks that all doors share. Runs on host threads."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cir_vectorizer.errors import CirError, QueryError
from cir_vectorizer.models import Work
from cir_vectorizer.query import ComposedQuery, ImageRef
from cir_vectorizer.query.validation import first_invalid_field
from cir_vectorizer.service.http.problems import RefusedError
from cir_vectorizer.service.settings import Settings

Body = TypeVar("Body", bound=BaseModel)

NAME_LENGTH = 256


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number. JSON has only one kind of number, so 3.0 is accepted as 3."""


class ModelBody(BaseModel):
    """Base of the bodies that applications send; a `model` of None is the default one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = Field(None, max_length=NAME_LENGTH)


def read_json(body: bytes) -> dict[str, object]:
    """Return the JSON object in a request's body.

    Raises:
        RefusedError: 400, the body is not a JSON object.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        cause = f"{error.msg} at character {error.pos}"
        raise RefusedError(400, "json", f"the body is not valid JSON ({cause}); send a JSON object") from error
    if not isinstance(content, dict):
        raise RefusedError(400, "json", f"the body is {kind_of(content)}, not a JSON object; send {{…}}")
    return content


def check_items(count: int, settings: Settings) -> None:
    """Check the number of items in a request. Raises RefusedError (413) if there are too many."""
    if count > settings.max_items:
        problem = f"{count:,} items are over the limit of {settings.max_items:,} a request; send fewer at a time"
        raise RefusedError(413, "items", problem)


def check_pictures(works: Sequence[Work], settings: Settings) -> None:
    """Check the number of pictures, counting a work without any as one. Raises RefusedError (413) if it is too large."""
    check_items(sum(max(1, len(work.pictures)) for work in works), settings)


def check_text(text: str, settings: Settings) -> str:
    """Return the text. Raises QueryError if it is longer than the limit."""
    if len(text) > settings.max_text:
        raise QueryError("text", f"has {len(text):,} characters, over the limit of {settings.max_text:,}; shorten it")
    return text


def in_texts_or_images(error: CirError, position: int, texts: int) -> CirError:
    """Place an answer's error in `texts` or `images`; the first `texts` answers belong to texts."""
    return error.within("texts", position) if position < texts else error.within("images", position - texts)


def kind_of(value: object) -> str:
    """Return the kind of a JSON value, for messages."""
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return kinds.get(type(value), "null")


def picture_ref(value: Any) -> ImageRef:
    """Return the picture that a value in a request stands for. Raises QueryError if it is not one picture."""
    (ref, *more) = ComposedQuery.parse({"image": value}).image or (None,)
    if ref is None or more:
        raise QueryError("", f"is {kind_of(value)}, not one picture; give base64, a data URI or an object")
    return ref


def parse(kind: type[Body], content: dict[str, object]) -> Body:
    """Return the body as `kind`. Raises QueryError, which names the field at fault."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        found = first_invalid_field(error)
        problem = f"is not a field; the fields are {', '.join(kind.model_fields)}" if found.unknown else found.problem
        field, *inner = found.path
        if inner and isinstance(inner[0], int):  # an item of a list
            index, *inner = inner
            raise QueryError(_dotted(inner), problem).within(str(field), int(index)) from error
        raise QueryError(_dotted(found.path), problem) from error


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(str(part)[:80] for part in path)
