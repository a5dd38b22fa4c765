"""The picture sheet of a report: some of its queries, and the first results of each row."""

import os
from collections.abc import Mapping, Sequence

from cir_vectorizer.cli.sheet import squares
from cir_vectorizer.evaluate.report import Example, Report, Shown
from cir_vectorizer.evaluate.sentences import percent
from cir_vectorizer.sheets import Panel, Sheet, Strip, Tile
from cir_vectorizer.sheets.parts import COLUMNS
from cir_vectorizer.sources import Web
from cir_vectorizer.sources.places import Places

_MOST_ROWS = 4


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
