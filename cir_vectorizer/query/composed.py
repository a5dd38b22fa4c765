"""A composed query, and the pictures it refers to.

`ComposedQuery.parse` reads the same query from JSON text (Weaviate), a dict (Qdrant, REST) or Python
values (the library, the command line). Imports no torch, decodes no picture and reads no file.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from typing_extensions import Self

from cir_vectorizer.errors import QueryError
from cir_vectorizer.identity import lost_digits, whole_number
from cir_vectorizer.query.options import Finite, Fraction, Fusion, Options, Strict, Weights
from cir_vectorizer.query.validation import first_invalid_field

MARKER = "$"
"""Placeholder of a reference picture in a template: `$` for all of them, `$1`, `$2`, … for one each."""

TEXT_SLOT = "{text}"
"""Placeholder of the query's text in a template."""

_LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_MARKER_PATTERN = re.compile(r"\$(\d{0,9})")
_COMPOSED_KEYS = ("image", "mask", "negative_text", "must_text", "composer")
MAX_REFERENCES = 16
"""Largest number of pictures of a query."""
MAX_TEXTS = 16
"""Largest number of texts in `negative_text`, and in `must_text`."""


class _Picture(Strict):
    """An encoded picture: as text, as a local file, or as bytes."""

    base64: str | None = Field(None, description="an encoded picture (JPEG, PNG, …), bare base64 or a data URI")
    path: Path | None = Field(None, description="a local file; never accepted over the network")
    data: bytes | None = Field(None, description="an encoded picture as bytes; Python only")

    @model_validator(mode="before")
    @classmethod
    def _from_shorthand(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"base64": value}
        if isinstance(value, bytes):
            return {"data": value}
        if isinstance(value, Path):
            return {"path": value}
        if isinstance(value, Mapping) and isinstance(value.get("path"), str):
            raise ValueError("a path is not accepted here; send the picture itself as base64")
        return value

    def _check_one_of(self, *names: str) -> None:
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"names {' and '.join(given) or 'no picture'}; give exactly one of {', '.join(names[:-1])}"
            )
        if self.base64 == "":
            raise ValueError("is an empty string; give a base64 picture or leave the field out")


class ImageRef(_Picture):
    """Reference to a picture: exactly one of the fields below (`norm` only together with `vector`).

    A plain string is a URL if it starts with http(s)://, else base64 or a data URI. A list of numbers is a
    vector, `bytes` are an encoded picture and a `pathlib.Path` is a local file.
    """

    url: str | None = Field(None, description="http(s) address of a picture")
    vector: list[Finite] | None = Field(None, description="the image embedding of a picture alone, in this backbone")
    norm: Annotated[Finite, Field(gt=0)] | None = Field(
        None, description="length of the embedding before it was normalised"
    )
    id: str | int | None = Field(None, description="id of an object in the collection at hand")

    @model_validator(mode="before")
    @classmethod
    def _from_other_shorthand(cls, value: Any) -> Any:
        if isinstance(value, str) and re.match(r"https?://", value, re.IGNORECASE):
            return {"url": value}
        if isinstance(value, Mapping) and (number := whole_number(value.get("id"))) is not None:
            if lost_digits(value["id"]):
                raise ValueError(f"id is {value['id']}, a number that may have lost its last digits; give it as text")
            return {**value, "id": number}
        return {"vector": list(value)} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        self._check_one_of("base64", "url", "vector", "path", "id", "data")
        if self.norm is not None and self.vector is None:
            raise ValueError("norm goes with vector only; remove it or give the vector")
        if self.vector is not None and not any(self.vector):
            raise ValueError("vector is empty or all zeros; give the image embedding of a picture")
        return self


