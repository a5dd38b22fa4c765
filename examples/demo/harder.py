"""Harder queries to the drawn shop: with words for something unwanted, and with a mask over a distraction."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from examples.demo.catalog import CATEGORIES, COLOURS, PATTERNS, Box, Product, Query, draw_scene, queries

VALUES: dict[str, tuple[str, ...]] = {"colour": tuple(COLOURS), "pattern": PATTERNS, "category": CATEGORIES}


@dataclass(frozen=True)
class UnwantedQuery:
    """An edit of a picture that also has something unwanted: "this, but blue, and not striped".

    `unwanted` is the picture's own value of `attribute`, which the edit does not name; any other value is right.
    """

    edit: Query
    attribute: str
    unwanted: str

    def wanted(self, product: Product) -> bool:
        """Tell whether `product` is a hit: it equals the edit's target except in `attribute`, which is not `unwanted`."""
        value = getattr(product, self.attribute)
        return value != self.unwanted and replace(product, **{self.attribute: self.unwanted}) == self.edit.target


def unwanted_queries(products: Sequence[Product], count: int, seed: int) -> list[UnwantedQuery]:
    """Draw edits of one attribute, each with an unwanted value of another attribute that the picture has."""
    rng = random.Random(seed)
    found = []
    for edit in queries(list(products), count, seed):
        attribute = rng.choice([name for name in ("colour", "pattern") if name != edit.change])
        found.append(UnwantedQuery(edit, attribute, getattr(products[edit.reference], attribute)))
    return found


@dataclass(frozen=True)
class MaskQuery:
    """A picture with a distraction beside the product, the box that hides the distraction, the text, and the target."""

    picture: Image.Image
    box: Box
    text: str
    target: Product


def mask_queries(products: Sequence[Product], count: int, seed: int, size: int = 192) -> list[MaskQuery]:
    """Draw queries; each shows a product beside a loud distraction and changes one of its attributes."""
    rng = random.Random(seed)
    stock = set(products)
    found: list[MaskQuery] = []
    while len(found) < count:
        product = rng.choice(list(products))
        which = ("colour", "pattern", "category")[len(found) % 3]
        value = rng.choice([value for value in VALUES[which] if value != getattr(product, which)])
        target = replace(product, **{which: value})
        if target not in stock:
            continue
        picture, box = draw_scene(product, random.Random(f"{seed}/{len(found)}"), size)
        text = f"is a {value} instead" if which == "category" else f"is {value}"
        found.append(MaskQuery(picture, box, text, target))
    return found
