"""`cir-vectorizer models`: lists, fetches, imports and shows models."""

from pathlib import Path
from typing import Any

import click

from cir_vectorizer.cli.common import echo_json, fail_with_sentence, needs
from cir_vectorizer.models import published
from cir_vectorizer.models.recommended import HEADINGS, RECOMMENDED


@click.group(short_help="List, fetch, import and show models.")
def models() -> None:
    """List, fetch, import and show models."""


@models.command("list")
def list_models() -> None:
    """List the built-in names and whether their weights are here, and recommended encoders.

    An encoder is a --model by itself, for plain searches and `sum`. `train --model` makes a Φ for it; for some, others have
    published one, which has a built-in name or is a file for `models import`.
    """
    click.echo(f"{'tiny':22}packaged   small CLIP and Φ of the drawn catalog")
    for name, entry in published.PUBLISHED.items():
        here = all((published.store() / name / file).is_file() for file in entry.files)
        click.echo(f"{name:22}{'fetched' if here else 'on the hub':11}{entry.about}")
    click.echo("\nRecommended encoders:")
    rows = [HEADINGS, *(encoder.cells() for encoder in RECOMMENDED)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@models.command()
@click.argument("name")
@needs("models")
def pull(name: str) -> None:
    """Fetch the weights of a built-in model from the hub."""
    if name == "tiny":
        click.echo(str(published.TINY_FOLDER))
        return
    published.fetch(name)
    from cir_vectorizer.models import pull as make_folder

    click.echo(str(make_folder(name)))


@models.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--backbone", required=True, metavar="SPEC", help="For example open_clip:ViT-H-14,pretrained=laion2b_s32b_b79k"
)
@click.option(
    "--text-backbone", metavar="SPEC", help="CompoDiff: model whose text states it reads, if not the backbone."
)
@click.option(
    "--out", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="Model folder to write."
)
@click.option("--overwrite", is_flag=True, help="Replace such a composer, or a model over another backbone, in --out.")
@needs("models")
def import_weights(checkpoint: Path, backbone: str, text_backbone: str | None, folder: Path, overwrite: bool) -> None:
    """Make a model folder from a published checkpoint.

    CHECKPOINT is a Φ file (LinCIR, SEARLE or Pic2Word), or a CompoDiff folder: config.json and its weights.
    """
    from cir_vectorizer.backbones import BackboneSpec
    from cir_vectorizer.models import import_checkpoint

    text_spec = BackboneSpec.parse(text_backbone) if text_backbone else None
    click.echo(str(import_checkpoint(checkpoint, BackboneSpec.parse(backbone), folder, text_spec, overwrite)))


@models.command()
@click.argument("name")
@fail_with_sentence
def show(name: str) -> None:
    """Print the record of a built-in model or a model folder as JSON.

    With the extra `models` installed, it lists all composers that the model gets here, and what each of them takes.
    """
    from cir_vectorizer import extras
    from cir_vectorizer.models import composer_kinds, describe, folder_of, has_record, read_record
    from cir_vectorizer.models.record import composer_digest, read_defaults
    from cir_vectorizer.query import Options

    folder = folder_of(name)
    if name in published.PUBLISHED and not has_record(folder):
        entry = published.PUBLISHED[name]
        echo_json({"fetched": False, "repo": entry.repo, "files": entry.files, "backbone": entry.backbone}, indent=2)
        return
    if not has_record(folder):
        describe(name)  # says what the name is instead
    record = read_record(folder)
    defaults = read_defaults(folder, record)
    kinds = composer_kinds() if not extras.missing("models") else {}  # composers are classes, which need torch
    weightless: dict[str, Any] = {name: {} for name, kind in kinds.items() if kind.weightless}
    shown = weightless | record["composers"]
    for composer, said in shown.items():
        shown[composer] = {**said, "digest": composer_digest(composer, said, defaults.get(composer, Options()))}
        if kinds:
            kind = kinds.get(said.get("kind", composer))
            shown[composer]["takes"] = kind.takes.with_fusion().to_json() if kind is not None else None
    echo_json({**record, "composers": shown}, indent=2)
