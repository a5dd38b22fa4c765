"""Tags of product titles: brands that look like verbs, and sizes, packs, model numbers and codes.

A title is no sentence: it has neither article nor pronoun nor auxiliary. Its numbers and codes are mostly parts of a name
("air max 90", "lipstick 313"), its sizes are properties like any other ("3/4 sleeve", "pack of 2", "100 ml").
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from cir_vectorizer_trainer.captions.lexicon import KINDS

KEYWORD = "KEYWORD"
"""Tag of words and marks that belong to a keyword, whatever their part of speech."""
NEVER = "NEVER"
"""Tag of words and marks that are never masked."""
KEYWORD_TAGS = frozenset({"ADJ", "NOUN", "PROPN", "DET", KEYWORD})

_SENTENCE = frozenset({"det", "this", "that", "possessive", "subject", "pron", "be", "have", "modal", "quantity"})
_PACKS = frozenset("pack packs pair pairs set sets box boxes bundle combo lot kit case".split())
_COUNTS = frozenset("two three four five six seven eight nine ten twelve".split())
_UNITS = "ml|cl|dl|l|ltr|g|gr|kg|mg|oz|lb|lbs|mm|cm|m|km|inch|inches|ft|gb|tb|mb|mah|pc|pcs|pack|packs|piece|pieces"
_UNIT = frozenset(_UNITS.split("|"))
_LABELS = frozenset("sku ean upc gtin asin mpn isbn".split())
_CURRENCIES = frozenset("% € £ ¥ ₹ ₺ eur usd gbp inr".split())
_SHORT = frozenset("mr mrs dr st co inc ltd assn bros no nr gr".split())
"""Abbreviations that a point follows; so are single letters."""

_NUMBER = re.compile(r"\d+(?:[.,x]\d+)*")
_PRICE = re.compile(r"\d+[.,]\d\d")
_SIZE = re.compile(
    rf"\d+/\d+(?:th)?|\d+-\d\d?|\d[\d.,x/]*(?:{_UNITS})|(?:eu|uk|us|w|l)\d\d?"
    r"|\d+(?:/\d+)?[^\W\d]{0,2}-[^\W\d]{2,}|\d*(?:1st|2nd|3rd|\dth)"
)
"""A size in one word, or a count joined to its noun: "32/34", "75ml", "eu42", "3/4-sleeve", "2-pack", "38-40", "5th"."""


def is_title(row: Sequence[str]) -> bool:
    """Tell whether a caption has none of the small words that make a sentence."""
    return not any(KINDS.get(word) in _SENTENCE for word in row)


def tag_title(row: Sequence[str], tags: Sequence[str]) -> list[str]:
    """Correct the tags of an English title: it has names in place of verbs, and keywords with sizes and numbers."""
    named = list(tags)
    for at, (word, tag) in enumerate(zip(row, tags, strict=True)):
        if tag == "VERB" or (tag == "ADV" and word not in KINDS):
            named[at] = "NOUN"
    if len(row) > 1 and named[1] in KEYWORD_TAGS and _cannot_open(row[0], named[0]):
        named[0] = "NOUN"
    return tag_sizes(row, named)


def _cannot_open(word: str, tag: str) -> bool:
    """Tell whether no title opens with such a word, so that it is a brand ("AND women dress", "ONLY top", "W kurta")."""
    return tag in {"CCONJ", "ADV"} or (tag == "ADP" and len(word) == 1)


def tag_sizes(row: Sequence[str], tags: Sequence[str]) -> list[str]:
    """Correct the tags of sizes, numbers and codes.

    A size is a keyword. A number belongs to the keyword before it, a code to the one beside it; alone they are none,
    nor are prices, and codes behind a label such as "sku".
    """
    if not any(map(_form, row)) and _PACKS.isdisjoint(row):
        return list(tags)
    roles = [_role(row, tags, at) for at in range(len(row))]
    for at in range(len(row) - 2):
        if row[at] in _PACKS and tags[at + 1] == "ADP" and (roles[at + 2] == "number" or row[at + 2] in _COUNTS):
            roles[at + 1] = roles[at + 2] = "size"
    corrected = [
        {"size": KEYWORD, "out": "X", "code": "X"}.get(role, tag) for role, tag in zip(roles, tags, strict=True)
    ]
    start = 0
    while start < len(row):
        end = start
        while end < len(row) and roles[end] not in {"", "out"}:
            end += 1
        while start < end and roles[start] in {"number", "point"}:
            start += 1
        last = end - 1 if end > start and roles[end - 1] == "point" else end
        if "keyword" in roles[start:end] or "size" in roles[start:end]:
            corrected[start:last] = [
                tag if role == "keyword" else KEYWORD
                for role, tag in zip(roles[start:last], tags[start:last], strict=True)
            ]
        start = end + 1
    return corrected


def _role(row: Sequence[str], tags: Sequence[str], at: int) -> str:
    """Return the role of a word in its run: "keyword", "size", "number", "code", "point", "out", or "" outside runs."""
    form = _form(row[at])
    after = row[at + 1] if at + 1 < len(row) else ""
    before = row[at - 1] if at else ""
    if form == "point":
        short = before in _SHORT or (len(before) == 1 and before.isalpha())
        return "point" if short and after else ""
    if form in {"number", "code", "price"}:
        named = at - 2 if before in {":", "#", "."} else at - 1
        if (named >= 0 and row[named] in _LABELS) or before in _CURRENCIES or after in _CURRENCIES:
            return "out"
        if form != "code" and after in _UNIT:
            return "size"
        return "out" if form == "price" else form
    return form or ("keyword" if tags[at] in KEYWORD_TAGS else "")


@lru_cache(1 << 16)
def _form(word: str) -> str:
    """Return "size", "number", "price", "code", "out" (a currency or a label) or "point"; "" for any other word."""
    if word == ".":
        return "point"
    if word in _LABELS or word in _CURRENCIES:
        return "out"
    if not any(map(str.isdecimal, word)):
        return ""
    if _PRICE.fullmatch(word):
        return "price"
    if _SIZE.fullmatch(word):
        return "size"
    return "number" if _NUMBER.fullmatch(word) else "code"
