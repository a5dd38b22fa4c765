"""`cir-vectorizer serve`: the inference container's process.

Every field of the service's settings is an option here, so that `--help` lists all of them; the environment is read
by the settings themselves.
"""

import functools
import os
import re
import shutil
import types
import typing
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import click

from cir_vectorizer import extras
from cir_vectorizer.cli.common import needs
from cir_vectorizer.redaction import without_user

if TYPE_CHECKING:
    from cir_vectorizer.collections import Collection, OpenOptions
    from cir_vectorizer.models import Vectorizer
    from cir_vectorizer.query.validation import InvalidField
    from cir_vectorizer.service.settings import Settings


@functools.cache
def _options() -> tuple[click.Option, ...]:
    """Return an option for each field of the settings; none if the extra is not installed."""
    if extras.missing("serve"):  # the command says so when it is run
        return ()
    from cir_vectorizer.service.settings import Settings, variable

    found = []
    for name, field in Settings.model_fields.items():
        kinds = [
            kind for kind in typing.get_args(field.annotation) or (field.annotation,) if kind is not types.NoneType
        ]
        flag = f"--{name.replace('_', '-')}"
        default = field.default
        shown = str(default) if isinstance(default, int | float | str) and not isinstance(default, bool) else None
        text = f"{field.description}  [env: {variable(name)}{f'; default: {shown}' if shown else ''}]"
        if isinstance(default, bool):
            found.append(click.Option([flag, name], is_flag=True, default=None, help=text))
        else:
            several = isinstance(default, tuple)
            metavar = {int: "N", float: "SECONDS"}.get(
                kinds[0], "TEXT" if not several else name.removesuffix("s").upper()
            )
            unset = () if several else None
            found.append(click.Option([flag, name], multiple=several, default=unset, metavar=metavar, help=text))
    return tuple(found)


