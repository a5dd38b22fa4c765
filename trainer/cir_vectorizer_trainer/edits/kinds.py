"""Kinds of values: sets of words such as colours, types or patterns; a caption has one word of a set.

Kinds are named by the columns of a table, or learnt from the captions. Two words are of one kind if the same words
stand around them ("a … dress"), and if they hardly ever stand in one caption: "red" and "striped" fill the same place,
but often together. Spellings of one value ("t-shirt", "tshirts", "T Shirt") are one value with several surfaces.

Not handled: values of more than three words; learnt values of more than two.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from cir_vectorizer.errors import SourceError
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sources.rows import table_rows, table_suffix
from cir_vectorizer.sources.types import UNKNOWN
from cir_vectorizer_trainer.captions.keywords import prepare, tokens_of
from cir_vectorizer_trainer.captions.lexicon import kind_of
from cir_vectorizer_trainer.edits.phrasings import Phrasings

Tokens = tuple[str, ...]

MOST_TOKENS = 3
"""Largest number of words in a value."""
MOST_VALUES = 1000
"""Largest number of values of a column; the rarest are left out."""
MOST_LEARNT = 500
"""Largest number of words that are sorted into kinds when none are named."""
LEARNT_FROM = 50_000
"""Largest number of captions that kinds are learnt from."""
LEAST_COVERAGE = 0.02
"""Share of the captions that a learnt kind must be found in."""
_LEAST_COUNT, _LEAST_SHARE = 5, 1 / 2000
_CONTEXTS = 1500
_ALIKE = 0.16
_ALWAYS = 0.8
"""Share of a word's places that must be followed by the same word for the two to be one value ("navy blue")."""
_OPENING = 0.6
"""Share of its captions that a learnt kind of nouns opens if it holds names such as brands; it is left out if captions have
other nouns too."""
_CONTENT = frozenset(
    "adj adjed adjing noun nounverb nounverb_s participle deverbal compound uninflected adjverb".split()
)
_ROLE_WEIGHTS = {"audience": 0.5}
"""Relative frequency with which values of a role change, where it is not 1."""
_CACHED = 200_000
"""Number of phrases whose normal form is kept in memory."""
_kind_of = cache(kind_of)


@dataclass(frozen=True)
class Kind:
    """Set of values; a caption has one of them.

    Attributes:
        name: the column's name, or the commonest values of a learnt kind.
        role: one of `phrasings.ROLES`.
        values: surfaces (with the number of captions that hold them) by value; a value is known by its `normal` form.
        weight: relative frequency with which edits change this kind.
    """

    name: str
    role: str
    values: Mapping[str, Mapping[Tokens, int]]
    weight: float = 1.0

    def commonest(self, value: str) -> str:
        """Return the commonest surface of a value."""
        surfaces = self.values[value]
        return " ".join(max(surfaces.items(), key=itemgetter(1))[0])

    def surface(self, value: str, like: str, random: Random) -> str:
        """Draw a surface of a value; one in the form of `like` (a plural, "men's") if there is one."""
        surfaces = self.values[value]
        fitting = [tokens for tokens in surfaces if _ending(tokens[-1]) == _ending(like)]
        if 5 * sum(surfaces[tokens] for tokens in fitting) < sum(surfaces.values()):
            fitting = list(surfaces)
        return " ".join(random.choices(fitting, [surfaces[tokens] for tokens in fitting])[0])


def normal(tokens: Iterable[str]) -> str:
    """Return the form in which spellings of one value agree: no spaces, hyphens or plural."""
    text = re.sub(r"[\W_]", "", "".join(re.sub(r"['’]s?$", "", token) for token in tokens))
    if re.search(r"(?:ss|sh|ch|x)es$", text):
        return text[:-2]
    return text[:-1] if re.search(r"[^su]s$", text) else text


def _ending(word: str) -> str:
    if re.search(r"['’]s?$", word):
        return "'s"
    return "s" if re.search(r"[^su]s$", word) else ""


# --- named by columns ---


