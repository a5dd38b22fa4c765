"""Kinds of source pictures: a local file, a URL, a file in a remote store, and bytes in a table."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from cir_vectorizer.errors import ImageError
from cir_vectorizer.query.encoded import Limits, decode_base64, read_file
from cir_vectorizer.sources.base import Stamp, version_of
from cir_vectorizer.sources.waiting import patiently

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from cir_vectorizer.sources.web import Web


INLINE = "inline:"
"""Prefix of the location of a picture that exists only in its table."""


class LocalFile:
    """A file of this machine, by its absolute path."""

    near = True
    held = 0
    __slots__ = ("location",)

    def __init__(self, location: str) -> None:
        self.location = location

    def stamp(self) -> Stamp:
        status = os.stat(self.location)
        return Stamp(status.st_size, status.st_mtime_ns)

    def read(self, limits: Limits) -> bytes:
        path = Path(self.location)
        status = path.stat()
        if status.st_size > limits.max_bytes or not S_ISREG(status.st_mode):
            read_file(path, limits)  # raises the error that fits
        return path.read_bytes()


class WebPicture:
    """A picture at an http or https URL."""

    near = False
    held = 0

    def __init__(self, url: str, web: "Web") -> None:
        self.location = url
        self._web = web

    def stamp(self) -> Stamp | None:
        return self._web.stamp(self.location)

    def read(self, limits: Limits) -> bytes:
        return self._web.fetch(self.location, limits.max_bytes)


class RemoteFile:
    """A file of an fsspec file system.

    Args:
        path: path within the file system.
        location: URL without credentials.
        info: the file's details from a listing, if it was listed.
    """

    held = 0

    def __init__(self, fs: "AbstractFileSystem", path: str, location: str, info: dict[str, Any] | None = None) -> None:
        self.location = location
        self._fs = fs
        self._path = path
        self._stamp = None if info is None else _stamp(info)

    @property
    def near(self) -> bool:
        return self._stamp is not None

    def stamp(self) -> Stamp | None:
        if self._stamp is None:
            self._stamp = _stamp(self._call(lambda: self._fs.info(self._path)))
        return self._stamp

    def read(self, limits: Limits) -> bytes:
        if self._stamp is not None:
            _check(self._stamp.size, limits)
        content: bytes = self._call(lambda: self._fs.cat_file(self._path, end=limits.max_bytes + 1))
        _check(len(content), limits)
        return content

    def _call(self, work: Callable[[], Any]) -> Any:
        try:
            return patiently(work)
        except (ImageError, OSError):
            raise
        except Exception as error:  # each kind of store raises its own library's errors
            raise OSError(str(error) or type(error).__name__) from error


class InlinePicture:
    """A picture given as bytes, or as a data URI that `read` decodes."""

    near = True

    def __init__(self, content: bytes | str) -> None:
        self._content = content
        self.held = len(content)
        encoded = content.encode("utf-8", "replace") if isinstance(content, str) else content
        self.digest = hashlib.sha256(encoded).hexdigest()

    @property
    def location(self) -> str:
        return f"{INLINE}sha256:{self.digest}"

    def stamp(self) -> Stamp:
        return Stamp(self.held, version_of(self.digest))

    def read(self, limits: Limits) -> bytes:
        if isinstance(self._content, str):
            return decode_base64(self._content, limits)
        _check(self.held, limits)
        return self._content


def _stamp(info: dict[str, Any]) -> Stamp | None:
    """Return the stamp from a store's details of a file; None if they hold no version."""
    size = info.get("size")
    for key in (
        "ETag",
        "etag",
        "md5Hash",
        "mtime",
        "Last-Modified",
        "LastModified",
        "last_modified",
        "modified",
        "updated",
        "created",
    ):
        if version := info.get(key):
            return Stamp(-1 if size is None else int(size), version_of(str(version)))
    return None


def _check(count: int, limits: Limits) -> None:
    if count > limits.max_bytes:
        raise ImageError("bytes", f"is over the limit of {limits.max_bytes / 2**20:,.0f} MiB; make it smaller")


def is_url(text: str) -> re.Match[str] | None:
    """Return a match whose first group is the scheme; None if the text is not a URL."""
    return re.match(r"([a-z][a-z0-9+.-]+)://", text, re.IGNORECASE)
