"""Files that a table names in another spelling than their folder has: Unicode's normal forms, backslashes, a leading
slash, blanks or quotes around the name, and (at a URL) %20 for a blank."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote

from cir_vectorizer.errors import ImageError
from cir_vectorizer.query.encoded import Limits
from cir_vectorizer.redaction import printable
from cir_vectorizer.sources.base import Stamp
from cir_vectorizer.sources.pictures import LocalFile, RemoteFile

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_T = TypeVar("_T")


class NamedFile(LocalFile):
    """A file of this machine by the name that a table gives it: the file of exactly that name, else of another spelling.

    Args:
        base: absolute path of the folder that relative names start at.
        name: path as the table has it.
    """

    __slots__ = ("_base", "_name")

    def __init__(self, base: str, name: str) -> None:
        super().__init__(str(Path(base) / name))
        self._base = base
        self._name = name

    def stamp(self) -> Stamp:
        return self._found(super().stamp)

    def read(self, limits: Limits) -> bytes:
        return self._found(lambda: super(NamedFile, self).read(limits))

    def _found(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except (FileNotFoundError, NotADirectoryError) as error:
            other = next(_spellings(self._base, self._name), None)
            if other is None:
                raise ImageError("path", _sentence(self._base, self._name)) from error
            self.location = other
            return work()


class RemoteNamedFile(RemoteFile):
    """A file beside a remote table by the name that the table gives it: of exactly that name, else of another spelling.

    Args:
        path: path of the table's folder within the file system.
        location: URL of the folder without credentials.
        name: normalised path of the file below the folder, as the table has it.
        web: True for a web server, which takes names quoted.
    """

    def __init__(self, fs: "AbstractFileSystem", path: str, location: str, name: str, web: bool) -> None:
        self._places = [f"/{quote(each) if web else each}" for each in _remote_spellings(name, web)]
        self._base, self._shown = path, location
        super().__init__(fs, path + self._places[0], location + self._places[0])

    def _call(self, work: Callable[[], Any]) -> Any:
        """Return the result of a request; while there is no such file, ask for its name in the next spelling."""
        while True:
            try:
                return super()._call(work)
            except FileNotFoundError:
                if len(self._places) == 1:
                    raise
                del self._places[0]
                self._path, self.location = self._base + self._places[0], self._shown + self._places[0]


def _remote_spellings(name: str, web: bool) -> list[str]:
    """Return a file's name, and other spellings of it that the file may have, each once."""
    parts = (part.strip() for part in name.strip().strip("\"'").replace("\\", "/").split("/"))
    plain = "/".join(part for part in parts if part not in ("", "."))
    texts = [name, plain, *([unquote(plain)] if web else [])]
    return list(
        dict.fromkeys([*texts, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in texts)])
    )


def _spellings(base: str, name: str) -> Iterator[str]:
    """Yield the paths of existing files that have the name in another spelling."""
    plain = name.replace("\\", "/")
    for text in dict.fromkeys((name, plain, plain.strip().strip("\"'"))):
        places = dict.fromkeys(("/", base) if text.strip().startswith("/") else (base,))
        for place in places:
            if (found := _walk(place, text)) is not None:
                yield found


def _walk(place: str, path: str) -> str | None:
    for part in filter(str.strip, path.split("/")):
        forms = (unicodedata.normalize(form, text) for text in (part, part.strip()) for form in ("NFC", "NFD"))
        paths = (os.path.join(place, form) for form in (part, *forms))
        found = next(filter(os.path.lexists, paths), None)
        if found is None:
            return None
        place = found
    return None if os.path.isdir(place) else os.path.normpath(place)


def _sentence(base: str, name: str) -> str:
    """Return the rest of a sentence that begins with the name of a file which does not exist."""
    plain = name.strip().replace("\\", "/")
    folder, last = os.path.split(os.path.join(base, plain))
    if not os.path.isdir(folder):
        folder, last = os.path.split(os.path.join(base, plain.lstrip("/")))
    shown = printable(os.path.normpath(folder))
    if not os.path.isdir(folder):
        return f"does not exist, and neither does its folder {shown}; correct the path"
    if (other := _listing(folder, os.stat(folder).st_mtime_ns).get(_letters(last))) is not None:
        return f"is not in {shown}, which has the name in another spelling, {printable(other)!r}; write it so"
    return f"is not in {shown}; correct the path, or put the file there"


@lru_cache(maxsize=16)
def _listing(folder: str, _changed: int) -> dict[str, str]:
    """Return the names of a folder's files by their letters; a folder that changes is listed again."""
    try:
        return {_letters(name): name for name in os.listdir(folder)}
    except OSError:
        return {}


def _letters(name: str) -> str:
    """Return a name's letters and digits alone, without case and accents."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKD", unquote(name)).casefold())
