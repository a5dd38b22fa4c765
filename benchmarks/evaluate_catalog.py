"""Benchmark of `evaluate catalog`: whether its choice holds on other queries, and whether captions alone rank composers alike.

    python -m benchmarks.evaluate_catalog --in ADDRESS --model DIR [--model DIR] [--captions COLUMN] [--seeds 3]

For each seed it makes queries of the collection's attributes and prints the choice of one half, the R@10 that it loses on the
other half to the best setting there, and what each fusion gained there over the plain composer (paired, 95 % interval). With
`--captions` it makes queries of that column alone too, and prints Spearman's correlation of the contenders' R@10 with those of
the queries made of attributes, and the time that each took.
"""

import argparse
import time
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import spearmanr

from cir_vectorizer.collections import open_collection
from cir_vectorizer.evaluate.catalog import CEILING, Asking, Judged, judge
from cir_vectorizer.evaluate.contenders import FUSED
from cir_vectorizer.models import Vectorizer, load


def judged(address: str, models: Mapping[str, Vectorizer], asking: Asking) -> Judged:
    """Judge a collection, and print the time and the choice."""
    collection = open_collection(address)
    began = time.monotonic()
    try:
        found = judge(collection, models, asking)
    finally:
        collection.close()
    seconds = time.monotonic() - began
    source = asking.captions or "attributes"
    print(
        f"seed {asking.seed}, {source}: {found.report.queries} queries over {found.report.gallery:,} in {seconds:.0f} s"
    )
    print(f"  chosen {found.choice.name!r} {found.choice.options or ''}; regret {found.regret:.4f} R@10")
    for each in found.report.comparisons:
        if each.row != f"{each.other}{FUSED}":
            continue
        gain = each.differences["R@10"]
        print(f"  {each.row} - {each.other}: R@10 {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
    return found


def recalls(found: Judged) -> dict[str, float]:
    """Return R@10 by contender."""
    return {row.name: row.figures["R@10"].value for row in found.report.rows if row.name != CEILING}


def correlation(ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[int, float]:
    """Return the number of contenders that both have, and Spearman's correlation of their figures."""
    both = [name for name in ours if name in theirs]
    return len(both), float(spearmanr([ours[name] for name in both], [theirs[name] for name in both])[0])


def mean(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean by contender over the seeds, of those that all seeds have."""
    names = set.intersection(*(set(each) for each in figures))
    return {name: float(np.mean([each[name] for each in figures])) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in", dest="address", required=True, help="a collection that `sync` filled")
    parser.add_argument("--model", action="append", required=True, help="model folder; repeatable")
    parser.add_argument("--captions", help="column of captions to make queries of, too")
    parser.add_argument("--queries", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    models = {name: load(name) for name in chosen.model}
    by_attributes, by_captions = [], []
    for seed in range(chosen.seeds):
        asking = Asking(queries=chosen.queries, seed=seed)
        found = judged(chosen.address, models, asking)
        by_attributes.append(recalls(found))
        if chosen.captions:
            alone = Asking(captions=chosen.captions, queries=chosen.queries, seed=seed)
            by_captions.append(recalls(judged(chosen.address, models, alone)))
            count, rho = correlation(by_attributes[-1], by_captions[-1])
            print(
                f"  captions and attributes rank {count} contenders with a Spearman correlation of {rho:.3f}",
                flush=True,
            )
    if chosen.captions:
        count, rho = correlation(mean(by_attributes), mean(by_captions))
        print(f"mean of {chosen.seeds} seeds: Spearman {rho:.3f} over {count} contenders")


if __name__ == "__main__":
    main()
