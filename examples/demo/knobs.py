"""Picture sheets of the composers' options: one search of the drawn shop, with an option at several values.

python -m examples.demo.knobs [DEMO_FOLDER] [OUT_FOLDER]

The models and the collection are those of `make demo`. Framed results are those that the query asks for.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from cir_vectorizer.collections import Collection, open_collection
from cir_vectorizer.collections.searching import Search, find
from cir_vectorizer.models import Vectorizer, load
from cir_vectorizer.sheets import Panel, Sheet, Strip, Tile, square, write_sheet
from examples.demo.catalog import Product, catalog
from examples.demo.run import PICTURES

SHOWN = 5
REFERENCE = Product("dress", "red", "striped")
TEXT = "is blue"
BLUE = Product("dress", "blue", "striped")


@dataclass(frozen=True)
class Knob:
    """An option at several values.

    Attributes:
        composer: the composer that is asked.
        rows: by title, fields of the query (`options`, `negative_text`) and of the search (`strength`).
        right: tells which products the query asks for.
    """

    composer: str
    rows: Mapping[str, Mapping[str, Any]]
    right: Callable[[Product], bool] = BLUE.__eq__


def options(name: str, values: Sequence[Any], usual: Any = None) -> dict[str, dict[str, Any]]:
    """Return rows for the values of one option; the usual value is named as such."""
    return {f"{name} {v}{' (as without it)' if v == usual else ''}": {"options": {name: v}} for v in values}


def knobs(usual: tuple[float, float]) -> dict[str, Knob]:
    """Return the knobs by the names of their sheets.

    Args:
        usual: CompoDiff's guidance by picture and by text.
    """
    picture, text = usual
    return {
        "lincir-keep": Knob("lincir", options("keep", (0, 0.25, 0.5, 0.75, 1), 0.5)),
        "sum-keep": Knob("sum", options("keep", (0.1, 0.3, 0.5, 0.7, 0.9), 0.5)),
        "fusion": Knob(
            "lincir",
            {
                "b 1 (as without it)": {"options": {"fusion": {"b": 1}}},
                "b 0.1": {"options": {"fusion": {"b": 0.1}}},
                "b 0.1, a 0.5": {"options": {"fusion": {"b": 0.1, "a": 0.5}}},
                "b 0.1, a 0": {"options": {"fusion": {"b": 0.1, "a": 0}}},
                "b 0, a 0: the picture": {"options": {"fusion": {"b": 0, "a": 0}}},
            },
        ),
        "compodiff-guidance": Knob(
            "compodiff",
            {
                f"guidance [{picture:g}, {text:g}] (as without it)": {"options": {"guidance": [picture, text]}},
                f"guidance [{picture:g}, 0]": {"options": {"guidance": [picture, 0]}},
                f"guidance [{picture:g}, 1]": {"options": {"guidance": [picture, 1]}},
                f"guidance [0, {text:g}]": {"options": {"guidance": [0, text]}},
                "source_weight 0.5": {"options": {"source_weight": 0.5}},
                "steps 1": {"options": {"steps": 1}},
            },
        ),
        "negative-text": Knob(
            "lincir",
            {
                "without negative text": {},
                "not “striped”, strength 0: the composer alone": {"negative_text": "striped", "strength": 0},
                "not “striped” (strength 2)": {"negative_text": "striped"},
                "not “striped”, weights.negative 0.5: subtracted": {
                    "negative_text": "striped",
                    "strength": 0,
                    "options": {"weights": {"negative": 0.5}},
                },
            },
            lambda product: (product.category, product.colour) == ("dress", "blue") and product.pattern != "striped",
        ),
    }


def sheet(name: str, knob: Knob, folder: Path, model: Vectorizer, collection: Collection) -> Sheet:
    """Search with each value of a knob and return the sheet of the results."""
    products = catalog(PICTURES)
    reference = products.index(REFERENCE)

    def picture(index: int) -> Path:
        return folder / "pictures" / f"{index:05}.jpg"

    def tile(index: int, right: bool = False) -> Tile:
        with Image.open(picture(index)) as opened:
            return Tile(square(opened), (), right)

    strips = []
    for title, given in knob.rows.items():
        query = {"image": picture(reference), "text": TEXT, "composer": knob.composer, **given}
        strength = {"strength": query.pop("strength")} if "strength" in query else {}
        hits = find(Search.read(query, limit=SHOWN + 1, **strength), collection, model)
        found = [int(Path(hit.payload["_cir"]["path"]).stem) for hit in hits]
        others = [index for index in found if index != reference][:SHOWN]
        strips.append(Strip(title, [tile(index, knob.right(products[index])) for index in others]))
    return Sheet(name, [Panel([tile(reference)], f"“{TEXT}”", strips)])


def main() -> None:
    given = [Path(each) for each in sys.argv[1:]]
    folder = given[0] if given else Path("demo")
    out = given[1] if len(given) > 1 else Path("docs/images")
    model = load(str(folder / "model"), "cpu")
    drawn = model.composers["compodiff"].knobs  # type: ignore[attr-defined]
    collection = open_collection(f"qdrant:{folder / 'index'}/shop")
    try:
        for name, knob in knobs((drawn.image_scale, drawn.text_scale)).items():
            path = out / f"knob-{name}.webp"
            write_sheet(path, sheet(name, knob, folder, model, collection))
            print(f"{path}: {path.stat().st_size:,} bytes")
    finally:
        collection.close()


if __name__ == "__main__":
    main()
