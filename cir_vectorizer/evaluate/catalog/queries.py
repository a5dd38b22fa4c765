"""Made queries: composed queries over a catalog whose right answers its attributes tell.

A query takes an object as its picture and asks for a change of its attributes: one value, two values, a value added, or a
value removed. The objects with exactly the attributes asked for are wanted; those with the picture's own attributes, which a
search that ignores the words would find, are unwanted. A query that negates a value ("is not striped") wants the objects with
any other value, all else equal.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate.catalog.attributes import LEAST_OBJECTS, Attribute
from cir_vectorizer.evaluate.catalog.wordings import Wordings, blanked

Combination = tuple[str | None, ...]
SHARES = {"one": 0.6, "two": 0.15, "add": 0.1, "remove": 0.15}
"""Shares of the kinds of change among made queries; kinds that a catalog does not allow give theirs to the others."""
LEAST_QUERIES = 20
_MOST_MISSED = 1000
"""Draws in a row that give no new query, after which the catalog counts as exhausted."""
_LEAST_SHARE = 1 / 500
"""Share of the objects that must have a value for queries to ask for it; at least five of them."""


@dataclass(frozen=True)
class MadeQuery:
    """A composed query with known answers.

    Attributes:
        reference: row of the object whose picture it shows.
        text: the words of the change.
        change: "one", "two", "add" or "remove".
        attributes: numbers of the attributes that change.
        wording: the words with their values blanked.
        target: values asked for, one for each attribute; of a removed value, None where any other will do.
        wanted: number of the group of objects, in `Combinations`, for each wanted combination.
    """

    reference: int
    text: str
    change: str
    attributes: tuple[int, ...]
    wording: str
    target: Combination
    wanted: tuple[int, ...]


class Combinations:
    """The combinations of values that the objects have; an object's group is the number of its combination."""

    def __init__(self, attributes: Sequence[Attribute]) -> None:
        rows: list[Combination] = list(zip(*(attribute.values for attribute in attributes), strict=True))
        numbers: dict[Combination, int] = {}
        self.rows = rows
        self.group = np.array([numbers.setdefault(row, len(numbers)) for row in rows], np.intp)
        self.all: list[Combination] = list(numbers)
        self.number = numbers
        self.sizes = np.bincount(self.group, minlength=len(numbers))

    def with_value(self, base: Combination, attribute: int, value: str | None) -> int | None:
        """Return the group that has one value changed; None if no object has it."""
        return self.number.get((*base[:attribute], value, *base[attribute + 1 :]))


class QueryMaker:
    """Draws queries; the same seed draws the same.

    Args:
        attributes: of the objects.
        wordings: of the queries.
    """

    def __init__(self, attributes: Sequence[Attribute], wordings: Wordings, seed: int = 0) -> None:
        self.attributes = attributes
        self.combinations = Combinations(attributes)
        self._wordings = wordings
        self._random = random.Random(f"made queries/{seed}")
        least = max(LEAST_OBJECTS, _LEAST_SHARE * len(self.combinations.rows))
        self._values = [sorted(v for v, count in each.counts.items() if count >= least) for each in attributes]
        self._holding = [_rows(each, absent=False) for each in attributes]
        self._lacking = [_rows(each, absent=True) for each in attributes]
        self._addable = [number for number, rows in enumerate(self._lacking) if rows]

    def draw(self, count: int) -> list[MadeQuery]:
        """Return up to `count` different queries.

        Raises:
            SourceError: the catalog allows fewer than `LEAST_QUERIES`.
        """
        found: dict[tuple[int, str], MadeQuery] = {}
        missed = 0
        while len(found) < count and missed < _MOST_MISSED:
            change = self._random.choices(list(SHARES), list(SHARES.values()))[0]
            query = self._query(change)
            if query is None or (query.reference, query.text) in found:
                missed += 1
            else:
                found[query.reference, query.text] = query
                missed = 0
        if len(found) < LEAST_QUERIES:
            names = ", ".join(attribute.name for attribute in self.attributes)
            raise SourceError(
                f"the catalog allows {len(found)} queries that change {names}, and {LEAST_QUERIES} are needed: too few objects "
                "differ in one attribute alone; name fewer columns with --attributes, or sync more objects"
            )
        return list(found.values())

    def _query(self, change: str) -> MadeQuery | None:
        adds = change == "add"
        if adds and not self._addable:
            return None
        attribute = self._random.choice(self._addable if adds else range(len(self.attributes)))
        rows = (self._lacking if adds else self._holding)[attribute]
        if not rows:
            return None
        reference = self._random.choice(rows)
        base = self.combinations.rows[reference]
        if change == "remove":
            return self._removed(reference, base, attribute)
        first = self._changed(base, attribute)
        if first is None:
            return None
        value, group = first
        said, wording = self._said("add" if adds else "change", attribute, value)
        if change != "two":
            return MadeQuery(reference, said, change, (attribute,), wording, self.combinations.all[group], (group,))
        others = [
            number
            for number in range(len(base))
            if number != attribute and base[number] is not None and base[number] not in self.attributes[number].absent
        ]
        if not others:
            return None
        other = self._random.choice(others)
        second = self._changed((*base[:attribute], value, *base[attribute + 1 :]), other)
        if second is None:
            return None
        joined = self._random.choice(self._wordings.joined)
        also, also_wording = self._said("change", other, second[0])
        text = joined.format(first=said, second=also)
        shown = joined.format(first=wording, second=also_wording)
        return MadeQuery(
            reference, text, "two", (attribute, other), shown, self.combinations.all[second[1]], (second[1],)
        )

    def _changed(self, base: Combination, attribute: int) -> tuple[str, int] | None:
        """Draw another value of an attribute, with the group that has it; None if no object has any."""
        absent = self.attributes[attribute].absent
        possible = [
            (value, group)
            for value in self._values[attribute]
            if value != base[attribute]
            and value not in absent
            and (group := self.combinations.with_value(base, attribute, value)) is not None
        ]
        return self._random.choice(possible) if possible else None

    def _removed(self, reference: int, base: Combination, attribute: int) -> MadeQuery | None:
        value = base[attribute]
        assert value is not None
        groups = {
            other: group
            for other in self._values[attribute]
            if other != value and (group := self.combinations.with_value(base, attribute, other)) is not None
        }
        if not groups:
            return None
        said, wording = self._said("remove", attribute, value)
        target = (*base[:attribute], None, *base[attribute + 1 :])
        return MadeQuery(reference, said, "remove", (attribute,), wording, target, tuple(groups.values()))

    def _said(self, kind: str, attribute: int, value: str) -> tuple[str, str]:
        role = self.attributes[attribute].role
        wording = self._random.choice(self._wordings.of(kind, role))
        return self._wordings.say(wording, value, role), blanked(wording)


