"""`cir-vectorizer search`: pictures and words in, the nearest objects of a collection out."""

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cir_vectorizer import extras
from cir_vectorizer.cli.common import (
    DEVICE_OPTION,
    MODEL_OPTION,
    PICTURE_COLUMN_OPTION,
    PRECISION_OPTION,
    PRIVATE_URLS_OPTION,
    SERVICE_OPTION,
    TEXT_WEIGHT_OPTION,
    check_model_is_possible,
    collection_option,
    database_options,
    echo_json,
    fail_with_sentence,
    say_if_toy,
    served_model,
)

if TYPE_CHECKING:
    from cir_vectorizer.client import ServedModel
    from cir_vectorizer.collections import Collection, Hit
    from cir_vectorizer.collections.searching import Search
    from cir_vectorizer.models import Vectorizer
    from cir_vectorizer.query import ImageRef

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(short_help="Search a collection with pictures, words, or both.")
@collection_option("--in")
@MODEL_OPTION
@SERVICE_OPTION
@click.option("--image", "images", multiple=True, type=_FILE, help="Reference picture; repeat it for several.")
@click.option(
    "--id", "ids", multiple=True, metavar="ID", help="Object of the collection as reference picture; repeatable."
)
@click.option("--text", help="What should be different, or the whole search if there is no picture.")
@click.option("--negative-text", multiple=True, metavar="TEXT", help="What should not be there; repeatable.")
@click.option("--must-text", multiple=True, metavar="TEXT", help="What every result should show; repeatable.")
@click.option(
    "--like", multiple=True, metavar="ID|FILE", help="Draw the results towards this object or picture; repeatable."
)
@click.option("--unlike", multiple=True, metavar="ID|FILE", help="Push the results away from this one; repeatable.")
@click.option(
    "--mask", metavar="FILE|BOX", help="Where the picture may change: white in a picture, or left,top,right,bottom."
)
@click.option("--template", help="Prompt with $ (or $1, $2, …) for pictures and {text} for the text.")
@click.option("--language", metavar="TAG", help="Language of the prompt: de, fr, ja, ….  [default: the model's own]")
@click.option("--composer", metavar="NAME", help="How picture and words become one vector.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Number for the composer: keep=0.7, steps=10, seed=1, guidance=[1.5,7.5], weights.text=0.3, fusion.b=0.6; repeatable.",
)
@click.option("--filter", "where", metavar="CONDITIONS", help="For example: colour=red and price<50.")
@click.option("--include-reference", is_flag=True, help="Keep the objects of --id, --like and --unlike in the results.")
@click.option("--hybrid", is_flag=True, help="Look for the words of the text in the columns too.")
@click.option("--group-by", metavar="COLUMN", help="Only the best object for each value of this column.")
@TEXT_WEIGHT_OPTION
@click.option(
    "--strength",
    type=click.FloatRange(0, 10),
    help="How strongly --negative-text and --must-text reorder the results; 0: not at all.  [default: 2]",
)
@click.option("--diversity", type=click.FloatRange(0, 1), help="From 0 to 1: how much the results should differ.")
@click.option(
    "--min-score",
    type=float,
    help="Least standard score of a result: how far it stands out from the collection, in standard deviations.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many results.")
