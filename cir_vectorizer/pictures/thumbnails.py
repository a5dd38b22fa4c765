"""Thumbnails: small JPEG copies of pictures, for pages."""

import base64
from io import BytesIO
from pathlib import Path

from PIL import Image

from cir_vectorizer.pictures.images import open_image
from cir_vectorizer.query.encoded import DEFAULT_LIMITS, Limits


def thumbnail(source: bytes | Path, side: int, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Return a picture that is at most `side` pixels wide and high, upright and RGB.

    Raises:
        ImageError: as in `open_image`.
    """
    picture = open_image(source, limits)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return picture


def jpeg(picture: Image.Image) -> bytes:
    """Return a picture as a JPEG file."""
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def data_uri(picture: Image.Image) -> str:
    """Return a picture as the address of a JPEG that the address itself contains."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture)).decode()
