"""Products of a real table and composed queries over them; the products' attributes tell which answers are right."""

import csv
import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from cir_vectorizer.evaluate.catalog.wordings import Wordings, singular

HELD_OUT_SHARE = 0.25

_ENGLISH = Wordings()
_GENDERS = {"Men": "men", "Women": "women", "Boys": "boys", "Girls": "girls", "Unisex": "men and women"}

WORDINGS = {
    "colour": ("is {v}", "comes in {v}", "has the colour {v}", "looks {v}"),
    "type": ("is {a}", "takes the form of {a}", "shows {a}", "turns out to be {a}"),
    "gender": ("is for {v}", "is made for {v}", "suits {v}", "fits {v}"),
}
"""Wordings of queries by the attribute that changes: `{v}` is its value in words, `{a}` the same with an article."""
PHRASES = (
    "a photo of {a} for {g}", "{a} for {g}", "{c} {t} for {g}", "{g} {c} {t}", "a {t} that is {c} and made for {g}",
    "this {t} is {c} and suits {g}", "this one for {g} shows {a}", "a product for {g} that takes the form of {a}",
    "{a} that fits {g}", "a {t} for {g} that comes in {c}", "a {t} for {g} that has the colour {c}",
    "a {t} for {g} that looks {c}", "something for {g} that turns out to be {a}", "{t}, {c}, {g}",
)  # fmt: skip
"""Descriptions that the small CLIP is trained on: type t, colour c, gender g, and `{a}` for "a red shirt"."""


@dataclass(frozen=True)
class Product:
    """The attributes of a photo's product, in words."""

    type: str
    colour: str
    gender: str

    def __str__(self) -> str:
        return _ENGLISH.with_article(f"{self.colour} {self.type}")


@dataclass(frozen=True)
class Item:
    """A product of the table."""

    image: Path
    title: str
    product: Product


@dataclass(frozen=True)
class Query:
    """A composed query: a reference photo (an index of the shop), a text, and the product that they ask for."""

    reference: int
    text: str
    target: Product
    kind: str
    wording: str


def type_in_words(name: str) -> str:
    """Return an article type as people say it: "Tshirts" is "t-shirt", "Casual Shoes" stays plural."""
    return singular(re.sub(r"\btshirt", "t-shirt", name.lower()))


def read_items(data: Path) -> list[Item]:
    """Read the products that have a photo, a colour and a gender."""
    items = []
    with (data / "products.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["baseColour"] not in ("NA", "Multi", "") and row["gender"] in _GENDERS:
                words = type_in_words(row["articleType"]), row["baseColour"].lower(), _GENDERS[row["gender"]]
                items.append(Item(data / row["image"], row["title"], Product(*words)))
    return [item for item in items if item.image.is_file()]


def is_held_out(item: Item) -> bool:
    """Tell whether a product belongs to the shop and not to the training, by a digest of the photo's name."""
    return int(hashlib.sha256(item.image.name.encode()).hexdigest(), 16) % 1000 < 1000 * HELD_OUT_SHARE


@cache
def phrases(product: Product) -> tuple[str, ...]:
    """Describe a product by its attributes in each of the phrasings."""
    words = {"a": str(product), "t": product.type, "c": product.colour, "g": product.gender}
    return tuple(phrasing.format(**words) for phrasing in PHRASES)


def make_queries(products: Sequence[Product], count: int, seed: int) -> list[Query]:
    """Draw composed queries, a third of each kind, whose targets the shop has."""
    rng = random.Random(seed)
    stock = set(products)
    values = {kind: sorted({getattr(product, kind) for product in products}) for kind in WORDINGS}
    values["gender"] = [gender for gender in values["gender"] if gender != _GENDERS["Unisex"]]
    found: list[Query] = []
    while len(found) < count:
        kind = tuple(WORDINGS)[len(found) % len(WORDINGS)]
        reference = rng.randrange(len(products))
        targets = [replace(products[reference], **{kind: value}) for value in values[kind]]
        targets = [target for target in targets if target != products[reference] and target in stock]
        if not targets:
            continue
        target = rng.choice(targets)
        wording, value = rng.choice(WORDINGS[kind]), getattr(target, kind)
        found.append(Query(reference, wording.format(v=value, a=_ENGLISH.with_article(value)), target, kind, wording))
    return found
