"""Picture sheets: of one search with its results, or with what explains them; and of a report's queries.

Result pictures are read from the places that sync recorded, or that a column names: paths of this machine, and URLs.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from cir_vectorizer.cli.explained import BOTH, Explained, picture_name
from cir_vectorizer.collections import Hit, place_of
from cir_vectorizer.errors import ImageError
from cir_vectorizer.evaluate.report import Example, Report, Shown
from cir_vectorizer.evaluate.sentences import percent
from cir_vectorizer.pictures.images import open_image
from cir_vectorizer.query.encoded import DEFAULT_LIMITS
from cir_vectorizer.sheets import Bars, Panel, Sheet, Strip, Tile, square
from cir_vectorizer.sheets.parts import COLUMNS
from cir_vectorizer.sources import Web
from cir_vectorizer.sources.places import Places

_READERS = 8
_MOST_ROWS = 4


def search_sheet(
    references: Sequence[tuple[Any, str]],
    text: str,
    hits: Sequence[Hit],
    places: Places,
    picture_column: str | None = None,
) -> Sheet:
    """Return the sheet of a search.

    Args:
        references: the places of the query's pictures, each with a caption; None leaves a gray square.
        text: the query's words, or "".
        hits: results, the best first. A picture that is gone leaves a gray square.
        places: finds the pictures.
        picture_column: the column that names the picture of an object without sync's record.
    """
    found = [place_of(hit.payload, picture_column) for hit in hits]
    pictures = squares([*(place for place, _ in references), *found], places)
    asked = [Tile(picture, (words,)) for picture, (_, words) in zip(pictures, references, strict=False)]
    captions = [f"{hit.score:.3f}  {name_of(place) or hit.id}" for hit, place in zip(hits, found, strict=True)]
    results = [
        Tile(picture, (caption, *_lines(hit)))
        for picture, caption, hit in zip(pictures[len(references) :], captions, hits, strict=True)
    ]
    return Sheet(text or "(no words)", [Panel(asked, text, [Strip("", results)])])


def explained_sheet(
    asked: Sequence[tuple[Any, str]],
    text: str,
    explained: Explained,
    places: Places,
    picture_column: str | None = None,
) -> Sheet:
    """Return the sheet of a search that was taken apart; see `search_sheet`.

    Results of both say their places by the picture alone and by the words alone, and these say their places by both. A
    place such as "no. > 5" is beyond the first results that have one.
    """
    blocks: list[Strip | Bars] = [
        Bars(f"Words nearest to {picture_name(number, len(explained.pictures))}", words)
        for number, words in enumerate(explained.pictures)
        if words
    ]
    if explained.moves:
        blocks.append(Bars("What moves the query", explained.moves))
    for name, hits in explained.rankings.items():
        found = [place_of(hit.payload, picture_column) for hit in hits]
        tiles = []
        for hit, place, picture in zip(hits, found, squares(found, places), strict=True):
            lines = [name_of(place) or str(hit.id)]
            for other in explained.rankings if name == BOTH else (BOTH,):
                if other != name and (ranks := explained.ranks[other]):
                    lines.append(f"{other.removesuffix(' alone')} no. {ranks.get(hit.id, f'> {len(ranks):,}')}")
            lines += [f"{signal} {value:.2f}" for signal, value in hit.signals.items()] if name == BOTH else []
            tiles.append(Tile(picture, lines))
        composer = f" ({explained.composer})" if name == BOTH and explained.composer else ""
        blocks.append(Strip(name.capitalize() + composer, tiles, marked=name == BOTH))
    pictures = squares([place for place, _ in asked], places)
    shown = [Tile(picture, (words,)) for picture, (_, words) in zip(pictures, asked, strict=True)]
    return Sheet(text or "(no words)", [Panel(shown, text, blocks)])


def report_sheet(report: Report) -> Sheet:
    """Return the sheet of a report's samples; right results are framed, and the last row is the marked one."""
    figures = {row.name: row.figures["R@1"].value for row in report.rows}
    shown = list(dict.fromkeys(name for each in report.samples for name in each.results))[:_MOST_ROWS]
    shares = "; ".join(f"{name}: {percent(figures[name])} %" for name in shown)
    note = f"Framed: right answers. Queries whose first result is right, of {report.queries:,}: {shares}."
    titles = {
        row.name: f"Plain CLIP: {row.name}" if row.plain else row.name for row in report.rows if row.name in shown
    }
    return Sheet(report.title, [_panel(each, {name: titles[name] for name in shown}) for each in report.samples], note)


def _panel(sample: Example, titles: Mapping[str, str]) -> Panel:
    last = list(titles)[-1] if len(titles) > 1 else ""
    strips = [
        Strip(title, _tiles(sample.results[name][:COLUMNS]), marked=name == last) for name, title in titles.items()
    ]
    return Panel(_tiles(sample.references), f"“{sample.text}”" if sample.text else "", strips)


def _tiles(shown: Sequence[Shown]) -> list[Tile]:
    pictures = squares([each.picture for each in shown], Places(os.getcwd(), Web(False)))
    return [Tile(picture, (), bool(each.right)) for picture, each in zip(pictures, shown, strict=True)]


def squares(found: Iterable[Any], places: Places) -> list[Image.Image]:
    """Return the pictures at these places as squares, gray where none can be read."""
    with ThreadPoolExecutor(_READERS, "cir-read") as readers:
        return list(readers.map(lambda place: _square(place, places), found))


def name_of(place: Any) -> str:
    """Return the last part of a path or URL; "" if it has none."""
    return place.partition("?")[0].rstrip("/").rpartition("/")[2][:100] if isinstance(place, str) else ""


def _lines(hit: Hit) -> tuple[str, ...]:
    """Return the signals of a hit, two in a line; nothing if its score is the cosine to its picture."""
    if set(hit.signals) <= {"picture"}:
        return ()
    said = [f"{name} {value:.2f}" for name, value in hit.signals.items()]
    return tuple(", ".join(said[at : at + 2]) for at in range(0, len(said), 2))


def _square(place: Any, places: Places) -> Image.Image:
    try:
        return square(open_image(places.picture(place)[0].read(DEFAULT_LIMITS)))
    except (ImageError, OSError, ValueError):
        return square(None)
