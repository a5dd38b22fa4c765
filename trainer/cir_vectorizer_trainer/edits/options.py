"""Command line options that `make-edits` and `train` share: the column of captions, and the ways to make edits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cir_vectorizer.cli.common import with_options


def _only(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> str | None:
    if len(values) > 1:
        raise click.BadParameter(
            f"captions are read from one column, and {' and '.join(map(repr, values))} were given; name one, or join them "
            "in the table"
        )
    return values[0] if values else None


column_option = click.option(
    "--column",
    multiple=True,
    callback=_only,
    metavar="NAME",
    help="Column that holds the captions; guessed if only one is possible.",
)
"""The option --column; click would keep the last of several and drop the others, so they are refused here."""


def _names(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


_OPTIONS = (
    click.option(
        "--attributes",
        multiple=True,
        callback=_names,
        metavar="A,B,…",
        help="Columns whose values are swapped for each other.  [default: kinds of words are learnt from the captions]",
    ),
    click.option(
        "--phrasings",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="JSON file of phrasings that replaces or extends ours.",
    ),
    click.option(
        "--language",
        default="en",
        show_default=True,
        help="Language of the captions and phrasings; in training, also of the prompts.",
    ),
    click.option(
        "--known-only",
        is_flag=True,
        help="Swap a value only if some caption has the resulting combination of values.",
    ),
)


def language_was_given() -> bool:
    """Tell whether the running command was given --language."""
    return click.get_current_context().get_parameter_source("language") is not ParameterSource.DEFAULT


def making_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options --attributes, --phrasings, --language and --known-only to a command."""
    return with_options(command, _OPTIONS)
