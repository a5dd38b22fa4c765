"""A cache whose size is bounded in bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class ByteCache(Generic[_Key, _Value]):
    """Values by key within a budget of bytes; the least recently used is evicted first.

    Args:
        budget: bytes that all values together may take; 0 keeps none.
        size: returns the bytes that a value takes.
    """

    def __init__(self, budget: int, size: Callable[[_Value], int]) -> None:
        self.bytes = 0
        self._budget = budget
        self._size = size
        self._entries: OrderedDict[_Key, _Value] = OrderedDict()

    def __contains__(self, key: _Key) -> bool:
        return key in self._entries

    def get(self, key: _Key) -> _Value | None:
        """Return a key's value, which becomes the most recently used; None if it is not cached."""
        if (found := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: _Key, value: _Value) -> None:
        """Keep a value, unless the key has one, and evict values until all fit the budget."""
        if key not in self._entries:
            self._entries[key] = value
            self.bytes += self._size(value)
        while self.bytes > self._budget:
            self.bytes -= self._size(self._entries.popitem(last=False)[1])

    def drop(self, unwanted: Callable[[_Key], bool]) -> None:
        """Evict the values of all keys that are unwanted."""
        for key in [key for key in self._entries if unwanted(key)]:
            self.bytes -= self._size(self._entries.pop(key))
