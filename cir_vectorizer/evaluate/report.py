"""Reports: rows of figures with intervals, comparisons, curves and examples, as data that is written in three forms.

A command builds a `Report`; `write` writes it as report.json, report.md and report.html into a folder.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate.metrics import Estimate
from cir_vectorizer.files import replace_file

Figures = Mapping[str, Estimate]
"""Figures by name, such as "R@10"."""


@dataclass(frozen=True)
class Row:
    """One composer or setting.

    Attributes:
        name: as shown, for example "lincir" or "best sum, centred".
        settings: what exactly ran: model, composer, options, weights; for the reader and for the record.
        figures: over all queries.
        parts: figures over some of the queries, by the division ("wording", "attribute", "aspect") and the part's name.
        curves: by the figure's name without its k ("R"), points (k, value).
        milliseconds: mean time for composing a query; None if it was not measured.
        ceiling: true for a row that no query can reach, such as the wanted product described in words; it is never marked as
            the best.
        plain: true for a mix of the encoder's own vectors, which needs no trained composer.
    """

    name: str
    settings: Mapping[str, Any]
    figures: Figures
    parts: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    milliseconds: float | None = None
    ceiling: bool = False
    plain: bool = False


@dataclass(frozen=True)
class Comparison:
    """Paired difference of two rows over the same queries, by figure: `row` minus `other`."""

    row: str
    other: str
    differences: Figures


@dataclass(frozen=True)
class Published:
    """A published figure of the same split and setting: percentages as fractions, and where they stand."""

    method: str
    figures: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class Shown:
    """A picture to show: its file or address, a caption, and whether it is a right result (None for a reference)."""

    picture: str
    caption: str
    right: bool | None = None


@dataclass(frozen=True)
class Example:
    """A query, with the first results of some rows.

    Attributes:
        text: the query's words.
        references: its pictures.
        results: first results by row name.
        verdict: "best" or "worst"; of samples, "typical" or "first".
    """

    text: str
    references: Sequence[Shown]
    results: Mapping[str, Sequence[Shown]]
    verdict: str


@dataclass(frozen=True)
class Confusion:
    """Values asked for and values found at rank 1, of one attribute and one row.

    Attributes:
        counts: counts[i][j] is the number of queries that asked for values[i] and found found[j].
    """

    attribute: str
    row: str
    values: Sequence[str]
    found: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Report:
    """An evaluation.

    Attributes:
        title: for example "CIRCO, val" or "catalog qdrant://…/shop".
        summary: sentences for a reader in a hurry: the choice, by how much it is better, what was left out.
        choices: every choice that the figures hang on, as (name, value): split, captions, reference left in or out.
        rows: in the order to show. The figure that the first row names first is the leading one: pages sort and draw by it.
        published: figures of papers on the same split and setting.
        missing: names of pictures that could not be read; the first hundred. `missing_count` counts all.
        lower_is_better: names of figures of which less is better, for example "NegRecall@10".
        samples: queries for a sheet, chosen by a rule that shows no row in a better light than it has on all queries.
    """

    title: str
    summary: Sequence[str]
    choices: Sequence[tuple[str, str]]
    rows: Sequence[Row]
    queries: int
    gallery: int
    comparisons: Sequence[Comparison] = ()
    published: Sequence[Published] = ()
    examples: Sequence[Example] = ()
    confusions: Sequence[Confusion] = ()
    missing: Sequence[str] = ()
    missing_count: int = 0
    lower_is_better: Sequence[str] = ()
    samples: Sequence[Example] = ()

    @property
    def figure_names(self) -> list[str]:
        """Names of the figures of all rows, in the order of the rows: the columns of the main table."""
        return list(dict.fromkeys(name for row in self.rows for name in row.figures))

    def best(self, name: str, part: tuple[str, str] | None = None) -> float | None:
        """Return the best value of a figure among rows that are no ceiling, rounded as it is shown; None if none has it.

        Args:
            part: a division and a part of it; all queries if None.
        """
        chosen = [
            row.figures if part is None else row.parts.get(part[0], {}).get(part[1], {})
            for row in self.rows
            if not row.ceiling
        ]
        values = [round(figures[name].value, 3) for figures in chosen if name in figures]
        return (min if name in self.lower_is_better else max)(values, default=None)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object, with unrounded figures; a number that is not finite becomes null."""
        plain: dict[str, Any] = _plain(self)
        return plain


def write(report: Report, folder: Path) -> None:
    """Write report.json, report.md and report.html; each file is written whole or not at all.

    Pictures are shown in report.html as thumbnails; a picture that cannot be read leaves a gray square.

    Args:
        folder: it is made if it does not exist.

    Raises:
        SourceError: the folder cannot be written.
    """
    from cir_vectorizer.evaluate.markdown import markdown
    from cir_vectorizer.evaluate.page import page

    contents = {
        "report.json": json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n",
        "report.md": markdown(report),
        "report.html": page(report),
    }
    for name, content in contents.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / name, content.encode("utf-8", "replace"))
        except OSError as error:
            cause = error.strerror or error
            raise SourceError(f"the report {folder / name} cannot be written ({cause}); give another folder") from error


def _plain(value: object) -> Any:
    """Return a value as JSON holds it."""
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return [_plain(each) for each in value] if isinstance(value, Sequence) else str(value)
