"""A drawn shop of twelve products, which all integrations search."""

import csv
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from cir_vectorizer.collections import Collection, open_collection
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from examples.demo.catalog import Product, draw

COLOURS = ("red", "blue", "green", "yellow")
CATEGORIES = ("dress", "mug", "chair")


class Shop(NamedTuple):
    """An indexed catalog: its pictures, its address, and the collection, opened."""

    photos: Path
    address: str
    collection: Collection

    def photo(self, colour: str, category: str) -> Path:
        return self.photos / f"{colour}-{category}.png"


@pytest.fixture(scope="session")
def drawn_shop(tmp_path_factory, tiny) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    rng = random.Random(5)
    rows = []
    for category in CATEGORIES:
        for price, colour in enumerate(COLOURS, 10):
            file = f"{colour}-{category}.png"
            draw(Product(category, colour, "plain"), rng).save(folder / file)
            rows.append(
                {"id": len(rows) + 1, "file": file, "title": f"{colour} {category}", "colour": colour, "price": price}
            )
    with (folder / "catalog.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    address = f"qdrant:{folder}/index/shop"
    with closing(open_collection(address)) as collection:
        sync(open_source(folder / "catalog.csv", image_column="file", id_column="id"), collection, tiny)
    with closing(open_collection(address)) as collection:
        yield Shop(folder, address, collection)
