"""A folder of pictures on this machine."""

import os
import posixpath
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from cir_vectorizer.errors import SourceError
from cir_vectorizer.redaction import cause, printable
from cir_vectorizer.sources.base import Failure, Globs, Item, is_picture, stable_id
from cir_vectorizer.sources.pictures import LocalFile


class FolderSource:
    """The pictures in a folder and its subfolders, recognised by suffix; hidden files and folders are skipped.

    Links to folders are followed after all real folders, and no folder is listed twice, so loops end.

    Raises:
        SourceError: the folder itself cannot be listed.
    """

    far = False
    notes = ()

    def __init__(self, root: Path, globs: Globs | None = None) -> None:
        self.root = Path(os.path.abspath(root))
        self.name = str(root)
        self.identity = str(self.root)
        self.skipped = 0
        self._globs = globs or Globs()
        self._check()

    @property
    def nothing(self) -> str:
        return (
            f"{self.name} was read as a folder, in which no picture was found: {self._globs.none_of(self.skipped)}; check the "
            "path (a folder that is not mounted is empty), and give a table by its own path"
        )

    def count(self) -> int:
        return sum(1 for _ in self._names())

    def items(self) -> Iterator[Item | Failure]:
        self._check()
        root = os.path.join(self.root, "")
        for name in self._names():
            if isinstance(name, Failure):
                yield name
            elif name != printable(name):
                yield Failure(printable(name), "path", "has a name that is not UTF-8; rename it")
            else:
                yield Item(stable_id(name), LocalFile(root + name), name, {})

    def still_has(self, location: str) -> bool:
        root = os.path.join(self.root, "")
        return location.startswith(root) and self._globs.takes(location[len(root) :]) and os.path.lexists(location)

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _check(self) -> None:
        try:
            os.scandir(self.root).close()
        except OSError as error:
            raise SourceError(f"{self.name} cannot be listed ({cause(error)}); check its permissions") from error

    def _names(self) -> Iterator[str | Failure]:
        """Yield the paths of the pictures relative to the root, with slashes."""
        self.skipped = 0
        seen = {_identity(parent) for parent in self.root.resolve().parents}
        folders, links = [""], deque[str]()
        while folders or links:
            folder = folders.pop() if folders else links.popleft()
            try:
                identity = _identity(self.root / folder)
                if identity in seen:
                    continue
                seen.add(identity)
                files, inner, linked = _listing(self.root / folder)
            except OSError as error:
                sentence = f"cannot be listed ({cause(error)}); check its permissions"
                yield Failure(printable(folder) or self.name, "directory", sentence)
                continue
            paths = (posixpath.join(folder, name) for name in reversed(inner))
            folders.extend(path for path in paths if self._globs.enters(path))
            links.extend(path for name in linked if self._globs.enters(path := posixpath.join(folder, name)))
            for file in files:
                name = posixpath.join(folder, file)
                if is_picture(file) and self._globs.takes(name):
                    yield name
                else:
                    self.skipped += 1


def _listing(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Return the names of the files, real folders and linked folders in a folder, sorted, without the hidden ones."""
    files: list[str] = []
    folders: list[str] = []
    links: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif entry.is_symlink() and _leads_to_folder(entry):
                links.append(entry.name)
            else:
                files.append(entry.name)
    return sorted(files), sorted(folders), sorted(links)


def _leads_to_folder(link: "os.DirEntry[str]") -> bool:
    try:
        return link.is_dir()
    except OSError:  # for example a link to itself: treated as a file, and reported if it has a picture's suffix
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
