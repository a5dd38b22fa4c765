"""Keys of the service. Several may be valid at once, so that one can be replaced without a gap.

A key is read from wherever the databases and clients can put it: the address (`http://cir:KEY@host`, which arrives as
Basic), `Authorization: Bearer KEY`, a header that ends in `-api-key`, or the `token` in the body of Qdrant's calls.
"""

import base64
import binascii
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Iterable
from pathlib import Path

from cir_vectorizer.errors import CirError
from cir_vectorizer.service.http.problems import RefusedError

log = logging.getLogger(__name__)

RECHECK_SECONDS = 1.0
"""Shortest time between two checks of the file of keys."""

_WORD = re.compile(r"[^\s'\",;:/@?&=()]+")
_LINE = re.compile(r"(?:([A-Za-z0-9_.-]{1,40}):)?(\S+)")


class KeysError(CirError):
    """Keys that cannot be read."""


class Keys:
    """The accepted keys, by id. Only their hashes are kept.

    Args:
        text: keys as `ID:SECRET` or `SECRET`, separated by commas or white space.
        file: the same, one a line; lines that start with # are comments. It is read again when it changes; if that
            fails, the keys read before stay valid.
        unnamed: start of the ids of keys without one.

    Raises:
        CirError: the file cannot be read, or holds no key.
    """

    def __init__(self, text: str = "", file: Path | None = None, unnamed: str = "key") -> None:
        self._unnamed = unnamed
        self._given = _read(re.split(r"[,\s]+", text), unnamed)
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._checked = 0.0
        self._keys: list[tuple[str, bytes]] = self._given
        if file is not None:
            self._read_file(file)

    @property
    def configured(self) -> bool:
        """True if requests need a key."""
        return bool(self._keys) or self._file is not None

    def who(self, secrets: Iterable[str]) -> str | None:
        """Return the id of the first valid key among `secrets`, or None. Every key is compared, in constant time."""
        self._refresh()
        found = None
        for secret in secrets:
            digest = _digest(secret)
            for key_id, known in self._keys:
                if hmac.compare_digest(digest, known) and found is None:
                    found = key_id
        return found

    def hidden(self, text: str) -> str:
        """Return a text without valid keys; a client may put one where a refusal quotes it, such as a model's name."""
        return _WORD.sub(lambda word: "***" if self.who([word[0]]) is not None else word[0], text)

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._file is None or now - self._checked < RECHECK_SECONDS:
            return
        try:
            status = self._file.stat()
            if (status.st_mtime_ns, status.st_size) != self._stamp:
                self._read_file(self._file)
                log.info("the file of keys was read again: %d keys are valid", len(self._keys))
        except (OSError, CirError):
            log.exception("the file of keys cannot be read; the keys read before stay valid")
        self._checked = now

    def _read_file(self, file: Path) -> None:
        self._checked = time.monotonic()
        try:
            status = file.stat()
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise KeysError(
                f"the file of keys {file} cannot be read ({error}); check its name and permissions"
            ) from error
        keys = _read((line.strip() for line in lines if not line.lstrip().startswith("#")), self._unnamed)
        if not keys and not self._given:
            raise KeysError(f"the file of keys {file} holds no key; write one a line, as ID:SECRET or SECRET")
        self._stamp = (status.st_mtime_ns, status.st_size)
        self._keys = self._given + keys


def no_key(place: str = "") -> RefusedError:
    """Return the refusal of a request without a valid key.

    Args:
        place: the place to set it for the database whose door this is, and what to do then.
    """
    header = "send it as Bearer, Basic or api-key header"
    remedy = f"{place} (your own program: {header})" if place else header
    return RefusedError(401, "key", f"no valid key came with this request; {remedy}")


def secrets_of(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Return everything in a request's headers that may be a key."""
    secrets = []
    for name, value in headers:
        if name == b"authorization":
            scheme, _, rest = value.decode("utf-8", "surrogateescape").strip().partition(" ")
            if scheme.lower() == "bearer":
                secrets.append(rest.strip())
            elif scheme.lower() == "basic":
                secrets += _basic(rest.strip())
        elif name.endswith(b"-api-key") or name == b"api-key":
            secrets.append(value.decode("utf-8", "surrogateescape").strip())
    return secrets


def _basic(text: str) -> list[str]:
    """Return the password of Basic credentials, or the user if there is no password (`http://KEY@host`)."""
    try:
        user, _, password = base64.b64decode(text, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return []
    return [password or user]


def _read(words: Iterable[str], unnamed: str) -> list[tuple[str, bytes]]:
    keys = []
    for number, word in enumerate(filter(None, words), start=1):
        match = _LINE.fullmatch(word)
        if match is None:
            raise KeysError("a key holds white space; write one a line, as ID:SECRET or SECRET")
        keys.append((match[1] or f"{unnamed}-{number}", _digest(match[2])))
    return keys


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
