"""Gradients of a step and the losses of twenty, in one process or in several: run by `torchrun` with

objective, precision and a file to write.
"""

import random
import sys
from pathlib import Path

import torch

from cir_vectorizer.backbones import BackboneSpec, load_backbone
from cir_vectorizer_trainer.captions.keywords import BuiltinTagger
from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.phi.edits_trainer import EditHyperparameters, EditTrainer
from cir_vectorizer_trainer.phi.loop import LoopSettings
from cir_vectorizer_trainer.phi.processes import joined, rank, size, sum_gradients
from cir_vectorizer_trainer.phi.trainer import Hyperparameters, PhiTrainer
from examples.demo.catalog import CATEGORIES, COLOURS

CAPTIONS = [f"a {colour} {kind}" for colour in COLOURS for kind in CATEGORIES]
BATCH = 15


def trainer_of(objective: str, dtype: torch.dtype, loop: LoopSettings) -> PhiTrainer | EditTrainer:
    """Return a new trainer, whose weights are in the precision of the tower."""
    backbone = load_backbone(BackboneSpec("tiny", ""), "cpu", dtype)
    if objective == "lincir":
        trainer: PhiTrainer | EditTrainer = PhiTrainer(
            backbone, CAPTIONS, BuiltinTagger(), Hyperparameters(batch_size=BATCH, lr=1e-3), loop=loop
        )
    else:
        rng = random.Random(0)
        edits = [
            Edit(f"a {old} {kind}", f"make it {new}", f"a {new} {kind}", "replace", "make it …")
            for kind in CATEGORIES
            for old, new in (rng.sample(sorted(COLOURS), 2) for _ in range(6))
        ]
        extra = [f"a striped {kind}" for kind in CATEGORIES]
        trainer = EditTrainer(
            backbone, list(dict.fromkeys(edits)), extra, BuiltinTagger(),
            EditHyperparameters(batch_size=BATCH, lr=1e-3), loop=loop,
        )  # fmt: skip
        for parameter in trainer.adapter.up.values():
            torch.nn.init.constant_(parameter, 0.01)
    trainer.learning.to(dtype)
    return trainer


def gradients(objective: str, dtype: torch.dtype, loop: LoopSettings) -> tuple[float, list[torch.Tensor]]:
    """Return the loss of the first step and its gradients, with noise and dropout."""
    trainer = trainer_of(objective, dtype, loop)
    trainer.learning.train()
    torch.manual_seed(0)
    loss = trainer._step_loss(0)
    loss.backward()
    learnt = list(trainer.learning.parameters())
    sum_gradients(learnt)
    return loss.item(), [each.grad.clone() for each in learnt]


def found(objective: str, precision: str) -> dict[str, object]:
    """Return the gradients of the first step, and the losses of twenty in float32."""
    _, first = gradients(objective, getattr(torch, precision), LoopSettings())
    trainer = trainer_of(objective, torch.float32, LoopSettings())
    losses = [progress.loss for progress in trainer.run(20)]
    return {"gradients": first, "losses": losses, "size": size()}


if __name__ == "__main__":
    with joined():
        results = found(*sys.argv[1:3])
        if rank() == 0:
            torch.save(results, sys.argv[3])
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    assert "pt_gloo_runloop" not in threads, f"the processes' group is still at work: {sorted(threads)}"