def named_kinds(
    sources: Sequence[str], columns: Sequence[str], captions: Sequence[str], phrasings: Phrasings
) -> list[Kind]:
    """Return a kind for each column: its values, as far as captions hold them, in the captions' spellings.

    Args:
        sources: files of captions; the tables among them have the columns.
        captions: prepared.

    Raises:
        SourceError: no table has a column, or captions hold fewer than two of its values.
    """
    found: dict[str, Counter[str]] = {name: Counter() for name in columns}
    there: dict[str, None] = {}
    for source in sources:
        if table_suffix(source) is None:
            continue
        rows = table_rows(Path(source), strict=False)
        there |= dict.fromkeys(rows.columns())
        for _, row in rows:
            if isinstance(row, Failure) or not isinstance(row, dict):
                continue
            there |= dict.fromkeys(row)
            for name, counts in found.items():
                if isinstance(cell := row.get(name), str) and (value := prepare(cell)) not in UNKNOWN:
                    counts[value] += 1
    if missing := [name for name in columns if name not in there]:
        has = (
            f"the tables' columns are {', '.join(there)}"
            if there
            else "no file of captions is a table, so leave the option out"
        )
        raise SourceError(f"no column {missing[0]!r} for --attributes; {has}")
    values_of = _Values(phrasings)
    owners: dict[str, tuple[int, str]] = {}
    for number, counts in enumerate(found.values()):
        for value, _ in counts.most_common(MOST_VALUES):
            form = normal(token[0] for token in tokens_of(value))
            for spelling in values_of.same_as(form) if form else ():
                owners.setdefault(spelling, (number, values_of(form)))
    surfaces = _surfaces(captions, owners)
    kinds = []
    for number, name in enumerate(columns):
        values = surfaces.get(number, {})
        if len(values) < 2:
            raise SourceError(
                f"captions hold {len(values)} of the values of {name!r}, and two are needed; leave it out of --attributes"
            )
        role = phrasings.role_of_column(name) or _known_role(values, phrasings) or _role(values, 0.0)
        kinds.append(Kind(name, role, values, _ROLE_WEIGHTS.get(role, 1.0)))
    return kinds


class _Values:
    """Values by normal form: words that mean the same have one value, the form of the first of them."""

    def __init__(self, phrasings: Phrasings) -> None:
        self._groups: dict[str, list[str]] = {}
        for words in phrasings.same:
            forms = [normal(word.split()) for word in words]
            self._groups |= dict.fromkeys(forms, forms)

    def __call__(self, form: str) -> str:
        return self._groups.get(form, [form])[0]

    def same_as(self, form: str) -> list[str]:
        """Return the forms of the words that mean the same, `form` included."""
        return self._groups.get(form, [form])


def _surfaces(
    captions: Iterable[str], owners: Mapping[str, tuple[int, str]]
) -> dict[int, dict[str, dict[Tokens, int]]]:
    """Count the spellings of values in captions, by the kind's number and the value."""
    found: dict[int, dict[str, dict[Tokens, int]]] = {}
    forms: dict[Tokens, str] = {}
    for caption in captions:
        words = [token[0] for token in tokens_of(caption)]
        for at in range(len(words)):
            for length in range(1, min(MOST_TOKENS, len(words) - at) + 1):
                tokens = tuple(words[at : at + length])
                form = forms.get(tokens)
                if form is None:
                    form = normal(tokens)
                    if len(forms) < _CACHED:
                        forms[tokens] = form
                owner = owners.get(form)
                if owner is not None and all(any(map(str.isalnum, word)) for word in tokens):
                    counts = found.setdefault(owner[0], {}).setdefault(owner[1], {})
                    counts[tokens] = counts.get(tokens, 0) + 1
    return found


# --- learnt from captions ---


