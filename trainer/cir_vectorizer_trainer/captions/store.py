"""Captions of any number in bounded memory: their texts in a memory-mapped temporary file, their places in arrays."""

import hashlib
import mmap
import tempfile
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

from cir_vectorizer.digests import PartsDigest

MANY = 200_000
"""Number of captions above which neither they nor all that is made of them are kept in memory."""

Item = TypeVar("Item")


class LazySequence(Sequence[Item]):
    """A sequence whose items are made when they are asked for; a slice is a list of them."""

    @abstractmethod
    def at(self, index: int) -> Item:
        """Return an item by its index, from 0 to the length less 1."""

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self.at(i) for i in range(*index.indices(len(self)))]
        return self.at(range(len(self))[index])


class CaptionStore(LazySequence[str]):
    """Captions, each once, in the order of first appearance; about 24 bytes of memory for each.

    Duplicates are found by digests of 64 bits: among 10 million captions the chance that two different ones share a
    digest, so that one is left out, is under 1 in 100,000. The file has no name, so that it goes with the process.

    Args:
        captions: cleaned and not empty; read once.

    Attributes:
        digests: (captions,) uint64.

    Raises:
        OSError: the temporary folder has no room.
    """

    def __init__(self, captions: Iterable[str]) -> None:
        ends, digests = array("q", [0]), array("Q")
        self._file = tempfile.TemporaryFile(buffering=1 << 20)  # noqa: SIM115  closed with the store
        for caption in captions:
            content = caption.encode()
            digests.append(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little"))
            ends.append(ends[-1] + self._file.write(content))
        self._file.flush()
        bounds = np.frombuffer(ends, np.int64)
        everything = np.frombuffer(digests, np.uint64)
        _, first = np.unique(everything, return_index=True)
        first.sort()
        self.digests: npt.NDArray[np.uint64] = everything[first]
        self._starts: npt.NDArray[np.int64] = bounds[first]
        self._ends: npt.NDArray[np.int64] = bounds[first + 1]
        self._texts = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if len(first) else b""

    def __len__(self) -> int:
        return len(self._starts)

    def at(self, index: int) -> str:
        return self._texts[self._starts[index] : self._ends[index]].decode()


class Picked(LazySequence[str]):
    """Some captions of a sequence, by index, in the order of the indices."""

    def __init__(self, captions: Sequence[str], indices: npt.NDArray[np.int64]) -> None:
        self._captions = captions
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def at(self, index: int) -> str:
        return self._captions[int(self._indices[index])]


def digest_of_set(captions: Sequence[str]) -> str:
    """Return a digest of captions, each of which is there once, whatever their order (hex)."""
    if isinstance(captions, CaptionStore):
        return PartsDigest(np.sort(captions.digests).tobytes()).hexdigest()
    return PartsDigest(*sorted(captions)).hexdigest()


def digest_of_order(captions: Sequence[str]) -> str:
    """Return a digest of captions in their order (hex)."""
    if isinstance(captions, CaptionStore):
        return PartsDigest(captions.digests.tobytes()).hexdigest()
    return PartsDigest(*captions).hexdigest()
