"""Options and helpers that the commands share. Imports nothing heavy, so that `--help` stays fast."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cir_vectorizer import extras
from cir_vectorizer.backbones.precision import PRECISIONS
from cir_vectorizer.errors import CirError
from cir_vectorizer.redaction import json_text

if TYPE_CHECKING:
    from cir_vectorizer.client import ServedModel
    from cir_vectorizer.models import FolderRecord

MODEL_OPTION = click.option(
    "--model", default="tiny", show_default=True, metavar="NAME|DIR",
    help="Model folder, built-in name (`cir-vectorizer models list`) or loader:name.",
)  # fmt: skip
MODELS_OPTION = click.option(
    "--model", "models", multiple=True, default=("tiny",), show_default=True, metavar="NAME|DIR",
    help="Model folder or built-in name; repeatable, to compare models over one backbone (before and after `train`).",
)  # fmt: skip
SERVICE_OPTION = click.option(
    "--service", metavar="URL",
    help="A running service in place of a local model; its key is read from CIR_API_KEY, and --model names one of its models.",
)  # fmt: skip
PICTURE_COLUMN_OPTION = click.option(
    "--picture-column", metavar="NAME",
    help="Column with the URL or path of the picture, in objects that sync did not write.",
)  # fmt: skip
PRIVATE_URLS_OPTION = click.option(
    "--private-urls", is_flag=True, help="Also fetch pictures from addresses of your own network."
)
TEXT_WEIGHT_OPTION = click.option(
    "--text-weight", type=click.FloatRange(0, 1),
    help="Weight of the objects' texts beside their pictures.  [default: the collection's own, else 0.3]",
)  # fmt: skip
PRECISION_OPTION = click.option(
    "--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True,
    help="Of the model's weights; auto: bfloat16 if the processor or GPU computes in it, else float32.",
)  # fmt: skip
DEVICE_OPTION = click.option("--device", help="cpu, cuda, cuda:1, mps.  [default: the best one present]")


_SHEETS = (".png", ".webp", ".html")


def sheet_option(shows: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option of a command's picture sheet: `sheet`, which `check_sheet` checks.

    Args:
        shows: what is on the sheet, for the help.
    """
    return click.option(
        "--sheet",
        type=click.Path(dir_okay=False, path_type=Path),
        help=f"Also write {shows} to a picture sheet, .png, .webp or .html.",
    )


def check_sheet(sheet: Path | None) -> None:
    """Check, before the work is done, that a sheet can be written, if there is one.

    Raises:
        MissingExtraError: the packages that draw it are missing.
        UsageError: it has another suffix, or its folder does not exist.
    """
    if sheet is None:
        return
    extras.require("models", "--sheet")
    if sheet.suffix.lower() not in _SHEETS:
        raise click.UsageError(f"--sheet {sheet} should end in {', '.join(_SHEETS[:-1])} or {_SHEETS[-1]}")
    if not sheet.absolute().parent.is_dir():
        raise click.UsageError(f"the sheet's folder {sheet.parent} does not exist; make it, or give another --sheet")


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


def echo_json(value: Any, indent: int | None = None) -> None:
    """Print a value as JSON; all characters but ASCII are escaped if the output is not UTF-8."""
    click.echo(json_text(value, sys.stdout.encoding, indent=indent))


def needs(extra: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Refuse to run a command, before it opens any file, if packages of an extra are missing."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def checked(*args: Any, **kwargs: Any) -> Any:
            extras.require(extra, click.get_current_context().command_path)
            return command(*args, **kwargs)

        return fail_with_sentence(checked)

    return decorate


def recorded_model(name: str) -> "FolderRecord | None":
    """Return the record of a model folder; None if only the weights tell which backbone it is.

    Folders of releases up to 0.1.0 record a fingerprint that collections no longer have once they were synced.
    """
    from cir_vectorizer.models import describe, folder_of, has_record

    record = describe(name) if has_record(folder_of(name)) else None
    former = record is not None and record.text_fingerprint is None
    return None if former and not extras.missing("models") else record


def check_model_is_possible(service: str | None, device: str | None) -> None:
    """Check, before any file is opened, that a service is given or a model can run here.

    Raises:
        MissingExtraError: neither is the case.
    """
    if service is None:
        extras.require("models", "a local model", "give --service URL to use a running one")
    elif device is not None or not by_default("precision"):
        given = "--device" if device is not None else "--precision"
        raise click.UsageError(f"{given} is for a local model; leave it out with --service")


def say_if_toy(service: str | None = None) -> None:
    """Say on stderr that the command falls back to the toy `tiny`, if neither a model nor a service was named."""
    if service is None and (by_default("model") or by_default("models")):
        click.echo(
            "No --model was given, so the toy `tiny` is used, which knows drawn products alone; for photos name a real model, "
            "for example --model lincir-vit-l, or a folder that `cir-vectorizer train` wrote.",
            err=True,
        )


def served_model(url: str, model: str, retries: int = 3, seconds: float = 15.0) -> "ServedModel":
    """Return a model of a running service; the connection is closed when the command ends.

    Args:
        url: address of the service; it may contain the key, which is else read from CIR_API_KEY.
        model: the value of `--model`; if the option was not given, the service's own default is used.
        retries: attempts of a request after the first.
        seconds: longest total wait between the attempts of one request.

    Raises:
        ModelError, ServiceError: as `ServedModel`.
    """
    from cir_vectorizer.client import Client, Patience, ServedModel

    context = click.get_current_context()
    key = os.environ.get("CIR_API_KEY")
    client = context.with_resource(Client(url, api_key=key, patience=Patience(retries, seconds)))
    return ServedModel(client, None if by_default("model") else model)


def by_default(name: str) -> bool:
    """Tell whether the command has an option of this name that was not given."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.DEFAULT


def with_options(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """Add options to a command, in their order."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def collection_option(flag: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option of a command's collection, which it must have: `address`."""
    return click.option(
        flag,
        "address",
        required=True,
        metavar="ADDRESS",
        help="qdrant://HOST[:PORT]/NAME, qdrant:DIR/NAME or weaviate://HOST[:PORT]/NAME.",
    )


def database_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that opens a collection: `api_key`, `using`, `tenant`, `grpc`, `grpc_port`."""
    options = (
        click.option("--api-key", help="Key of the database's server; else QDRANT_API_KEY or WEAVIATE_API_KEY."),
        click.option("--using", metavar="NAME", help="Name of the vector, where objects have several."),
        click.option("--tenant", metavar="NAME", help="Tenant of a Weaviate collection."),
        click.option("--grpc", is_flag=True, help="Speak gRPC to Qdrant."),
        click.option(
            "--grpc-port",
            type=click.IntRange(1, 65535),
            help="gRPC port of Qdrant or Weaviate; the usual one if left out.",
        ),
    )
    return with_options(command, options)