class MaskRef(_Picture):
    """The part of the picture that may change: a picture that is white there, or a box.

    A plain string is base64 or a data URI, four numbers are a box; `bytes` and a `pathlib.Path` are pictures.
    """

    box: tuple[Fraction, Fraction, Fraction, Fraction] | None = Field(
        None, description="left, top, right and bottom of what may change, as fractions of the picture's sides"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_numbers(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            value = {"box": value}
        if isinstance(value, Mapping) and isinstance(value.get("box"), list | tuple):
            if len(value["box"]) != 4:
                raise ValueError(
                    "box has four numbers: left, top, right and bottom, each from 0 to 1; or send a black and white picture"
                )
            return {**value, "box": tuple(value["box"])}
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        self._check_one_of("base64", "path", "box", "data")
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise ValueError("box is empty; give left < right and top < bottom")
        return self


def _as_images(value: Any) -> Any:
    if value is None:
        return ()
    numbers = isinstance(value, list | tuple) and value and all(isinstance(x, int | float) for x in value)
    if isinstance(value, list | tuple) and not numbers:
        return tuple(value)
    return (value,)


_Images = Annotated[
    tuple[ImageRef, ...],
    BeforeValidator(_as_images, json_schema_input_type=ImageRef | list[ImageRef] | str | None),
    Field(max_length=MAX_REFERENCES),
]
_IMAGES: TypeAdapter[tuple[ImageRef, ...]] = TypeAdapter(_Images)


def _as_texts(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise ValueError(f"is {_kind(value)}; give a text, or a list of texts")
    if len(value) > MAX_TEXTS:
        raise ValueError(f"has {len(value)} texts, more than {MAX_TEXTS}; give fewer")
    for each in value:
        if not isinstance(each, str):
            raise ValueError(f"has {_kind(each)} in its list; give texts")
    return tuple(value)


_Texts = Annotated[
    str | tuple[str, ...] | None,
    BeforeValidator(_as_texts, json_schema_input_type=str | list[str] | None),
]


def _language_tag(value: str) -> str:
    if not _LANGUAGE_TAG.fullmatch(value):
        raise ValueError(f"is {value[:40]!r}, which is no language tag; write for example 'de' or 'de-AT'")
    return value


class ComposedQuery(Strict):
    """A shopper's request: pictures, words, words to avoid, a mask; any subset that makes sense.

    A composer reads `negative` for what should not be there. A search also compares its candidates with each text of
    `negative_text` and `must_text`; see `cir_vectorizer.collections.rescoring`.
    """

    image: _Images = Field((), description="the reference picture, or a list of several")
    text: str | None = Field(None, description="what should be different")
    negative_text: _Texts = Field(None, description="what should not be there; a text, or a list of several")
    must_text: _Texts = Field(None, description="what every result should show; a text or a list; for searches only")
    mask: MaskRef | None = Field(None, description="where the picture may change, as a picture or a box; CompoDiff")
    template: str | None = Field(None, description="prompt with $ (or $1, $2, …) for pictures and {text} for the text")
    language: Annotated[str, AfterValidator(_language_tag)] | None = Field(
        None, description="language of the prompt as a BCP 47 tag, such as de; the model's own if left out"
    )
    composer: str | None = Field(None, description="name of the composer; the model's default if left out")
    options: Options = Field(default_factory=Options)

    @classmethod
    def parse(cls, value: "ComposedQuery | str | bytes | Mapping[str, Any]") -> "ComposedQuery":
        """Read a query from JSON text, a dict or a ready query.

        Raises:
            QueryError: names the field at fault and the fix.
        """
        if isinstance(value, ComposedQuery):
            return value
        if isinstance(value, str | bytes):
            value = _load_json(value)
        if not isinstance(value, Mapping):
            raise QueryError(
                "", f'a composed query is a JSON object, not {_kind(value)}; send {{"image": …, "text": …}}'
            )
        given = {key: item for key, item in value.items() if item is not None}
        try:
            query = cls.model_validate(given)
        except ValidationError as error:
            raise _query_error(error) from error
        query._check_sense()
        return query

    def _check_sense(self) -> None:
        text = _said(self.text)
        if not self.image and not text:
            if self.unwanted:
                raise QueryError("negative_text", "says only what to avoid; add text or an image to search for")
            if self.wanted:
                raise QueryError("must_text", "says only what results must show; add text or an image to search for")
            raise QueryError("", "the query is empty; give at least image or text")
        if self.mask is not None and not self.image:
            raise QueryError("mask", "masks nothing without a picture; add image or remove mask")
        if self.template is not None:
            check_template(self.template, len(self.image), bool(text))

    @property
    def plain(self) -> bool:
        """True for an ordinary CLIP search: one picture or a text, and no other field except `language` and `options`."""
        extra = self.unwanted or self.wanted or self.mask or self.template or self.composer
        return not extra and (len(self.image), _said(self.text)) in ((1, False), (0, True))

    @property
    def unwanted(self) -> tuple[str, ...]:
        """The texts of `negative_text` that say something."""
        return _texts(self.negative_text)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The texts of `must_text` that say something."""
        return _texts(self.must_text)

    @property
    def negative(self) -> str:
        """The texts of `negative_text` as one, for composers; empty if there are none."""
        return ", ".join(self.unwanted)

    @property
    def wordless(self) -> bool:
        """True if there is no text, no negative text and no template."""
        return not (_said(self.text) or self.unwanted or self.template)

    def with_options(self, options: Options) -> Self:
        """Return the same query with other options."""
        return self.model_copy(update={"options": options})


def parse_pictures(value: Any, field: str) -> tuple[ImageRef, ...]:
    """Read one picture or a list of pictures, as in a query's `image`.

    Args:
        value: anything that `ImageRef` reads, or a list of such values; None means no picture.
        field: name of the list in errors.

    Raises:
        QueryError: names the picture at fault, for example `like.2`, and the fix.
    """
    try:
        return _IMAGES.validate_python(value, strict=True)
    except ValidationError as error:
        raise _query_error(error, field, ImageRef) from error


def _said(text: str | None) -> bool:
    return bool(text and text.strip())


def _texts(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    given = (value,) if isinstance(value, str) else value or ()
    return tuple(text.strip() for text in given if text.strip())


def check_template(template: str, references: int, has_text: bool) -> list[str | int]:
    """Split a template at its markers.

    Returns:
        Pieces in order: literal text (`{text}` is not replaced yet), 0 for `$` (all references), k for `$k`.

    Raises:
        QueryError: the template has no marker, a marker names no picture, no marker names a picture, or only one
            of `{text}` and the query's text is given.
    """
    pieces: list[str | int] = []
    used: set[int] = set()
    end = 0
    for match in _MARKER_PATTERN.finditer(template):
        number = int(match[1]) if match[1] else 0
        if match[1] and not 1 <= number <= references:
            raise QueryError("template", f"${match[1]} names no picture; the query has {references}, counted from $1")
        used.update({number} if number else range(1, references + 1))
        pieces += [template[end : match.start()], number]
        end = match.end()
    pieces.append(template[end:])
    if not used:
        problem = f"has no {MARKER} where the picture goes" if references else "is for queries with an image"
        raise QueryError("template", f"{problem}; write for example 'a photo of $ that {{text}}' with an image")
    if unused := set(range(1, references + 1)) - used:
        raise QueryError("template", f"leaves out picture {min(unused)}; add ${min(unused)} or drop the picture")
    if has_text and TEXT_SLOT not in template:
        raise QueryError("template", f"has no {TEXT_SLOT}, so the text would be lost; add {TEXT_SLOT} or drop text")
    if not has_text and TEXT_SLOT in template:
        raise QueryError("template", f"has {TEXT_SLOT} but the query has no text; add text or drop {TEXT_SLOT}")
    return [piece for piece in pieces if piece != ""]


def read_text(text: str) -> ComposedQuery | str:
    """Tell a composed query from plain text if both arrive as a string (Weaviate's `nearText`).

    A text is a composed query only if it is a JSON object with at least one of `image`, `mask`,
    `negative_text`, `must_text`, `composer`; anything else is plain text and comes back unchanged.

    Raises:
        QueryError: it is a composed query, but not a valid one.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        value = _load_json(text)
    except QueryError:
        if re.search(rf'"({"|".join(_COMPOSED_KEYS)})"\s*:', text[:4096]):
            raise
        return text
    if isinstance(value, dict) and any(key in value for key in _COMPOSED_KEYS):
        return ComposedQuery.parse(value)
    return text


def _load_json(text: str | bytes) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise QueryError("", f"the query holds {constant}, which is no JSON number; send a finite number")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise QueryError("", "the query's JSON is nested too deeply; send one flat object") from error
    except ValueError as error:
        if isinstance(error, QueryError):
            raise
        raise QueryError("", f'the query is not valid JSON ({error}); send {{"image": …, "text": …}}') from error


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, Sequence):
        return "a list"
    if isinstance(value, Mapping):
        return "an object"
    return "null" if value is None else type(value).__name__


def _query_error(
    error: ValidationError, within: str | None = None, owner: type[BaseModel] = ComposedQuery
) -> QueryError:
    """Convert pydantic's first finding about the model `owner`; `within` names the list that holds it, if any."""
    found = first_invalid_field(error)
    path = [str(part) for part in (() if within is None else (within,)) + found.path]
    index = next((part for part in found.path if isinstance(part, int)), None) if within is not None else None
    problem = found.problem
    if found.unknown:
        owners: dict[str, type[BaseModel]] = {
            "options": Options,
            "weights": Weights,
            "fusion": Fusion,
            "image": ImageRef,
            "mask": MaskRef,
        }
        owner = owners.get(next((part for part in reversed(path[:-1]) if not part.isdigit()), ""), owner)
        problem = f"is not a field; the fields are {', '.join(owner.model_fields)}"
    return QueryError(".".join(path), problem, index)
