"""`cir-vectorizer explain`: what picture and words each did to a search."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cir_vectorizer.cli.asking import (
    STRENGTH_OPTION,
    caption,
    query_options,
    read_query_options,
    references,
)
from cir_vectorizer.cli.common import (
    DEVICE_OPTION,
    MODEL_OPTION,
    PICTURE_COLUMN_OPTION,
    PRECISION_OPTION,
    PRIVATE_URLS_OPTION,
    TEXT_WEIGHT_OPTION,
    check_sheet,
    collection_option,
    database_options,
    echo_json,
    needs,
    say_if_toy,
    sheet_option,
)
from cir_vectorizer.cli.printing import hits_table, terminal

if TYPE_CHECKING:
    from cir_vectorizer.cli.explained import Explained
    from cir_vectorizer.collections import Hit


@click.command(short_help="Show what picture and words each did to a search.")
@collection_option("--in")
@MODEL_OPTION
@query_options
@click.option("--filter", "where", metavar="CONDITIONS", help="For example: colour=red and price<50.")
@TEXT_WEIGHT_OPTION
@STRENGTH_OPTION
@click.option("--limit", type=click.IntRange(1, 100), default=5, show_default=True, help="How many results.")
@click.option(
    "--words", type=click.IntRange(1, 100), default=8, show_default=True, help="Nearest words of each picture."
)
@click.option("--json", "as_json", is_flag=True, help="Print the explanation as one JSON object.")
@sheet_option("the words, and the results of picture alone, words alone and both,")
@PICTURE_COLUMN_OPTION
@PRIVATE_URLS_OPTION
@DEVICE_OPTION
@PRECISION_OPTION
@database_options
@needs("models")
def explain(
    address: str, model: str, where: str | None, text_weight: float | None, strength: float | None, limit: int, words: int,
    as_json: bool, sheet: Path | None, picture_column: str | None, private_urls: bool, device: str | None, precision: str,
    api_key: str | None, using: str | None, tenant: str | None, grpc: bool, grpc_port: int | None, **given: Any,
) -> None:  # fmt: skip
    """Show what picture and words each did to a search.

    Prints the words nearest to what the composer made of each picture (LinCIR), how far each part of the query moves its vector, and the
    results with their places in a search by the picture alone and by the words alone.
    """
    from cir_vectorizer.cli.explained import explain as taken_apart
    from cir_vectorizer.collections import OpenOptions, open_collection, parse_address, picture_column_of
    from cir_vectorizer.collections.searching import Search
    from cir_vectorizer.models import load

    check_sheet(sheet)
    place = parse_address(address)
    scores = {"text_weight": text_weight, "strength": strength}
    given_scores: dict[str, Any] = {name: value for name, value in scores.items() if value is not None}
    asked = Search.read(read_query_options(**given), where=where, limit=limit, **given_scores)
    say_if_toy()
    collection = open_collection(place, api_key, OpenOptions(using, tenant, grpc, grpc_port, picture_column))
    try:
        explained = taken_apart(asked, collection, load(model, device, precision), words)
        if sheet is not None:
            picture_column = picture_column_of(collection, collection.info())
            shown = references(asked, collection, picture_column)
    finally:
        collection.close()
    for note in explained.notes:
        click.echo(f"Note: {note}", err=True)
    if as_json:
        echo_json(_json(explained))
    else:
        _print(explained)
    if sheet is not None:
        from cir_vectorizer.cli.sheet import explained_sheet
        from cir_vectorizer.sheets import write_sheet
        from cir_vectorizer.sources import Web
        from cir_vectorizer.sources.places import Places

        places = Places(os.getcwd(), Web(private_urls))
        write_sheet(sheet, explained_sheet(shown, caption(asked), explained, places, picture_column))
        click.echo(f"Sheet: {sheet}", err=True)


def _json(explained: "Explained") -> dict[str, Any]:
    from cir_vectorizer.collections import shown_columns
    from cir_vectorizer.identity import json_id

    def of(hit: "Hit") -> dict[str, Any]:
        ranks = {name: found.get(hit.id) for name, found in explained.ranks.items()}
        said = {"score": hit.score, "signals": dict(hit.signals), "ranks": ranks, "payload": shown_columns(hit.payload)}
        return {**json_id(hit.id), **said}

    return {
        "composer": explained.composer,
        "pictures": [[{"word": word, "similarity": value} for word, value in words] for words in explained.pictures],
        "parts": [{"part": part, "moves": value} for part, value in explained.moves],
        "rankings": {name: [of(hit) for hit in hits] for name, hits in explained.rankings.items()},
    }


def _print(explained: "Explained") -> None:
    from cir_vectorizer.cli.explained import BOTH, DEEP, picture_name

    console = terminal()
    for number, words in enumerate(explained.pictures):
        if words:
            which = picture_name(number, len(explained.pictures))
            console.print(f"Words nearest to {which}: {', '.join(f'{word} {value:.2f}' for word, value in words)}")
    if explained.moves:
        console.print(f"What moves the query: {', '.join(f'{part} {value:.2f}' for part, value in explained.moves)}")
    hits = explained.rankings[BOTH]
    places = {
        name: [str(found.get(hit.id, f"> {DEEP}")) for hit in hits]
        for name, found in explained.ranks.items()
        if name != BOTH
    }
    console.print(hits_table(hits, beside=places))
