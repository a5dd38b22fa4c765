"""Triplets from a catalog: pairs of products that differ in some attributes, and a text that names the difference.

Every product is a tuple of attribute values. Two products that agree in all attributes but one (sometimes two) become a
reference and a target, and the differing values become a text: "in red instead of blue". Some texts do not say the new
value ("in a different colour"). Two products that both lack an attribute agree in it; no text names a missing value.

The wordings of the demo's queries ("is red", "comes in red", "has a striped pattern", …) are left out, so that a model
trained on these triplets is measured with words that it has not seen.
"""

import hashlib
import os
import posixpath
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from cir_vectorizer.errors import SourceError
from cir_vectorizer.sources.amounts import is_number
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sources.cells import IMAGE_COLUMNS
from cir_vectorizer.sources.pictures import is_url
from cir_vectorizer.sources.rows import Rows, table_rows
from cir_vectorizer.sources.types import NONE
from cir_vectorizer_trainer.captions.reading import clean
from cir_vectorizer_trainer.compodiff.tables import choose_columns
from cir_vectorizer_trainer.writing import write_table

MOST_VALUES = 200
"""Largest number of different values in a column that is guessed to be an attribute."""
MISSING = ""
"""Value of an attribute that a product lacks."""
TWO_SHARE, OPEN_SHARE = 0.2, 0.1
"""Shares of the triplets that differ in two attributes, and that do not say the new value."""
MOST_PAIRS = 10
"""Largest number of pairs of attributes that may differ together: each takes about 16 bytes a product."""
COLUMNS = ("reference", "text", "target")
_TRIES = 20
_DATE = re.compile(r"(\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./](\d{2}|\d{4}))([t ,].*)?", re.ASCII)
_STATES = frozenset(
    "true false yes no y n on off active inactive draft archived published unpublished enabled disabled visible hidden "
    "public private available unavailable instock outofstock onbackorder".split()
) | {"in stock", "out of stock", "sold out", "in_stock", "out_of_stock", "on backorder", "preorder", "backorder"}
"""Truth values, and the states of a product in a shop, which no picture shows."""

_PLAIN = ("{n} instead of {o}", "{n}, not {o}", "{n} rather than {o}", "the same but {n}", "the same, only {n}",
          "change the {a} to {n}", "make it {n}", "{a}: {n}", "with {n} as its {a}", "{n}, everything else as it is")  # fmt: skip
_WEARABLE = ("in {n} instead of {o}", "in {n}, not in {o}", "the same in {n}", "this one in {n}")
_NOUNS = ("{n_a} {n} instead of {o_a} {o}", "{n_a} {n} like this", "turn it into {n_a} {n}", "the same as {n_a} {n}",
          "the same look on {n_a} {n}", "{n_a} {n}, not {o_a} {o}", "change the {a} to {n}")  # fmt: skip
_OPEN = ("in a different {a}", "in another {a}", "another {a}", "a different {a}", "with another {a}", "any other {a}",
         "not this {a}", "change the {a}")  # fmt: skip
_COLOUR_WORDS = frozenset("colour color shade tone material fabric size".split())
_NOUN_WORDS = frozenset("category type kind product item class article garment".split())


@dataclass(frozen=True)
class Triplet:
    """A training triplet: the numbers of the reference and target products in the catalog, and the text."""

    reference: int
    text: str
    target: int


