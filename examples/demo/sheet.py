"""The before/after sheet of the drawn shop: plain CLIP search beside ours, with the models of `make demo`.

python -m examples.demo.sheet [DEMO_FOLDER] [OUT]

The first row is the best that sums of CLIP's vectors do: the weighted sum whose weights won on 600 other queries. A rule chooses
typical queries. It takes the demo's 600 test queries (seed 12) and counts the wanted products among the first five results of
each way. Of each kind of change (colour, pattern, category) it takes the first query that asks for a product which no training
has seen and at which both ways find as many wanted products as at the median query of that kind, or nearly as many.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cir_vectorizer.evaluate import metrics
from cir_vectorizer.models import load
from cir_vectorizer.sheets import Panel, Sheet, Strip, Tile, square, write_sheet
from examples.demo.catalog import Query, catalog, queries
from examples.demo.evaluate import composed_vectors, rank, score, slices, sum_vectors, sweep_sum, text_vectors, unit
from examples.demo.run import PICTURES, QUERIES, raw_index

SHOWN = 5
PLAIN, OURS = "Plain CLIP: best mix of picture and words", "cir-vectorizer, tuned on the shop’s captions"
KINDS = ("colour", "pattern", "category")


def chosen(asked: Sequence[Query], wanted: Mapping[str, npt.NDArray[np.int_]]) -> list[int]:
    """Return the typical query of each kind of change.

    Args:
        wanted: by way, each query's number of wanted products among the first results. (queries,)
    """
    rows = slices(asked)
    return [metrics.typical(rows[kind], list(wanted.values()), rows["held_out"]) for kind in KINDS]


def main() -> None:
    given = [Path(each) for each in sys.argv[1:]]
    folder = given[0] if given else Path("demo")
    out = given[1] if len(given) > 1 else Path("docs/images/before-after.webp")
    products, model = catalog(PICTURES), load(str(folder / "model"), "cpu")
    raw = raw_index(f"qdrant:{folder / 'index'}/shop")
    validation, test = queries(products, QUERIES, seed=11), queries(products, QUERIES, seed=12)
    best = sweep_sum(model, raw, validation, products)
    references = [query.reference for query in test]
    ways = {
        PLAIN: sum_vectors(raw[references], text_vectors(model, test, best.prompted), best),
        OURS: composed_vectors(model, raw, test, "lincir"),
    }
    found = {way: rank(vectors, references, unit(raw), SHOWN) for way, vectors in ways.items()}
    wanted = {
        way: np.array([sum(products[i] == query.target for i in row) for query, row in zip(test, ranking, strict=True)])
        for way, ranking in found.items()
    }

    def tile(index: int, right: bool = False) -> Tile:
        with Image.open(folder / "pictures" / f"{index:05}.jpg") as picture:
            return Tile(square(picture), (), right)

    panels = [
        Panel(
            [tile(test[at].reference)],
            f"“{test[at].text}”",
            [
                Strip(way, [tile(i, products[i] == test[at].target) for i in ranking[at]], way == OURS)
                for way, ranking in found.items()
            ],
        )
        for at in chosen(test, wanted)
    ]
    before, after = (score(vectors, test, products, unit(raw)).recall()["R@1"] for vectors in ways.values())
    note = (
        f"Framed: what the query asks for. It comes first in {before:.0%} of {QUERIES} queries with the mix, and in {after:.0%} with "
        "cir-vectorizer."
    )
    write_sheet(out, Sheet("Before and after", panels, note))
    print(f"{out}: {out.stat().st_size:,} bytes; {note}")


if __name__ == "__main__":
    main()
