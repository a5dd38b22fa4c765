"""Memory that a model's weights take."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

_DEEPEST = 4
"""Largest number of attributes between a part of a model and a tensor of its own."""


def weights_bytes(parts: Iterable[object]) -> int:
    """Return the bytes of all tensors that the parts of a model hold; memory that several share counts once."""
    seen: set[int] = set()
    sizes: dict[int, int] = {}
    for part in parts:
        for tensor in _tensors(part, seen, _DEEPEST):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _tensors(thing: Any, seen: set[int], deep: int) -> Iterator[Tensor]:
    if id(thing) in seen or isinstance(thing, str | bytes | type):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, nn.Module):
        yield from (*thing.parameters(), *thing.buffers())
    elif deep:
        inner: Iterable[Any] = getattr(thing, "__dict__", {}).values()
        if isinstance(thing, Mapping):
            inner = thing.values()
        elif isinstance(thing, list | tuple):
            inner = thing
        for each in inner:
            yield from _tensors(each, seen, deep - 1)
