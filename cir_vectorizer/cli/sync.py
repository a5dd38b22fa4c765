"""`cir-vectorizer sync`: keeps a collection in step with a folder, a table or another collection."""

from pathlib import Path
from typing import Any

import click

from cir_vectorizer.cli.common import (
    DEVICE_OPTION,
    MODEL_OPTION,
    PICTURE_COLUMN_OPTION,
    PRECISION_OPTION,
    SERVICE_OPTION,
    collection_option,
    database_options,
    fail_with_sentence,
)


@click.command(short_help="Index a folder, table or collection of pictures, again and again.")
@click.argument("source")
@collection_option("--to")
@MODEL_OPTION
@SERVICE_OPTION
@click.option(
    "--include", multiple=True, metavar="PATTERN", help="Folder: only files that match, as in a .gitignore; repeatable."
)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Folder: no files or folders that match; repeatable.")
@click.option(
    "--format",
    type=click.Choice(["csv", "tsv", "jsonl", "ndjson", "json", "parquet", "folder"]),
    help="Read SOURCE as this kind of table, or as a folder; told by its name, its content type or its content if left out.",
)
@click.option(
    "--image-column",
    metavar="NAME",
    help="Table: column with the picture's path, URL or data URI; guessed if left out.",
)
@click.option("--id-column", metavar="NAME", help="Table: column that identifies the object; else the path.")
@click.option(
    "--pictures",
    type=click.Choice(["first", "each"]),
    help="Table: index the first picture of a row that names several, or each as its own object; first if left out.",
)
@click.option(
    "--text-column",
    "text_columns",
    multiple=True,
    metavar="NAME",
    help="Embed this column's text as a second vector; repeatable: the texts are joined. Noted in the collection.",
)
@click.option("--private-urls", is_flag=True, help="Also fetch a table's pictures from addresses of your own network.")
@click.option(
    "--max-megapixels",
    type=click.IntRange(1, 10_000),
    help="Largest picture in millions of pixels; 64 if left out. Decoding takes up to 24 bytes a pixel.",
)
@click.option(
    "--source-name",
    metavar="NAME",
    help="Name of the source in the objects' records; its path or URL if left out.",
)
@click.option(
    "--take-over",
    is_flag=True,
    help="Adopted collection: take over objects of the other program that name pictures of this source.",
)
@PICTURE_COLUMN_OPTION
@click.option("--prune", is_flag=True, help="Remove objects of this source that left it.")
@click.option(
    "--yes",
    is_flag=True,
    help="Proceed even if --prune would remove over 20 %, --reembed would lose objects, or --text-column adds a vector.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done; write nothing.")
@click.option(
    "--reembed", is_flag=True, help="If another backbone filled the collection: embed all again, then switch."
)
@click.option("--watch", "watching", is_flag=True, help="Go on until Ctrl-C: sync whenever the source changes.")
@click.option(
    "--interval", type=click.FloatRange(0.1), default=30, show_default=True, help="Seconds between checks of --watch."
)
@click.option("--batch-size", type=click.IntRange(1, 4096), default=32, show_default=True, help="Pictures a batch.")
@click.option(
    "--workers", type=click.IntRange(1, 256), help="Threads that read pictures; one per core (16 for URLs) if left out."
)
@click.option(
    "--engine",
    type=click.Choice(["threads", "ray"]),
    default="threads",
    show_default=True,
    help="Where pictures are decoded and encoded: in this process, or on a Ray cluster.",
)
@click.option(
    "--ray-address", metavar="ADDRESS", help="Cluster of --engine ray; RAY_ADDRESS or this machine if left out."
)
@click.option(
    "--report",
    "report_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the JSON report goes; in your folder for state (~/.local/state/cir-vectorizer) if left out.",
)
@DEVICE_OPTION
@PRECISION_OPTION
@database_options
@click.option("--on-disk", is_flag=True, help="New collection: vectors on disk.")
@click.option(
    "--quantization",
    type=click.Choice(["none", "scalar", "binary"]),
    default="none",
    show_default=True,
    help="New collection: search in compressed copies of the vectors.",
)
@click.option(
    "--index",
    "indexed",
    multiple=True,
    metavar="COLUMN",
    help="New collection: index a column for filters; repeatable.",
)
@click.option(
    "--vectorize",
    type=click.Choice(["client", "server"]),
    default="client",
    show_default=True,
    help="Who makes the vectors; server: the database asks the container.",
)
@click.option(
    "--service-url", metavar="URL", help="New collection with --vectorize server: the container, as the server sees it."
)
@fail_with_sentence
def sync(**arguments: Any) -> None:
    """Index the pictures of SOURCE into a collection: a folder, a table (.csv, .tsv, .jsonl, .json or .parquet, also .gz),
    either of them elsewhere (s3://, gs://, http://, …), or another collection.

    Run it again at any time: unchanged pictures are not encoded again, and a run that was stopped continues where it
    was. Pictures that cannot be read are listed at the end and in the report.

    Exit status: 0 everything is indexed, 3 some pictures failed or SOURCE has none, 1 the run could not go on, 130 stopped
    by Ctrl-C.
    """
    from cir_vectorizer.cli.sync_task import SyncArguments, run_sync

    run_sync(SyncArguments(**arguments))
