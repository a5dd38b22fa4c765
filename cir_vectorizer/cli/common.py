"""What the commands share. Imports nothing heavy: `--help` stays fast."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from cir_vectorizer.errors import CirError

MODEL_OPTION = click.option(
    "--model", default="tiny", show_default=True, metavar="NAME|DIR",
    help="Model folder, built-in name (`cir-vectorizer models list`) or loader:name.",
)  # fmt: skip
DEVICE_OPTION = click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: the best one present]")


def fail_with_sentence(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print our own errors as one sentence on stderr and exit with status 1, without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except CirError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)

    return wrapped


def database_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command that opens a collection; they become `api_key`, `using`, `tenant`, `grpc`, `grpc_port`."""
    options = (
        click.option("--api-key", help="Key of the database's server; else QDRANT_API_KEY or WEAVIATE_API_KEY."),
        click.option("--using", metavar="NAME", help="Which of an object's named vectors."),
        click.option("--tenant", metavar="NAME", help="Tenant of a Weaviate collection."),
        click.option("--grpc", is_flag=True, help="Speak gRPC to Qdrant."),
        click.option(
            "--grpc-port",
            type=click.IntRange(1, 65535),
            help="gRPC port of Qdrant or Weaviate; the usual one if left out.",
        ),
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)
