"""`cir-vectorizer train`: tune Φ on captions."""

from pathlib import Path

import click

from cir_vectorizer.cli.common import DEVICE_OPTION, MODEL_OPTION, needs

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
@click.option("--column", help="Column that holds the captions; guessed if only one is possible.")
@click.option(
    "--out", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="Model folder to write."
)
@MODEL_OPTION
@click.option(
    "--steps", type=click.IntRange(1), help="Steps in total.  [default: two passes, at least 2,000, at most 20,000]"
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
    """Tune Φ on captions, without pictures, and write a model folder.

    A part of the captions is held out; the weights with the lowest loss on it are kept. Ctrl-C saves and stops;
    --resume continues.

    \b
    cir-vectorizer train --captions catalog.txt --out my-model
    cir-vectorizer train --captions products.csv --column title --out my-model --model lincir-vit-l
    """
    from cir_vectorizer import models
    from cir_vectorizer_trainer.captions.keywords import best_tagger
    from cir_vectorizer_trainer.captions.reading import read_captions
    from cir_vectorizer_trainer.phi.trainer import Hyperparameters, PhiTrainer
    from cir_vectorizer_trainer.phi.trainer import train as run
    from cir_vectorizer_trainer.progress import Progress, Units, say_result, say_resumed, watched

    captions = read_captions(sources, column)
    click.echo(captions.summary(), err=True)
    backbone = models.load(model, device, parts=()).backbone
    tagger = best_tagger()
    trainer = PhiTrainer(
        backbone, captions.captions, tagger,
        Hyperparameters(batch_size=batch_size, lr=lr, seed=seed, noise_strength=noise_strength),
        models.folder_of(model),
    )  # fmt: skip
    total = steps or min(MOST_STEPS, max(2000, -(-2 * len(trainer.captions) // batch_size)))
    if resume:
        trainer.resume(folder)
        say_resumed(trainer)
    click.echo(
        f"backbone {backbone.spec} on {backbone.device}; keywords by {tagger.name}; "
        f"{len(trainer.captions):,} captions to train on, {len(trainer.validation_captions):,} held out; "
        f"noise {trainer.noise_strength:.3g} x mean ‖e‖/√dim (published: {trainer.published_strength:.3g})",
        err=True,
    )

    def note(progress: Progress) -> str:
        return f"loss {progress.loss:.5f}  validation {progress.validation.loss:.5f}"

    finished = watched(
        lambda show, stop: run(trainer, total, folder, show, stop),
        Units("captions", batch_size, trainer.step, total),
        note,
    )
    say_result(trainer, finished)
    click.echo(str(folder))
