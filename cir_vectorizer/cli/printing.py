"""Printing of results: a terminal whose lines are not wrapped in a pipe, and the table of a search's hits."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cir_vectorizer.collections import Hit


def terminal() -> "Console":
    """Return standard output as a terminal; in a pipe, no line is wrapped."""
    from rich.console import Console

    console = Console(file=sys.stdout, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    return console


def hits_table(hits: "Sequence[Hit]", first: int = 1, beside: Mapping[str, Sequence[str]] | None = None) -> "Table":
    """Return a table of hits, the best first: place, score, signals and the user's columns.

    Args:
        first: the place of the first hit.
        beside: further columns behind the score, by title, with a cell for each hit.
    """
    from rich.table import Table

    from cir_vectorizer.collections import shown_columns

    beside = beside or {}
    payloads = [shown_columns(hit.payload) for hit in hits]
    columns = list(dict.fromkeys(key for payload in payloads for key in payload))
    signals = list(dict.fromkeys(name for hit in hits for name in hit.signals))
    signals = signals if signals != ["picture"] else []  # else it is the score itself
    table = Table("", "score", *beside, *signals, *columns, box=None)
    for number, (hit, payload) in enumerate(zip(hits, payloads, strict=True)):
        cells = [given[number] for given in beside.values()]
        cells += [f"{hit.signals[name]:.3f}" if name in hit.signals else "" for name in signals]
        cells += [str(payload.get(column, "")) for column in columns]
        table.add_row(str(first + number), f"{hit.score:.4f}", *cells)
    return table
