"""`cir-vectorizer train`: tune Φ on captions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cir_vectorizer.cli.common import DEVICE_OPTION, MODEL_OPTION, needs
from cir_vectorizer.errors import CaptionError

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer

MOST_STEPS = 20_000
CAPTIONS_A_STEP, EDITS_A_STEP = 512, 128


@click.command(short_help="Tune Φ (LinCIR) on product captions; no pictures needed.")
@click.option(
    "--captions",
    "sources",
    multiple=True,
    metavar="FILE",
    help="txt, csv, tsv, json, jsonl or parquet, also .gz; - reads lines from standard input. Repeatable.",
)
@click.option("--column", help="Column that holds the captions; guessed if only one is possible.")
@click.option(
    "--out", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="Model folder to write."
)
@MODEL_OPTION
@click.option(
    "--objective",
    type=click.Choice(["lincir", "edits"]),
    default="lincir",
    show_default=True,
    help="lincir: rebuild captions, as published. edits: change them, as queries do.",
)
@click.option(
    "--edits",
    "edit_tables",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="For objective edits: table with columns reference, words and target. Repeatable.",
)
@click.option(
    "--adapt-text-tower/--no-adapt-text-tower",
    default=True,
    show_default=True,
    help="For objective edits: whether the tower that reads prompts learns too.",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Steps in total.  [default: two passes, at least 2,000 (edits: 500), at most 20,000]",
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Captions or edits in a step.  [default: 512 captions or 128 edits]"
)
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
    sources: tuple[str, ...], column: str | None, folder: Path, model: str, objective: str,
    edit_tables: tuple[Path, ...], adapt_text_tower: bool, steps: int | None, batch_size: int | None,
    lr: float, noise_strength: float | None, seed: int, resume: bool, device: str | None,
) -> None:  # fmt: skip
    """Tune Φ on captions, without pictures, and write a model folder.

    With --objective edits, Φ and an adapter of the text tower learn from edits of captions, which --edits gives. They
    start from the weights of --model, if it has any. Captions that no edit uses are trained on as published.

    A part of the captions or edits is held out; the weights with the lowest loss on it are kept. Ctrl-C saves and
    stops; --resume continues.

    \b
    cir-vectorizer train --captions catalog.txt --out my-model
    cir-vectorizer train --captions products.csv --column title --out my-model --model lincir-vit-l
    """
    from cir_vectorizer import models
    from cir_vectorizer_trainer.captions.keywords import best_tagger
    from cir_vectorizer_trainer.captions.reading import CaptionSet, read_captions
    from cir_vectorizer_trainer.edits.table import read_edits
    from cir_vectorizer_trainer.phi.edits_trainer import EditHyperparameters, EditTrainer, lincir_of
    from cir_vectorizer_trainer.phi.trainer import Hyperparameters, PhiTrainer
    from cir_vectorizer_trainer.phi.training import train as run
    from cir_vectorizer_trainer.progress import Progress, Units, say_result, say_resumed, watched

    _check_sources(objective, sources, edit_tables)
    captions = read_captions(sources, column) if sources else CaptionSet([], 0, 0, 0)
    if sources:
        click.echo(captions.summary(), err=True)
    tagger = best_tagger()
    trainer: PhiTrainer | EditTrainer
    if objective == "edits":
        edits = list(dict.fromkeys(edit for table in edit_tables for edit in read_edits(table)))
        if not edits:
            raise CaptionError(f"{' and '.join(map(str, edit_tables))} holds no edit; give a table with rows")
        start = _load_start(model, device)
        settings = EditHyperparameters(
            batch_size=batch_size or EDITS_A_STEP, lr=lr, seed=seed, noise_strength=noise_strength,
            adapt_text_tower=adapt_text_tower,
        )  # fmt: skip
        backbone = start.backbone
        trainer = EditTrainer(
            backbone, edits, captions.captions, tagger, settings, lincir_of(start), models.folder_of(model),
        )  # fmt: skip
        count, held_out, least = len(trainer.examples), len(trainer.validation), 500
    else:
        backbone = models.load(model, device, parts=()).backbone
        trainer = PhiTrainer(
            backbone, captions.captions, tagger,
            Hyperparameters(
                batch_size=batch_size or CAPTIONS_A_STEP, lr=lr, seed=seed, noise_strength=noise_strength
            ),
            models.folder_of(model),
        )  # fmt: skip
        count, held_out, least = len(trainer.captions), len(trainer.validation_captions), 2000
    a_step = trainer.hyperparameters.batch_size
    unit = "edits" if objective == "edits" else "captions"
    total = steps or min(MOST_STEPS, max(least, -(-2 * count // a_step)))
    if resume:
        trainer.resume(folder)
        say_resumed(trainer)
    click.echo(
        f"backbone {backbone.spec} on {backbone.device}; keywords by {tagger.name}; "
        f"{count:,} {unit} to train on, {held_out:,} held out; "
        f"noise {trainer.noise_strength:.3g} x mean ‖e‖/√dim (published: {trainer.published_strength:.3g})",
        err=True,
    )

    def note(progress: Progress) -> str:
        return f"loss {progress.loss:.5f}  validation {progress.validation.loss:.5f}"

    finished = watched(
        lambda show, stop: run(trainer, total, folder, show, stop),
        Units(unit, a_step, trainer.step, total),
        note,
    )
    say_result(trainer, finished)
    click.echo(str(folder))


def _check_sources(objective: str, captions: Sequence[str], edits: Sequence[Path]) -> None:
    """Check that the objective gets what it learns from.

    Raises:
        UsageError: says which option is missing, or has no use.
    """
    if objective == "edits" and not edits:
        raise click.UsageError("--objective edits needs edits; name their table with --edits FILE")
    if objective == "lincir" and edits:
        raise click.UsageError("--edits is for --objective edits; add that, or leave out --edits")
    if objective == "lincir" and not captions:
        raise click.UsageError("Missing option '--captions'.")


def _load_start(model: str, device: str | None) -> "Vectorizer":
    """Load a model with its Φ, if it has one."""
    from cir_vectorizer import models
    from cir_vectorizer.models.published import PUBLISHED

    folder = models.folder_of(model)
    if models.has_record(folder):
        known = "lincir" in models.read_record(folder)["composers"]
    else:
        known = model in PUBLISHED and PUBLISHED[model].composer == "lincir"
    return models.load(model, device, parts=("lincir",) if known else ())
