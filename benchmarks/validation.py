"""Benchmark of judging without pictures: whether it ranks recipes of edit-aware training as true pictures do.

    python -m benchmarks.validation [--seeds 0 1]

Trains Φ and an adapter with several recipes, each with several seeds, on the captions of the drawn shop (`examples.demo`).
Each result is judged by held-out captions alone, and by 600 composed queries over the shop's 3,000 pictures, in wordings
that no training has. Prints Spearman's correlation of each figure with the pictures' R@10, beside that of the held-out
loss by which trainings chose before, and the R@10 that the recipe with the best score loses to the best recipe. All
judgements are on the same held-out edits; a recipe's own loss is the one that it validates by.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from cir_vectorizer.backbones.adapter import AdapterSettings
from cir_vectorizer.composers.lincir import LinCIR
from cir_vectorizer.models import Vectorizer, load
from cir_vectorizer_trainer.captions.keywords import BuiltinTagger
from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.edits.kinds import Kind
from cir_vectorizer_trainer.edits.making import MadeEdits, Making
from cir_vectorizer_trainer.edits.phrasings import Phrasings
from cir_vectorizer_trainer.edits.probes import ProbeMaker
from cir_vectorizer_trainer.phi.edits_loss import EditWeights
from cir_vectorizer_trainer.phi.edits_trainer import EditHyperparameters, EditTrainer, lincir_of
from cir_vectorizer_trainer.phi.judging import FIGURES, MOST_PROBES, Judge
from examples.demo.catalog import Query, catalog, pictures, queries
from examples.demo.evaluate import Vectors, composed_vectors, embed_drawn, score, unit
from examples.demo.run import PICTURES, QUERIES, shop_captions

HELD_OUT_EVERY = 10
"""One of so many captions is held out for judging."""
EDITS = 6000
FEW_WORDINGS = 6
PLAIN = EditHyperparameters(batch_size=64, lr=6e-4)


@dataclass(frozen=True)
class Recipe:
    """A way to train: hyperparameters, steps, and what differs from the plain way."""

    name: str
    settings: EditHyperparameters = PLAIN
    steps: int = 80
    wordings: int | None = None
    from_scratch: bool = False


RECIPES = (
    Recipe("plain"),
    Recipe("1 step", steps=1),
    Recipe("25 steps", steps=25),
    Recipe("from scratch", from_scratch=True),
    Recipe("noise 3", replace(PLAIN, noise_strength=3.0)),
    Recipe("lr / 6", replace(PLAIN, lr=1e-4)),
    Recipe("lr x 5", replace(PLAIN, lr=3e-3)),
    Recipe("dropout 0.5", replace(PLAIN, dropout=0.5)),
    Recipe("no smoothing", replace(PLAIN, smoothing=0.0)),
    Recipe("temperature 0.02", replace(PLAIN, weights=EditWeights(temperature=0.02))),
    Recipe("temperature 0.5", replace(PLAIN, weights=EditWeights(temperature=0.5))),
    Recipe("no adapter", replace(PLAIN, adapt_text_tower=False)),
    Recipe("rank 2", replace(PLAIN, adapter=AdapterSettings(2, 2.0))),
    Recipe("few wordings", wordings=FEW_WORDINGS),
)


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the correlation of two series' ranks; equal values share their mean rank."""

    def ranks(values: Sequence[float]) -> Vectors:
        array = np.asarray(values)
        return np.array([(array < value).sum() + (array == value).sum() / 2 for value in array], np.float32)

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def trained(
    tiny: Vectorizer, edits: list[Edit], kinds: Sequence[Kind], recipe: Recipe, seed: int, judge: Judge
) -> EditTrainer:
    """Train by a recipe; the trainer's last validation is on `judge`."""
    if recipe.wordings is not None:
        kept = sorted({edit.wording for edit in edits if edit.kind == "replace"})
        few = set(random.Random(seed).sample(kept, recipe.wordings))
        edits = [edit for edit in edits if edit.wording in few]
    start = None if recipe.from_scratch else lincir_of(tiny)
    settings = replace(recipe.settings, seed=seed)
    trainer = EditTrainer(tiny.backbone, edits, (), BuiltinTagger(), settings, start, kinds=kinds)
    trainer.judge = judge
    for _ in trainer.run(recipe.steps):
        pass
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    arguments = parser.parse_args()
    started = time.monotonic()
    tiny = load("tiny", "cpu")
    products = catalog(PICTURES)
    raw = embed_drawn(tiny, pictures(products))
    asked = queries(products, QUERIES, seed=12)
    made = MadeEdits(list(dict.fromkeys(shop_captions(products))), (), Making(count=EDITS))
    edits = [edit for edit in made.draw() if edit.words]
    captions = list(dict.fromkeys(caption for edit in edits for caption in (edit.reference, edit.target)))
    held_out = set(captions[::HELD_OUT_EVERY])
    held = [edit for edit in edits if edit.reference in held_out]
    edits = [edit for edit in edits if not held_out & {edit.reference, edit.target}]
    probes = ProbeMaker(made.kinds, Phrasings.read()).make(held, MOST_PROBES)
    others = captions[::HELD_OUT_EVERY]
    judge = Judge(tiny.backbone, probes, others, made.kinds)
    shifted = Judge(tiny.backbone, probes, others, made.kinds, torch.from_numpy(raw))
    names = (*FIGURES, "score", "shifted score", "loss")
    print(
        f"{len(edits):,} edits to train on; {len(judge.captions):,} captions to search; {time.monotonic() - started:.0f} s"
    )
    print(f"{'recipe':20} seed  {'R@1':>6} {'R@10':>6}  " + " ".join(f"{name:>13}" for name in names))
    rows: list[dict[str, float]] = []
    for recipe in RECIPES:
        for seed in arguments.seeds:
            trainer = trained(tiny, edits, made.kinds, recipe, seed, judge)
            found = trainer.history[-1]
            with_gap = shifted.figures(trainer.reader(), trainer.phi)["score"]
            row = {**found.figures, "shifted score": with_gap, "loss": found.loss}
            row |= true_recall(tiny, trainer, raw, asked)
            rows.append(row)
            print(
                f"{recipe.name:20} {seed:4}  {row['R@1']:6.3f} {row['R@10']:6.3f}  "
                + " ".join(f"{row[name]:13.4f}" for name in names),
                flush=True,
            )
    recalls = [row["R@10"] for row in rows]
    print(f"{len(rows)} trainings in {time.monotonic() - started:.0f} s; Spearman's correlation with R@10 of true pictures, "
          "and R@10 that the choice by it loses to the best:")  # fmt: skip
    for name in names:
        best: Callable[[Sequence[float]], int] = np.argmin if name == "loss" else np.argmax  # type: ignore[assignment]
        values = [row[name] for row in rows]
        correlation = spearman([-value for value in values] if name == "loss" else values, recalls)
        print(f"{name:15} {correlation:6.2f}  {max(recalls) - recalls[best(values)]:6.3f}")


def true_recall(tiny: Vectorizer, trainer: EditTrainer, raw: Vectors, asked: Sequence[Query]) -> dict[str, float]:
    """Return R@1 and R@10 of the queries with the trainer's present weights."""
    trainer.learning.eval()
    composer = LinCIR(tiny.backbone, trainer.phi, adapter=trainer.adapter)
    model = Vectorizer("tiny", tiny.backbone, {"lincir": composer}, "lincir")
    with torch.no_grad():
        vectors = composed_vectors(model, raw, asked, "lincir")
    return score(vectors, asked, catalog(PICTURES), unit(raw)).recall()


if __name__ == "__main__":
    main()
