"""Curves of a training: a small PNG of its validations, and scalars for TensorBoard while it runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from cir_vectorizer.errors import ModelError
from cir_vectorizer_trainer.progress import TITLES, Progress, Validation

WIDTH, HEIGHT, LEFT, RIGHT, GAP = 640, 220, 56, 160, 34
"""Width of the picture, height of a panel, margins left and right, and the space above and below a panel, in pixels."""
COLOURS = ("#1f5fa8", "#c8501e", "#2c8a4b", "#7a4fa3", "#8a6d1a", "#555555")
_GRID, _INK = "#dddddd", "#222222"


def plot(history: Sequence[Validation], path: Path) -> None:
    """Draw the held-out loss, and below it the other figures from 0 to 1, over the steps.

    Args:
        path: a file that ends in .png.

    Raises:
        ModelError: the file cannot be written.
    """
    figures = {name: [entry.figures.get(name) for entry in history] for entry in history for name in entry.figures}
    panels: list[tuple[Mapping[str, Sequence[float | None]], float]] = [
        ({"held-out loss": [entry.loss for entry in history]}, max(entry.loss for entry in history) or 1.0)
    ]
    if figures:
        panels.append(({TITLES.get(name, name): values for name, values in figures.items()}, 1.0))
    image = Image.new("RGB", (WIDTH, len(panels) * (HEIGHT + GAP) + GAP), "white")
    draw = ImageDraw.Draw(image)
    steps = [entry.step for entry in history]
    for number, (lines, top) in enumerate(panels):
        _panel(draw, number * (HEIGHT + GAP) + GAP, steps, lines, top)
    try:
        image.save(path, "PNG")
    except OSError as error:
        raise ModelError(f"{path} cannot be written ({error}); correct --plot") from error


def _panel(
    draw: ImageDraw.ImageDraw, above: int, steps: Sequence[int], lines: Mapping[str, Sequence[float | None]], top: float
) -> None:
    """Draw lines from 0 to `top`, with the panel's upper edge at `above`."""
    font, right = ImageFont.load_default(), WIDTH - RIGHT
    last = max(*steps, 1)

    def at(step: int, value: float) -> tuple[float, float]:
        return LEFT + (right - LEFT) * step / last, above + HEIGHT * (1 - value / top)

    for part in range(5):
        value = top * part / 4
        (_, y) = at(0, value)
        draw.line((LEFT, y, right, y), fill=_GRID)
        draw.text((LEFT - 6, y), f"{value:.3g}", fill=_INK, font=font, anchor="rm")
    for step in (0, last):
        draw.text((at(step, 0)[0], above + HEIGHT + 4), f"{step:,}", fill=_INK, font=font, anchor="mt")
    draw.text(((LEFT + right) / 2, above + HEIGHT + 4), "step", fill=_INK, font=font, anchor="mt")
    for number, (name, values) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [at(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
        draw.line(points, fill=colour, width=2)
        for x, y in points:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
        shown = f"{name} {[value for value in values if value is not None][-1]:.3f}"
        draw.text((right + 10, above + 14 * number), shown, fill=colour, font=font)


class Board:
    """Writes a run's scalars to a folder that TensorBoard reads.

    Raises:
        ModelError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ModelError(
                "--tensorboard needs the package tensorboard; run pip install tensorboard, or leave the option out"
            ) from error
        self._writer: Any = SummaryWriter(str(folder))
        self._validated = -1

    def note(self, progress: Progress) -> None:
        """Write a step's loss, and a validation once."""
        self._writer.add_scalar("loss", progress.loss, progress.step)
        entry = progress.validation
        if entry.step != self._validated:
            self._validated = entry.step
            for name, value in {"loss": entry.loss, **entry.figures}.items():
                self._writer.add_scalar(f"validation/{name}", value, entry.step)
            self._writer.flush()
