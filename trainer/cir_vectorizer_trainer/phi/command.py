"""`cir-vectorizer train`: tune Φ on captions."""

import math
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cir_vectorizer.cli.common import DEVICE_OPTION, MODEL_OPTION, needs
from cir_vectorizer.errors import CaptionError
from cir_vectorizer_trainer.edits.options import column_option, language_was_given, making_options
from cir_vectorizer_trainer.output import kept_beside, output_options
from cir_vectorizer_trainer.phi.loop import LoopSettings, loop_options

if TYPE_CHECKING:
    from torch import Tensor

    from cir_vectorizer.models import Vectorizer
    from cir_vectorizer_trainer.edits.base import Edit
    from cir_vectorizer_trainer.edits.kinds import Kind
    from cir_vectorizer_trainer.edits.making import Making

CAPTIONS_A_STEP, EDITS_A_STEP = 512, 128
LEAST_STEPS, MOST_STEPS = 2000, 20_000
LEAST_EDIT_STEPS, MOST_EDIT_STEPS, EDIT_PASSES = 500, 2000, 1.5
LR, EDITS_LR = 1e-4, 1e-3
"""Learning rates of Φ. On edits it is in inverse proportion to the text tower's width, and this one at a width of 128."""
LEAST_EDITS = 20
PATIENCE = 5


