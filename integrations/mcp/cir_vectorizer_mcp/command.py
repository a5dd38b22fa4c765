"""`cir-vectorizer mcp`: serve `composed_search` to an agent over standard input and output."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cir_vectorizer import extras
from cir_vectorizer.cli.common import (
    MODEL_OPTION,
    PICTURE_COLUMN_OPTION,
    SERVICE_OPTION,
    collection_option,
    database_options,
    needs,
    say_if_toy,
    served_model,
)

if TYPE_CHECKING:
    from cir_vectorizer.client import ServedModel


@click.command(short_help="Serve composed search to an agent (Model Context Protocol).")
@collection_option("--in")
@MODEL_OPTION
@SERVICE_OPTION
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder whose pictures the agent may name and see; repeatable. Other files are never read.",
)
@click.option("--allow-urls", is_flag=True, help="Fetch pictures that the agent names by URL, from public hosts.")
@click.option(
    "--url-hosts", multiple=True, metavar="HOST", help="Fetch from this host alone (*.shop.example); repeatable."
)
@PICTURE_COLUMN_OPTION
@database_options
@needs("mcp")
def mcp(
    address: str,
    model: str,
    service: str | None,
    folders: tuple[Path, ...],
    allow_urls: bool,
    url_hosts: tuple[str, ...],
    picture_column: str | None,
    api_key: str | None,
    using: str | None,
    tenant: str | None,
    grpc: bool,
    grpc_port: int | None,
) -> None:
    """Serve composed search of a collection to an agent, over standard input and output.

    The agent gets one tool, composed_search. It can name pictures of --folder, pictures as base64, objects of the
    collection by id, and with --allow-urls pictures on the web; it reads nothing else, and changes nothing.
    """
    if service is None:
        extras.require("models", "a local model", "give --service URL to use a running one")
    from contextlib import closing

    from cir_vectorizer.collections import OpenOptions, open_collection, parse_address
    from cir_vectorizer.pictures.fetch import Fetcher
    from cir_vectorizer.searcher import Searcher
    from cir_vectorizer_mcp.pictures import Pictures
    from cir_vectorizer_mcp.server import make_server

    place = parse_address(address)
    say_if_toy(service)
    used: ServedModel | str = model if service is None else served_model(service, model)
    fetcher = Fetcher(url_hosts) if allow_urls or url_hosts else None
    options = OpenOptions(using, tenant, grpc, grpc_port, picture_column)
    with closing(open_collection(place, api_key, options)) as collection:
        make_server(Searcher(collection, used), Pictures(folders, fetcher)).run("stdio", show_banner=False)
