"""`evaluate catalog` on real servers: the same queries and figures as on an embedded collection of the same pictures."""

import contextlib
import csv
import random

import pytest

from cir_vectorizer.collections import OpenOptions, open_collection
from cir_vectorizer.evaluate.catalog import Asking, judge
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from examples.demo.catalog import catalog, draw

pytestmark = pytest.mark.live
PICTURES = 240


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of a drawn shop."""
    folder = tmp_path_factory.mktemp("drawn")
    with (folder / "shop.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "category", "colour", "pattern"])
        for i, product in enumerate(catalog(PICTURES)):
            draw(product, random.Random(f"7/{i}"), 96).save(folder / f"{i}.jpg")
            writer.writerow([f"{i}.jpg", product.category, product.colour, product.pattern])
    return folder / "shop.csv"


def figures(address, table, model, options=None):
    with contextlib.closing(open_collection(address, options=options or OpenOptions())) as collection:
        collection.drop()
        sync(open_source(table), collection, model)
        found = judge(collection, {"tiny": model}, Asking(queries=80))
        collection.drop()
    rows = {row.name: {name: figure.value for name, figure in row.figures.items()} for row in found.report.rows}
    return found.choice.name, rows


@pytest.mark.parametrize("database", ["qdrant", "weaviate"])
def test_a_servers_collection_is_judged_as_an_embedded_one(database, table, tiny, tmp_path, request):
    server = request.getfixturevalue(f"{database}_server")
    options = OpenOptions(grpc_port=server.grpc_port)
    choice, rows = figures(f"{database}://{server.host}:{server.port}/EvaluatedShop", table, tiny, options)
    embedded_choice, embedded = figures(f"qdrant:{tmp_path}/index/shop", table, tiny)
    assert choice == embedded_choice
    assert rows.keys() == embedded.keys()
    for name, own in rows.items():
        assert own == pytest.approx(embedded[name], abs=0.03), (
            name
        )  # servers round vectors, so near scores may change places