@click.command(short_help="Tune Φ (LinCIR) on product captions; no pictures needed.")
@click.option(
    "--captions",
    "sources",
    multiple=True,
    metavar="FILE",
    help="txt, csv, tsv, json, jsonl or parquet, also .gz; - reads lines from standard input. Repeatable.",
)
@column_option
@click.option(
    "--keywords",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='Phrases, one a line, that are always keywords; after a "-", never.',
)
@click.option(
    "--out", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="Model folder to write."
)
@MODEL_OPTION
@click.option(
    "--objective",
    type=click.Choice(["edits", "lincir"]),
    help="edits: change captions, as queries do. lincir: rebuild them, as published.  [default: edits]",
)
@click.option(
    "--from-scratch", is_flag=True, help="Start with new weights, also if --model has a Φ and an adapter to go on from."
)
@making_options
@click.option(
    "--edits",
    "edit_tables",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Table of edits with columns reference, words and target; none are made of the captions then. Repeatable.",
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
    help="Steps in total.  [default: two passes, from 2,000 to 20,000; for objective edits 1.5 passes, from 500 to 2,000]",
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Captions or edits in a step.  [default: 512 captions or 128 edits]"
)
@click.option(
    "--lr",
    type=click.FloatRange(0, min_open=True),
    help="Learning rate of AdamW.  [default: 1e-4; for objective edits 1e-3 x 128 / width of the text tower]",
)
@click.option(
    "--noise-strength",
    type=click.FloatRange(0),
    metavar="X",
    help="Noise in units of mean ‖e‖/√dim.  [default: the published noise for CLIP's text towers, √dim / 10 for others]",
)
@click.option(
    "--patience",
    type=click.IntRange(1),
    default=PATIENCE,
    show_default=True,
    metavar="N",
    help="For objective edits: stop after N validations, one each 100 steps, that are no better than an earlier one.",
)
@click.option(
    "--picture-index",
    metavar="ADDRESS|DIR",
    help="For objective edits: collection or folder of pictures like those searched; their mean embedding shifts the "
    "held-out captions that stand for pictures.",
)
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Draw the curves of the validations.",
)
@click.option(
    "--tensorboard",
    "board_folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write losses and figures for TensorBoard, which must be installed.",
)
@loop_options
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--save-every",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    metavar="MINUTES",
    help="Time between two saved states to resume from.",
)
@output_options
@DEVICE_OPTION
@needs("train")
def train(
    sources: tuple[str, ...], column: str | None, keywords: Path | None, folder: Path, model: str,
    objective: str | None, from_scratch: bool,
    attributes: tuple[str, ...], phrasings: Path | None, language: str, known_only: bool, edit_tables: tuple[Path, ...],
    adapt_text_tower: bool, steps: int | None, batch_size: int | None, lr: float | None,
    noise_strength: float | None, patience: int, picture_index: str | None, plot_file: Path | None,
    board_folder: Path | None, seed: int, save_every: float, resume: bool, overwrite: bool, device: str | None, **loop_settings: Any,
) -> None:  # fmt: skip
    """Tune Φ on captions, without pictures, and write a model folder.

    Edits are made of the captions: a caption, words of a change, and the caption that is wanted then. Φ and an adapter
    of the text tower learn from them, and captions that gave none are trained on as LinCIR publishes it. With --objective
    lincir, all are, and no adapter learns. Training goes on from the Φ and the adapter of --model, if it has them.

    A part of the captions or edits is held out; the weights that do best on it are kept. With edits, they are judged by
    composed queries that must find their target among held-out captions, so no pictures are needed. Ctrl-C saves and stops;
    --resume continues.

    \b
    cir-vectorizer train --captions catalog.txt --model open_clip:ViT-B-32,pretrained=laion2b_s34b_b79k --out my-model
    cir-vectorizer train --captions products.csv --column title --attributes colour,type --model my-model --out my-next
    """
    from cir_vectorizer.composers.prompts import OURS, known_tag
    from cir_vectorizer_trainer.captions.keywords import best_tagger
    from cir_vectorizer_trainer.captions.reading import STDIN, CaptionSet, read_captions
    from cir_vectorizer_trainer.captions.wordlist import ListedTagger, read_word_list
    from cir_vectorizer_trainer.edits.making import Making
    from cir_vectorizer_trainer.edits.phrasings import Phrasings
    from cir_vectorizer_trainer.phi import processes
    from cir_vectorizer_trainer.phi.curves import Board, plot
    from cir_vectorizer_trainer.phi.edits_trainer import EditHyperparameters, EditTrainer, lincir_of
    from cir_vectorizer_trainer.phi.picture_index import embeddings_of_pictures
    from cir_vectorizer_trainer.phi.trainer import Hyperparameters, PhiTrainer
    from cir_vectorizer_trainer.phi.training import STATE_FILE
    from cir_vectorizer_trainer.phi.training import train as run
    from cir_vectorizer_trainer.progress import (
        OnProgress,
        Progress,
        ShouldStop,
        Units,
        say_result,
        say_resumed,
        watched,
    )

    beside = kept_beside(folder, "lincir", STATE_FILE, model, resume, overwrite)
    click.get_current_context().with_resource(processes.joined())
    if resume and objective is None:
        objective = _saved_objective(folder)
    for_edits = {
        "--edits": edit_tables, "--attributes": attributes, "--phrasings": phrasings, "--known-only": known_only,
        "--picture-index": picture_index,
    }  # fmt: skip
    _check_options(objective, sources, {option for option, given in for_edits.items() if given})
    if plot_file is not None and plot_file.suffix.lower() != ".png":
        raise click.UsageError(f"--plot draws a PNG picture; let the name {plot_file} end in .png")
    if processes.size() > 1 and STDIN in sources:
        raise click.UsageError("several processes cannot share standard input; give --captions a file")
    board = Board(board_folder) if board_folder is not None and processes.rank() == 0 else None
    phrases = read_word_list(keywords) if keywords else {}
    captions = read_captions(sources, column) if sources else CaptionSet([], 0, 0, 0)
    if sources:
        click.echo(captions.summary(), err=True)
    given = language_was_given()
    tagger = best_tagger(captions.captions, language.partition("-")[0] == "en" if given else None)
    edits: list[Edit] = []
    kinds: Sequence[Kind] = ()
    if objective != "lincir":
        making = Making(attributes, phrasings, language, known_only, seed=seed)
        fits = tagger.english or given or phrasings is not None or resume
        edits, kinds = _edits(captions.captions, sources, edit_tables, making, fits, bool(objective or attributes))
    if phrases:
        tagger = ListedTagger(tagger, phrases)
    default_schedule = loop_settings["schedule"] is None
    loop_settings["schedule"] = loop_settings["schedule"] or ("cosine" if edits else "constant")
    loop = LoopSettings(**loop_settings)
    loaded = _load_start(model, processes.own_device(device), from_scratch, loop)
    start, width = lincir_of(loaded), loaded.backbone.text.facts.width
    if known_tag(language, OURS) is None:
        click.echo(f"no prompt in {language!r} is built in, so prompts are in English", err=True)
    trainer: PhiTrainer | EditTrainer
    if edits:
        settings = EditHyperparameters(
            batch_size=batch_size or EDITS_A_STEP, lr=lr or EDITS_LR * 128 / width, seed=seed,
            noise_strength=noise_strength, adapt_text_tower=adapt_text_tower, language=language,
        )  # fmt: skip
        pictures: Tensor | None = None
        if picture_index is not None:
            pictures = embeddings_of_pictures(picture_index, loaded)
            click.echo(f"{picture_index}: judged with {len(pictures):,} pictures", err=True)
        trainer = EditTrainer(
            loaded.backbone, edits, captions.captions, tagger, settings, start, beside, kinds,
            Phrasings.read(phrasings, language), pictures, loop,
        )  # fmt: skip
        trainer.patience = patience
        unit, count, held_out = "edits", len(trainer.examples), len(trainer.validation)
        passes = math.ceil(EDIT_PASSES * count / settings.batch_size)
        default_steps = min(MOST_EDIT_STEPS, max(LEAST_EDIT_STEPS, passes))
    else:
        published = Hyperparameters(
            batch_size=batch_size or CAPTIONS_A_STEP, lr=lr or LR, seed=seed, noise_strength=noise_strength,
            language=language,
        )  # fmt: skip
        trainer = PhiTrainer(loaded.backbone, captions.captions, tagger, published, start, beside, loop)
        unit, count, held_out = "captions", len(trainer.captions), len(trainer.validation_captions)
        default_steps = min(MOST_STEPS, max(LEAST_STEPS, -(-2 * count // published.batch_size)))
    processes.check_equal(trainer.material)
    if resume:
        trainer.resume(folder)
        say_resumed(trainer)
    total = steps or trainer.total or default_steps
    if default_schedule and trainer.total not in (None, total):
        trainer.total = None  # nobody asked for this schedule, so it follows the new number of steps
    click.echo(
        f"backbone {loaded.backbone.spec} on {loaded.backbone.device}; keywords by {tagger.name}; "
        f"{count:,} {unit} to train on, {held_out:,} held out; {trainer.noise.sentence()}",
        err=True,
    )

    def note(progress: Progress) -> str:
        found = progress.validation.figures.get("r_at_10")
        judged = "" if found is None else f"  R@10 {found:.3f}"
        return f"loss {progress.loss:.5f}  validation {progress.validation.loss:.5f}{judged}"

    def run_shown(show: OnProgress, stop: ShouldStop) -> bool:
        def on_progress(progress: Progress) -> None:
            show(progress)
            if board is not None:
                board.note(progress)

        return run(trainer, total, folder, on_progress, stop, 60 * save_every)

    finished = watched(
        run_shown,
        Units(unit, trainer.hyperparameters.batch_size, trainer.step, total),
        note,
    )
    if plot_file is not None and processes.rank() == 0:
        plot(trainer.history, plot_file)
    say_result(trainer, finished)
    if trainer.step < total:
        click.echo(f"stopped after step {trainer.step:,}: {patience} validations were no better", err=True)
    for remark in trainer.remarks:
        click.echo(remark, err=True)
    click.echo(str(folder))


def _saved_objective(folder: Path) -> str | None:
    """Return the objective of the run in a model folder; None if there is none."""
    from cir_vectorizer import models

    if not models.has_record(folder):
        return None
    training = models.read_record(folder)["composers"].get("lincir", {}).get("training", {})
    return str(training.get("objective", "lincir"))


def _check_options(objective: str | None, captions: Sequence[str], for_edits: Collection[str]) -> None:
    """Check that the objective gets what it learns from.

    Args:
        for_edits: the given ones of the options that are for edits only.

    Raises:
        UsageError: says which option is missing, or has no use.
    """
    if objective == "lincir" and for_edits:
        option = min(for_edits)
        raise click.UsageError(f"{option} is for --objective edits; choose that, or leave out {option}")
    if {"--edits", "--attributes"} <= set(for_edits):
        raise click.UsageError("--attributes is for edits made of the captions; leave it or --edits out")
    if not captions and "--edits" not in for_edits:
        raise click.UsageError("Missing option '--captions'.")


def _edits(
    captions: Sequence[str], sources: Sequence[str], tables: Sequence[Path], making: "Making", fits: bool, needed: bool
) -> "tuple[list[Edit], Sequence[Kind]]":
    """Read edits from tables, or make them of captions where no table is given; say what was found.

    Returns:
        The edits, and the kinds of their captions' values.

    Args:
        fits: False if the captions are in another language than the phrasings, so that no edit is made of them.
        needed: whether captions of which no edit can be made are an error; else the list is then empty.

    Raises:
        CaptionError: the tables hold no edit.
        SourceError: a table or the phrasings cannot be read, a column is missing, or no edit can be made.
    """
    from cir_vectorizer_trainer.edits.making import MadeEdits, kinds_of_edits, worded_in_english
    from cir_vectorizer_trainer.edits.phrasings import NoPhrasingsError
    from cir_vectorizer_trainer.edits.swapping import NoEditError
    from cir_vectorizer_trainer.edits.table import read_edits

    if tables:
        tell = partial(click.echo, err=True)
        edits = list(dict.fromkeys(edit for table in tables for edit in read_edits(table, tell)))
        if not edits:
            raise CaptionError(f"{' and '.join(map(str, tables))} holds no edit; give a table with rows")
        return edits, kinds_of_edits(edits, making)
    try:
        if not fits:
            raise NoPhrasingsError(worded_in_english())
        made = MadeEdits(captions, sources, making)
        edits = made.drawn(LEAST_EDITS)
    except (NoEditError, NoPhrasingsError) as error:
        if needed:
            raise
        click.echo(f"{error}\nthe captions are trained on as LinCIR publishes it", err=True)
        return [], ()
    for sentence in (*made.about_kinds(), *made.about_edits()):
        click.echo(sentence, err=True)
    return edits, made.kinds


def _load_start(model: str, device: str | None, from_scratch: bool, loop: LoopSettings) -> "Vectorizer":
    """Load a model, with its Φ if it has one and the training goes on from it."""
    import torch

    from cir_vectorizer import models
    from cir_vectorizer.models.published import PUBLISHED

    folder = models.folder_of(model)
    if models.has_record(folder):
        known = "lincir" in models.read_record(folder)["composers"]
    else:
        known = model in PUBLISHED and PUBLISHED[model].composer == "lincir"
    dtype = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[loop.precision]
    return models.load(model, device, dtype, parts=("lincir",) if known and not from_scratch else ())
