"""The section of the page that shows queries as pictures, with the results of each row."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from cir_vectorizer.errors import ImageError
from cir_vectorizer.evaluate.page.markup import escaped
from cir_vectorizer.evaluate.report import Example, Report, Shown

MOST_PICTURES = 64
"""Largest number of different pictures in a page."""
MOST_ROWS = 4
MOST_RESULTS = 5
SIDE = 160
"""Longest side of a thumbnail, in pixels."""
_CHECK = (
    '<svg class="check" viewBox="0 0 20 20" aria-hidden="true"><circle cx="10" cy="10" r="10"/>'
    '<path d="M5.5 10.5l3 3 6-7"/></svg>'
)


class Album:
    """Thumbnails of a page: each picture is held once, however often it is shown."""

    def __init__(self) -> None:
        self._symbols: dict[str, str] = {}
        self.pillow = True

    def room_for(self, pictures: Iterable[str]) -> bool:
        """Return whether the page still has room for these pictures."""
        return len(self._symbols.keys() | set(pictures)) <= MOST_PICTURES

    def show(self, shown: Shown) -> str:
        """Return a picture with its caption: framed and checked if it is a right result, gray if it cannot be read."""
        if shown.picture not in self._symbols:
            self._symbols[shown.picture] = self._symbol(shown.picture, len(self._symbols))
        symbol = self._symbols[shown.picture]
        drawn = f'<use href="#p{list(self._symbols).index(shown.picture)}"/>' if symbol else ""
        right = "right result: " if shown.right else ""
        caption = escaped(shown.caption)
        label = f"{right}{caption}" if symbol else f"{right}{caption} (the picture cannot be shown)"
        kind = " ".join(filter(None, ["tile", "right" if shown.right else "", "" if symbol else "gone"]))
        return (
            f'<figure class="{kind}"><svg viewBox="0 0 1 1" role="img" aria-label="{label}">{drawn}</svg>'
            f'{_CHECK if shown.right else ""}<figcaption title="{caption}">{caption}</figcaption></figure>'
        )

    def symbols(self) -> str:
        """Return the pictures themselves, to stand once in the page."""
        return f'<svg class="album" aria-hidden="true"><defs>{"".join(self._symbols.values())}</defs></svg>'

    def _symbol(self, picture: str, number: int) -> str:
        """Return a picture as an SVG image of 1 × 1, "" if it cannot be read."""
        try:
            from cir_vectorizer.pictures.thumbnails import data_uri, thumbnail
        except ImportError:  # the base install has no Pillow
            self.pillow = False
            return ""
        try:
            uri = data_uri(thumbnail(Path(picture), SIDE))
        except (ImageError, ValueError):  # a path with a null character is a ValueError
            return ""
        return f'<image id="p{number}" width="1" height="1" href="{uri}"/>'


def examples(report: Report) -> str:
    """Return queries and what each row found, grouped by verdict; as many as fit into MOST_PICTURES, in turn."""
    groups: dict[str, list[Example]] = {}
    for example in report.examples:
        groups.setdefault(example.verdict, []).append(example)
    album = Album()
    cards: dict[str, list[str]] = {verdict: [] for verdict in groups}
    for turn in zip_longest(*groups.values()):
        for example in turn:
            if example is not None and album.room_for(_pictures(example)):
                cards[example.verdict].append(_card(example, album))
    sections = [
        f"<h3>{escaped(verdict.capitalize())} queries</h3>{''.join(made)}" for verdict, made in cards.items() if made
    ]
    notes = [
        "<p>The reference and the words, then the first results of each row. Right results have a green frame.</p>"
    ]
    left = len(report.examples) - sum(map(len, cards.values()))
    if left:
        notes.append(f"<p>{left:,} more in report.md.</p>")
    if not album.pillow:
        notes.append("<p>Pictures are gray: Pillow is not installed; run pip install 'cir-vectorizer[models]'.</p>")
    return "".join((*notes, album.symbols(), *sections))


def _results(example: Example) -> list[tuple[str, Sequence[Shown]]]:
    return [(row, found[:MOST_RESULTS]) for row, found in list(example.results.items())[:MOST_ROWS]]


def _pictures(example: Example) -> list[str]:
    return [
        each.picture for shown in (example.references, *(found for _, found in _results(example))) for each in shown
    ]


def _card(example: Example, album: Album) -> str:
    references = "".join(album.show(each) for each in example.references)
    rows = "".join(
        f'<div class="found"><h5>{escaped(row)}</h5><div class="strip">'
        f"{''.join(map(album.show, found)) or '<p>nothing found</p>'}</div></div>"
        for row, found in _results(example)
    )
    return (
        f'<article><div class="asked"><div class="references">{references}</div>'
        f"<h4>{escaped(example.text) or '(no words)'}</h4></div><div>{rows}</div></article>"
    )
