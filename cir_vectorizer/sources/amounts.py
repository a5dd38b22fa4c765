"""Numbers as tables spell them: plain ones, and amounts, which name a currency or have marks between their digits.

A mark may begin the decimals or separate thousands: 1,234 and 1.234 say neither. A cell that does (12,50 with a currency;
1.234,50; 0.5) tells it for its column.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

Mark = Literal["", ",", "."]
"""The mark before decimals; "" if it is not known."""

INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})", re.ASCII)
CODE = re.compile(r"-?0\d+|-?\d{19,}", re.ASCII)
"""Digits that are no number, but a code such as 007."""
SAME_CURRENCY = {"€": "EUR", "£": "GBP", "$": "USD", "US$": "USD", "₹": "INR", "RS": "INR", "RS.": "INR"}
"""Codes of currencies that have other signs too."""

_DECIMAL = re.compile(r"-?(0|[1-9]\d*)?\.\d+([eE][+-]?\d{1,2})?", re.ASCII)
_CURRENCIES = (
    "USD EUR GBP CHF JPY CNY INR AUD CAD NZD SEK NOK DKK ISK PLN CZK HUF RON BGN TRY RUB UAH KZT GEL BRL MXN ARS CLP COP PEN "
    "ZAR NGN KES EGP MAD KRW TWD HKD SGD THB MYR IDR PHP VND ILS AED SAR QAR KWD PKR BDT LKR"
).split()
_SIGNS = ["[A-Z]{0,2}[$€£¥₹₽₩₺₴₪฿₫₱]", r"kr\.?", "zł", "Kč", "Ft", r"Fr\.", r"Rs\.?", "%"]
_CURRENCY = "|".join([*_CURRENCIES, *_SIGNS])
_AMOUNT = re.compile(
    rf"\s*(?P<sign>[-−+]?)\s*(?P<before>{_CURRENCY})?\s*(?P<minus>[-−]?)(?P<digits>\d[\d.,'’\s]*?|\.\d+)([.,][-–—]{{1,2}})?"
    rf"\s*(?P<after>{_CURRENCY})?\s*",
    re.IGNORECASE,
)
_SPACED = re.compile(r"(?<=\d)['’\s](?=\d{3}(?!\d))")
_COMMAS, _POINTS = (rf"[1-9]\d{{0,2}}({mark}\d{{3}})+" for mark in (",", r"\."))
_GROUPED = re.compile(rf"{_COMMAS}|{_POINTS}")
_INDIAN = re.compile(r"[1-9]\d?(,\d\d)+,\d{3}(\.\d+)?")
_COMMA_DECIMAL = re.compile(r"\d+,\d+")
_SURE_COMMA = re.compile(rf"{_POINTS},\d+|0,\d+|\d+,0\d?")
_USUAL_COMMA = re.compile(r"\d+,(\d{1,2}|\d{4,})")
_SURE_POINT = re.compile(rf"-?({_COMMAS}\.\d+|0?\.\d+|\d+\.(\d{{1,2}}|\d{{4,}}))")


@dataclass(frozen=True)
class Amount:
    """The parts of a cell such as `€ 1.234,50`.

    Attributes:
        digits: digits with marks between them.
        currency: the currency's sign as written, in upper case; "" if there is none.
    """

    digits: str
    currency: str
    negative: bool

    def value(self, mark: Mark) -> int | float | None:
        """Return the number, if decimals begin with `mark`; None if the digits make none."""
        digits = self.digits
        if self.is_grouped:
            used = "." if "." in digits else ","
            known = used != mark if mark else used == "," and self.currency != ""
            if known or digits.count(used) > 1:
                digits = digits.replace(used, "")
        elif "." in digits and "," in digits and (_SURE_COMMA.fullmatch(digits) or _SURE_POINT.fullmatch(digits)):
            digits = digits.replace("." if digits.rindex(",") > digits.rindex(".") else ",", "")
        elif _INDIAN.fullmatch(digits):
            digits = digits.replace(",", "")
        if (mark == "," or self.currency) and _COMMA_DECIMAL.fullmatch(digits):
            digits = digits.replace(",", ".")
        number = plain_number(digits)
        return -number if self.negative and number is not None else number

    @property
    def is_grouped(self) -> bool:
        """True if all marks may separate thousands, as in 1,234."""
        return _GROUPED.fullmatch(self.digits) is not None

    def shown_mark(self, usual: Mark) -> Mark:
        """Return the mark before decimals, if the cell shows it beyond doubt in a table where `usual` is usual."""
        likely = usual == "," or self.currency != ""
        if _SURE_COMMA.fullmatch(self.digits) or (likely and _USUAL_COMMA.fullmatch(self.digits)):
            return ","
        return "." if shows_point(self.digits) else ""


def shows_point(digits: str) -> bool:
    """Tell whether a number shows beyond doubt that a point begins its decimals."""
    return _SURE_POINT.fullmatch(digits) is not None


def plain_number(cell: str) -> int | float | None:
    """Return the number that a cell spells with at most a point; None if it spells none."""
    if INTEGER.fullmatch(cell):
        return int(cell)
    return float(cell) if _DECIMAL.fullmatch(cell) and math.isfinite(float(cell)) else None


def amount(cell: str) -> Amount | None:
    """Return the parts of a cell that is a number, perhaps with a currency; None if it is something else."""
    found = _AMOUNT.fullmatch(cell)
    if found is None:
        return None
    before, after = (found["before"] or "").upper(), (found["after"] or "").upper()
    if before and after and SAME_CURRENCY.get(before, before) != SAME_CURRENCY.get(after, after):
        return None
    return Amount(
        _SPACED.sub("", found["digits"]), after or before, found["sign"] in ("-", "−") or bool(found["minus"])
    )


def is_number(cell: str) -> bool:
    """Tell whether a cell is a number: a plain one, a code of digits, or an amount of money."""
    if CODE.fullmatch(cell) or plain_number(cell) is not None:
        return True
    found = amount(cell)
    return found is not None and found.value(",") is not None
