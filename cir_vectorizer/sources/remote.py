"""Remote folders and tables: s3://, gs://, http(s):// and every other file system that fsspec knows."""

import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import IO, Any
from urllib.parse import unquote

import fsspec
from fsspec import AbstractFileSystem
from fsspec.utils import get_protocol

from cir_vectorizer.errors import ImageError, SourceError
from cir_vectorizer.redaction import cause, printable, without_credentials
from cir_vectorizer.sources.base import Failure, Globs, Item, is_picture, stable_id
from cir_vectorizer.sources.pictures import RemoteFile
from cir_vectorizer.sources.waiting import patiently

_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp", "az": "adlfs",
    "abfs": "adlfs", "abfss": "adlfs", "sftp": "paramiko", "ssh": "paramiko", "webdav": "webdav4", "smb": "smbprotocol",
}  # fmt: skip


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL, and the path within it.

    Raises:
        SourceError: the URL cannot be opened, or a package is missing; then the sentence says how to install it.
    """
    shown, protocol = without_credentials(url), get_protocol(url)
    try:
        fs, path = fsspec.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        remedy = f"run: pip install {package}" if package else str(error)
        raise SourceError(f"{shown} needs a package that is not installed; {remedy}") from error
    except ValueError as error:
        remedy = "give a folder, a table, s3://…, gs://…, http(s)://… or another URL that fsspec reads"
        raise SourceError(f"{shown} cannot be opened ({cause(error)}); {remedy}") from error
    except Exception as error:  # each kind of store raises its own errors for wrong credentials
        raise SourceError(
            f"{shown} cannot be opened ({cause(error)}); check the address and the credentials"
        ) from error
    return fs, str(path)


class RemoteFolder:
    """The pictures below a URL, recognised by suffix; hidden files and folders are skipped.

    Folders are listed one at a time, so memory holds only one folder's listing. On a web server, folders are found
    through the links on its listing pages.
    """

    far = True
    notes = ()

    def __init__(self, url: str, globs: Globs | None = None) -> None:
        self.name = self.identity = without_credentials(url).rstrip("/")
        self.skipped = 0
        self._globs = globs or Globs()
        self._fs, path = file_system(url)
        self._root = path.rstrip("/")
        self._web = get_protocol(url) in ("http", "https")

    @property
    def nothing(self) -> str:
        if self._web:
            links = (
                "no link"
                if not self.skipped
                else f"none of {self.skipped:,} links"
                if self.skipped > 1
                else "not the one link"
            )
            return (
                f"{self.name} was read as a web page that lists files, and {links} to a place below it ends like a picture's "
                "file (.jpg, .png, …); give the address of a page that lists them, or of a table that names them (with "
                "--format if it is not recognised)"
            )
        return (
            f"{self.name} was read as a folder, in which no picture was found: {self._globs.none_of(self.skipped)}; check "
            "the address, or say with --format which kind of table it is"
        )

    def count(self) -> None:
        return None

    def items(self) -> Iterator[Item | Failure]:
        self.skipped = 0
        self._fs.invalidate_cache()
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                files, inner = patiently(partial(self._listing, folder))
            except ImageError as error:
                if not folder:
                    raise SourceError(f"{self.name} {error}") from error
                yield Failure(printable(self._shown(folder)), "directory", str(error))
                continue
            except Exception as error:  # each kind of store raises its own library's errors
                sentence = f"cannot be listed ({cause(error)}); check the address and the permissions"
                if not folder:
                    raise SourceError(f"{self.name} {sentence}") from error
                yield Failure(printable(self._shown(folder)), "directory", sentence)
                continue
            folders.extend(path for path in reversed(inner) if self._globs.enters(self._shown(path)))
            for path in sorted(files):
                name = self._shown(path)
                if is_picture(name) and self._globs.takes(name):
                    info = files[path]
                    yield Item(
                        stable_id(name), RemoteFile(self._fs, info["name"], f"{self.name}/{path}", info), name, {}
                    )
                else:
                    self.skipped += 1
        self._fs.invalidate_cache()

    def still_has(self, location: str) -> bool:
        path = location.removeprefix(f"{self.name}/")
        if not self._globs.takes(self._shown(path)):
            return False
        try:
            self._fs.info(f"{self._root}/{path}")  # most stores' `exists` also returns False after an error
        except FileNotFoundError as error:
            # fsspec raises this for any error status of a web server
            return self._web and getattr(error.__cause__, "status", None) not in (404, 410)
        except Exception:  # each kind of store raises its own library's errors
            return True
        return True

    def close(self) -> None:
        """Do nothing: no connection stays open."""

    def _shown(self, path: str) -> str:
        return unquote(path) if self._web else path

    def _listing(self, folder: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """Return the files in a folder with the store's details of each, and its subfolders; relative to the root."""
        files: dict[str, dict[str, Any]] = {}
        folders = set()
        place = posixpath.join(self._root, folder) if folder else self._root
        for info in self._ls(place, is_root=not folder):
            path = info["name"].rstrip("/").removeprefix(f"{self._root}/")
            last = posixpath.basename(path)
            if posixpath.dirname(path) != folder or not last or last.startswith((".", "?")):
                continue
            if info["type"] == "directory":
                folders.add(path)
            else:
                files[path] = info
        return files, sorted(folders)

    def _ls(self, place: str, is_root: bool) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self._fs.ls(f"{place}/" if self._web else place, detail=True)
        except FileNotFoundError:
            if not self._web or not is_root:
                raise
            found = self._fs.ls(place, detail=True)  # some pages have no address with a slash at the end
        return found


class RemoteTable:
    """The file of a remote table: `refresh` downloads all of it, so that every pass over it sees the same rows."""

    def __init__(self, url: str) -> None:
        self.name = self.identity = without_credentials(url)
        self.base = posixpath.dirname(url.partition("?")[0])
        self._fs, self._path = file_system(url)
        self._copy: IO[bytes] | None = None

    def refresh(self) -> None:
        """Download the file again.

        Raises:
            SourceError: the file cannot be read.
        """
        self._fs.invalidate_cache()
        copy = tempfile.NamedTemporaryFile(prefix="cir-table-")  # noqa: SIM115 - kept until the next refresh
        try:
            patiently(partial(self._download, copy))
        except ImageError as error:
            copy.close()
            raise SourceError(f"{self.name} {error}") from error
        except Exception as error:  # each kind of store raises its own library's errors
            copy.close()
            remedy = "check the address and the credentials"
            raise SourceError(f"{self.name} cannot be read ({cause(error)}); {remedy}") from error
        if self._copy is not None:
            self._copy.close()
        self._copy = copy

    def _download(self, copy: IO[bytes]) -> None:
        copy.seek(0)
        copy.truncate()
        with self._fs.open(self._path, "rb") as stream:
            shutil.copyfileobj(stream, copy)
        copy.flush()

    def open(self) -> IO[bytes]:
        """Return a new stream from the start of the last download."""
        if self._copy is None:
            self.refresh()
        assert self._copy is not None
        return open(self._copy.name, "rb")

    def close(self) -> None:
        """Delete the download."""
        if self._copy is not None:
            self._copy.close()
            self._copy = None
