"""Parts of a sheet: panels, each with a query and with strips of pictures or bars of values beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageOps

SIDE = 200
"""Side of a sheet's square pictures, in pixels."""
COLUMNS = 5
"""Number of tiles in a row."""
INK, SOFT, PAPER, EMPTY, LINE = "#1d1d26", "#5f5f6b", "#ffffff", "#dddddd", "#d0d7de"
RIGHT, MARK = "#1f9d61", "#5b3df5"
"""Colours of wanted results, and of what is to be looked at."""


@dataclass(frozen=True)
class Tile:
    """A square picture with lines of text below it, the first of which is its caption; and whether it is a wanted one."""

    picture: Image.Image
    lines: Sequence[str] = ()
    right: bool = False


@dataclass(frozen=True)
class Strip:
    """Tiles under a title, in rows of five: a ranking. A marked strip is the one to look at."""

    title: str
    tiles: Sequence[Tile]
    marked: bool = False


@dataclass(frozen=True)
class Bars:
    """Named values under a title, drawn as bars; the longest one is the largest value."""

    title: str
    values: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Panel:
    """A query (its pictures and its words) beside strips and bars."""

    pictures: Sequence[Tile]
    words: str
    blocks: Sequence[Strip | Bars]


@dataclass(frozen=True)
class Sheet:
    """Panels, one below the other, with a title for the page and a note at the end."""

    title: str
    panels: Sequence[Panel]
    note: str = ""


def square(picture: Image.Image | None) -> Image.Image:
    """Return a picture as a square of SIDE pixels with nothing cut off; a gray one if there is no picture."""
    if picture is None:
        return Image.new("RGB", (SIDE, SIDE), EMPTY)
    return ImageOps.pad(picture.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS, color=PAPER)