def learn_kinds(captions: Sequence[str], phrasings: Phrasings, random: Random) -> list[Kind]:
    """Learn kinds from captions alone, the kind that most captions hold first.

    Args:
        captions: prepared; at most `LEARNT_FROM` of them are read.
    """
    sample = list(captions) if len(captions) <= LEARNT_FROM else random.sample(captions, LEARNT_FROM)
    rows = _with_pairs([[token[0] for token in tokens_of(caption)] for caption in sample], phrasings)
    counts = Counter(unit for row in rows for unit in dict.fromkeys(row) if _is_content(unit, phrasings))
    least = max(_LEAST_COUNT, round(_LEAST_SHARE * len(rows)))
    words = [unit for unit, count in counts.most_common(MOST_LEARNT) if count >= least]
    if len(words) < 2:
        return []
    groups: dict[str | int, list[Tokens]] = {}
    for number, members in enumerate(_clusters(_alike(rows, words))):
        units = [words[at] for at in members]
        known = phrasings.role_of_values(" ".join(unit) for unit in units)
        groups.setdefault(number if known is None else known, []).extend(units)  # all colours are of one kind
    learnt = [entry for units in groups.values() if (entry := _learnt(units, counts, rows, phrasings)) is not None]
    things = max((kind.weight for kind, names in learnt if kind.role == "noun" and not names), default=0.0)
    found = [kind for kind, names in learnt if not (names and things > kind.weight / 2)]
    return sorted(_balanced(found), key=lambda kind: (-kind.weight, kind.name))


def _balanced(kinds: Sequence[Kind]) -> Iterator[Kind]:
    """Yield kinds whose weight so far is their coverage with their final weight.

    A role weighs as much as captions hold it. Its kinds share that by the squares of their coverage, since many small
    kinds of nouns (sizes, lines, promotions) say little about a picture.
    """
    shares: dict[str, float] = {}
    squares: dict[str, float] = {}
    for kind in kinds:
        shares[kind.role] = shares.get(kind.role, 0.0) + kind.weight
        squares[kind.role] = squares.get(kind.role, 0.0) + kind.weight**2
    for kind in kinds:
        role = _ROLE_WEIGHTS.get(kind.role, 1.0) * min(1.0, shares[kind.role])
        yield replace(kind, weight=role * kind.weight**2 / squares[kind.role])


def _learnt(
    units: Sequence[Tokens], counts: Mapping[Tokens, int], rows: Sequence[Sequence[Tokens]], phrasings: Phrasings
) -> tuple[Kind, bool] | None:
    """Return a kind of alike words, with its coverage as weight, and whether it may hold names; None if it is too rare."""
    value_of = _Values(phrasings)
    values: dict[str, dict[Tokens, int]] = {}
    for unit in sorted(units, key=lambda unit: (-counts[unit], unit)):
        values.setdefault(value_of(normal(unit)), {})[unit] = counts[unit]
    own = set(units)
    holding = [row for row in rows if not own.isdisjoint(row)]
    coverage = len(holding) / len(rows)
    if len(values) < 2 or coverage < LEAST_COVERAGE:
        return None
    role = _known_role(values, phrasings) or _role(values, _share_after_with(holding, own))
    names = role == "noun" and sum(row[0] in own for row in holding) > _OPENING * len(holding)
    name = ", ".join(" ".join(next(iter(surfaces))) for surfaces in list(values.values())[:3])
    return Kind(name, role, values, coverage), names


def _is_content(unit: Tokens, phrasings: Phrasings) -> bool:
    return all(
        len(word) > 1
        and word not in phrasings.ignored
        and _kind_of(word) in _CONTENT
        and not any(map(str.isdigit, word))
        for word in unit
    )


def _with_pairs(rows: list[list[str]], phrasings: Phrasings) -> list[list[Tokens]]:
    """Return rows of units: words, and pairs of words of which the first is nearly always followed by the second.

    A name before an audience ("aurelia women") is no such pair.
    """
    firsts = Counter(word for row in rows for word in row)
    pairs = Counter(pair for row in rows for pair in pairwise(row))
    fixed = {
        (first, second)
        for (first, second), count in pairs.items()
        if count >= _LEAST_COUNT
        and count >= _ALWAYS * firsts[first]
        and _is_content((first, second), phrasings)
        and phrasings.role_of_value(second) != "audience"
    }
    joined = []
    for row in rows:
        units: list[Tokens] = []
        at = 0
        while at < len(row):
            pair = tuple(row[at : at + 2])
            units.append(pair if pair in fixed else (row[at],))
            at += len(units[-1])
        joined.append(units)
    return joined


