"""`cir-vectorizer evaluate queries`: composers judged by a customer's own queries on a collection."""

from pathlib import Path

import click

from cir_vectorizer.cli.common import (
    DEVICE_OPTION,
    MODELS_OPTION,
    PRECISION_OPTION,
    TEXT_WEIGHT_OPTION,
    check_sheet,
    collection_option,
    database_options,
    needs,
    say_if_toy,
    sheet_option,
)
from cir_vectorizer.cli.evaluate.showing import check_out, counting, show


@click.command(short_help="Judge composers by your own queries with known answers.")
@click.option(
    "--file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Judged queries: a .jsonl file with one object a line.",
)
@collection_option("--in")
@MODELS_OPTION
@click.option(
    "--composer",
    "composers",
    multiple=True,
    metavar="NAME",
    help="Composer to judge; repeat it to compare several with the first.  [default: the query's own]",
)
@click.option(
    "--id-column", metavar="COLUMN", help="Column whose values the file has for ids; objects with one value count once."
)
@click.option(
    "--limit", type=click.IntRange(10, 1000), default=50, show_default=True, help="How many results of each query."
)
@click.option(
    "--approximate", is_flag=True, help="Search through the collection's index, as applications do, not exactly."
)
@TEXT_WEIGHT_OPTION
@click.option(
    "--strength",
    type=click.FloatRange(0, 10),
    default=2.0,
    show_default=True,
    help="How strongly a query's negative_text and must_text reorder its results; 0: not at all.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the report.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@sheet_option("the first four queries and what each row found for them")
@DEVICE_OPTION
@PRECISION_OPTION
@database_options
@needs("models")
def queries(
    file: Path,
    address: str,
    models: tuple[str, ...],
    composers: tuple[str, ...],
    id_column: str | None,
    limit: int,
    approximate: bool,
    text_weight: float | None,
    strength: float,
    out: Path | None,
    as_json: bool,
    sheet: Path | None,
    device: str | None,
    precision: str,
    api_key: str | None,
    using: str | None,
    tenant: str | None,
    grpc: bool,
    grpc_port: int | None,
) -> None:
    """Judge composers by your own queries with known answers.

    A line of the file holds a query and the objects that are right for it:

    {"image": "shirt.jpg", "text": "in blue", "relevant": [17, 21], "unwanted": [4], "group": "blue shirt"}

    A picture is a file, relative to the judged queries, or {"id": …} of an object. Ids are the collection's own, or
    values of --id-column. Queries of one group are wordings of one wish.
    """
    from cir_vectorizer.collections import OpenOptions, open_collection, parse_address
    from cir_vectorizer.evaluate.judged.judging import Searching, judge
    from cir_vectorizer.evaluate.judged.reading import read_judged
    from cir_vectorizer.models import load

    check_sheet(sheet)
    check_out(out)
    say_if_toy()
    place = parse_address(address)
    searching = Searching(limit, not approximate, id_column, text_weight, strength)
    judged, problems = read_judged(file, id_column is not None)
    collection = open_collection(place, api_key, OpenOptions(using, tenant, grpc, grpc_port))
    try:
        report = judge(
            judged,
            collection,
            {name: load(name, device, precision) for name in dict.fromkeys(models)},
            composers,
            searching,
            title=f"{file.name} on {place}",
            problems=problems,
            note=lambda problem: click.echo(f"Left out: {problem}", err=True),
            progress=counting("queries"),
        )
    finally:
        collection.close()
    show(report, out, as_json, sheet)
