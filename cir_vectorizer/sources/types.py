r"""Types of a text table's columns: numbers, truth values or text, as most of a column's filled cells say.

    cells                                     become
    NA, N/A, null, none, nan, -, \N, …        nothing, as an empty cell
    10, -3, +5, 9.50, .5                      numbers
    15.00 USD, € 12,50, $1,234, 20.-, 5 %     numbers, if no other currency is named
    1.299,00                                  a number, and so are 15,50 and 1.299 in its column
    TRUE, false                               truth values
    007                                       text, and so do all cells of the column: they are codes

A cell that does not fit its column stays text, and is named in the notes.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from cir_vectorizer.sources.amounts import CODE, INTEGER, SAME_CURRENCY, Mark, amount, plain_number, shows_point

Kind = Literal["integer", "decimal", "amount", "comma", "group", "code", "truth", "none", "text"]
"""Kinds of filled cells. Of `12,50` (comma) and `1,250` (group) only other cells can tell that they are numbers."""
Type = type[int] | type[float] | type[bool] | None
"""Type of a column; None for text."""

SHOWN = 3
"""Largest number of cells that a note shows."""
_NONE_WORDS = "na n/a n.a. #n/a #na #nv <na> nat null (null) nil none nan -nan - -- – — \\n".split()
NONE = frozenset(cased for word in _NONE_WORDS for cased in (word, word.upper(), word.title())) | {"NaN", "NaT", "-NaN"}
"""Words that stand for an empty cell."""
UNKNOWN = frozenset(("", "na", "n/a", "nan", "none", "null", "unknown", "other", "others", "-"))
"""Values of an attribute, in lower case, that tell nothing of a product."""
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_ENDS = frozenset("0123456789 -$%\t")
"""Characters of which each number, and each word with blanks around, has one at its start or end."""


class ColumnTypes:
    """The types of a table's columns: `see` each row, then `decide`.

    Args:
        decimal_comma: a comma usually begins the decimals.
    """

    def __init__(self, decimal_comma: bool = False) -> None:
        self._columns: defaultdict[str, _Column] = defaultdict(lambda: _Column("," if decimal_comma else ""))

    def see(self, number: int, row: Mapping[str, str], apart: Collection[str | None] = ()) -> None:
        """Take the cells of a row into account, except those of the columns `apart`."""
        columns = self._columns
        for name, cell in row.items():
            if cell and name not in apart:
                columns[name].see(number, cell)

    def decide(self) -> list[str]:
        """Set the type of each column, and return a sentence for each one with cells that do not fit."""
        return [f"column {name!r} {note}" for name, column in self._columns.items() for note in column.decide()]

    def typed(self, row: Mapping[str, str], apart: str) -> dict[str, Any]:
        """Return a row's filled cells, except that of the column `apart`, as their columns' types.

        Cells that do not fit stay as they are.
        """
        columns = self._columns
        values: dict[str, Any] = {}
        for name, cell in row.items():
            if name != apart and is_filled(cell):
                values[name] = columns[name].typed(cell) if name in columns else cell
        return values


def is_filled(cell: str) -> bool:
    """Tell whether a cell holds something else than blanks and a word for nothing."""
    if not cell or cell in NONE:
        return False
    return (cell[0] > " " and cell[-1] > " ") or not (cell.isspace() or cell.strip() in NONE)


class _Column:
    """Counts of a column's kinds of cells, with the first ones of each; then its type.

    Args:
        mark: the mark before decimals, unless cells of the column show another.
    """

    def __init__(self, mark: Mark) -> None:
        self._type: Type = None
        self._usual = self._mark = mark
        self._marks: set[Mark] = set()
        """The marks that cells show beyond doubt."""
        self._counts: defaultdict[Kind, int] = defaultdict(int)
        self._first: defaultdict[Kind, list[tuple[int, str]]] = defaultdict(list)
        self._whole = True
        self._currency = ""
        self._currencies: dict[str, tuple[str, int, str]] = {}
        """The first cell of each currency: its sign, its row and itself."""

    def see(self, number: int, cell: str) -> None:
        """Take a filled cell into account."""
        kind: Kind
        if cell[0] in _ENDS or cell[-1] in _ENDS or not cell.isascii():
            if cell.isspace():
                return
            kind = self._kind(number, cell)
        elif cell in _TRUTH:
            kind = "truth"
        else:
            kind = "none" if cell in NONE else "text"
        count = self._counts[kind] = self._counts[kind] + 1
        if count <= SHOWN:
            self._first[kind].append((number, cell))

    def _kind(self, number: int, cell: str) -> Kind:
        if INTEGER.fullmatch(cell):
            return "integer"
        if plain_number(cell) is not None:
            if "." not in self._marks and shows_point(cell):
                self._marks.add(".")
            return "decimal"
        bare = cell.strip()
        if bare in NONE:
            return "none"
        if bare in _TRUTH:
            return "truth"
        if CODE.fullmatch(cell):
            return "code"
        found = amount(cell)
        if found is None or (value := found.value(",")) is None:
            return "text"
        if mark := found.shown_mark(self._usual):
            self._marks.add(mark)
        if (value := found.value(self._usual)) is None:
            return "group" if found.is_grouped else "comma"
        self._whole &= isinstance(value, int)
        if found.currency:
            code = SAME_CURRENCY.get(found.currency, found.currency)
            self._currencies.setdefault(code, (found.currency, number, cell))
        return "amount"

    def decide(self) -> list[str]:
        """Set the column's type, and return sentences about it that follow the column's name."""
        if len(self._marks) == 1:
            [self._mark] = self._marks
        self._settle("comma", self._mark == ",")
        self._settle("group", self._mark != "")
        counts = self._counts
        filled = sum(counts.values()) - counts["none"]
        plain = counts["integer"] + counts["decimal"]
        numbers = plain + counts["amount"]
        if 2 * counts["truth"] > filled:
            self._type = bool
            return self._odd("true and false", ("integer", "decimal", "amount", "code", "text"))
        if 2 * (numbers + counts["code"]) <= filled or not numbers:
            return self._emptied()
        if counts["code"]:
            code = _shown(self._first["code"][:1])
            return [f"stays text, which < and > do not find: {code} is a code, not a number", *self._emptied()]
        several = len(self._currencies) > 1
        if several and 2 * plain <= filled:
            cells = _shown([cell for _, *cell in list(self._currencies.values())[:SHOWN]])
            problem = f"stays text, which < and > do not find: it names several currencies ({cells}); keep to one"
            return [problem, *self._emptied()]
        self._type = int if self._whole and not counts["decimal"] else float
        if several:
            return self._odd("numbers", ("amount", "truth", "text"))
        notes = []
        for currency, (sign, *_) in self._currencies.items():
            self._currency = currency
            notes.append(f"is read as numbers, without {sign!r}")
        return notes + self._odd("numbers", ("truth", "text"))

    def typed(self, cell: str) -> Any:
        """Return a filled cell as the column's type, or as it is if it does not fit."""
        if self._type is None:
            return cell
        if self._type is bool:
            return _TRUTH.get(cell.strip(), cell)
        number = None if self._marks == {","} and "." in cell else plain_number(cell)
        if number is None and (found := amount(cell)) is not None:
            fits = SAME_CURRENCY.get(found.currency, found.currency) in ("", self._currency)
            number = found.value(self._mark) if fits else None
        if number is None or (self._type is int and not isinstance(number, int)):
            return cell
        return self._type(number)

    def _settle(self, kind: Kind, is_number: bool) -> None:
        """Count cells of a kind of which only the whole column tells whether they are numbers."""
        count, first = self._counts.pop(kind, 0), self._first.pop(kind, [])
        self._whole &= not (count and is_number and self._mark == ",")
        kind = "amount" if is_number else "text"
        self._counts[kind] += count
        self._first[kind] = sorted(self._first[kind] + first)[:SHOWN]

    def _odd(self, usual: str, kinds: Sequence[Kind]) -> list[str]:
        """Return a sentence about the cells of these kinds, which are not like the others."""
        count = sum(self._counts[kind] for kind in kinds)
        if not count:
            return []
        cells = _shown(sorted(each for kind in kinds for each in self._first[kind])[:SHOWN])
        more = f" and {count - SHOWN:,} more" if count > SHOWN else ""
        stay, them = ("1 cell stays", "it") if count == 1 else (f"{count:,} cells stay", "them")
        return [f"holds {usual}, but {stay} text, so filters for {usual} do not find {them}: {cells}{more}"]

    def _emptied(self) -> list[str]:
        """Return a sentence about the words in a column of text that count as empty cells."""
        count = self._counts["none"]
        if not count or count == sum(self._counts.values()):
            return []
        cells = "1 cell counts" if count == 1 else f"{count:,} cells count"
        return [f"holds text, and {cells} as empty: {_shown(self._first['none'])}"]


def _shown(cells: Sequence[Sequence[Any]]) -> str:
    return ", ".join(f"row {number:,} {cell[:40]!r}" for number, cell in cells)
