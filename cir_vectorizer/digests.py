"""Digests over several parts in which the boundaries between parts count."""

import hashlib
from typing import Protocol

from typing_extensions import Buffer, Self


class Hash(Protocol):
    """A hash object of `hashlib`."""

    def update(self, data: Buffer, /) -> None: ...


class PartsDigest:
    """SHA-256 over parts, each preceded by its length: ("ab", "c") and ("a", "bc") have different digests.

    Texts are hashed as UTF-8; characters that UTF-8 cannot encode (lone surrogates) become "?".
    """

    def __init__(self, *parts: bytes | str) -> None:
        self._hash = hashlib.sha256()
        self.add(*parts)

    def add(self, *parts: bytes | str) -> Self:
        """Add further parts."""
        for part in parts:
            content = part.encode("utf-8", "replace") if isinstance(part, str) else part
            self.part(len(content)).update(content)
        return self

    def part(self, length: int) -> Hash:
        """Begin a part of `length` bytes; pass its bytes to the result's `update`, in any number of pieces."""
        self._hash.update(length.to_bytes(8, "big"))
        return self._hash

    def digest(self) -> bytes:
        """Return the 32 bytes of the digest."""
        return self._hash.digest()

    def hexdigest(self) -> str:
        """Return the digest as 64 hexadecimal digits."""
        return self._hash.hexdigest()
