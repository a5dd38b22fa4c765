"""Queries as JSON: every kind of picture that Python code may hold becomes a JSON value.

The client and the database helpers build their queries here, so a wrong field is refused before anything is sent.
Imports no torch and decodes no picture.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from cir_vectorizer.errors import ImageError, QueryError
from cir_vectorizer.query import ComposedQuery, ImageRef, MaskRef
from cir_vectorizer.query.encoded import DEFAULT_LIMITS, decode_base64

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    Picture: TypeAlias = (
        str | bytes | os.PathLike[str] | Image.Image | ImageRef | Mapping[str, Any] | Sequence[float] | npt.NDArray[Any]
    )
"""A file (`pathlib.Path`), encoded bytes, a PIL image, base64, a data URI or an http(s) URL (`str`), a vector (numbers or
an array), an ImageRef, or a dict of its fields."""

Query: TypeAlias = ComposedQuery | Mapping[str, Any] | str
"""Anything that `ComposedQuery.parse` reads; `image` and `mask` may be any `Picture`."""


class Composed(NamedTuple):
    """Query vectors, (n, dim) float32 of length 1, and for each the notes that its caller should see."""

    vectors: "npt.NDArray[np.float32]"
    notes: list[list[str]]


def read_query(query: Query) -> ComposedQuery:
    """Read and check a query; in a dict, `image` (one or a list) and `mask` may be any `Picture`.

    Raises:
        QueryError: names the field at fault and the fix.
        ImageError: a string is neither base64 nor a URL.
    """
    if isinstance(query, Mapping):
        query = {key: _pictures(value) if key in ("image", "mask") else value for key, value in query.items()}
    parsed = ComposedQuery.parse(query)
    for position, ref in enumerate(parsed.image):
        _check_base64(f"image.{position}", ref)
    if parsed.mask is not None:
        _check_base64("mask", parsed.mask)
    return parsed


def to_json(query: ComposedQuery) -> dict[str, Any]:
    """Return the query as JSON values: files and bytes as base64, without fields that are not set.

    Raises:
        ImageError: a file cannot be read.
    """
    said = query.model_dump(mode="json", exclude={"image", "mask", "options"}, exclude_none=True)
    if query.image:
        images = [picture_to_json(ref) for ref in query.image]
        said["image"] = images if len(images) > 1 else images[0]
    if query.mask is not None:
        said["mask"] = picture_to_json(query.mask)
    if options := query.options.to_json():
        said["options"] = options
    return said


def picture_to_json(picture: "Picture | MaskRef") -> Any:
    """Return a picture as JSON: a base64 string, a URL, or an object with `vector` or `id`.

    Raises:
        QueryError: the value does not name a picture.
        ImageError: a file cannot be read, or a string is neither base64 nor a URL.
    """
    (ref,) = (picture,) if isinstance(picture, ImageRef | MaskRef) else read_query({"image": _plain(picture)}).image
    if ref.path is not None:
        return encode_picture(_read(ref.path))
    if ref.data is not None:
        return encode_picture(ref.data)
    return ref.base64 or getattr(ref, "url", None) or ref.model_dump(exclude_none=True)


def encode_picture(data: bytes) -> str:
    """Return bytes as base64 text."""
    return base64.b64encode(data).decode("ascii")


def object_reference(vector: Any, norm: float | None) -> dict[str, Any]:
    """Return the reference for an object's stored vector; `norm` is its length before it was normalised, if known."""
    reference: dict[str, Any] = {"vector": [float(x) for x in vector]}
    if norm is not None:
        reference["norm"] = float(norm)
    return reference


def references(image: Any) -> list[Any]:
    """Return one picture, a list of pictures or None as a list; a list of numbers is one vector."""
    if image is None:
        return []
    return list(image) if isinstance(image, list | tuple) and not is_vector(image) else [image]


def is_vector(value: Any) -> bool:
    """Tell whether this is a non-empty list of numbers."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(x, int | float) for x in value)


def _pictures(value: Any) -> Any:
    if isinstance(value, list | tuple) and not is_vector(value):
        return [_plain(each) for each in value]
    return _plain(value)


def _plain(picture: Any) -> Any:
    """Convert a PIL image, an array or a path-like object to what ImageRef reads; return anything else unchanged."""
    if isinstance(picture, Mapping) and hasattr(picture.get("vector"), "ndim"):
        return {**picture, "vector": _plain(picture["vector"])}
    if hasattr(picture, "tolist") and hasattr(picture, "ndim"):
        if picture.ndim != 1:
            shape = tuple(picture.shape)
            raise QueryError("image", f"is an array of shape {shape}; give pixels as a PIL image, or one vector (dim,)")
        return picture.tolist()
    if hasattr(picture, "save") and hasattr(picture, "getbands"):
        file = BytesIO()
        picture.save(file, "PNG", compress_level=1)  # lossless, so that the same pixels give the same vector
        return file.getvalue()
    if isinstance(picture, os.PathLike):
        return Path(picture)
    return picture


def _check_base64(field: str, ref: ImageRef | MaskRef) -> None:
    if ref.base64 is None:
        return
    try:
        decode_base64(ref.base64, DEFAULT_LIMITS)
    except ImageError as error:
        hint = "; a file is given as pathlib.Path" if error.reason == "base64" else ""
        raise error.saying(f"{error.problem}{hint}").at(field) from error.__cause__


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError("path", f"{path} cannot be read ({error.strerror}); check the name and permissions") from error
