"""The pictures that a table's cells, or the paths in sync's records, refer to."""

import os
import posixpath
import re
from typing import Any
from urllib.parse import unquote

from fsspec import AbstractFileSystem
from fsspec.utils import get_protocol

from cir_vectorizer.errors import ImageError, SourceError
from cir_vectorizer.redaction import without_credentials
from cir_vectorizer.sources.base import SourcePicture
from cir_vectorizer.sources.cells import pictures_of
from cir_vectorizer.sources.pictures import INLINE, InlinePicture, LocalFile, RemoteFile, WebPicture, is_url
from cir_vectorizer.sources.remote import file_system
from cir_vectorizer.sources.spelling import NamedFile, RemoteNamedFile
from cir_vectorizer.sources.web import Web

_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
"""Schemes of URLs, besides http(s) and the table's own, that a cell may hold; others could reach a private network."""

_WITHOUT_SCHEME = re.compile(r"\s*//[a-z0-9-]+(\.[a-z0-9-]+)+/", re.IGNORECASE)
"""The start of a URL as pages write it, to be read under the page's own scheme."""


class Places:
    """Finds the picture for a cell that holds a path, a URL, a data URI, or bytes.

    Args:
        base: folder or URL that relative paths start at, including credentials.
        web: fetches http and https URLs.
    """

    def __init__(self, base: str, web: Web) -> None:
        self._base = base
        self._kind = get_protocol(base)
        self._web = web

    def listed(self, cell: Any) -> list[Any]:
        """Return the pictures that a cell names; a file that has the cell as its name is one picture."""
        found = pictures_of(cell)
        if len(found) > 1 and isinstance(cell, str) and self._kind == "file":
            return [cell] if os.path.lexists(os.path.join(self._base, cell)) else found
        return found

    def picture(self, cell: Any) -> tuple[SourcePicture, str]:
        """Return a cell's picture, and the key that identifies it if there is no id column.

        Raises:
            ImageError: the cell holds no picture, or one at a place that may not be read.
        """
        if isinstance(cell, dict):  # the form in which the library `datasets` writes pictures into parquet files
            content, path = cell.get("bytes"), cell.get("path")
            if content is None:
                return self.picture(path)
            if not isinstance(content, bytes | str) or not isinstance(path, str | None):
                raise ImageError("format", 'is no {"bytes": …, "path": …}; give the picture\'s path or URL')
            return InlinePicture(content), path or _inline(content)[1]
        if isinstance(cell, str) and re.match(r"\s*(data:|[a-z][a-z0-9+.-]+://)", cell, re.IGNORECASE):
            cell = cell.strip()  # blanks around the name of a file may belong to it
        elif isinstance(cell, str) and _WITHOUT_SCHEME.match(cell) and not os.path.lexists(cell):
            cell = f"https:{cell.strip()}"
        if isinstance(cell, bytes) or (isinstance(cell, str) and re.match("data:", cell, re.IGNORECASE)):
            return _inline(cell)
        if not isinstance(cell, str) or not cell:
            raise ImageError("format", "is no text; give the picture's path or URL")
        if cell.startswith(INLINE):
            raise ImageError("missing", "was given as data, which is not kept; sync its table or collection again")
        url = is_url(cell)
        return self._by_url(cell, url[1].lower()) if url else self._by_path(cell), _key(cell)

    def _by_url(self, url: str, kind: str) -> SourcePicture:
        if kind in ("http", "https"):
            return WebPicture(url, self._web)
        if kind == self._kind == "file":
            return LocalFile(local_path(url))
        if kind not in (*_STORES, self._kind) or "::" in url:
            allowed = ", ".join(f"{name}://" for name in ("http", "https", "s3", "gs", "az"))
            raise ImageError("url", f"is a {kind}:// address, which a table may not name; give a path or {allowed}")
        return _remote(url)

    def _by_path(self, path: str) -> SourcePicture:
        if self._kind == "file":
            return NamedFile(self._base, path)
        inner = posixpath.normpath(path.lstrip("/"))
        if inner.startswith("../") or ".." in re.split(r"[/\\]", unquote(inner)):
            raise ImageError(
                "path", "leads out of the table's folder, which a table from elsewhere may not; correct it"
            )
        fs, folder = _file_system(self._base.rstrip("/"))
        location = without_credentials(self._base.rstrip("/"))
        return RemoteNamedFile(fs, folder, location, inner, web=self._kind in ("http", "https"))


def key_of(cell: Any) -> str | None:
    """Return the key of a cell's path or URL, whether the picture exists or not; None if the cell holds neither."""
    if isinstance(cell, dict):
        return key_of(cell.get("path")) if cell.get("bytes") is None else None
    return _key(cell) if isinstance(cell, str) and cell else None


def local_path(url: str) -> str:
    """Return the absolute path of a file:// URL."""
    return os.path.abspath(re.sub("^file://(localhost(?=/))?", "", url, flags=re.IGNORECASE))


def _key(name: str) -> str:
    return name if is_url(name) or name.startswith(INLINE) else posixpath.normpath(name)


def _inline(content: bytes | str) -> tuple[InlinePicture, str]:
    picture = InlinePicture(content)
    return picture, picture.location


def _remote(url: str) -> RemoteFile:
    return RemoteFile(*_file_system(url), without_credentials(url))


def _file_system(url: str) -> tuple[AbstractFileSystem, str]:
    try:
        return file_system(url)
    except SourceError as error:
        raise ImageError("url", str(error)) from error
