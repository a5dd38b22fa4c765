r"""Types of a text table's columns: numbers, truth values or text, as most of a column's filled cells say.

    cells                                 become
    NA, N/A, null, none, nan, -, \N, …    nothing, as an empty cell
    10, -3, 9.50                          numbers
    15.00 USD, € 12,50, $1,234            numbers, if no other currency is named
    TRUE, false                           truth values
    007                                   text, and so do all cells of the column: they are codes

A cell that does not fit its column stays text, and is named in the notes.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Kind = Literal["integer", "decimal", "amount", "code", "truth", "none", "text"]
"""Kinds of filled cells; an amount is a number with a currency, or with marks between its digits."""
Type = type[int] | type[float] | type[bool] | None
"""Type of a column; None for text."""

SHOWN = 3
"""Largest number of cells that a note shows."""
_NONE_WORDS = "na n/a n.a. #n/a null nil none nan - -- – — \\n".split()
NONE = frozenset(cased for word in _NONE_WORDS for cased in (word, word.upper(), word.title())) | {"NaN"}
"""Words that stand for an empty cell."""
UNKNOWN = frozenset(("", "na", "n/a", "nan", "none", "null", "unknown", "other", "others", "-"))
"""Values of an attribute, in lower case, that tell nothing of a product."""
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_ENDS = frozenset("0123456789 -")
"""Characters of which each number has one at its start or end."""
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)\.\d+([eE][+-]?\d{1,2})?", re.ASCII)
_CODE = re.compile(r"-?0\d+|-?\d{19,}", re.ASCII)
_CURRENCIES = (
    "USD EUR GBP CHF JPY CNY INR AUD CAD NZD SEK NOK DKK ISK PLN CZK HUF RON BGN TRY RUB UAH KZT GEL BRL MXN ARS CLP COP PEN "
    "ZAR NGN KES EGP MAD KRW TWD HKD SGD THB MYR IDR PHP VND ILS AED SAR QAR KWD PKR BDT LKR"
).split()
_CURRENCY = "|".join([*_CURRENCIES, "[A-Z]{0,2}[$€£¥₹₽₩₺₴₪฿₫₱]", r"kr\.?", "zł", "Kč", "Ft", r"Fr\.", r"Rs\.?"])
_AMOUNT = re.compile(
    rf"\s*(?P<sign>[-−]?)\s*(?P<before>{_CURRENCY})?\s*(?P<minus>[-−]?)(?P<digits>\d[\d.,'’\s]*?)\s*(?P<after>{_CURRENCY})?\s*",
    re.IGNORECASE,
)
_GROUPED = re.compile(r"[1-9]\d{0,2}(,\d{3})+|[1-9]\d{0,2}(\.\d{3})+")


def is_number(cell: str) -> bool:
    """Tell whether a cell is a number: a plain one, a code of digits, or an amount of money."""
    return bool(_CODE.fullmatch(cell)) or _plain(cell) is not None or _amount(cell, decimal_comma=True) is not None


class ColumnTypes:
    """The types of a table's columns: `see` each row, then `decide`.

    Args:
        decimal_comma: a comma may mark decimals in numbers without a currency.
    """

    def __init__(self, decimal_comma: bool = False) -> None:
        self._comma = decimal_comma
        self._columns: defaultdict[str, _Column] = defaultdict(lambda: _Column(decimal_comma))
        self._types: dict[str, Type] = {}
        self._currencies: dict[str, str] = {}

    def see(self, number: int, row: Mapping[str, str], apart: str | None = None) -> None:
        """Take the cells of a row into account, except that of the column `apart`."""
        columns = self._columns
        for name, cell in row.items():
            if cell and name != apart:
                columns[name].see(number, cell)

    def decide(self) -> list[str]:
        """Set the type of each column, and return a sentence for each one with cells that do not fit."""
        notes = []
        for name, column in self._columns.items():
            type_, problems = column.decide()
            self._types[name] = type_
            self._currencies[name] = column.currency
            notes += [f"column {name!r} {problem}" for problem in problems]
        return notes

    def typed(self, name: str, cell: str) -> Any:
        """Return a cell as its column's type; None if it is empty, and the cell itself if it does not fit."""
        if not cell or cell in NONE:
            return None
        type_ = self._types.get(name)
        if type_ is None:
            return cell
        if type_ is bool:
            return _TRUTH.get(cell, cell)
        number = _plain(cell)
        if number is None:
            amount = _amount(cell, self._comma)
            number = amount[0] if amount is not None and amount[1] in ("", self._currencies[name]) else None
        if number is None or (type_ is int and not isinstance(number, int)):
            return cell
        return type_(number)