@dataclass(frozen=True)
class Catalog:
    """Products with their attributes, by number.

    Attributes:
        columns: names of the attributes.
        images: each product's picture, as written in the table.
        values: different values of each attribute; the first is `MISSING`.
        codes: (products, attributes) index of each product's value.
        left_out: number of rows without a picture, or damaged.
        ignored: kind of values by column, for columns that were not taken for attributes because of it.
        notes: sentences about the table as a whole.
    """

    columns: list[str]
    images: list[str]
    values: list[list[str]]
    codes: npt.NDArray[np.int32]
    left_out: int
    ignored: dict[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @classmethod
    def read(cls, path: Path, columns: Sequence[str] = (), image_column: str | None = None) -> "Catalog":
        """Read a table of products.

        Args:
            columns: the attributes; if empty, every column with 2 to `MOST_VALUES` different values that repeat, except numbers, dates,
                truth values and states such as "draft".
            image_column: guessed by its name if None.

        Raises:
            SourceError: the table cannot be read, or has no such column, no picture or no attribute.
        """
        rows = table_rows(path)
        there = rows.columns()
        given = [image_column] if image_column else []
        image = choose_columns(str(path), there, {"image": IMAGE_COLUMNS}, "--image-column", given)["image"]
        if missing := [name for name in columns if name not in there]:
            raise SourceError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(there)}")
        if image in columns:
            raise SourceError(
                f"{path}: column {image!r} holds the pictures and is no attribute; drop it from --columns"
            )
        wanted = list(dict.fromkeys(columns)) or [name for name in there if name != image]
        catalog = cls._of(rows, image, wanted, guess=not columns)
        if not catalog.images:
            raise SourceError(f"{path} names no picture in column {image!r}; name another with --image-column")
        if not catalog.columns:
            raise SourceError(
                f"{path} has no column that is clearly an attribute; name them with --columns: {', '.join(there)}"
            )
        return catalog

    @classmethod
    def _of(cls, rows: Rows, image: str, columns: Sequence[str], guess: bool) -> "Catalog":
        images: list[str] = []
        left_out = 0
        codes = {name: array("i") for name in columns}
        values = {name: {MISSING: 0} for name in columns}
        for _, row in rows:
            picture = None if isinstance(row, Failure) else row.get(image)
            if isinstance(row, Failure) or not isinstance(picture, str) or not picture or picture.startswith("data:"):
                left_out += 1
                continue
            images.append(picture)
            for name in list(codes):
                known = values[name]
                codes[name].append(known.setdefault(_value(row.get(name)), len(known)))
                if guess and len(known) > MOST_VALUES + 1:
                    del codes[name]
        ignored: dict[str, str] = {}
        if guess:
            repeats = [name for name in codes if 2 < len(values[name]) <= 1 + len(images) // 2]
            kinds = {name: _kind([*values[name]][1:]) for name in repeats}
            ignored = {name: kind for name, kind in kinds.items() if kind}
            codes = {name: codes[name] for name in repeats if name not in ignored}
        table = np.array([codes[name] for name in codes], np.int32).reshape(len(codes), len(images)).T
        known_values = [list(values[name]) for name in codes]
        return cls(list(codes), images, known_values, np.ascontiguousarray(table), left_out, ignored, rows.notes)


def _value(cell: Any) -> str:
    """Return a cell's value as texts name it; lists and objects count as missing."""
    return clean(str(cell)).lower() if isinstance(cell, str | int | float) and cell not in NONE else MISSING


def _kind(values: Sequence[str]) -> str | None:
    """Return what most values of a column are, if that is nothing which a picture shows; None for words."""
    tests: dict[str, Callable[[str], object]] = {
        "numbers": is_number,
        "dates": _DATE.fullmatch,
        "truth values or states": _STATES.__contains__,
    }
    return next(
        (name for name, test in tests.items() if 2 * sum(bool(test(each)) for each in values) > len(values)), None
    )


class _Neighbours:
    """Attribute tuples, grouped by all attributes except the `differing` ones, none of which they lack.

    Attributes:
        movable: tuples that may have a neighbour, which differs in all of those; empty only if no tuple has one.
    """

    def __init__(self, tuples: npt.NDArray[np.int32], differing: Sequence[int]) -> None:
        self._values = tuples[:, differing]
        named = np.flatnonzero((self._values > 0).all(axis=1))
        group = _numbered(np.delete(tuples, differing, axis=1)[named])
        count = int(group.max()) + 1 if len(group) else 0
        differs = np.ones(count, bool)
        for column in self._values[named].T:
            least, most = np.full(count, np.iinfo(np.int32).max), np.zeros(count, np.int32)
            np.minimum.at(least, group, column)
            np.maximum.at(most, group, column)
            differs &= least < most
        self._order = named[np.argsort(group, kind="stable")].astype(np.int32)
        self._start = np.searchsorted(np.sort(group), np.arange(count + 1))
        self._group = np.full(len(tuples), -1, np.int32)
        self._group[named] = group
        self.movable = named[differs[group]].astype(np.int32)

    def pick(self, number: int, random: Random) -> int | None:
        """Draw a tuple that differs from this one in all of the attributes; None if `_TRIES` draws find none."""
        group = self._group[number]
        for _ in range(_TRIES):
            found = int(self._order[random.randrange(self._start[group], self._start[group + 1])])
            if (self._values[found] != self._values[number]).all():
                return found
        return None


def _numbered(table: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Number the rows of a table from 0 without gaps; equal rows get the same number."""
    numbers = np.zeros(len(table), np.int64)
    for column in table.T:
        numbers = np.unique(numbers * (int(column.max(initial=0)) + 1) + column, return_inverse=True)[1].reshape(-1)
    return numbers


class TripletMaker:
    """Draws triplets from a catalog; the same seed draws the same triplets.

    Raises:
        SourceError: no two products differ in one or two attributes and agree in the others.
    """

    def __init__(self, catalog: Catalog, seed: int = 0) -> None:
        self._catalog = catalog
        self._random = Random(f"triplets/{seed}")
        tuple_of = _numbered(catalog.codes)
        self._products = np.argsort(tuple_of, kind="stable").astype(np.int32)
        self._start = np.searchsorted(tuple_of[self._products], np.arange(tuple_of.max() + 2))
        self._tuples = catalog.codes[self._products[self._start[:-1]]]
        attributes = range(len(catalog.columns))
        self._one = self._useful((each,) for each in attributes)
        pairs = list(combinations(attributes, 2))
        self._two = self._useful(self._random.sample(pairs, min(MOST_PAIRS, len(pairs))))
        if not self._one and not self._two:
            raise SourceError(
                f"no two products differ in one or two of {', '.join(catalog.columns)} and agree in the others; "
                "name fewer attributes with --columns"
            )

    @property
    def useful(self) -> list[str]:
        """Attributes that differ, alone or with another one, between products that agree in all others."""
        found = {each for differing, _ in (*self._one, *self._two) for each in differing}
        return [self._catalog.columns[each] for each in sorted(found)]

    def draw(self, count: int) -> Iterator[Triplet]:
        """Yield up to `count` different triplets; fewer if more are hard to find."""
        seen: set[bytes] = set()
        missed = 0
        while len(seen) < count and missed < 1000 + 10 * len(seen):
            triplet = self._draw()
            key = hashlib.blake2b(repr(triplet).encode(), digest_size=8).digest()
            if triplet is None or key in seen:
                missed += 1
                continue
            seen.add(key)
            yield triplet

    def _useful(self, choices: Iterable[tuple[int, ...]]) -> list[tuple[tuple[int, ...], _Neighbours]]:
        found = ((differing, _Neighbours(self._tuples, differing)) for differing in choices)
        return [(differing, neighbours) for differing, neighbours in found if len(neighbours.movable)]

    def _draw(self) -> Triplet | None:
        random = self._random
        kind = random.random()
        differing, neighbours = random.choice(
            self._two if (kind < TWO_SHARE and self._two) or not self._one else self._one
        )
        reference = int(random.choice(neighbours.movable))
        target = neighbours.pick(reference, random)
        if target is None:
            return None
        if len(differing) == 1 and kind > 1 - OPEN_SHARE:
            text = _said(random.choice(_OPEN), self._catalog.columns[differing[0]])
        else:
            first, *others = random.sample(differing, len(differing))
            text = self._phrase(first, reference, target)
            for each in others:
                alone = random.random() < 0.5 and not _is_noun(self._catalog.columns[each])
                new = self._value(each, target)
                text += f", {new if alone else self._phrase(each, reference, target)}"
        found = Triplet(self._product(reference), text, self._product(target))
        images = self._catalog.images
        return None if images[found.reference] == images[found.target] else found

    def _product(self, number: int) -> int:
        """Draw a product with the given tuple of attributes."""
        return int(self._products[self._random.randrange(self._start[number], self._start[number + 1])])

    def _value(self, attribute: int, number: int) -> str:
        value: str = self._catalog.values[attribute][self._tuples[number, attribute]]
        return value

    def _phrase(self, attribute: int, reference: int, target: int) -> str:
        name = self._catalog.columns[attribute]
        wordings: tuple[str, ...] = _NOUNS if _is_noun(name) else _PLAIN
        if _COLOUR_WORDS.intersection(_split(name)) and self._random.random() < 0.5:
            wordings = _WEARABLE
        old, new = self._value(attribute, reference), self._value(attribute, target)
        return _said(self._random.choice(wordings), name, old, new)


def _said(wording: str, column: str, old: str = "", new: str = "") -> str:
    return wording.format(a=" ".join(_split(column)), o=old, n=new, o_a=_article(old), n_a=_article(new))


def _split(column: str) -> list[str]:
    """Return the words of a column's name."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[\W_]+", " ", column).lower().split()


def _is_noun(column: str) -> bool:
    return bool(_NOUN_WORDS.intersection(_split(column)))


def _article(word: str) -> str:
    return "an" if word[:1] in "aeiou" else "a"


def write_triplets(triplets: Iterable[Triplet], catalog: Catalog, table: Path, out: Path) -> int:
    """Write triplets as a table with the columns reference, text and target; return their number.

    Args:
        table: the catalog's table; paths of pictures are relative to its folder, and in `out` to the folder of `out`.

    Raises:
        SourceError: the suffix of `out` is not supported, or `out` cannot be written.
    """
    base = os.path.relpath(table.resolve().parent, out.resolve().parent)

    def place(number: int) -> str:
        path = catalog.images[number]
        moves = base != "." and not is_url(path) and not os.path.isabs(path)
        return posixpath.normpath(posixpath.join(Path(base).as_posix(), path)) if moves else path

    rows = ((place(triplet.reference), triplet.text, place(triplet.target)) for triplet in triplets)
    return write_table(out, COLUMNS, rows)
