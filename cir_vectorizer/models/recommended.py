"""Recommended encoders: backbones to choose from, with the facts to choose by. The file `recommended.csv` beside this module holds them.

Sizes, widths and contexts are those of open_clip's configurations (`python -m benchmarks.encoders` counts them). Licences and
languages are those that the publishers state: OpenAI's and LAION's model cards and open_clip's list of weights, the cards of Google's
SigLIP 2 and its paper, the repositories of Meta's Perception Encoder and MetaCLIP, and Marqo's cards. Imports no torch.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

HEADINGS = ("for", "size", "speed", "numbers", "tokens", "languages", "licence", "Φ", "name to pass")
SPEEDS = ((25, "fast"), (120, "medium"), (250, "slow"), (float("inf"), "very slow"))
"""Speeds by the largest number of multiplications for a picture, in billions."""


@dataclass(frozen=True)
class Encoder:
    """A backbone, with the facts to choose by.

    Attributes:
        name: the backbone as `--model` takes it.
        config: the open_clip configuration that it is built by.
        about: the pictures that it is for.
        parameters: number of parameters of both towers, in millions.
        speed: class of its work for a picture.
        dim: numbers of a vector.
        context: tokens that a text may have.
        languages: languages of its training texts, as its publisher states them.
        licence: licence of its weights, as its publisher states it.
        phi: built-in name of a model with a published Φ, or the command that makes one or takes a published file.
    """

    name: str
    config: str
    about: str
    parameters: int
    speed: str
    dim: int
    context: int
    languages: str
    licence: str
    phi: str

    def cells(self) -> tuple[str, ...]:
        """Return its row under `HEADINGS`."""
        facts = (self.about, f"{self.parameters:,} M", self.speed, str(self.dim), str(self.context))
        return (*facts, self.languages, self.licence, self.phi, self.name)


with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as _file:
    RECOMMENDED = TypeAdapter(tuple[Encoder, ...]).validate_python(tuple(csv.DictReader(_file)))
