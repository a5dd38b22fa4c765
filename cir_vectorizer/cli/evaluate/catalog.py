"""`cir-vectorizer evaluate catalog`: composers judged on queries made of a synced collection."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cir_vectorizer.cli.common import (
    DEVICE_OPTION,
    MODELS_OPTION,
    PRECISION_OPTION,
    check_sheet,
    collection_option,
    database_options,
    needs,
    say_if_toy,
    sheet_option,
)
from cir_vectorizer.cli.evaluate.showing import check_out, show

if TYPE_CHECKING:
    from cir_vectorizer.collections import Collection
    from cir_vectorizer.evaluate.catalog import Judged
    from cir_vectorizer.models import Vectorizer


@click.command(short_help="Judge composers on queries made of your own catalog.")
@collection_option("--in")
@MODELS_OPTION
@click.option(
    "--attributes",
    metavar="COLUMNS",
    help="Columns whose values queries change, separated by commas; chosen from the data if left out.",
)
@click.option("--captions", metavar="COLUMN", help="Read the attributes from this column of captions instead.")
@click.option(
    "--language", default="en", show_default=True, help="Language of columns, captions and queries: en or de."
)
@click.option("--queries", type=click.IntRange(40, 20_000), default=600, show_default=True, help="Queries to make.")
@click.option(
    "--objects",
    type=click.IntRange(20, 200_000),
    default=20_000,
    show_default=True,
    help="Largest number of objects to search; a larger collection is sampled.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--apply",
    is_flag=True,
    help="Make the best setting the default: of its model folder, and the texts' weight of the collection.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("evaluation-catalog"),
    show_default=True,
    metavar="DIR",
    help="Folder for report.html, report.md and report.json.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@sheet_option("a typical query of each attribute, with plain CLIP's results and those of the best composer,")
@DEVICE_OPTION
@PRECISION_OPTION
@database_options
@needs("models")
def catalog(
    address: str, models: tuple[str, ...], attributes: str | None, captions: str | None, language: str, queries: int,
    objects: int, seed: int, apply: bool, out: Path | None, as_json: bool, sheet: Path | None, device: str | None,
    precision: str, api_key: str | None, using: str | None, tenant: str | None, grpc: bool, grpc_port: int | None,
) -> None:  # fmt: skip
    """Judge composers on queries made of your own catalog, without labelling anything.

    Queries take an object's picture and ask for a change of its attributes; the objects with exactly the attributes asked for are
    right. Weights are chosen on one half of the queries; the figures are those of the other half.
    """
    from cir_vectorizer.collections import OpenOptions, open_collection
    from cir_vectorizer.evaluate.catalog import Asking, judge

    if captions is not None and attributes is not None:
        raise click.UsageError("--captions and --attributes say the same; give one of them")
    if apply:
        _check_own(models)
    check_sheet(sheet)
    check_out(out)
    say_if_toy()
    named = tuple(dict.fromkeys(filter(None, (each.strip() for each in (attributes or "").split(",")))))
    asking = Asking(named, captions, queries, objects, language, seed)
    collection = open_collection(address, api_key, OpenOptions(using, tenant, grpc, grpc_port))
    try:
        loaded = _loaded(models, device, precision)
        judged = judge(collection, loaded, asking, lambda sentence: click.echo(sentence, err=True))
        show(judged.report, out, as_json, sheet)
        if apply:
            _apply(judged, loaded, collection)
    finally:
        collection.close()


def _loaded(names: tuple[str, ...], device: str | None, precision: str) -> "dict[str, Vectorizer]":
    from cir_vectorizer.models import load

    if len(set(names)) < len(names):
        raise click.UsageError("--model names one model twice; name two different ones to compare them")
    ends = [Path(name).name for name in names]
    shown = ends if len(set(ends)) == len(ends) else names
    return {label: load(name, device, precision) for label, name in zip(shown, names, strict=True)}


def _check_own(names: tuple[str, ...]) -> None:
    """Check that every model can have defaults, before the work is done."""
    from cir_vectorizer.models.writing import own_folder

    for name in names:
        own_folder(name)


def _apply(judged: "Judged", models: "dict[str, Vectorizer]", collection: "Collection") -> None:
    from cir_vectorizer.models import set_defaults

    choice = judged.choice
    folder = models[str(choice.settings["model"])].name
    set_defaults(folder, str(choice.settings["composer"]), choice.options)
    options = f" with {json.dumps(choice.options)}" if choice.options else ""
    click.echo(f"{folder} now composes with {choice.settings['composer']!r}{options} by default", err=True)
    if judged.text_weight is not None:
        collection.weigh_texts(judged.text_weight)
        click.echo(f"searches in {collection.address} now weigh texts {judged.text_weight:g} by default", err=True)