@click.option("--offset", type=click.IntRange(0), help="How many results to skip.")
@click.option("--page", type=click.IntRange(1), help="Which page of --limit results, counted from 1.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: id, id_text, score, signals, payload.")
@click.option(
    "--sheet",
    type=_FILE,
    help="Also write the query's pictures and the results to a picture sheet, .png or .html.",
)
@PICTURE_COLUMN_OPTION
@PRIVATE_URLS_OPTION
@DEVICE_OPTION
@PRECISION_OPTION
@database_options
@fail_with_sentence
def search(
    address: str,
    model: str,
    service: str | None,
    as_json: bool,
    sheet: Path | None,
    picture_column: str | None,
    private_urls: bool,
    device: str | None,
    precision: str,
    api_key: str | None,
    using: str | None,
    tenant: str | None,
    grpc: bool,
    grpc_port: int | None,
    **given: Any,
) -> None:
    """Search a collection with pictures, words, or both.

    Any part may be left out: a text alone is a text search, a picture alone finds similar pictures, and a picture with
    a text finds pictures that differ from it as the text says.

    Objects of the collection can be references too (--id): their vector is read, not their picture. They
    are left out of the results, unless --include-reference is given.
    """
    from cir_vectorizer.collections import OpenOptions, open_collection, parse_address, shown_columns
    from cir_vectorizer.collections.searching import find
    from cir_vectorizer.identity import json_id

    check_model_is_possible(service, device)
    if sheet is not None:
        extras.require("models", "--sheet")
    place = parse_address(address)
    asked = _read(**given)
    if sheet is not None and sheet.suffix.lower() not in (".png", ".html"):
        raise click.UsageError(f"--sheet {sheet} should end in .png or .html")
    if sheet is not None and not sheet.absolute().parent.is_dir():
        raise click.UsageError(f"the sheet's folder {sheet.parent} does not exist; make it, or give another --sheet")
    say_if_toy(service)

    collection = open_collection(place, api_key, OpenOptions(using, tenant, grpc, grpc_port, picture_column))
    try:
        found = find(asked, collection, _model(model, service, device, precision))
        if sheet is not None:
            info = collection.info()
            picture_column = picture_column or (info.picture_column if info is not None else None)
            shown = _references(asked, collection, picture_column)
    finally:
        collection.close()
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)
    if as_json:
        for hit in found.hits:
            said = {"score": hit.score, "signals": dict(hit.signals), "payload": shown_columns(hit.payload)}
            echo_json({**json_id(hit.id), **said})
    elif found.hits:
        _print_table(found.hits, asked.offset)
    else:
        limits = [
            name for name, given in (("the filter", asked.where), ("--min-score", asked.min_score is not None)) if given
        ]
        met = f": no object meets {' and '.join(limits)}" if limits else ""
        skipped = f" after the first {asked.offset:,} results" if asked.offset else ""
        click.echo(f"Nothing found{met}{skipped}.", err=True)
    if sheet is not None:
        from cir_vectorizer.cli.sheet import write_sheet
        from cir_vectorizer.sources import Web
        from cir_vectorizer.sources.places import Places

        places = Places(os.getcwd(), Web(private_urls))
        write_sheet(sheet, shown, _caption(asked), found.hits, places, picture_column)
        click.echo(f"Sheet: {sheet}", err=True)


def _model(name: str, service: str | None, device: str | None, precision: str) -> "Vectorizer | ServedModel":
    if service is not None:
        return served_model(service, name)
    from cir_vectorizer.models import load

    return load(name, device, precision)


def _read(
    images: tuple[Path, ...],
    ids: tuple[str, ...],
    text: str | None,
    negative_text: tuple[str, ...],
    must_text: tuple[str, ...],
    mask: str | None,
    template: str | None,
    language: str | None,
    composer: str | None,
    options: tuple[str, ...],
    like: tuple[str, ...],
    unlike: tuple[str, ...],
    where: str | None,
    include_reference: bool,
    hybrid: bool,
    group_by: str | None,
    limit: int,
    offset: int | None,
    page: int | None,
    **scores: float | None,
) -> "Search":
    """Return the search that the options describe."""
    from cir_vectorizer.collections.searching import Search

    if offset is not None and page is not None:
        raise click.UsageError("--offset and --page say the same; give one of them")
    if url := next((each for each in images if re.match("https?:/", str(each))), None):
        raise click.UsageError(f"--image {url} is a URL; download the picture, and give its file")
    said = {
        "image": [*images, *({"id": each} for each in ids)] or None,
        "text": text,
        "negative_text": list(negative_text) or None,
        "must_text": list(must_text) or None,
        "mask": None if mask is None else _mask(mask),
        "template": template,
        "language": language,
        "composer": composer,
        "options": _options(options),
    }
    query = {key: value for key, value in said.items() if value is not None}
    return Search.read(
        query if query or not (like or unlike) else None,
        [_picture("like", each) for each in like],
        [_picture("unlike", each) for each in unlike],
        where,
        limit=limit,
        offset=(page - 1) * limit if page is not None else offset or 0,
        hybrid=hybrid,
        group_by=group_by,
        include_reference=include_reference,
        **{name: value for name, value in scores.items() if value is not None},
    )


