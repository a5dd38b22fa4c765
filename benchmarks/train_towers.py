"""Benchmark of training with the text towers of the papers: captions a second, and the time for the 10.24 M that they draw.

    python -m benchmarks.train_towers --device cuda [--model open_clip:ViT-L-14,pretrained=random …]

For towers of the sizes of ViT-L/14 and ViT-bigG/14, with random weights, steps of our trainer on captions are timed with
the encoding of their originals, and beside them steps of the plain recipe of `benchmarks.train_phi`, under autocast and in
smaller batches, since rows of 77 tokens need more memory. Then steps on edits are timed, and the parts of both kinds of
steps apart. Captions and edits are generated; lengths in tokens are printed with the result.
"""

import argparse
import itertools
import os
import random
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch starts its threads

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.train_phi import PlainRecipe
from cir_vectorizer import models
from cir_vectorizer.backbones import Backbone
from cir_vectorizer_trainer.captions.keywords import BuiltinTagger
from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.phi.edits_loss import edits_loss
from cir_vectorizer_trainer.phi.edits_trainer import EditHyperparameters, EditTrainer
from cir_vectorizer_trainer.phi.loop import LoopSettings
from cir_vectorizer_trainer.phi.loss import add_noise, self_masking_loss
from cir_vectorizer_trainer.phi.trainer import BLOCK, Hyperparameters, PhiTrainer

DRAWN = 10_240_000
"""Captions that the papers' trainings draw."""
MODELS = ["open_clip:ViT-L-14,pretrained=random", "open_clip:ViT-bigG-14,pretrained=random"]
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
COLOURS = "red blue green black white yellow purple brown".split()
ADJECTIVES = "striped wooden small large shiny old modern soft woollen plain floral".split()
NOUNS = "dress shirt table lamp dog horse bicycle boat chair jacket mug bag house bridge garden flower".split()
PLACES = "beach street kitchen shelf field station park window wall mountain river market".split()


def captions(count: int) -> list[str]:
    """Return `count` different captions."""
    parts = itertools.product(PLACES, NOUNS, ADJECTIVES, COLOURS, ("on", "near", "behind", "beside"))
    drawn = random.Random(0).sample(list(parts), count)
    return [f"a {colour} {adjective} {noun} {link} the {place}" for place, noun, adjective, colour, link in drawn]


def edits(texts: list[str]) -> list[Edit]:
    """Return an edit of the colour for each caption."""
    rng = random.Random(0)
    made = []
    for text in texts:
        article, old, rest = text.split(" ", 2)
        new = rng.choice([colour for colour in COLOURS if colour != old])
        made.append(Edit(text, f"in {new} instead of {old}", f"{article} {new} {rest}", "replace", "in … instead of …"))
    return made


