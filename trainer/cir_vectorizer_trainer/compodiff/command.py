"""`cir-vectorizer train-compodiff` and `cir-vectorizer make-triplets`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cir_vectorizer.cli.common import DEVICE_OPTION, MODEL_OPTION, PRIVATE_URLS_OPTION, fail_with_sentence, needs
from cir_vectorizer.errors import SourceError
from cir_vectorizer_trainer.output import kept_beside, output_options

if TYPE_CHECKING:
    from cir_vectorizer.backbones import Backbone, TextEncoder
    from cir_vectorizer_trainer.compodiff.folder import Folder
    from cir_vectorizer_trainer.compodiff.tables import Tables
    from cir_vectorizer_trainer.compodiff.trainer import CompoDiffTrainer
    from cir_vectorizer_trainer.progress import Progress

_TABLE = click.Path(path_type=Path, dir_okay=False)
_SHOWN_FAILURES = 10
_PRIOR_STEPS = 2000
_EXAMPLES = {"pairs": "pictures with texts", "triplets": "triplets", "masked": "masked pictures"}


def _names(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[str]:
    return [name.strip() for value in values for name in value.split(",")]


@click.command("train-compodiff", short_help="Train CompoDiff on pictures with texts, and on triplets.")
@click.option(
    "--pairs",
    type=_TABLE,
    metavar="FILE",
    help="Table of pictures with texts: .csv, .tsv, .jsonl, .ndjson, .json or .parquet, also gzipped (.gz).",
)
@click.option(
    "--triplets",
    type=_TABLE,
    metavar="FILE",
    help="Table of reference pictures, texts and target pictures; the same kinds of file.",
)
@click.option(
    "--pair-columns",
    multiple=True,
    callback=_names,
    metavar="IMAGE,TEXT",
    help="Columns of --pairs.  [default: by name]",
)
@click.option(
    "--triplet-columns",
    multiple=True,
    callback=_names,
    metavar="REFERENCE,TEXT,TARGET",
    help="Columns of --triplets.  [default: by name]",
)
@click.option(
    "--out", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="Model folder to write."
)
@MODEL_OPTION
@click.option("--text-model", metavar="NAME|DIR", help="Model whose text tower is used.  [default: --model's]")
@click.option("--prior-steps", type=click.IntRange(0), help="Steps of stage 1.  [default: 2,000 with --pairs, else 0]")
@click.option(
    "--steps", type=click.IntRange(0), default=10_000, show_default=True, help="Steps of stage 2, after stage 1."
)
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Examples a step.")
@click.option(
    "--draws",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Number of times at which a step noises each example.",
)
@click.option(
    "--rows-per-text",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Examples with the same text that go into a batch together: fewer texts to compute a step.",
)
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Learning rate of AdamW.  [default: by the width]")
@click.option("--constant-lr", is_flag=True, help="Do not lower the learning rate towards the end.")
@click.option(
    "--noise-strength",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Noise in units of mean ‖e‖/√dim.  [default: the published noise for OpenAI's spaces, 1.4 for others]",
)
@click.option("--masks", type=click.IntRange(0), default=4, show_default=True, help="Masked variants of each picture.")
@click.option("--depth", type=click.IntRange(1, 64), help="Layers.  [default: 12 from width 512 on, else 4]")
@click.option(
    "--heads", type=click.IntRange(1, 64), help="Heads of self-attention.  [default: 16 from width 512 on, else 8]"
)
@click.option(
    "--head-dim", type=click.IntRange(2, 256), help="Width of a head.  [default: 64 from width 512 on, else 32]"
)
@click.option("--seed", type=click.IntRange(0, 2**40), default=0, show_default=True)
@click.option("--half", is_flag=True, help="Write the weights in half precision: a file of half the size.")
@PRIVATE_URLS_OPTION
@output_options
@DEVICE_OPTION
@needs("train")
def train_compodiff(
    pairs: Path | None, triplets: Path | None, pair_columns: list[str], triplet_columns: list[str], folder: Path,
    model: str, text_model: str | None, prior_steps: int | None, steps: int, batch_size: int, draws: int,
    rows_per_text: int, lr: float | None, constant_lr: bool, noise_strength: float | None, masks: int, depth: int | None, heads: int | None,
    head_dim: int | None, seed: int, half: bool, private_urls: bool, resume: bool, overwrite: bool,
    device: str | None,
) -> None:  # fmt: skip
    """Train CompoDiff for a model's picture space and write a model folder, with the model's other composers.

    Stage 1 draws a picture's embedding from its text. Stage 2 learns to change a picture by words (triplets) and to fill
    in what a mask hides. A part of the target pictures is held out; the weights with the lowest loss on it are kept.
    Pictures that cannot be read are reported and left out. Ctrl-C saves and stops; --resume continues.

    \b
    cir-vectorizer make-triplets products.csv --out triplets.csv
    cir-vectorizer train-compodiff --pairs products.csv --triplets triplets.csv --model my-model --out my-compodiff
    """
    if not pairs and not triplets:
        raise SourceError("there is nothing to train on; give --pairs, --triplets or both")
    if not steps and not prior_steps:
        raise SourceError("--steps 0 trains stage 1 alone; say with --prior-steps how long")
    from cir_vectorizer import models
    from cir_vectorizer.sources import Web
    from cir_vectorizer_trainer.compodiff.folder import STATE_FILE, Folder, Sizes, default_lr, new_network, noise_scale
    from cir_vectorizer_trainer.compodiff.frozen import assemble
    from cir_vectorizer_trainer.compodiff.tables import Tables
    from cir_vectorizer_trainer.compodiff.trainer import CompoDiffTrainer, Hyperparameters
    from cir_vectorizer_trainer.progress import say_result, say_resumed

    beside = kept_beside(folder, "compodiff", STATE_FILE, model, resume, overwrite)
    tables = Tables(Web(private_urls))
    if pairs:
        tables.read_pairs(pairs, pair_columns)
    if triplets:
        tables.read_triplets(triplets, triplet_columns)
    backbone = models.load(model, device, parts=()).backbone
    text = models.load(text_model, device, parts=()).backbone.text if text_model else None
    target = Folder(folder, beside, backbone, text, half)
    reader = text or backbone.text
    try:
        kept = target.kept_pictures() if resume else None
        data, embedded = assemble(tables, backbone, reader, masks, seed, kept=kept, on_pictures=_picture_lines())
    finally:
        _report(tables)
    target.keep_pictures(embedded)
    hyperparameters = Hyperparameters(
        batch_size=batch_size, draws=draws, rows_per_text=rows_per_text, seed=seed, lr=lr or default_lr(backbone),
        decay="constant" if constant_lr else "cosine",
    )  # fmt: skip
    network = new_network(
        backbone, reader, Sizes(depth, heads, head_dim), seed, noise_scale(backbone, data, noise_strength)
    )
    trainer = CompoDiffTrainer(network, data, hyperparameters)
    if resume:
        target.resume(trainer)
        say_resumed(trainer)
    if prior_steps is None:
        prior_steps = trainer.prior_steps if resume else _PRIOR_STEPS * ("pairs" in trainer.examples)
    _say_what(trainer, backbone, reader)
    say_result(trainer, _run(trainer, target, prior_steps, steps))
    click.echo(str(folder))


@click.command("make-triplets", short_help="Make training triplets from a catalog's attributes.")
@click.argument("table", type=_TABLE)
@click.option("--out", required=True, type=_TABLE, metavar="FILE", help="Table to write: csv, tsv or jsonl.")
@click.option(
    "--columns",
    multiple=True,
    callback=_names,
    metavar="A,B,…",
    help="Attributes that may differ; all others are not compared.  [default: columns of words with few different values]",
)
@click.option("--image-column", metavar="NAME", help="Column of the pictures.  [default: by name]")
@click.option("--count", type=click.IntRange(1), default=20_000, show_default=True, help="Largest number of triplets.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@fail_with_sentence
def make_triplets(table: Path, out: Path, columns: list[str], image_column: str | None, count: int, seed: int) -> None:
    """Make training triplets from a catalog's TABLE: pairs of products that differ in one or two attributes and agree in
    the others, with a text that names the difference: "in red instead of blue, striped".

    TABLE is a .csv, .tsv, .jsonl, .ndjson, .json or .parquet file, also gzipped (.gz).

    \b
    cir-vectorizer make-triplets products.csv --columns colour,pattern --out triplets.csv
    """
    from cir_vectorizer_trainer.compodiff.triplets import Catalog, TripletMaker, write_triplets

    catalog = Catalog.read(table, columns, image_column)
    maker = TripletMaker(catalog, seed)
    click.echo(
        f"{len(catalog.images):,} products with {', '.join(catalog.columns)}; {catalog.left_out:,} rows left out",
        err=True,
    )
    for note in catalog.notes:
        click.echo(f"Note: {note}", err=True)
    if catalog.ignored:
        ignored = ", ".join(f"{name} ({kind})" for name, kind in catalog.ignored.items())
        click.echo(f"Not taken for attributes: {ignored}; to use them, name all attributes with --columns", err=True)
    written = write_triplets(maker.draw(count), catalog, table, out)
    click.echo(f"{written:,} triplets; products differ in {', '.join(maker.useful)}", err=True)
    click.echo(str(out))


def _run(trainer: "CompoDiffTrainer", folder: "Folder", prior_steps: int, steps: int) -> bool:
    from cir_vectorizer_trainer.compodiff.folder import train
    from cir_vectorizer_trainer.progress import Units, watched

    def note(progress: "Progress") -> str:
        tasks = ", ".join(f"{task} {loss:.4f}" for task, loss in progress.validation.tasks.items())
        return f"{progress.validation.stage}  loss {progress.loss:.4f}  validation {progress.validation.loss:.4f} ({tasks})"

    rows = trainer.hyperparameters.batch_size * trainer.hyperparameters.draws
    return watched(
        lambda show, stop: train(trainer, folder, prior_steps, steps, show, stop),
        Units("rows", rows, trainer.step, prior_steps + steps),
        note,
    )


def _say_what(trainer: "CompoDiffTrainer", backbone: "Backbone", text: "TextEncoder") -> None:
    config = trainer.network.config
    size = sum(parameter.numel() for parameter in trainer.network.parameters())
    counts = ", ".join(
        f"{len(examples):,} {_EXAMPLES[task]} ({len(trainer.held_out.get(task, ())):,} held out)"
        for task, examples in trainer.data.tasks().items()
    )
    click.echo(
        f"pictures by {backbone.spec}, texts by {text.spec}, on {backbone.device}; {counts}; network of "
        f"{size / 1e6:,.1f} M parameters (depth {config.depth}, heads {config.heads}, head dim {config.head_dim}); "
        f"noise of deviation {config.noise_scale:g}",
        err=True,
    )


def _picture_lines() -> Callable[[int, int], None]:
    """Return a function that prints every ten seconds how many pictures are embedded."""
    printed = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal printed
        if time.monotonic() - printed > 10:
            printed = time.monotonic()
            click.echo(f"picture {done:,}/{total:,}", err=True)

    return show


def _report(tables: "Tables") -> None:
    for failure in tables.failures[:_SHOWN_FAILURES]:
        click.echo(f"left out: {failure}", err=True)
    if tables.failed > _SHOWN_FAILURES:
        click.echo(f"left out: {tables.failed - _SHOWN_FAILURES:,} more", err=True)
    for note in tables.notes:
        click.echo(f"Note: {note}", err=True)
