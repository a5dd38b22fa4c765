"""`cir-vectorizer train`: tune Φ on captions."""

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cir_vectorizer.cli.common import DEVICE_OPTION, MODEL_OPTION, needs

if TYPE_CHECKING:
    from cir_vectorizer_trainer.phi.trainer import PhiTrainer

MOST_STEPS = 20_000


@click.command(short_help="Tune Φ (LinCIR) on product captions; no pictures needed.")
@click.option(
    "--captions",
    "sources",
    multiple=True,
    required=True,
    metavar="FILE",
    help="txt, csv, tsv, json, jsonl or parquet, also .gz; - reads lines from standard input. Repeatable.",
)
@click.option("--column", help="Column that holds the captions; guessed where there is no doubt.")
@click.option(
    "--out", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="Model folder to write."
)
@MODEL_OPTION
@click.option(
    "--steps", type=click.IntRange(1), help="Steps in all.  [default: two passes, at least 2,000, at most 20,000]"
)
@click.option("--batch-size", type=click.IntRange(1), default=512, show_default=True)
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True), default=1e-4, show_default=True, help="Learning rate of AdamW."
)
@click.option(
    "--noise-strength",
    type=click.FloatRange(0),
    metavar="X",
    help="Noise in units of mean ‖e‖/√dim.  [default: the published noise]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--resume", is_flag=True, help="Continue the run in --out exactly where it was saved.")
@DEVICE_OPTION
@needs("train")
def train(
    sources: tuple[str, ...], column: str | None, folder: Path, model: str, steps: int | None, batch_size: int,
    lr: float, noise_strength: float | None, seed: int, resume: bool, device: str | None,
) -> None:  # fmt: skip
    """Tune Φ on captions, text alone, and write a model folder.

    A part of the captions is held out; the weights with the lowest loss on it are kept. Ctrl-C saves and stops, and
    --resume goes on.

    \b
    cir-vectorizer train --captions catalog.txt --out my-model
    cir-vectorizer train --captions products.csv --column title --out my-model --model lincir-vit-l
    """
    from cir_vectorizer import models
    from cir_vectorizer_trainer.captions.keywords import best_tagger
    from cir_vectorizer_trainer.captions.reading import read_captions
    from cir_vectorizer_trainer.phi.trainer import PhiTrainer, Settings
    from cir_vectorizer_trainer.phi.trainer import train as run

    captions = read_captions(sources, column)
    click.echo(captions.summary(), err=True)
    backbone = models.load(model, device).backbone
    tagger = best_tagger()
    trainer = PhiTrainer(
        backbone, captions.captions, tagger,
        Settings(batch_size=batch_size, lr=lr, seed=seed, noise_strength=noise_strength),
        models.folder_of(model),
    )  # fmt: skip
    total = steps or min(MOST_STEPS, max(2000, -(-2 * len(trainer.captions) // batch_size)))
    if resume:
        trainer.resume(folder)
        click.echo(f"resuming after step {trainer.step:,}", err=True)
    click.echo(
        f"backbone {backbone.spec} on {backbone.device}; keywords by {tagger.name}; "
        f"{len(trainer.captions):,} captions to train on, {len(trainer.validation_captions):,} held out; "
        f"noise {trainer.noise_strength:.3g} x mean ‖e‖/√dim (published: {trainer.published_strength:.3g})",
        err=True,
    )
    finished = _run(trainer, run, total, folder)
    first, best = trainer.history[0][1], trainer.best_loss
    click.echo(f"validation loss {first:.5f} before, {best:.5f} at its best (step {trainer.best_step:,})", err=True)
    if not finished:
        click.echo(f"stopped and saved after step {trainer.step:,}; go on with --resume", err=True)
        sys.exit(130)
    click.echo(str(folder))


def _run(trainer: "PhiTrainer", run: Any, total: int, folder: Path) -> bool:
    def note(progress: Any) -> str:
        return f"loss {progress.loss:.5f}  validation {progress.validation_loss:.5f}"

    return watched(
        lambda show, stop: run(trainer, total, folder, show, stop),
        Units("captions", trainer.settings.batch_size, trainer.step, total),
        note,
    )


@dataclass(frozen=True)
class Units:
    """What a progress bar counts: `per_step` things called `name` a step, from step `first` to step `total`."""

    name: str
    per_step: int
    first: int
    total: int


def watched(
    run: Callable[[Callable[[Any], None], Callable[[], bool]], bool], units: Units, note: Callable[[Any], str]
) -> bool:
    """Drive a training with a progress bar (lines where there is no terminal) and a soft Ctrl-C.

    Args:
        run: trains; is given a function to call with each progress (which has `step`) and one that says when to stop.
        note: what to show of a progress beside its rate.

    Returns:
        What `run` returns: whether it came to its end.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    stopping: list[int] = []

    def stop(number: int, _: Any) -> None:
        if stopping:
            signal.signal(number, signal.default_int_handler)
            raise KeyboardInterrupt
        stopping.append(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    console = Console(stderr=True)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    started = printed = time.monotonic()
    try:
        with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("training", total=units.total, completed=units.first, note="")

            def show(progress: Any) -> None:
                nonlocal printed
                now = time.monotonic()
                rate = (progress.step - units.first) * units.per_step / (now - started)
                line = f"{rate:,.0f} {units.name}/s  {note(progress)}"
                bar.update(task, completed=progress.step, note=line)
                if not console.is_terminal and (now - printed > 10 or progress.step == units.total):
                    printed = now
                    left = (units.total - progress.step) * units.per_step / rate
                    click.echo(f"step {progress.step:,}/{units.total:,}  {line}  {left:,.0f} s left", err=True)

            return run(show, lambda: bool(stopping))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
