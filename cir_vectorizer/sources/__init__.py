"""What there is to index: a folder of pictures, a table with a column of pictures, or another collection.

A source names each picture once, under an id that stays the same from run to run. It reads no picture.
"""

import posixpath
from collections.abc import Sequence
from pathlib import Path

from cir_vectorizer import extras
from cir_vectorizer.collections import ENTRY_POINTS, open_collection
from cir_vectorizer.errors import SourceError
from cir_vectorizer.sources.base import (
    PICTURE_SUFFIXES,
    Failure,
    Globs,
    Item,
    Picture,
    Source,
    Stamp,
    stable_id,
)
from cir_vectorizer.sources.collection import CollectionSource
from cir_vectorizer.sources.folder import FolderSource
from cir_vectorizer.sources.pictures import is_url
from cir_vectorizer.sources.places import local_path
from cir_vectorizer.sources.remote import RemoteFolder, RemoteTable, without_credentials
from cir_vectorizer.sources.rows import SUFFIXES
from cir_vectorizer.sources.table import IMAGE_COLUMNS, LocalTable, TableSource
from cir_vectorizer.sources.web import Web

_TABLES = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"


def open_source(
    source: str | Path,
    image_column: str | None = None,
    id_column: str | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    api_key: str | None = None,
    web: Web | None = None,
) -> Source:
    """A folder, a table told by its suffix, either of them elsewhere by URL, or a collection by its address.

    Args:
        image_column: of a table (guessed by name if None) or of a collection (the recorded paths if None).
        id_column: of a table; ids come from the picture's path if None.
        include: patterns as in .gitignore that a folder's files must meet; all are wanted if empty.
        exclude: patterns of files and folders inside that are left out.
        api_key: of a collection.
        web: fetches pictures that are named by URL; from the public internet only if None.

    Raises:
        SourceError: there is nothing to read, or not of a known kind.
        AddressError: a collection's address is malformed.
    """
    text, web = str(source), web or Web()
    globs = Globs(include, exclude)
    kind = "folder"
    if names_collection(text):
        kind = "collection"
    elif _suffix(text) in SUFFIXES and not (is_url(text) is None and Path(text).is_dir()):
        kind = "table"
    if kind != "folder" and (include or exclude):
        raise SourceError(f"{text} is a {kind}, which has no files to choose from; leave out --include and --exclude")
    if kind != "table" and id_column:
        raise SourceError(f"{text} is a {kind}, which has no columns of ids; leave out --id-column")
    if kind == "collection":
        return CollectionSource(open_collection(text, api_key), web, image_column)
    if kind == "folder" and image_column:
        raise SourceError(f"{text} is a folder, which has no columns; leave out --image-column and --id-column")
    url = is_url(text)
    if url is not None and url[1].lower() != "file":
        if kind == "table":
            return TableSource(RemoteTable(text), _suffix(text), web, image_column, id_column)
        return RemoteFolder(text, globs)
    path = Path(local_path(text)) if url else Path(source)
    if not path.exists():
        raise SourceError(f"{path} does not exist; give a folder of pictures, or a {_TABLES} table")
    if kind == "table":
        return TableSource(LocalTable(path), _suffix(text), web, image_column, id_column)
    if not path.is_dir():
        raise SourceError(f"{path} is neither a folder nor a table; tables end in {_TABLES}")
    return FolderSource(path, globs)


def names_collection(source: str) -> bool:
    """Whether a source is written as a collection's address: `qdrant://…` or `qdrant:DIRECTORY/NAME`."""
    scheme, colon, _ = source.partition(":")
    return bool(colon) and scheme.lower() in extras.plugins(ENTRY_POINTS)


def _suffix(source: str) -> str:
    path = without_credentials(source) if is_url(source) else source
    return posixpath.splitext(path)[1].lower()


__all__ = [
    "IMAGE_COLUMNS",
    "PICTURE_SUFFIXES",
    "CollectionSource",
    "Failure",
    "FolderSource",
    "Globs",
    "Item",
    "Picture",
    "RemoteFolder",
    "Source",
    "Stamp",
    "TableSource",
    "Web",
    "names_collection",
    "open_source",
    "stable_id",
]
