"""A picture sheet of one search: the query's pictures and words, then the results, as PNG or as one HTML file.

Result pictures are read from the places that sync recorded, or that a column names: paths of this machine, and URLs.
"""

import html
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from cir_vectorizer.collections import Hit, place_of
from cir_vectorizer.errors import ImageError, SourceError
from cir_vectorizer.files import replace_file
from cir_vectorizer.pictures.images import open_image
from cir_vectorizer.pictures.thumbnails import data_uri
from cir_vectorizer.query.encoded import DEFAULT_LIMITS
from cir_vectorizer.sources.places import Places

THUMBNAIL = 200
"""Side of a thumbnail's square, in pixels."""
COLUMNS = 5
_READERS = 8
_MARGIN, _LINE = 12, 20
_INK, _SOFT, _PAPER, _EMPTY = "#222222", "#666666", "#ffffff", "#dddddd"


@dataclass(frozen=True)
class _Cell:
    """A picture with its caption, and below it the lines that say what each signal of a result gave."""

    picture: Image.Image
    caption: str
    signals: tuple[str, ...] = ()


def write_sheet(
    out: Path,
    references: Sequence[tuple[Any, str]],
    text: str,
    hits: Sequence[Hit],
    places: Places,
    picture_column: str | None = None,
) -> None:
    """Write a sheet; the file is written whole or not at all.

    Args:
        out: ends in .png or .html (self-contained, thumbnails inside).
        references: the places of the query's pictures, each with a caption; None leaves a gray square.
        text: the query's words, or "".
        hits: results, the best first. A picture that is gone leaves a gray square.
        places: finds the pictures.
        picture_column: the column that names the picture of an object without sync's record.

    Raises:
        SourceError: `out` cannot be written.
    """
    found = [place_of(hit.payload, picture_column) for hit in hits]
    captions = [f"{hit.score:.3f}  {name_of(place) or hit.id}" for hit, place in zip(hits, found, strict=True)]
    with ThreadPoolExecutor(_READERS, "cir-read") as readers:
        every = [place for place, _ in references] + found
        pictures = list(readers.map(lambda place: _thumbnail(place, places), every))
    queries = [_Cell(picture, words) for picture, (_, words) in zip(pictures, references, strict=False)]
    lines = (_lines(hit) for hit in hits)
    results = [_Cell(*each) for each in zip(pictures[len(queries) :], captions, lines, strict=True)]
    content = _html(queries, text, results) if out.suffix.lower() == ".html" else _png(queries, text, results)
    try:
        replace_file(out, content)
    except OSError as error:
        cause = error.strerror or error
        raise SourceError(f"the sheet {out} cannot be written ({cause}); give another place") from error


def name_of(place: Any) -> str:
    """Return the last part of a path or URL; "" if it has none."""
    return place.partition("?")[0].rstrip("/").rpartition("/")[2][:100] if isinstance(place, str) else ""


def _lines(hit: Hit) -> tuple[str, ...]:
    """Return the signals of a hit, two in a line; nothing if its score is the cosine to its picture."""
    if set(hit.signals) <= {"picture"}:
        return ()
    said = [f"{name} {value:.2f}" for name, value in hit.signals.items()]
    return tuple(", ".join(said[at : at + 2]) for at in range(0, len(said), 2))


def _thumbnail(place: Any, places: Places) -> Image.Image:
    """Return a square picture of THUMBNAIL pixels, gray if the picture cannot be read."""
    try:
        content = places.picture(place)[0].read(DEFAULT_LIMITS)
        return ImageOps.pad(open_image(content), (THUMBNAIL, THUMBNAIL), color=_PAPER)
    except (ImageError, OSError, ValueError):
        return Image.new("RGB", (THUMBNAIL, THUMBNAIL), _EMPTY)


def _png(queries: Sequence[_Cell], text: str, results: Sequence[_Cell]) -> bytes:
    def rows(cells: Sequence[_Cell]) -> int:
        return -(-len(cells) // COLUMNS)

    step = THUMBNAIL + _MARGIN
    head = _LINE + 2 * _MARGIN
    query_height = step + _LINE
    result_height = query_height + _LINE * max((len(cell.signals) for cell in results), default=0)
    line = head + rows(queries) * query_height
    height = line + _MARGIN + rows(results) * result_height
    sheet = Image.new("RGB", (COLUMNS * step + _MARGIN, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    draw.text((_MARGIN, _MARGIN), _fitting(text or "(no words)", font, sheet.width - 2 * _MARGIN), _INK, font)

    def paste(cells: Sequence[_Cell], top: int, row_height: int) -> None:
        for i, cell in enumerate(cells):
            x, y = _MARGIN + i % COLUMNS * step, top + i // COLUMNS * row_height
            sheet.paste(cell.picture, (x, y))
            for k, words in enumerate((cell.caption, *cell.signals)):
                below = y + THUMBNAIL + 2 + k * _LINE
                draw.text((x, below), _fitting(words, font, THUMBNAIL), _SOFT if k else _INK, font)

    paste(queries, head, query_height)
    draw.line([(_MARGIN, line), (sheet.width - _MARGIN, line)], _INK)
    paste(results, line + _MARGIN, result_height)
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Return the text, cut so that it is no wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _html(queries: Sequence[_Cell], text: str, results: Sequence[_Cell]) -> bytes:
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(text or "search")}</title>
<style>
body {{ font: 15px system-ui, sans-serif; color: {_INK}; background: {_PAPER}; margin: 2em; }}
section {{ display: flex; flex-wrap: wrap; gap: 12px; margin: 1em 0 2em; }}
figure {{ margin: 0; width: {THUMBNAIL}px; }}
figcaption {{ overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
small {{ display: block; color: {_SOFT}; }}
</style>
<h1>{html.escape(text or "(no words)")}</h1>
<section>{_figures(queries)}</section>
<section>{_figures(results)}</section>
</html>
"""
    return page.encode()


def _figures(cells: Sequence[_Cell]) -> str:
    return "\n".join(
        f'<figure><img width="{THUMBNAIL}" height="{THUMBNAIL}" alt="" src="{data_uri(cell.picture)}">'
        f'<figcaption title="{html.escape(cell.caption)}">{html.escape(cell.caption)}</figcaption>'
        f"{''.join(f'<small>{line}</small>' for line in cell.signals)}</figure>"
        for cell in cells
    )