def _rows(attribute: Attribute, absent: bool) -> list[int]:
    """Return the rows of the objects whose value is known and says that something is there, or that nothing is."""
    return [
        row for row, value in enumerate(attribute.values) if value is not None and (value in attribute.absent) == absent
    ]


@dataclass(frozen=True)
class Answers:
    """Right and wrong answers of queries, over the objects of a catalog.

    Attributes:
        wanted: (queries, groups) bool, whether a combination is wanted.
        own: (queries,) group of each query's picture, which is unwanted.
        group: (objects,) group of each object.
        references: (queries,) row of each query's picture, which no result counts.
    """

    wanted: npt.NDArray[np.bool_]
    own: npt.NDArray[np.intp]
    group: npt.NDArray[np.intp]
    references: npt.NDArray[np.intp]

    @classmethod
    def of(cls, queries: Sequence[MadeQuery], combinations: Combinations) -> "Answers":
        """Return the answers of queries."""
        wanted = np.zeros((len(queries), len(combinations.all)), np.bool_)
        for row, query in enumerate(queries):
            wanted[row, list(query.wanted)] = True
        references = np.array([query.reference for query in queries], np.intp)
        return cls(wanted, combinations.group[references], combinations.group, references)

    def right(self, ranking: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Tell which results are wanted. (queries, ranks) rows of objects -> (queries, ranks)"""
        return np.take_along_axis(self.wanted, self.group[ranking], axis=1)

    def unwanted(self, ranking: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Tell which results have the picture's own attributes."""
        unwanted: npt.NDArray[np.bool_] = self.group[ranking] == self.own[:, None]
        return unwanted

    def totals(self, sizes: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the numbers of wanted and of unwanted objects of each query; its picture is no result.

        Args:
            sizes: (groups,), number of objects of each combination.
        """
        return self.wanted @ sizes, sizes[self.own] - 1


def halves(queries: Sequence[MadeQuery]) -> npt.NDArray[np.bool_]:
    """Tell which queries belong to the half that is reported; the other half is for choosing. (queries,)

    Queries that ask for the same combination are in one half, so that nothing is chosen on the combinations it is judged on.

    Raises:
        SourceError: all queries ask for the same combination.
    """
    groups = Counter(query.target for query in queries)
    if len(groups) < 2:
        raise SourceError(
            f"all {len(queries):,} queries ask for the same combination of values, so none is left to choose settings on; name "
            "more columns with --attributes"
        )
    ordered = sorted(groups, key=lambda target: blake2b(repr(target).encode(), digest_size=8).digest())
    reported, count = set(), 0
    for target in ordered:
        if 2 * count < len(queries):
            reported.add(target)
            count += groups[target]
    return np.array([query.target in reported for query in queries])