class _Serve(click.Command):
    """Reads its options only when they are needed: the settings take long to import."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*_options(), *super().get_params(ctx)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not _options():
            ctx.ignore_unknown_options = ctx.allow_extra_args = True
        return super().parse_args(ctx, args)


@click.command(cls=_Serve)
@needs("serve")
def serve(**given: Any) -> None:
    """Serve models to Weaviate, Qdrant and applications.

    Weaviate: CLIP_INFERENCE_API=http://cir:KEY@HOST:8000/m/MODEL. Qdrant:
    QDRANT__INFERENCE__ADDRESS=http://cir:KEY@HOST:8000/qdrant. Applications: see /docs. The page at / is for trying
    composed search; with --collection it shows results. Every option can be set in the environment instead, where a
    list is words separated by spaces.
    """
    from pydantic import ValidationError

    from cir_vectorizer.errors import CirError
    from cir_vectorizer.query.validation import invalid_fields
    from cir_vectorizer.service.settings import Settings

    try:
        settings = Settings(**{name: value for name, value in given.items() if value not in (None, ())})
    except ValidationError as error:
        raise CirError("; ".join(_refused(each, given) for each in invalid_fields(error))) from error
    if settings.compile and not any(map(shutil.which, ("cc", "gcc", "clang", "cl"))):
        raise CirError("compile needs a C compiler, and none is on PATH; install gcc, or leave the option out")
    from cir_vectorizer.service import memory

    memory.settle()  # before the imports below start threads
    if settings.preload_only:
        for name, vectorizer in _load(settings.model_copy(update={"device": ("cpu",)})).items():
            click.echo(f"{name}@{vectorizer.fingerprint[:12]} is here")
        return
    from cir_vectorizer.service.run import run

    run(lambda: _load(settings), settings, _collections(settings), functools.partial(_load_one, settings))


def _refused(found: "InvalidField", given: Mapping[str, Any]) -> str:
    """Return the sentence about a wrong setting, which names the option or the variable that it came from."""
    from cir_vectorizer.service.settings import variable

    if not found.path:
        return found.message
    name = str(found.path[0])
    if given.get(name) not in (None, ()):
        return f"--{name.replace('_', '-')}: {found.message}"
    value = without_user(os.environ.get(variable(name), ""))
    return f"{variable(name)}={value!r} in the environment: {found.message}; correct or unset it"


def _load(settings: "Settings") -> "dict[str, Vectorizer]":
    """Load the models of `--model`, and return them by the names that they are served under."""
    from cir_vectorizer.errors import ModelError
    from cir_vectorizer.service.names import served_name

    vectorizers: dict[str, Vectorizer] = {}
    for text in settings.model:
        name, model = served_name(text)
        if name in vectorizers:
            raise ModelError(f"two models would be served as {name!r}; write NAME=MODEL for one of them")
        vectorizers[name] = _load_one(settings, model)
    return vectorizers


def _load_one(settings: "Settings", model: str) -> "Vectorizer":
    """Load a model, with a copy for each device after the first."""
    from cir_vectorizer.cli.int8 import check_int8
    from cir_vectorizer.models import load
    from cir_vectorizer.sources import open_source

    if settings.check_pictures is not None and settings.weights == "int8":
        with closing(open_source(str(settings.check_pictures))) as pictures:
            check_int8(model, pictures)
    copies = [load(model, device, settings.weights) for device in settings.device or (None,)]
    if settings.compile:
        for copy in copies:
            for composer in copy.composers.values():
                composer.compile()
    copies[0].copies = tuple(copies[1:])
    return copies[0]


CONNECTIONS = 4
"""Times that a collection on a server is opened, so that as many searches can run at once."""


def _collections(settings: "Settings") -> "dict[str, list[Collection]]":
    """Open the collections of `--collection`, and return them by the names that requests use."""
    from cir_vectorizer.collections import OpenOptions, open_collection, parse_address
    from cir_vectorizer.errors import AddressError

    shared = OpenOptions(settings.using, settings.tenant, settings.grpc, settings.grpc_port, settings.picture_column)
    opened: dict[str, list[Collection]] = {}
    for text in settings.collection:
        head, equals, rest = text.partition("=")
        named = bool(equals) and not set(head) & set("/:")
        written, options = opening(rest if named else text, shared)
        address = parse_address(written)
        name = head if named else address.collection
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", name):
            raise AddressError(
                f"collection {name!r} cannot have this name here; write NAME={address} with letters, digits, _, . and -"
            )
        if name in opened:
            raise AddressError(f"two collections would be called {name!r}; write NAME={address}")
        times = CONNECTIONS if address.path is None else 1
        opened[name] = [open_collection(address, options=options) for _ in range(times)]
    return opened


def opening(text: str, shared: "OpenOptions") -> "tuple[str, OpenOptions]":
    """Return the address in a value of `--collection`, and the options that follow it behind a question mark.

    Args:
        shared: the options of all collections, which its own override.

    Raises:
        AddressError: an option is unknown or has a wrong value.
    """
    from cir_vectorizer.errors import AddressError
    from cir_vectorizer.redaction import without_user

    found = re.fullmatch(r"(.*/[^/?]+)\?(\w+=[^?]*)", text)
    if found is None:
        return text, shared
    own: dict[str, Any] = {}
    for name, value in parse_qsl(found[2], keep_blank_values=True):
        if name in ("using", "tenant", "picture_column") and value:
            own[name] = value
        elif name == "grpc" and value in ("true", "false"):
            own[name] = value == "true"
        elif name == "grpc_port" and value.isascii() and value.isdecimal() and 0 < int(value) < 2**16:
            own[name] = int(value)
        else:
            raise AddressError(
                f"collection {without_user(found[1])} is followed by {name}={value}; write using=NAME, tenant=NAME, "
                "grpc=true, grpc_port=NUMBER or picture_column=NAME, with & between them"
            )
    return found[1], replace(shared, **own)
