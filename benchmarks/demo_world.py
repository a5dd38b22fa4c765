"""Benchmark on the drawn shop: edit-aware LinCIR compared with the published training on the same captions, over seeds.

    python -m benchmarks.demo_world [--seeds 0 1 2] [--rough]

Both are trained as `make demo` trains them, with each seed. Tested are the demo's 600 queries, and 600 others in wordings
that no data file contains. With --rough, the captions are those that look like shops' titles.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cir_vectorizer.evaluate.metrics import paired
from cir_vectorizer.models import Vectorizer, load
from examples.demo.catalog import QUERY_WORDINGS, catalog, queries
from examples.demo.evaluate import Hits, Part, by_wording, composed_vectors, evaluate, score, unit
from examples.demo.make_compodiff import lessons
from examples.demo.run import (
    EDITS_TRAINING,
    PICTURES,
    PUBLISHED,
    QUERIES,
    TRAINING,
    cli,
    make_shop,
    raw_index,
    show_wordings,
)

OTHER_WORDINGS = {
    "colour": ("came out {v}", "was spotted in {v}", "glows {v}", "wears {v}"),
    "pattern": ("came out {v}", "was woven {v}", "sports {a} {v} motif", "went for {a} {v} finish"),
    "category": ("ended up as {a} {v}", "turned up as {a} {v}", "passes for {a} {v}", "was swapped with {a} {v}"),
}
"""Wordings of the second set of queries, in the form of `QUERY_WORDINGS`; no phrasing and no triplet contains them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rough", action="store_true", help="train on captions that look like shops' titles")
    arguments = parser.parse_args()
    tiny = load("tiny", "cpu")
    products = catalog(PICTURES)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        table, address = make_shop(folder, products), f"qdrant:{folder / 'index'}/shop"
        cli("sync", str(table), "--to", address, "--model", "tiny", "--id-column", "id")
        raw = raw_index(address)
        captions = folder / ("rough_captions.txt" if arguments.rough else "captions.txt")
        models: dict[str, list[Vectorizer]] = {"lincir_published": [], "lincir": []}
        for seed in arguments.seeds:
            train = ("train", "--captions", str(captions), "--model", "tiny", "--seed", str(seed))
            for name, options in (("lincir_published", (*PUBLISHED, *TRAINING)), ("lincir", EDITS_TRAINING)):
                cli(*train, "--out", str(folder / f"{name}-{seed}"), *options)
                models[name].append(load(str(folder / f"{name}-{seed}"), "cpu"))
    validation = queries(products, QUERIES, seed=11)
    for title, wordings in (("the demo's wordings", QUERY_WORDINGS), ("other wordings", OTHER_WORDINGS)):
        test = queries(products, QUERIES, seed=12, wordings=wordings)
        parts = by_wording(test, products, lessons().transitions())
        base, best = evaluate(tiny, tiny, raw, products, validation, test)
        print(f"\n{len(test)} queries in {title}, {captions.name}; best sum on validation: {best}")
        found: dict[str, list[Hits]] = {}
        for name, trained in models.items():
            vectors = [composed_vectors(model, raw, test, "lincir") for model in trained]
            found[name] = [score(each, test, products, unit(raw)) for each in vectors]
        for name in ("best_sum", "compodiff", "true_caption"):
            print(f"{name:16} {base[name].recall()}")
        for seed, published, own in zip(arguments.seeds, found["lincir_published"], found["lincir"], strict=True):
            print(f"seed {seed}:")
            show_wordings({**base, "lincir_published": published, "lincir": own}, parts)
            for other, hits in (
                ("lincir_published", published),
                *((name, base[name]) for name in ("best_sum", "compodiff")),
            ):
                gain = paired(own.at[1], hits.at[1])
                print(f"  edit-aware - {other}, R@1: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
        for name, hits_of_seeds in found.items():
            print(f"{name}, {len(hits_of_seeds)} seeds, mean ± standard deviation: {spread(hits_of_seeds, parts)}")


def spread(hits_of_seeds: Sequence[Hits], parts: Mapping[str, Part]) -> str:
    """Describe R@1, R@10 and the worst wording's R@1 over seeds by mean and standard deviation."""
    values = {
        "R@1": [hits.recall()["R@1"] for hits in hits_of_seeds],
        "R@10": [hits.recall()["R@10"] for hits in hits_of_seeds],
        "worst wording": [min(hits.recall(part.rows)["R@1"] for part in parts.values()) for hits in hits_of_seeds],
    }
    return ", ".join(f"{name} {np.mean(each):.3f} ± {np.std(each):.3f}" for name, each in values.items())


if __name__ == "__main__":
    main()
