"""Guesses which column of another program's objects names their pictures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cir_vectorizer.collections import RECORD_KEY, Payload, picture_cell
from cir_vectorizer.sources.base import is_picture
from cir_vectorizer.sources.cells import IMAGE_COLUMNS
from cir_vectorizer.sources.pictures import is_url


def guess_columns(payloads: Sequence[Payload]) -> list[str]:
    """Return the columns that may name pictures, the likeliest first, each as `picture_cell` takes it.

    Their values are URLs, or paths that end like a picture's. Columns with the usual names come first, in the order of
    `IMAGE_COLUMNS`; then those whose values end like a picture's.
    """
    found = {name for payload in payloads for name in _texts(payload)}
    ranked = []
    for name in found:
        cells = [cell for payload in payloads if isinstance(cell := picture_cell(payload, name), str) and cell]
        endings = sum(is_picture(cell.partition("?")[0]) for cell in cells)
        if endings < len(cells) and not all(is_url(cell) for cell in cells):
            continue
        word = name.rpartition(".")[2].lower()
        usual = IMAGE_COLUMNS.index(word) if word in IMAGE_COLUMNS else len(IMAGE_COLUMNS)
        ranked.append((usual, -endings, name))
    return [name for *_, name in sorted(ranked)]


def _texts(payload: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the names of columns that hold a text, or a list of texts."""
    for key, value in payload.items():
        if key == RECORD_KEY or (above and not key.isidentifier()):
            continue
        if isinstance(value, Mapping) and key.isidentifier():
            yield from _texts(value, f"{above}{key}.")
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str) and first:
            yield f"{above}{key}"
