"""Recall over the number of results, as an SVG: the queries, the models and the collection of `make demo`.

python -m examples.demo.curves [DEMO_FOLDER] [OUT.svg]
"""

import sys
from pathlib import Path

import numpy as np

from cir_vectorizer.evaluate.page.drawings import Curve, svg
from cir_vectorizer.models import load
from examples.demo.catalog import catalog, queries
from examples.demo.evaluate import evaluate
from examples.demo.run import PICTURES, QUERIES, TITLES, raw_index

KS = (1, 2, 3, 5, 10, 20, 50)


def main() -> None:
    given = [Path(each) for each in sys.argv[1:]]
    folder = given[0] if given else Path("demo")
    out = given[1] if len(given) > 1 else Path("docs/images/recall-curves.svg")
    products = catalog(PICTURES)
    asked = [queries(products, QUERIES, seed=seed) for seed in (11, 12)]
    models = load(str(folder / "model"), "cpu"), load(str(folder / "published"), "cpu")
    hits, _ = evaluate(*models, raw_index(f"qdrant:{folder / 'index'}/shop"), products, *asked, ks=KS)
    curves = [
        Curve(TITLES[name].partition(" (")[0], style, [(k, float(np.mean(found.at[k]))) for k in KS])
        for style, (name, found) in enumerate(hits.items())
    ]
    out.write_text(svg(f"Recall in % by number of results, {QUERIES} queries", curves), encoding="utf-8")
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
