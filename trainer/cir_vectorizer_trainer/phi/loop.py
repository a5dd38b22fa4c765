"""Settings of the training loop, whatever is learnt, and their command line options. Imports nothing heavy."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import click

from cir_vectorizer.cli.common import with_options

Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["float32", "bf16", "fp16"]


@dataclass(frozen=True)
class LoopSettings:
    """Settings of the training loop; the defaults are the published recipe's.

    Attributes:
        schedule: course of the learning rate after the warm-up; it falls to zero at the last step unless it is constant.
        warmup: number of first steps over which the learning rate rises.
        clip: largest norm of the gradient.
        ema: decay of the moving average of the weights, which is then validated and kept.
        accumulate: number of parts in which the prompts of a batch are read, one after the other, so that only the states
            of one part are in memory. The numbers are those of one part.
        precision: of the frozen tower and of the states in it; weights that learn are always float32.
    """

    schedule: Schedule = "constant"
    warmup: int = 0
    clip: float | None = None
    ema: float | None = None
    accumulate: int = 1
    precision: Precision = "float32"

    def rate(self, step: int, total: int) -> float:
        """Return the factor of the learning rate at a step, counted from 0, of `total`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, total - self.warmup)
        return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[self.schedule]


DEFAULTS = LoopSettings()

_OPTIONS = (
    click.option(
        "--schedule",
        type=click.Choice(get_args(Schedule)),
        help="Course of the learning rate after the warm-up.  [default: constant; for objective edits cosine]",
    ),
    click.option("--warmup", type=click.IntRange(0), default=0, metavar="STEPS", help="Steps of rising learning rate."),
    click.option(
        "--clip", type=click.FloatRange(0, min_open=True), metavar="NORM", help="Largest norm of the gradient."
    ),
    click.option(
        "--ema",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="DECAY",
        help="Keep a moving average of the weights, for example 0.999.",
    ),
    click.option(
        "--accumulate",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="N",
        help="Read a batch's prompts in N parts, to save memory; the numbers stay the same.",
    ),
    click.option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default="float32",
        show_default=True,
        help="Precision of the frozen tower; weights that learn are float32.",
    ),
)


def loop_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each of `LoopSettings` to a command."""
    return with_options(command, _OPTIONS)
