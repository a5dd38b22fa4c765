"""Order of a training's examples: pass after pass over all of them, each in its own order."""

from collections.abc import Callable

import torch
from torch import Tensor


class Passes:
    """Endless sequence of example indices, pass after pass, in which a run can begin anywhere.

    Args:
        count: number of examples in a pass; at least one.
        order: returns the order of a pass, (count,) int64, for its number; it must depend only on the number.
    """

    def __init__(self, count: int, order: Callable[[int], Tensor]) -> None:
        self.count = count
        self._order = order
        self._orders: dict[int, Tensor] = {}

    def indices(self, at: int, count: int) -> Tensor:
        """Return `count` indices, starting with the `at`-th; (count,) int64."""
        picked: list[Tensor] = [torch.empty(0, dtype=torch.long)]
        while count:
            part = self._order_of(at // self.count)[at % self.count : at % self.count + count]
            picked.append(part)
            at, count = at + len(part), count - len(part)
        return torch.cat(picked)

    def _order_of(self, number: int) -> Tensor:
        if number not in self._orders:  # the end of a pass and the begin of the next are asked for in turn
            self._orders = {other: order for other, order in self._orders.items() if other == number - 1}
            self._orders[number] = self._order(number)
        return self._orders[number]
