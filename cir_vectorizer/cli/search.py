"""`cir-vectorizer search`: pictures and words in, the nearest objects of a collection out."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cir_vectorizer.cli.asking import (
    STRENGTH_OPTION,
    caption,
    query_options,
    read_picture,
    read_query_options,
    references,
)
from cir_vectorizer.cli.common import (
    DEVICE_OPTION,
    MODEL_OPTION,
    PICTURE_COLUMN_OPTION,
    PRECISION_OPTION,
    PRIVATE_URLS_OPTION,
    SERVICE_OPTION,
    TEXT_WEIGHT_OPTION,
    check_model_is_possible,
    check_sheet,
    collection_option,
    database_options,
    echo_json,
    fail_with_sentence,
    say_if_toy,
    served_model,
    sheet_option,
)
from cir_vectorizer.cli.printing import hits_table, terminal

if TYPE_CHECKING:
    from cir_vectorizer.client import ServedModel
    from cir_vectorizer.collections.searching import Search
    from cir_vectorizer.models import Vectorizer


@click.command(short_help="Search a collection with pictures, words, or both.")
@collection_option("--in")
@MODEL_OPTION
@SERVICE_OPTION
@query_options
@click.option(
    "--like", multiple=True, metavar="ID|FILE", help="Draw the results towards this object or picture; repeatable."
)
@click.option("--unlike", multiple=True, metavar="ID|FILE", help="Push the results away from this one; repeatable.")
@click.option("--filter", "where", metavar="CONDITIONS", help="For example: colour=red and price<50.")
@click.option("--include-reference", is_flag=True, help="Keep the objects of --id, --like and --unlike in the results.")
@click.option("--hybrid", is_flag=True, help="Look for the words of the text in the columns too.")
@click.option("--group-by", metavar="COLUMN", help="Only the best object for each value of this column.")
@TEXT_WEIGHT_OPTION
@STRENGTH_OPTION
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
@sheet_option("the query's pictures and the results")
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
    from cir_vectorizer.collections import OpenOptions, open_collection, parse_address, picture_column_of, shown_columns
    from cir_vectorizer.collections.searching import find
    from cir_vectorizer.identity import json_id

    check_model_is_possible(service, device)
    check_sheet(sheet)
    place = parse_address(address)
    asked = _read(**given)
    say_if_toy(service)

    collection = open_collection(place, api_key, OpenOptions(using, tenant, grpc, grpc_port, picture_column))
    try:
        found = find(asked, collection, _model(model, service, device, precision))
        if sheet is not None:
            picture_column = picture_column_of(collection, collection.info())
            shown = references(asked, collection, picture_column)
    finally:
        collection.close()
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)
    if as_json:
        for hit in found.hits:
            said = {"score": hit.score, "signals": dict(hit.signals), "payload": shown_columns(hit.payload)}
            echo_json({**json_id(hit.id), **said})
    elif found.hits:
        terminal().print(hits_table(found.hits, asked.offset + 1))
    else:
        limits = [
            name for name, given in (("the filter", asked.where), ("--min-score", asked.min_score is not None)) if given
        ]
        met = f": no object meets {' and '.join(limits)}" if limits else ""
        skipped = f" after the first {asked.offset:,} results" if asked.offset else ""
        click.echo(f"Nothing found{met}{skipped}.", err=True)
    if sheet is not None:
        from cir_vectorizer.cli.sheet import search_sheet
        from cir_vectorizer.sheets import write_sheet
        from cir_vectorizer.sources import Web
        from cir_vectorizer.sources.places import Places

        places = Places(os.getcwd(), Web(private_urls))
        write_sheet(sheet, search_sheet(shown, caption(asked), found.hits, places, picture_column))
        click.echo(f"Sheet: {sheet}", err=True)


def _model(name: str, service: str | None, device: str | None, precision: str) -> "Vectorizer | ServedModel":
    if service is not None:
        return served_model(service, name)
    from cir_vectorizer.models import load

    return load(name, device, precision)


def _read(
    like: tuple[str, ...],
    unlike: tuple[str, ...],
    where: str | None,
    include_reference: bool,
    hybrid: bool,
    group_by: str | None,
    limit: int,
    offset: int | None,
    page: int | None,
    text_weight: float | None,
    strength: float | None,
    diversity: float | None,
    min_score: float | None,
    **given: Any,
) -> "Search":
    """Return the search that the options describe."""
    from cir_vectorizer.collections.searching import Search

    if offset is not None and page is not None:
        raise click.UsageError("--offset and --page say the same; give one of them")
    query = read_query_options(**given)
    scores = {"text_weight": text_weight, "strength": strength, "diversity": diversity, "min_score": min_score}
    return Search.read(
        query if query or not (like or unlike) else None,
        [read_picture("like", each) for each in like],
        [read_picture("unlike", each) for each in unlike],
        where,
        limit=limit,
        offset=(page - 1) * limit if page is not None else offset or 0,
        hybrid=hybrid,
        group_by=group_by,
        include_reference=include_reference,
        **{name: value for name, value in scores.items() if value is not None},
    )
