"""Reports: rows of figures with intervals, comparisons, curves and examples, as data that is written in three forms.

A command builds a `Report`; `write` writes it as report.json, report.md and report.html into a folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cir_vectorizer.evaluate.metrics import Estimate

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
    """

    name: str
    settings: Mapping[str, Any]
    figures: Figures
    parts: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    milliseconds: float | None = None


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
        verdict: "best" or "worst".
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
        rows: in the order to show; the first figure names of the first row are the table's columns.
        published: figures of papers on the same split and setting.
        missing: names of pictures that could not be read; the first hundred. `missing_count` counts all.
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

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object, with unrounded figures."""
        return asdict(self)


def write(report: Report, folder: Path) -> None:
    """Write report.json, report.md and report.html; each file is written whole or not at all.

    Raises:
        SourceError: the folder cannot be written.
    """
    raise NotImplementedError
