"""Command line options that `make-edits` and `train` share: the ways to make edits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cir_vectorizer.cli.common import with_options


def _names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (value or "").split(",") if name.strip())


_OPTIONS = (
    click.option(
        "--attributes",
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
    click.option("--language", default="en", show_default=True, help="Language of the captions and phrasings."),
    click.option(
        "--known-only",
        is_flag=True,
        help="Swap a value only if some caption has the resulting combination of values.",
    ),
)


def making_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options --attributes, --phrasings, --language and --known-only to a command."""
    return with_options(command, _OPTIONS)
