"""Benchmark on the drawn shop with three seeds of Φ: LinCIR compared with the best swept sum and the true caption.

python -m benchmarks.demo_world [--seeds 0 1 2]
"""

import argparse
import random
import statistics

import numpy as np

from cir_vectorizer.composers.lincir import LinCIR
from cir_vectorizer.models import Vectorizer, load
from cir_vectorizer_trainer.captions.keywords import BuiltinTagger
from cir_vectorizer_trainer.phi.trainer import Hyperparameters, PhiTrainer
from examples.demo.catalog import HELD_OUT, caption, catalog, pictures, queries
from examples.demo.evaluate import by_wording, evaluate, paired_bootstrap, slices
from examples.demo.make_compodiff import lessons
from examples.demo.run import CAPTIONS_A_PICTURE, PICTURES, QUERIES, TRAINING, show_wordings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    arguments = parser.parse_args()
    tiny = load("tiny", "cpu")
    products = catalog(PICTURES)
    drawn = list(pictures(products))
    raw = np.concatenate([tiny.embed_images(drawn[at : at + 256]) for at in range(0, len(drawn), 256)])
    validation, test = queries(products, QUERIES, seed=11), queries(products, QUERIES, seed=12)
    rng = random.Random(1)
    captions = list(
        dict.fromkeys(caption(p, rng) for p in products if p not in HELD_OUT for _ in range(CAPTIONS_A_PICTURE))
    )
    wordings = by_wording(test, products, lessons().transitions())
    options = dict(zip(TRAINING[::2], TRAINING[1::2], strict=True))
    settings = {"batch_size": int(options["--batch-size"]), "lr": float(options["--lr"])}
    margins = []
    for seed in arguments.seeds:
        trainer = PhiTrainer(tiny.backbone, captions, BuiltinTagger(), Hyperparameters(seed=seed, **settings))
        for _ in trainer.run(int(options["--steps"])):
            pass
        trainer.phi.load_state_dict(trainer.best)
        model = Vectorizer(
            "tiny", tiny.backbone, {**tiny.composers, "lincir": LinCIR(tiny.backbone, trainer.phi)}, "lincir"
        )
        hits, best = evaluate(model, raw, products, validation, test)
        mean, low, high = paired_bootstrap(hits["lincir"].at[1], hits["best_sum"].at[1])
        margins.append((mean, low))
        print(f"seed {seed}: {', '.join(f'{name} {found.recall()}' for name, found in hits.items())}")
        print(f"  best sum on validation: {best}")
        print(f"  LinCIR - best sum, R@1: {mean:.3f} [{low:.3f}, {high:.3f}]")
        for part, rows in slices(test).items():
            recalls = ", ".join(f"{name} {found.recall(rows)['R@1']:.3f}" for name, found in hits.items())
            print(f"  {part:9} ({len(rows):3} queries) R@1: {recalls}")
        show_wordings(hits, wordings)
        share = hits["lincir"].recall()["R@1"] / hits["true_caption"].recall()["R@1"]
        print(f"  LinCIR has {share:.2f} of the true caption's R@1")
    print(
        f"median of {len(margins)} seeds: margin {statistics.median(m for m, _ in margins):.3f}, lower end {statistics.median(low for _, low in margins):.3f}"
    )


if __name__ == "__main__":
    main()
