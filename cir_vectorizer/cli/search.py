"""`cir-vectorizer search`: pictures and words in, the nearest objects of a collection out."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cir_vectorizer.cli.common import DEVICE_OPTION, MODEL_OPTION, fail_with_sentence

if TYPE_CHECKING:
    from cir_vectorizer.collections import Hit


@click.command(short_help="Search a collection with pictures, words, or both.")
@click.option("--in", "address", required=True, metavar="ADDRESS", help="qdrant://HOST[:PORT]/NAME or qdrant:DIR/NAME.")
@MODEL_OPTION
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Reference picture; repeat it for several.",
)
@click.option("--text", help="What should be different, or the whole search if there is no picture.")
@click.option("--negative-text", help="What should not be there.")
@click.option("--template", help="Prompt with $ (or $1, $2, …) for pictures and {text} for the text.")
@click.option("--composer", metavar="NAME", help="How picture and words become one vector.")
@click.option("--filter", "where", metavar="CONDITIONS", help="For example: colour=red and price<50.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many results.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: id, score, payload.")
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the query's pictures and the results to a picture sheet, .png or .html.",
)
@DEVICE_OPTION
@click.option("--api-key", envvar="QDRANT_API_KEY", show_envvar=True, help="Key of the database's server.")
@fail_with_sentence
def search(
    address: str,
    model: str,
    images: tuple[Path, ...],
    text: str | None,
    negative_text: str | None,
    template: str | None,
    composer: str | None,
    where: str | None,
    limit: int,
    as_json: bool,
    sheet: Path | None,
    device: str | None,
    api_key: str | None,
) -> None:
    """Search a collection with pictures, words, or both.

    Any part may be left out: a text alone is a text search, a picture alone finds its like, and a picture with a text
    finds what looks like the picture but for what the text says.
    """
    from cir_vectorizer.collections import ModelRecord, check, open_collection, parse_address
    from cir_vectorizer.filters import parse_filter
    from cir_vectorizer.query import ComposedQuery

    place = parse_address(address)
    query = ComposedQuery.parse(
        {
            "image": images or None,
            "text": text,
            "negative_text": negative_text,
            "template": template,
            "composer": composer,
        }
    )
    conditions = parse_filter(where) if where is not None else ()
    if sheet is not None and sheet.suffix.lower() not in (".png", ".html"):
        raise click.UsageError(f"--sheet {sheet} should end in .png or .html")

    from cir_vectorizer.models import load

    collection = open_collection(place, api_key)
    try:
        vectorizer = load(model, device)
        check(collection, ModelRecord(vectorizer.name, vectorizer.fingerprint, vectorizer.dim))
        composed = vectorizer.compose([query])
        for note in composed.notes[0]:
            click.echo(f"Note: {note}", err=True)
        hits = collection.search(composed.vectors[0], limit, conditions)
    finally:
        collection.close()
    if as_json:
        for hit in hits:
            line = {"id": hit.id, "score": hit.score, "payload": shown_payload(hit)}
            click.echo(json.dumps(line, ensure_ascii=False))
    elif hits:
        _print_table(hits)
    else:
        click.echo("Nothing found; the collection is empty or no object meets the filter.", err=True)
    if sheet is not None:
        from cir_vectorizer.sheet import write_sheet

        write_sheet(sheet, images, _caption(text, negative_text), hits)
        click.echo(f"Sheet: {sheet}", err=True)


def shown_payload(hit: "Hit") -> dict[str, Any]:
    """The user's columns, and `path` where sync recorded one and no column has that name."""
    from cir_vectorizer.collections import RECORD_KEY, SyncRecord

    record = SyncRecord.read(hit.payload)
    columns = {key: value for key, value in hit.payload.items() if key != RECORD_KEY}
    return columns if record is None else {"path": record.path, **columns}


def _caption(text: str | None, negative_text: str | None) -> str:
    return " ".join(filter(None, [text, f"(not: {negative_text})" if negative_text else None]))


def _print_table(hits: "list[Hit]") -> None:
    from rich.console import Console
    from rich.table import Table

    payloads = [shown_payload(hit) for hit in hits]
    columns = list(dict.fromkeys(key for payload in payloads for key in payload))
    table = Table("", "score", *columns, box=None)
    for rank, (hit, payload) in enumerate(zip(hits, payloads, strict=True), start=1):
        cells = [str(payload.get(column, "")) for column in columns]
        table.add_row(str(rank), f"{hit.score:.4f}", *cells)
    console = Console(file=sys.stdout, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # a pipe wants whole lines
    console.print(table)