class _Column:
    """Counts of a column's kinds of cells, with the first ones of each."""

    def __init__(self, decimal_comma: bool) -> None:
        self._comma = decimal_comma
        self._counts: defaultdict[Kind, int] = defaultdict(int)
        self._first: defaultdict[Kind, list[tuple[int, str]]] = defaultdict(list)
        self._whole = True
        self.currency = ""
        self._currencies: dict[str, tuple[int, str]] = {}

    def see(self, number: int, cell: str) -> None:
        """Take a filled cell into account."""
        kind: Kind
        if cell[0] in _ENDS or cell[-1] in _ENDS or not cell.isascii():
            kind = self._number(number, cell)
        elif cell in _TRUTH:
            kind = "truth"
        else:
            kind = "none" if cell in NONE else "text"
        count = self._counts[kind] = self._counts[kind] + 1
        if count <= SHOWN:
            self._first[kind].append((number, cell))

    def _number(self, number: int, cell: str) -> Kind:
        if _INTEGER.fullmatch(cell):
            return "integer"
        if _plain(cell) is not None:
            return "decimal"
        if cell in NONE:
            return "none"
        if _CODE.fullmatch(cell):
            return "code"
        amount = _amount(cell, self._comma)
        if amount is None:
            return "text"
        value, currency = amount
        self._whole &= isinstance(value, int)
        if currency:
            self._currencies.setdefault(currency, (number, cell))
        return "amount"

    def decide(self) -> tuple[Type, list[str]]:
        """Return the column's type, and sentences about it that follow the column's name."""
        counts = self._counts
        filled = sum(counts.values()) - counts["none"]
        plain = counts["integer"] + counts["decimal"]
        numbers = plain + counts["amount"]
        if 2 * counts["truth"] > filled:
            return bool, self._odd("true and false", ("integer", "decimal", "amount", "code", "text"))
        if 2 * (numbers + counts["code"]) <= filled or not numbers:
            return None, self._emptied()
        if counts["code"]:
            code = _shown(self._first["code"][:1])
            return None, [f"stays text, which < and > do not find: {code} is a code, not a number", *self._emptied()]
        if len(self._currencies) > 1:
            cells = _shown(list(self._currencies.values())[:SHOWN])
            if 2 * plain <= filled:
                problem = f"stays text, which < and > do not find: it names several currencies ({cells}); keep to one"
                return None, [problem, *self._emptied()]
            return self._numeric(), self._odd("numbers", ("amount", "truth", "text"))
        self.currency = next(iter(self._currencies), "")
        notes = self._odd("numbers", ("truth", "text"))
        return self._numeric(), ([f"is read as numbers, without {self.currency!r}"] if self.currency else []) + notes

    def _numeric(self) -> Type:
        return int if self._whole and not self._counts["decimal"] else float

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


def _shown(cells: Sequence[tuple[int, str]]) -> str:
    return ", ".join(f"row {number:,} {cell[:40]!r}" for number, cell in cells)


def _plain(cell: str) -> int | float | None:
    """Return the number that a cell spells as JSON does; None if it spells none."""
    if _INTEGER.fullmatch(cell):
        return int(cell)
    return float(cell) if _DECIMAL.fullmatch(cell) and math.isfinite(float(cell)) else None


def _amount(cell: str, decimal_comma: bool) -> tuple[int | float, str] | None:
    """Return the number of a cell and its currency ("" if it names none), as in `€ 1.234,50`; None if there is none."""
    found = _AMOUNT.fullmatch(cell)
    if found is None or (found["before"] and found["after"]):
        return None
    currency = (found["before"] or found["after"] or "").upper()
    digits = re.sub(r"(?<=\d)['’\s](?=\d{3}(?!\d))", "", found["digits"])
    if _GROUPED.fullmatch(digits):  # 1,234 or 1.234: thousands, unless the mark is that of decimals
        mark = "." if "." in digits else ","
        several = digits.count(mark) > 1 or (mark == "." if decimal_comma else mark == "," and currency != "")
        digits = digits.replace(mark, "") if several else digits
    elif re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+\.\d+", digits):
        digits = digits.replace(",", "")
    elif re.fullmatch(r"[1-9]\d{0,2}(\.\d{3})+,\d+", digits):
        digits = digits.replace(".", "")
    if (decimal_comma or currency) and re.fullmatch(r"\d+,\d+", digits):
        digits = digits.replace(",", ".")
    number = _plain(digits)
    if number is None:
        return None
    return (-number if found["sign"] or found["minus"] else number), currency