def _alike(rows: Sequence[Sequence[Tokens]], words: Sequence[Tokens]) -> npt.NDArray[np.float64]:
    """Return the likeness of each two words, 0 to 1, as (words, words): alike words have the same neighbours and hardly
    ever stand in one caption."""
    number = {word: at for at, word in enumerate(words)}
    edges: Counter[tuple[int, object]] = Counter()
    together = np.zeros((len(words), len(words)))
    for row in rows:
        padded = [("^",), *row, ("$",)]
        for at, unit in enumerate(row, start=1):
            own = number.get(unit)
            if own is not None:
                left, right = padded[at - 1], padded[at + 1]
                edges.update([(own, ("L", left)), (own, ("R", right)), (own, ("B", left, right))])
        present = sorted({number[unit] for unit in row if unit in number})
        together[np.ix_(present, present)] += 1
    common: Counter[object] = Counter()
    words_in = Counter(context for _, context in edges)
    for (_, context), count in edges.items():
        if words_in[context] > 1:  # a neighbour of one word alone makes no two alike
            common[context] += count
    contexts = {context: at for at, (context, _) in enumerate(common.most_common(_CONTEXTS))}
    table = np.zeros((len(words), len(contexts)))
    for (own, context), count in edges.items():
        if context in contexts:
            table[own, contexts[context]] = count
    total = table.sum()
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / max(total, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.maximum(np.nan_to_num(np.log(table / expected), neginf=0.0), 0.0)
    weights /= np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-9)
    counts = together.diagonal()
    by_chance = np.outer(counts, counts) / len(rows)
    exclusive = np.clip(1 - (together + 0.25) / (by_chance + 0.5), 0, 1)
    alike: npt.NDArray[np.float64] = (weights @ weights.T) * exclusive
    np.fill_diagonal(alike, 0)
    return alike


def _clusters(alike: npt.NDArray[np.float64]) -> Iterator[list[int]]:
    """Yield clusters of alike words: the two most alike clusters join until their mean likeness is under `_ALIKE`."""
    mean = alike.copy()
    members = [[at] for at in range(len(mean))]
    while True:
        first, second = divmod(int(mean.argmax()), len(mean))
        if mean[first, second] < _ALIKE:
            break
        own, other = len(members[first]), len(members[second])
        merged = (own * mean[first] + other * mean[second]) / (own + other)
        mean[first], mean[:, first] = merged, merged
        mean[second], mean[:, second] = -1, -1
        mean[first, first] = -1
        members[first] += members[second]
        members[second] = []
    yield from (sorted(each) for each in members if len(each) > 1)


def _share_after_with(rows: Sequence[Sequence[Tokens]], own: set[Tokens]) -> float:
    places = [(row, at) for row in rows for at, unit in enumerate(row) if unit in own]
    led = sum(("with",) in row[max(0, at - 2) : at] or ("has",) in row[max(0, at - 1) : at] for row, at in places)
    return led / max(len(places), 1)


def _known_role(values: Mapping[str, Mapping[Tokens, int]], phrasings: Phrasings) -> str | None:
    """Return the role that the language's lists of words give to the commonest values; None if they give none."""
    commonest = sorted(_counted(values).items(), key=lambda entry: (-entry[1], entry[0]))
    surfaces = [surface for surface, _ in commonest]
    return phrasings.role_of_values(surfaces[:20]) or phrasings.role_of_values(surfaces[:5])


def _role(values: Mapping[str, Mapping[Tokens, int]], after_with: float) -> str:
    """Return the role of other values by their places and parts of speech."""
    if after_with > 0.5:
        return "part"
    surfaces = _counted(values)
    adjectives = sum(
        count for surface, count in surfaces.items() if _kind_of(surface.split()[-1]).startswith(("adj", "participle"))
    )
    return "adjective" if 2 * adjectives > sum(surfaces.values()) else "noun"


def _counted(values: Mapping[str, Mapping[Tokens, int]]) -> dict[str, int]:
    return {" ".join(tokens): count for own in values.values() for tokens, count in own.items()}
