"""Benchmark of training Φ: our trainer against a plain version of the published recipe, on the same weights and captions.

    python benchmarks/train_phi.py --captions FILE [FILE …] [--column NAME]

Our time is that of a whole run of two passes, including reading, tagging, tokenising and encoding. The plain version
encodes both captions at every step in rows of 77 tokens, with the library's own tower, in float32. Each of its steps
costs the same, so only `--plain-steps` of them are timed, spread evenly over our run so that a busy machine slows both,
and their mean is multiplied by the number of steps. The default model is a ViT-B/32-sized text tower with random weights.

The same is then measured on captions joined by "and" until they have about 25 tokens on average. FashionIQ's captions,
joined like this, keep 19 of 25 tokens when masked; CIRR's, which average 25 without joining, keep 18, so the joined ones
are the harder set.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch starts its threads

import torch
from torch.nn import functional as F

from cir_vectorizer import models
from cir_vectorizer.backbones import Backbone, TokenRow
from cir_vectorizer.composers.lincir import Phi
from cir_vectorizer_trainer.captions.keywords import best_tagger
from cir_vectorizer_trainer.captions.reading import read_captions
from cir_vectorizer_trainer.phi.examples import Example
from cir_vectorizer_trainer.phi.loss import add_noise, self_masking_loss
from cir_vectorizer_trainer.phi.trainer import Hyperparameters, PhiTrainer

LONG_WORDS = 20


def long_captions(captions: list[str], count: int) -> list[str]:
    """Join captions by "and" until each has about 25 tokens."""
    joined: list[str] = []
    parts: list[str] = []
    for caption in captions:
        parts.append(caption)
        if sum(len(part.split()) + 1 for part in parts) >= LONG_WORDS:
            joined.append(" and ".join(parts))
            parts = []
    return list(dict.fromkeys(joined))[:count]


def padded(row: TokenRow, backbone: Backbone) -> list[int]:
    return list(row.ids) + [backbone.text.facts.end_id] * (backbone.text.facts.context_length - len(row.ids))


class PlainRecipe:
    """The published recipe without any shortcut: 77-token rows, both captions encoded at every step."""

    def __init__(self, backbone: Backbone, hyperparameters: Hyperparameters) -> None:
        self.backbone = backbone
        self.towers = backbone._towers
        self.phi = Phi(backbone.dim, backbone.text.facts.width)
        self.optimizer = torch.optim.AdamW(
            self.phi.parameters(), lr=hyperparameters.lr, weight_decay=hyperparameters.weight_decay
        )

    def encode(self, ids: torch.Tensor, pseudo_tokens: torch.Tensor | None = None) -> torch.Tensor:
        embeddings = self.towers.embed_tokens(ids)
        if pseudo_tokens is not None:
            at_marker = (ids == self.backbone.text.facts.marker_id).unsqueeze(-1)
            embeddings = torch.where(at_marker, pseudo_tokens.unsqueeze(1), embeddings)
        return self.towers.encode_tokens(embeddings, ids, (ids == self.backbone.text.facts.end_id).int().argmax(1))

    def loss(self, originals: torch.Tensor, masked: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = self.encode(originals)
        return F.mse_loss(self.encode(masked, self.phi(wanted + noise)), wanted)

    def step(self, examples: list[Example]) -> float:
        originals, masked = (
            torch.tensor([padded(row, self.backbone) for row in rows], device=self.backbone.device)
            for rows in ([e.original for e in examples], [e.masked for e in examples])
        )
        noise = add_noise(torch.zeros(len(examples), self.backbone.dim, device=self.backbone.device), 1.0)
        loss = self.loss(originals, masked, noise)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def differences(trainer: PhiTrainer, plain: PlainRecipe, count: int) -> tuple[float, float]:
    """Return the difference of the two losses and the largest difference of the gradients of Φ.

    Both are computed on `count` captions with the same noise and without dropout.
    """
    examples = trainer.examples[:count]
    backbone, phi = trainer.backbone, trainer.phi.eval()
    plain.phi.load_state_dict(phi.state_dict())
    plain.phi.eval()
    noise = add_noise(torch.zeros(len(examples), backbone.dim), 1.0)
    with torch.no_grad():
        wanted = backbone.text.encode_text([e.original for e in examples])
    ours = self_masking_loss(backbone, phi, [e.masked for e in examples], wanted, wanted + noise)
    theirs = plain.loss(
        torch.tensor([padded(e.original, backbone) for e in examples]),
        torch.tensor([padded(e.masked, backbone) for e in examples]),
        noise,
    )
    gradients = (torch.autograd.grad(loss, list(net.parameters())) for loss, net in ((ours, phi), (theirs, plain.phi)))
    largest = max((a - b).abs().max().item() for a, b in zip(*gradients, strict=True))
    return abs(ours.item() - theirs.item()), largest


def measure(name: str, read: Callable[[], list[str]], arguments: argparse.Namespace) -> None:
    backbone = models.load(arguments.model, "cpu", parts=()).backbone
    hyperparameters = Hyperparameters(batch_size=arguments.batch_size)
    plain = PlainRecipe(backbone, hyperparameters)
    started = time.perf_counter()
    trainer = PhiTrainer(backbone, read(), best_tagger(), hyperparameters)
    ours = time.perf_counter() - started
    plain.step(trainer.examples[: hyperparameters.batch_size // 8])
    count = len(trainer.examples)
    steps = -(-2 * count // hyperparameters.batch_size)
    plain_at = [(2 * i + 1) * steps // (2 * arguments.plain_steps) for i in range(arguments.plain_steps)]
    plain_times: list[float] = []
    run = trainer.run(steps)
    for step in range(steps):
        for _ in range(plain_at.count(step)):
            examples = [trainer.examples[i] for i in trainer.picked(step)]
            started = time.perf_counter()
            plain.step(examples)
            plain_times.append(time.perf_counter() - started)
        started = time.perf_counter()
        next(run)
        ours += time.perf_counter() - started
    theirs = steps * statistics.mean(plain_times)
    original = sum(len(e.original.ids) for e in trainer.examples) / count
    masked = sum(len(e.masked.ids) for e in trainer.examples) / count
    loss, gradient = differences(trainer, plain, 64)
    drawn = steps * hyperparameters.batch_size
    print(
        f"{name}: {count:,} captions, {original:.1f} tokens, {masked:.1f} when masked; "
        f"batch {hyperparameters.batch_size}, {steps} steps"
    )
    print(f"  ours, whole run      {ours:9.1f} s   {drawn / ours:8.1f} captions/s")
    print(
        f"  plain                {theirs:9.1f} s   {drawn / theirs:8.1f} captions/s   "
        f"(steps of {', '.join(f'{t:.1f}' for t in plain_times)} s)"
    )
    print(f"  ratio {theirs / ours:.1f} x   (by count of tokens {231 / (original / 2 + 2 * masked):.1f} x)")
    print(
        f"  same loss on the same batch and noise within {loss:.1e}, gradients of Φ within {gradient:.1e}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", nargs="+", required=True)
    parser.add_argument("--column")
    parser.add_argument("--model", default="open_clip:ViT-B-32,pretrained=random")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--plain-steps", type=int, default=3)
    parser.add_argument("--most", type=int, help="largest number of captions in the first set; all if not given")
    parser.add_argument("--long", type=int, default=4000, help="largest number of joined captions in the second set")
    arguments = parser.parse_args()

    def read() -> list[str]:
        return read_captions(arguments.captions, arguments.column).captions[: arguments.most]

    measure(" ".join(Path(c).name for c in arguments.captions), read, arguments)
    measure("joined captions", lambda: long_captions(read(), arguments.long), arguments)


if __name__ == "__main__":
    main()