def _picture(option: str, text: str) -> dict[str, Any] | Path:
    """Return a file if one has this name, else an object's id."""
    from cir_vectorizer.collections.stored import read_id
    from cir_vectorizer.errors import QueryError

    if Path(text).is_file():
        return Path(text)
    try:
        return {"id": read_id(text, option)}
    except QueryError as error:
        problem = f"{text!r} is neither an existing file nor an id (a whole number or a UUID); correct it"
        raise QueryError(option, problem) from error


def _mask(text: str) -> Path | list[float]:
    """Return a mask's file, or the four numbers of a box, which are separated by commas."""
    parts = text.split(",")
    try:
        return [float(part) for part in parts] if len(parts) == 4 and not Path(text).exists() else Path(text)
    except ValueError:
        return Path(text)


def _options(texts: Sequence[str]) -> dict[str, Any] | None:
    """Return the composer's options; a dot in a key makes a group of numbers."""
    from cir_vectorizer.errors import QueryError

    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise QueryError("option", f"{text!r} is not KEY=VALUE; write for example --option keep=0.7")
        *groups, name = key.strip().split(".")
        into = options
        for group in groups:
            into = into.setdefault(group, {})
            if not isinstance(into, dict):
                raise QueryError("option", f"{group} is both a number and a group of numbers; give one of them")
        try:
            into[name] = json.loads(value)
        except ValueError as error:
            raise QueryError(
                f"options.{key}", f"is {value!r}, which is no number; write for example keep=0.7"
            ) from error
    return options or None


def _references(asked: "Search", collection: "Collection", picture_column: str | None) -> list[tuple[Any, str]]:
    """Return the places of a search's pictures, with captions."""
    from cir_vectorizer.cli.sheet import name_of
    from cir_vectorizer.collections import place_of
    from cir_vectorizer.collections.stored import read_id

    groups: list[tuple[str, tuple[ImageRef, ...]]] = [
        ("", asked.query.image if asked.query else ()),
        ("like ", asked.like),
        ("unlike ", asked.unlike),
    ]
    ids = [read_id(ref.id, "id") for _, refs in groups for ref in refs if ref.id is not None]
    found = {point.id: place_of(point.payload, picture_column) for point in (collection.get(ids) if ids else [])}
    shown: list[tuple[Any, str]] = []
    for words, refs in groups:
        for ref in refs:
            place = str(ref.path) if ref.id is None else found.get(read_id(ref.id, "id"))
            shown.append((place, words + (name_of(place) or str(ref.id))))
    return shown


def _caption(asked: "Search") -> str:
    query = asked.query
    if query is None:
        return ""
    said = (("not", query.negative), ("must show", ", ".join(query.wanted)))
    return " ".join(filter(None, [query.text, *(f"({name}: {words})" for name, words in said if words)]))


def _print_table(hits: "list[Hit]", offset: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from cir_vectorizer.collections import shown_columns

    payloads = [shown_columns(hit.payload) for hit in hits]
    columns = list(dict.fromkeys(key for payload in payloads for key in payload))
    signals = list(dict.fromkeys(name for hit in hits for name in hit.signals))
    signals = signals if signals != ["picture"] else []  # else it is the score itself
    table = Table("", "score", *signals, *columns, box=None)
    for rank, (hit, payload) in enumerate(zip(hits, payloads, strict=True), start=offset + 1):
        cells = [f"{hit.signals[name]:.3f}" if name in hit.signals else "" for name in signals]
        cells += [str(payload.get(column, "")) for column in columns]
        table.add_row(str(rank), f"{hit.score:.4f}", *cells)
    console = Console(file=sys.stdout, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # lines are not wrapped in a pipe
    console.print(table)