def seconds(work: Callable[[], object], times: int, device: torch.device) -> float:
    """Return the mean time of a call, after one that is not timed."""
    work()
    _wait(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    _wait(device)
    return (time.perf_counter() - started) / times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def rate(name: str, captions_a_second: float) -> str:
    minutes = DRAWN / captions_a_second / 60
    return f"  {name:<24}{captions_a_second:10.1f} captions/s   {DRAWN:,} captions in {minutes:9.1f} min"


def parts_of_steps(published: PhiTrainer, edited: EditTrainer, steps: int) -> Table:
    """Time the parts of both kinds of steps, each alone."""
    device, table = published.backbone.device, Table(title="milliseconds a step, each part alone")
    for heading in (
        "part",
        f"{published.hyperparameters.batch_size} captions",
        f"{edited.hyperparameters.batch_size} edits",
    ):
        table.add_column(heading)
    picked = published.picked(0)
    examples = [published.examples[i] for i in picked]
    originals = published.backbone.text.encode_text([example.original for example in examples]).detach()
    batch = edited.examples.batch(edited.picked(0))
    masked = [example.masked for example in examples]

    def published_loss() -> torch.Tensor:
        return self_masking_loss(published.backbone, published.phi, masked, originals, add_noise(originals, 1.0))

    def edited_loss() -> torch.Tensor:
        tokens = edited.phi(add_noise(batch.references, 1.0))
        return edits_loss(edited.reader(), tokens, batch, edited.weights)

    @torch.no_grad()
    def encode() -> None:
        published.backbone.text.encode_text([example.original for example in examples])

    def step(trainer: PhiTrainer | EditTrainer, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def work() -> None:
            trainer.optimizer.zero_grad(set_to_none=True)
            loss().backward()
            trainer.optimizer.step()

        return work

    def forward(loss: Callable[[], torch.Tensor]) -> Callable[[], object]:
        return torch.no_grad()(loss)

    rows: list[tuple[str, Callable[[], object] | None, Callable[[], object] | None]] = [
        (
            "prepare the batch",
            lambda: [published.examples[i] for i in published.picked(1)],
            lambda: edited.examples.batch(edited.picked(1)),
        ),
        ("encode the originals", encode, None),
        ("Φ", lambda: published.phi(originals), lambda: edited.phi(batch.references)),
        ("add the adapter", None, edited.reader),
        ("read the prompts, loss", forward(published_loss), forward(edited_loss)),
        ("loss, gradients, optimiser", step(published, published_loss), step(edited, edited_loss)),
    ]
    for name, *works in rows:
        table.add_row(name, *("" if work is None else f"{1000 * seconds(work, steps, device):.1f}" for work in works))
    return table


def measure(model: str, arguments: argparse.Namespace) -> None:
    device, size = torch.device(arguments.device), arguments.batch_size
    texts = captions(round(2 * BLOCK / 0.95) + 100)
    backbone: Backbone | None = None
    for precision in arguments.precision:
        backbone = models.load(model, arguments.device, DTYPES[precision], parts=()).backbone
        loop = LoopSettings(precision=precision)
        trainer = PhiTrainer(backbone, texts, BuiltinTagger(), Hyperparameters(batch_size=size), loop=loop)
        tokens = [sum(len(getattr(e, name).ids) for e in trainer.examples) / len(trainer.examples) for name in
                  ("original", "masked")]  # fmt: skip
        print(
            f"{model}, {precision}: {tokens[0]:.1f} tokens a caption, {tokens[1]:.1f} when masked, batch {size}, {device}"
        )
        run, block = trainer.run(10**9), BLOCK // size
        for _ in range(block):
            next(run)
        _wait(device)
        started = time.perf_counter()
        for _ in range(block):  # these steps encode the second block of originals, each caption once
            next(run)
        _wait(device)
        ours = block * size / (time.perf_counter() - started)
        print(rate(f"ours, {precision}", ours), flush=True)
        settings = EditHyperparameters(batch_size=arguments.edits)
        edited = EditTrainer(backbone, edits(texts[:BLOCK]), [], BuiltinTagger(), settings, loop=loop)
        edited.examples.batch([0])
        edit_step = seconds(partial(edited._train_step, 10**9), arguments.steps, device)
        rows, published_step = 2 * arguments.edits, size / ours
        ratio = (edit_step / rows) / (published_step / size)
        print(
            f"  a step of {arguments.edits} edits ({rows} rows with gradient) takes {1000 * edit_step:.1f} ms: {ratio:.2f} of the "
            "time of a published step for each row with gradient"
        )
        Console(width=120).print(parts_of_steps(trainer, edited, arguments.steps))
        del edited, trainer, run
    assert backbone is not None
    backbone = models.load(model, arguments.device, parts=()).backbone
    plain = PlainRecipe(backbone, Hyperparameters())
    plain.phi.to(device)
    trainer = PhiTrainer(backbone, texts[:2000], BuiltinTagger(), Hyperparameters())
    some = trainer.examples[: arguments.plain_batch]
    with torch.autocast(device.type, torch.bfloat16):
        theirs = arguments.plain_batch / seconds(lambda: plain.step(some), arguments.steps, device)
    print(rate("plain, bf16 autocast", theirs) + f"   ratio {ours / theirs:.1f} x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--precision", nargs="+", choices=tuple(DTYPES), default=list(DTYPES))
    parser.add_argument("--batch-size", type=int, default=512, help=f"captions in a step; a divisor of {BLOCK}")
    parser.add_argument("--edits", type=int, default=128, help="edits in a step")
    parser.add_argument("--plain-batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    arguments = parser.parse_args()
    if arguments.device != "cpu":
        print(torch.cuda.get_device_name(arguments.device))
    for model in arguments.model:
        measure(model, arguments)


if __name__ == "__main__":
    main()
