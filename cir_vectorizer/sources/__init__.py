"""Sources of pictures to index: a folder, a table with a column of pictures, or another collection.

A source lists each picture once, under an id that stays the same from run to run. Listing reads no pictures.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from cir_vectorizer import extras
from cir_vectorizer.collections import ANY_VECTOR, ENTRY_POINTS, OpenOptions, open_collection
from cir_vectorizer.errors import SourceError
from cir_vectorizer.sources.base import (
    PICTURE_SUFFIXES,
    Failure,
    Globs,
    Item,
    Source,
    SourcePicture,
    Stamp,
    stable_id,
)
from cir_vectorizer.sources.cells import IMAGE_COLUMNS, Pictures
from cir_vectorizer.sources.collection import CollectionSource
from cir_vectorizer.sources.folder import FolderSource
from cir_vectorizer.sources.formats import FOLDER, FORMATS, suffix_at
from cir_vectorizer.sources.pictures import is_url
from cir_vectorizer.sources.places import local_path
from cir_vectorizer.sources.remote import RemoteFolder, RemoteTable
from cir_vectorizer.sources.rows import SUFFIXES, table_suffix
from cir_vectorizer.sources.table import LocalTable, TableSource
from cir_vectorizer.sources.web import Web


def open_source(
    source: str | Path,
    image_column: str | None = None,
    id_column: str | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    api_key: str | None = None,
    web: Web | None = None,
    pictures: Pictures | None = None,
    text_columns: Sequence[str] = (),
    format: str | None = None,
) -> Source:
    """Open a folder or a table, by path or URL, or a collection by its address.

    A table is recognised by its suffix; a URL without one is asked (see `formats`).

    Args:
        image_column: column of pictures, in a table (guessed by name if None) or a collection (the recorded paths if
            None).
        id_column: column of ids in a table; if None, ids are derived from the picture's path.
        include: patterns as in .gitignore that a folder's files must match; all files match if empty.
        exclude: patterns of files and subfolders to leave out.
        api_key: key of a collection's server.
        web: fetches pictures that are named by URL; if None, only from the public internet.
        pictures: a table's rows that name several pictures give one object, with the first ("first", also if None), or
            an object for each picture ("each").
        text_columns: columns that a table or a collection must have; `sync` makes vectors of their texts.
        format: one of `FORMATS`, to read the source as that, whatever its name is.

    Raises:
        SourceError: the source does not exist, or is of an unknown kind.
        AddressError: a collection's address is malformed.
    """
    text, web = str(source), web or Web()
    globs = Globs(include, exclude)
    url = is_url(text)
    if names_collection(text):
        kind, suffix = "collection", None
    else:
        suffix = _suffix(text, url) if format is None else None if format == FOLDER else f".{format}"
        kind = "folder" if suffix is None else "table"
    if kind == "collection" and format:
        raise SourceError(f"{text} is a collection, which has no format; leave out --format")
    if kind != "folder" and (include or exclude):
        given = " and ".join(option for option, said in (("--include", include), ("--exclude", exclude)) if said)
        raise SourceError(f"{text} is a {kind}, which has no files to choose from; leave out {given}")
    if kind != "table" and id_column:
        raise SourceError(f"{text} is a {kind}, which has no columns of ids; leave out --id-column")
    if kind != "table" and pictures:
        raise SourceError(f"{text} is a {kind}, which has no rows with several pictures; leave out --pictures")
    if kind == "collection":
        return CollectionSource(
            open_collection(text, api_key, OpenOptions(ANY_VECTOR)), web, image_column, text_columns=text_columns
        )
    if kind == "folder" and (image_column or text_columns):
        option = "--image-column" if image_column else "--text-column"
        raise SourceError(f"{text} is a folder, which has no columns; leave out {option}")
    if url is not None and not _is_here(url):
        if suffix is not None:
            return TableSource(RemoteTable(text), suffix, web, image_column, id_column, pictures, text_columns)
        return RemoteFolder(text, globs)
    path = Path(local_path(text)) if url else Path(source)
    if not path.exists():
        raise SourceError(
            f"{path} does not exist; give a folder of pictures, or a .csv, .tsv, .jsonl, .ndjson or .parquet table"
        )
    if suffix is not None and path.is_dir():
        raise SourceError(f"{path} is a folder; give the table in it, or leave out --format {format}")
    if suffix is not None:
        return TableSource(LocalTable(path), suffix, web, image_column, id_column, pictures, text_columns)
    if not path.is_dir():
        kinds = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise SourceError(
            f"{path} is neither a folder nor a table by its name; tables end in {kinds}, each also with .gz: rename it, or "
            "say with --format how to read it"
        )
    return FolderSource(path, globs)


def names_collection(source: str) -> bool:
    """Tell whether a source is a collection's address: `qdrant://…` or `qdrant:DIRECTORY/NAME`."""
    scheme, colon, _ = source.partition(":")
    return bool(colon) and scheme.lower() in extras.plugins(ENTRY_POINTS)


def _is_here(url: re.Match[str]) -> bool:
    return url[1].lower() == "file"


def _suffix(source: str, url: re.Match[str] | None) -> str | None:
    if url is not None and not _is_here(url):
        return suffix_at(source)
    return None if Path(local_path(source)).is_dir() else table_suffix(source)


__all__ = [
    "FORMATS",
    "IMAGE_COLUMNS",
    "PICTURE_SUFFIXES",
    "CollectionSource",
    "Failure",
    "FolderSource",
    "Globs",
    "Item",
    "Pictures",
    "RemoteFolder",
    "Source",
    "SourcePicture",
    "Stamp",
    "TableSource",
    "Web",
    "names_collection",
    "open_source",
    "stable_id",
]
