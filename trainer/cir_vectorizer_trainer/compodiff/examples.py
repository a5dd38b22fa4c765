"""Examples that CompoDiff is trained on, as tensors: three tasks, their split and their order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from cir_vectorizer.errors import SourceError

Task = Literal["pairs", "triplets", "masked"]
TASKS: tuple[Task, ...] = ("pairs", "triplets", "masked")
NOTHING = -1
"""Index that means that an example has no reference or no mask."""


@dataclass(frozen=True)
class Examples:
    """The examples of a task, each as indices, (n,) int64.

    Attributes:
        text: index of the text condition.
        target: index of the embedding to draw.
        reference: index of the embedding that is the picture condition, or `NOTHING`; None if no example has one.
        mask: index of the mask condition, or `NOTHING`; None if no example has one.
    """

    text: Tensor
    target: Tensor
    reference: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, rows: Tensor) -> "Examples":
        picked = (None if column is None else column[rows] for column in (self.reference, self.mask))
        return Examples(self.text[rows], self.target[rows], *picked)

    def column(self, name: Literal["reference", "mask"]) -> Tensor:
        """Return `reference` or `mask`; if it is None, `NOTHING` for each example."""
        found: Tensor | None = getattr(self, name)
        return torch.full_like(self.text, NOTHING) if found is None else found


@dataclass(frozen=True)
class Data:
    """Training data of all tasks; tensors may be on the host.

    Attributes:
        embeddings: (p, dim) unnormalised picture embeddings, of whole and of masked pictures.
        states: (m, context_length, text_width) states of the different texts, or a function from (k,) indices to such states.
        empty: index of the empty text.
        pairs, triplets, masked: examples of each task; None if there are none.
        masks: (k, 64, 64) different masks, 1 where the picture may change.
        digest: identifies pictures and texts when a run is resumed; the examples' indices are compared in any case.
    """

    embeddings: Tensor
    states: Tensor | Callable[[Tensor], Tensor]
    empty: int
    pairs: Examples | None = None
    triplets: Examples | None = None
    masked: Examples | None = None
    masks: Tensor | None = None
    digest: str = ""

    def tasks(self) -> dict[Task, Examples]:
        """Return the tasks that have examples."""
        found = {task: cast(Examples | None, getattr(self, task)) for task in TASKS}
        return {task: examples for task, examples in found.items() if examples is not None and len(examples)}


def rows_of(table: Tensor, index: Tensor) -> Tensor:
    """Return rows of a table as float32; zeros where the index is `NOTHING`."""
    found = table[index.clamp(min=0)].float()
    return found * (index >= 0).to(found).view(-1, *[1] * (table.ndim - 1))


def joined(parts: Sequence[Examples]) -> Examples:
    """Return the examples of all parts, in order."""
    return Examples(
        torch.cat([part.text for part in parts]),
        torch.cat([part.target for part in parts]),
        torch.cat([part.column("reference") for part in parts]),
        torch.cat([part.column("mask") for part in parts]),
    )


def without(examples: Examples, shares: tuple[float, float, float], empty: int, generator: torch.Generator) -> Examples:
    """Return the examples, some without a condition, so that the network learns to do without it.

    Args:
        shares: shares of the examples that lose their text, their reference, or both. The mask stays.
        empty: index of the empty text, which replaces a lost one.
    """
    chance = torch.rand(len(examples), generator=generator)
    text, image, both = shares
    loses_text = (chance < text) | (chance >= 1 - both)
    loses_image = (chance >= text) & (chance < text + image) | (chance >= 1 - both)
    return Examples(
        examples.text.masked_fill(loses_text, empty),
        examples.target,
        examples.column("reference").masked_fill(loses_image, NOTHING),
        examples.mask,
    )


def split(data: Data, share: float, most: int, seed: int) -> tuple[dict[Task, Examples], dict[Task, Examples]]:
    """Return the examples to train on and those to validate with; no target picture is in both.

    Each task with two or more different targets has some held out. A task whose targets are all held out is not
    validated: all of its examples are trained on.
    """
    tasks = data.tasks()
    targets = torch.unique(torch.cat([torch.empty(0, dtype=torch.long), *(each.target for each in tasks.values())]))
    if len(targets) < 2:
        raise SourceError(
            f"{len(targets)} different target pictures are too few to train on: one is trained on and another "
            "validates; give a table with more pictures"
        )
    generator = torch.Generator().manual_seed(seed)
    count = max(1, min(len(targets) - 1, round(share * len(targets))))
    held = torch.zeros(int(targets.max()) + 1, dtype=torch.bool)
    held[targets[torch.randperm(len(targets), generator=generator)[:count]]] = True
    for examples in tasks.values():
        mine = torch.unique(examples.target)
        if len(mine) > 1 and not held[mine].any():
            held[mine[torch.randint(len(mine), (1,), generator=generator)]] = True
    training: dict[Task, Examples] = {}
    validation: dict[Task, Examples] = {}
    for task, examples in tasks.items():
        out = held[examples.target]
        if out.all():
            training[task] = examples
            continue
        training[task] = examples[(~out).nonzero()[:, 0]]
        rows = out.nonzero()[:, 0]
        if len(rows):
            picked = torch.randperm(len(rows), generator=generator)[:most].sort().values
            validation[task] = examples[rows[picked]]
    return training, validation


def shuffled(text: Tensor, together: int, generator: torch.Generator) -> Tensor:
    """Return a random order of rows in which up to `together` rows with the same text follow one another."""
    order = torch.randperm(len(text), generator=generator)
    if together == 1:
        return order
    order = order[text[order].argsort(stable=True)]
    _, counts = torch.unique_consecutive(text[order], return_counts=True)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    chunk = ((torch.arange(len(text)) - first) % together == 0).cumsum(0) - 1
    place = torch.randperm(int(chunk[-1]) + 1, generator=generator)
    return order[place[chunk].argsort(stable=True)]
