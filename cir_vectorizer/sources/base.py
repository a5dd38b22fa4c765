"""The protocol of a source: pictures, each under an id that stays the same from run to run."""

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pathspec import GitIgnoreSpec

from cir_vectorizer.collections import Id, SyncRecord
from cir_vectorizer.errors import SourceError
from cir_vectorizer.identity import spellings
from cir_vectorizer.query.encoded import Limits

PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .avif .heic .heif .tif .tiff .bmp .jp2 .j2k .jpx .mpo .ppm .pgm .pbm .pnm "
    ".svg .eps .psd .ico .tga .jxl .dng .cr2 .cr3 .nef .arw".split()
)
"""Suffixes of files that a folder's listing takes for pictures. Formats in the second row cannot be read; their files
are listed so that they are reported as failures rather than silently skipped."""

_NAMESPACE = hashlib.sha1(uuid.UUID("8a1b7a3e-52c6-5f0e-9d3c-6c1f1f0f6d0b").bytes, usedforsecurity=False)


@dataclass(frozen=True)
class Stamp:
    """Size in bytes and version of a picture; a picture with the same stamp counts as unchanged and is not read.

    The version is the modification time in nanoseconds, or a digest of a server's version tag.
    """

    size: int
    version: int


class SourcePicture(Protocol):
    """A picture at its place: a file, a URL, or bytes in a table. Only `stamp` and `read` access it."""

    @property
    def location(self) -> str:
        """Absolute path or URL without credentials, by which another run finds the picture."""

    @property
    def near(self) -> bool:
        """True if `stamp` needs no network."""

    @property
    def held(self) -> int:
        """Bytes of memory that the picture takes before it is read."""

    def stamp(self) -> Stamp | None:
        """Return the picture's stamp; None if the picture must be read to see whether it changed.

        Raises:
            ImageError, OSError: the picture does not exist.
        """

    def read(self, limits: Limits) -> bytes:
        """Return the picture's encoded bytes.

        Raises:
            ImageError, OSError: the picture does not exist, is too large, or is not a file.
        """


@dataclass(frozen=True, slots=True)
class Item:
    """A picture to index, with its id, its name in reports, and the user's columns (JSON values).

    `recorded` is the object's record in the collection that it is copied from, if the copy shall keep that record's
    owner and digest of the columns. `source_id` is set if another program made the object and the source took it over:
    the id that the source gives to the picture, whereas `id` is the object's. `number` is the whole number that the id is
    derived from, if it is one.
    """

    id: Id
    picture: SourcePicture
    name: str
    columns: dict[str, Any]
    recorded: SyncRecord | None = None
    source_id: str = ""
    number: int | None = None


@dataclass(frozen=True)
class Failure:
    """An entry that could not be indexed: `reason` is a short code, `sentence` follows the path in messages.

    `id` is the object's id, if the entry has one, and `number` the whole number that it is derived from.
    """

    path: str
    reason: str
    sentence: str
    id: Id | None = field(default=None, compare=False)
    number: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.path} {self.sentence}"

    @property
    def hides_entries(self) -> bool:
        """True if this failure may have kept other entries from being listed, such as the files of a folder."""
        return self.id is None and self.reason in ("directory", "row", "id", "missing", "format")


class Source(Protocol):
    """A source of pictures. Each call of `items` lists it again."""

    @property
    def name(self) -> str:
        """The source as the user wrote it, without credentials."""

    @property
    def identity(self) -> str:
        """Absolute path or URL, which tells this source from others of the same collection."""

    @property
    def far(self) -> bool:
        """True if pictures come over a network, so that more threads than cores read them."""

    @property
    def skipped(self) -> int:
        """Number of files that the last listing skipped because they are not pictures or were not asked for."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences about the last listing as a whole that its reader should know."""

    @property
    def nothing(self) -> str:
        """The sentence about a listing that gave no entry: how the source was read, what was looked for, and what to do."""

    def count(self) -> int | None:
        """Return the number of entries that `items` will yield; None if only a listing could tell.

        Raises:
            SourceError: the source as a whole cannot be indexed.
        """

    def items(self) -> Iterator[Item | Failure]:
        """Yield each picture once; for an entry that cannot be indexed, yield a Failure and go on.

        Raises:
            SourceError: the source can no longer be read.
        """

    def still_has(self, location: str) -> bool:
        """Tell whether a picture missing from the last listing still exists, since files may move during a listing.

        Always False for sources in which this cannot happen.
        """

    def close(self) -> None:
        """Close files and connections; safe to call twice."""


class Globs:
    """Patterns, as in a .gitignore, that choose files by their path relative to the folder.

    Raises:
        SourceError: a pattern is malformed.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self._include = _patterns("--include", include)
        self._exclude = _patterns("--exclude", exclude)

    def none_of(self, count: int) -> str:
        """Return that none of this number of files is a wanted picture, for the middle of a sentence."""
        if not count:
            return "it holds no files"
        files = "its only file does not end" if count == 1 else f"none of its {count:,} files ends"
        chosen = "" if self._include is self._exclude is None else ", or --include and --exclude leave it out"
        return f"{files} like a picture's (.jpg, .png, …){chosen}"

    def takes(self, name: str) -> bool:
        """Tell whether a file is wanted."""
        if self._exclude is not None and self._exclude.match_file(name):
            return False
        return self._include is None or self._include.match_file(name)

    def enters(self, folder: str) -> bool:
        """Tell whether files below a folder may be wanted."""
        return self._exclude is None or not self._exclude.match_file(f"{folder}/")


def _patterns(option: str, patterns: Sequence[str]) -> GitIgnoreSpec | None:
    try:
        return GitIgnoreSpec.from_lines(patterns) if patterns else None
    except ValueError as error:
        raise SourceError(
            f"{option} {' '.join(patterns)!r} is no pattern ({error}); write one as in .gitignore"
        ) from error


def stable_id(key: str) -> str:
    """Return the object's id for a key of the source: the same key gives the same UUID on every machine.

    This is `uuid.uuid5`, rewritten for speed: it runs for each entry of each listing.
    """
    digest = _NAMESPACE.copy()
    digest.update(key.encode())
    text = digest.hexdigest()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def other_ids(entry: Item | Failure) -> list[Id]:
    """Return the ids that releases up to 0.1.0 derived from other spellings of an entry's number."""
    return [] if entry.number is None else [stable_id(text) for text in spellings(entry.number)[1:]]


def is_picture(name: str) -> bool:
    """Tell whether a file's name has the suffix of a picture."""
    return name[name.rfind(".") :].lower() in PICTURE_SUFFIXES


def version_of(text: str | bytes) -> int:
    """Return a digest (62 bits) of a version's name, which takes the place of a modification time."""
    content = text.encode("utf-8", "replace") if isinstance(text, str) else text
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 2
