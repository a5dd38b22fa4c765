"""Order of a training's examples: one pass over all of them after the other, each in an order of its own."""

from collections.abc import Callable

import torch
from torch import Tensor


class Passes:
    """Indices of examples, counted on through pass after pass, so that a run can begin anywhere.

    Args:
        count: examples of a pass; at least one.
        order: the order of a pass, (count,) int64, by its number; a function of the number alone.
    """

    def __init__(self, count: int, order: Callable[[int], Tensor]) -> None:
        self.count = count
        self._order = order
        self._newest: tuple[int, Tensor] | None = None

    def indices(self, at: int, count: int) -> Tensor:
        """Return `count` indices from the `at`-th on, (count,) int64."""
        picked: list[Tensor] = [torch.empty(0, dtype=torch.long)]
        while count:
            part = self._order_of(at // self.count)[at % self.count : at % self.count + count]
            picked.append(part)
            at, count = at + len(part), count - len(part)
        return torch.cat(picked)

    def _order_of(self, number: int) -> Tensor:
        if self._newest is None or self._newest[0] != number:
            self._newest = number, self._order(number)
        return self._newest[1]
