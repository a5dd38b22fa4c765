"""Command line options that trainers share for the model folder that they write."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cir_vectorizer.cli.common import say_if_toy, with_options

_OPTIONS = (
    click.option("--resume", is_flag=True, help="Continue the run in --out exactly where it was saved."),
    click.option("--overwrite", is_flag=True, help="Replace what --out already holds and this run would lose."),
)


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options --resume and --overwrite to a command."""
    return with_options(command, _OPTIONS)


def kept_beside(folder: Path, composer: str, state: str, model: str, resume: bool, overwrite: bool) -> Path:
    """Return the model folder whose other composers a training keeps: that of `model`, or of a run that is resumed.

    Args:
        folder: model folder to write.
        composer: name of the composer that is trained.
        state: name of the file from which its training is resumed.

    Raises:
        ModelError: neither option is given, and a composer in `folder` would be lost.
        UsageError: both options are given.
    """
    from cir_vectorizer import models

    if resume and overwrite:
        raise click.UsageError("--resume goes on with the run in --out, and --overwrite begins anew; leave one out")
    say_if_toy()
    if resume:
        return folder
    beside = models.folder_of(model)
    if not overwrite:
        models.check_nothing_lost(folder, composer, beside, state)
    return beside
