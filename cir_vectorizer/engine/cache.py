"""Embeddings of pictures that were seen before."""

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""An embedding or a query vector, (dim,)."""

_ENTRY_OVERHEAD = 400  # bytes that Python takes to keep one embedding


class Cache:
    """Embeddings by content, the least recently used forgotten first."""

    def __init__(self, budget: int) -> None:
        self.bytes = 0
        self._budget = budget
        self._entries: OrderedDict[tuple[str, bytes], Vector] = OrderedDict()

    def __contains__(self, key: tuple[str, bytes]) -> bool:
        return key in self._entries

    def get(self, key: tuple[str, bytes]) -> Vector | None:
        if (found := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: tuple[str, bytes], embedding: Vector) -> None:
        if key not in self._entries:
            self._entries[key] = embedding
            self.bytes += embedding.nbytes + _ENTRY_OVERHEAD
        while self.bytes > self._budget:
            self.bytes -= self._entries.popitem(last=False)[1].nbytes + _ENTRY_OVERHEAD
