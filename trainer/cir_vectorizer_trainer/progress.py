"""Progress of a training: its reports, the loop that saves it from time to time, and the lines that a terminal shows."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import click

TITLES = {
    "r_at_1": "R@1",
    "r_at_10": "R@10",
    "edit": "edit accuracy",
    "keep": "keep accuracy",
    "score": "score",
    "pictures_r_at_10": "R@10 of pictures",
}
"""Names of figures as they are shown."""


@dataclass(frozen=True)
class Validation:
    """Loss on the held-out part after `step` steps.

    Attributes:
        stage: the stage that was validated; empty if the training has only one.
        tasks: loss of each task, if the training has several; `loss` weights them by their share of a batch.
        figures: shares by name, such as R@10, if the training is judged by more than the loss; "score" among them is the
            one that chooses.
    """

    step: int
    loss: float
    stage: str = ""
    tasks: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def better_than(self, other: "Validation | None") -> bool:
        """Return True if the score is higher; among equal scores, or where one is missing, if the loss is lower."""
        if other is None:
            return True
        scores = self.figures.get("score"), other.figures.get("score")
        if None not in scores and scores[0] != scores[1]:
            return self.figures["score"] > other.figures["score"]
        return self.loss < other.loss

    def to_record(self) -> dict[str, Any]:
        """Return everything that is known of it, for the record of a model."""
        return {name: value for name, value in asdict(self).items() if value not in ("", {})}


@dataclass(frozen=True)
class Progress:
    """State of a run after `step` steps: the last batch's loss and the newest validation.

    Attributes:
        rows: number of embeddings trained on so far: captions, or noised pictures.
    """

    step: int
    rows: int
    loss: float
    validation: Validation


class Trainer(Protocol):
    """The part of a trainer that is needed to save it and to show its progress.

    Attributes:
        step: steps done.
        history: every validation.
        best_validation: the best one, whose weights are kept; None before the first validation.
    """

    step: int
    history: list[Validation]
    best_validation: Validation | None


OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]


def train_and_save(
    run: Iterable[Progress],
    total: int,
    save: Callable[[bool], None],
    on_progress: OnProgress,
    should_stop: ShouldStop,
    save_every_s: float,
) -> bool:
    """Run a training to step `total`, or until `should_stop` returns True; save from time to time and at the end.

    Args:
        save: called with True if the run is complete, else with False.
        save_every_s: least seconds between two saves of a run that goes on.

    Returns:
        True if all steps were done.
    """
    saved = -math.inf  # the first save comes at once, so that a folder that cannot be written is known early
    for progress in run:
        on_progress(progress)
        if progress.step == total:
            break
        if should_stop():
            save(False)
            return False
        if time.monotonic() - saved > save_every_s:
            save(False)
            saved = time.monotonic()
    save(True)
    return True


@dataclass(frozen=True)
class Units:
    """Units of a progress bar: a step has `per_step` units called `name`; the bar goes from step `first` to `total`."""

    name: str
    per_step: int
    first: int
    total: int


def watched(run: Callable[[OnProgress, ShouldStop], bool], units: Units, note: Callable[[Progress], str]) -> bool:
    """Run a training with a progress bar (lines if there is no terminal); the first Ctrl-C stops it after a save.

    Args:
        run: trains; it gets a function to call with each progress and one that returns True when it should stop.
        note: returns the text to show beside the rate.

    Returns:
        The result of `run`: True if all steps were done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    stopping: list[int] = []

    def stop(number: int, _: Any) -> None:
        if stopping:
            signal.signal(number, signal.default_int_handler)
            raise KeyboardInterrupt
        stopping.append(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    console = Console(stderr=True)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    started = printed = time.monotonic()
    try:
        with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("training", total=units.total, completed=units.first, note="")

            def show(progress: Progress) -> None:
                nonlocal printed
                now = time.monotonic()
                rate = (progress.step - units.first) * units.per_step / (now - started)
                line = f"{rate:,.0f} {units.name}/s  {note(progress)}"
                bar.update(task, completed=progress.step, note=line)
                if not console.is_terminal and (now - printed > 10 or progress.step == units.total):
                    printed = now
                    left = (units.total - progress.step) * units.per_step / rate
                    click.echo(f"step {progress.step:,}/{units.total:,}  {line}  {left:,.0f} s left", err=True)

            return run(show, lambda: bool(stopping))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_resumed(trainer: Trainer) -> None:
    """Print the step after which a resumed run continues."""
    click.echo(f"resuming after step {trainer.step:,}", err=True)


def say_result(trainer: Trainer, finished: bool) -> None:
    """Print the first and the best validation loss; end with status 130 if the run was stopped."""
    if (best := trainer.best_validation) is not None:
        first = trainer.history[0].loss
        click.echo(f"validation loss {first:.5f} before, {best.loss:.5f} at its best (step {best.step:,})", err=True)
        if best.figures:
            before = trainer.history[0].figures
            shown = (
                f"{TITLES.get(n, n)} {before[n]:.3f} to {value:.3f}" for n, value in best.figures.items() if n in before
            )
            click.echo(f"held-out queries: {', '.join(shown)}", err=True)
    if not finished:
        click.echo(f"stopped and saved after step {trainer.step:,}; go on with --resume", err=True)
        sys.exit(130)
