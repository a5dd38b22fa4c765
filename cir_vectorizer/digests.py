"""Digests of several parts that cannot be taken for one another."""

import hashlib
from typing import Protocol

from typing_extensions import Buffer, Self


class Hash(Protocol):
    """A hash of `hashlib`."""

    def update(self, data: Buffer, /) -> None: ...


class PartsDigest:
    """SHA-256 over parts, each behind its length: ("ab", "c") and ("a", "bc") have different digests.

    Texts are hashed as UTF-8; characters that it lacks (lone surrogates) become "?".
    """

    def __init__(self, *parts: bytes | str) -> None:
        self._hash = hashlib.sha256()
        self.add(*parts)

    def add(self, *parts: bytes | str) -> Self:
        """Hash further parts."""
        for part in parts:
            content = part.encode("utf-8", "replace") if isinstance(part, str) else part
            self.part(len(content)).update(content)
        return self

    def part(self, length: int) -> Hash:
        """Begin a part of `length` bytes, to be given to the result's `update` in as many pieces as it takes."""
        self._hash.update(length.to_bytes(8, "big"))
        return self._hash

    def digest(self) -> bytes:
        """Return the 32 bytes of the digest."""
        return self._hash.digest()

    def hexdigest(self) -> str:
        """Return the digest as 64 hexadecimal digits."""
        return self._hash.hexdigest()
