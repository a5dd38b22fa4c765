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
