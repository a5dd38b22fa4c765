"""Attributes of a catalog: the columns whose values queries change, or kinds of words that captions hold.

A value of an attribute stands in every object's row; None means that nothing is known. Attributes come from columns, or,
where a catalog has captions alone, from an entry point of the group `cir_vectorizer.catalog_words`, which also knows the role
that a column's values have in a sentence. The trainer brings one.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cir_vectorizer import extras
from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate.catalog.objects import Objects
from cir_vectorizer.sources.types import UNKNOWN

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer

ENTRY_POINTS = "cir_vectorizer.catalog_words"
MOST_VALUES, LEAST_OBJECTS = 200, 5
"""Largest number of values of an attribute, and smallest mean number of objects that share one."""
MOST_ATTRIBUTES = 4
LEAST_AGREEMENT, LEAST_OF_OTHERS = 0.1, 0.25
"""Smallest agreement (Cohen's kappa) of an attribute's values with those that the model tells from the pictures: for attributes
that a picture shows by their role (colours, types, …), and for others, such as seasons."""
_DETERMINED = 0.98
_SAMPLE = 3000
_NUMBER = re.compile(r"[\d\W]+")


@dataclass(frozen=True)
class Attribute:
    """An attribute of the objects.

    Attributes:
        name: the column's name, or the commonest values of a kind of words.
        role: role of its values in a sentence: "colour", "pattern", "noun", "audience", "part" or "adjective".
        values: value of each object, in words ("long sleeves"); None where it is unknown.
        absent: values that say that there is nothing, such as "plain".
    """

    name: str
    role: str
    values: Sequence[str | None]
    absent: frozenset[str] = frozenset()

    @property
    def counts(self) -> Counter[str]:
        """Number of objects by value."""
        return Counter(value for value in self.values if value is not None)


class CatalogWords(Protocol):
    """Knowledge of a language's product words; `load()` of an entry point returns a function (language) -> CatalogWords."""

    def role(self, column: str, values: Sequence[str]) -> str:
        """Return the role of a column's values."""

    def absent(self, values: Sequence[str]) -> frozenset[str]:
        """Return those of the values that say that there is nothing, such as "plain"."""

    def attributes(self, captions: Sequence[str]) -> list[Attribute]:
        """Return the kinds of words of the captions as attributes, the most frequent first."""


@dataclass
class Found:
    """Attributes that were found; `notes` name those that were left out, with the reason."""

    attributes: list[Attribute]
    captions: str | None = None
    """Column of captions that the attributes were read from; None if they are columns."""
    notes: list[str] = field(default_factory=list)


def catalog_words(language: str) -> CatalogWords:
    """Return the knowledge of a language that an installed package brings.

    Raises:
        SourceError: no package brings one, or it does not know the language.
    """
    points = extras.plugins(ENTRY_POINTS)
    if not points:
        raise SourceError("no package that knows product words is installed; install cir-vectorizer as a whole")
    words: CatalogWords = next(iter(points.values())).load()(language)
    return words


def attributes_of(
    objects: Objects, words: CatalogWords, named: Sequence[str] = (), captions: str | None = None
) -> Found:
    """Return the attributes of a catalog.

    Args:
        named: columns to use; chosen from the data if there are none.
        captions: column of captions to read attributes from instead.

    Raises:
        SourceError: a column does not exist or has no usable values, or no attributes can be found.
    """
    columns = _columns(objects.columns)
    for name in (*named, *([captions] if captions else [])):
        if name not in columns:
            there = any(name in each for each in objects.columns)
            problem = f"column {name!r} holds no texts" if there else f"the collection has no column {name!r}"
            raise SourceError(f"{problem}; its columns of text are {', '.join(columns) or 'none'}")
    if captions is not None:
        return _from_captions(columns[captions], captions, words)
    found = Found([])
    if named:
        for name in named:
            attribute = _attribute(name, columns[name], words)
            if sum(count >= LEAST_OBJECTS for count in attribute.counts.values()) < 2:
                raise SourceError(
                    f"column {name!r} has fewer than two values in words that {LEAST_OBJECTS} objects share, so none can change; "
                    "name another"
                )
            found.attributes.append(attribute)
        return found
    found.attributes = _usable(columns, words, found.notes)
    if found.attributes:
        return found
    column = caption_column(columns)
    if column is None:
        raise SourceError(
            "the collection has no columns of attributes (a colour, a type, …) and none of captions, so no queries with known "
            "answers can be made; sync a table with such columns, or judge queries of your own with `evaluate queries`"
        )
    return _from_captions(columns[column], column, words)


def visible(
    found: Found,
    objects: Objects,
    vectorizer: "Vectorizer",
    describe: Callable[[str, str], str],
    keep_all: bool = False,
) -> None:
    """Order attributes by how well the model tells their values from the pictures, and leave out those that it can't tell.

    What no picture shows (a season, a usage) would make every composer look bad alike.

    Args:
        found: its attributes are replaced, and sentences added.
        describe: puts a value and its role into words, for example "a photo of a red".
        keep_all: leave none out; only note those that are hard to tell.

    Raises:
        SourceError: none is left.
    """
    told = [(_agreement(each, objects, vectorizer, describe), each) for each in found.attributes]
    kept: list[Attribute] = []
    hidden: list[str] = []
    for kappa, attribute in sorted(told, key=lambda each: -each[0]):
        name = f"{attribute.name!r} (agreement of words and pictures {kappa:.2f})"
        if not keep_all and kappa < (LEAST_OF_OTHERS if attribute.role == "adjective" else LEAST_AGREEMENT):
            hidden.append(name)
            found.notes.append(f"{name}: the model cannot tell its values from the pictures")
        elif not keep_all and len(kept) == MOST_ATTRIBUTES:
            found.notes.append(f"{name}: {MOST_ATTRIBUTES} attributes are enough")
        else:
            kept.append(attribute)
    if not kept:
        raise SourceError(
            f"the model cannot tell any attribute's values from the pictures: {', '.join(hidden)}; use a model that knows such "
            "pictures, or name columns with --attributes"
        )
    found.attributes = kept


def _agreement(
    attribute: Attribute, objects: Objects, vectorizer: "Vectorizer", describe: Callable[[str, str], str]
) -> float:
    """Return Cohen's kappa of the attribute's values with those whose words are nearest to the pictures."""
    values = sorted(attribute.counts)
    number = {value: at for at, value in enumerate(values)}
    rows = [row for row, value in enumerate(attribute.values) if value is not None][:: max(1, len(objects) // _SAMPLE)]
    true = np.array([number[attribute.values[row] or ""] for row in rows])
    texts = vectorizer.embed_texts([describe(value, attribute.role) for value in values])
    similarity = objects.vectors[rows] @ texts.T
    # a text that is near to all pictures alike is no evidence
    told = (similarity - similarity.mean(axis=0)).argmax(axis=1)
    shares = [np.bincount(each, minlength=len(values)) / len(rows) for each in (true, told)]
    chance = float(shares[0] @ shares[1])
    return (float((true == told).mean()) - chance) / max(1 - chance, 1e-9)


def _columns(payloads: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """Return the columns that hold texts, (objects,) each; in other types and in lists nothing is known."""
    names = dict.fromkeys(name for payload in payloads for name, value in payload.items() if isinstance(value, str))
    return {
        name: [value if isinstance(value := payload.get(name), str) else None for payload in payloads] for name in names
    }


def _in_words(cell: str | None) -> str | None:
    """Return a cell as it is said: lower case, "_" as a space; None for an empty one or a number."""
    value = " ".join((cell or "").replace("_", " ").lower().split())
    return None if value in UNKNOWN or _NUMBER.fullmatch(value) else value


def _attribute(name: str, cells: Sequence[str | None], words: CatalogWords) -> Attribute:
    values = [_in_words(cell) for cell in cells]
    commonest = [value for value, _ in Counter(filter(None, values)).most_common()]
    return Attribute(name, words.role(name, commonest), values, words.absent(commonest))


def _usable(columns: Mapping[str, Sequence[str | None]], words: CatalogWords, notes: list[str]) -> list[Attribute]:
    """Return the columns whose values many objects share, without those that another one determines."""
    usable = []
    for name, cells in columns.items():
        attribute = _attribute(name, cells, words)
        counts = attribute.counts
        if 2 <= len(counts) <= MOST_VALUES and counts.total() >= max(LEAST_OBJECTS * len(counts), len(cells) / 5):
            usable.append(attribute)
    kept = []
    for attribute in usable:
        finer = next((other for other in usable if other is not attribute and _determines(other, attribute)), None)
        if finer is None:
            kept.append(attribute)
        else:
            notes.append(f"column {attribute.name!r}: {finer.name!r} determines it")
    return kept


def _determines(finer: Attribute, coarser: Attribute) -> bool:
    """Tell whether each value of one attribute goes with one value of the other, but for a few objects."""
    if len(finer.counts) <= len(coarser.counts):
        return False
    pairs = Counter(
        (one, other)
        for one, other in zip(finer.values, coarser.values, strict=True)
        if one is not None and other is not None
    )
    largest: dict[str, int] = {}
    for (one, _), count in pairs.items():
        largest[one] = max(largest.get(one, 0), count)
    return sum(largest.values()) >= _DETERMINED * max(pairs.total(), 1)


def caption_column(columns: Mapping[str, Sequence[str | None]]) -> str | None:
    """Return the column that reads most like captions: mostly different texts of at least three words; None if there is none."""
    best, longest = None, 0.0
    for name, cells in columns.items():
        texts = [cell for cell in cells if cell]
        if len(texts) < len(cells) / 2 or len(set(texts)) < len(texts) / 3:
            continue
        mean = float(np.mean([len(text.split()) for text in texts]))
        if mean >= 3 and mean > longest and not any("://" in text for text in texts[:20]):
            best, longest = name, mean
    return best


def _from_captions(cells: Sequence[str | None], column: str, words: CatalogWords) -> Found:
    found = words.attributes([cell or "" for cell in cells])
    if not found:
        raise SourceError(
            f"no words of column {column!r} take each other's place (as colours do), so no queries with known answers can be "
            "made of its captions; name columns of attributes with --attributes"
        )
    return Found(found, column)
