"""The format of a source at an address: a folder (on a web server: a page that lists files), or a table of some kind.

An address that ends like a table's file is that table. Any other address is asked. A page of HTML is a folder; of another
answer, the first of these that says something counts: the file's name in the header Content-Disposition, the end of the
address after redirects, a value of its query (`?format=csv`), and the content itself.
"""

import posixpath
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from fsspec.asyn import sync
from fsspec.utils import get_protocol

from cir_vectorizer.errors import ImageError, SourceError
from cir_vectorizer.redaction import without_credentials
from cir_vectorizer.sources.base import is_picture
from cir_vectorizer.sources.remote import file_system
from cir_vectorizer.sources.rows import SUFFIXES, table_suffix
from cir_vectorizer.sources.text import ZIPPED
from cir_vectorizer.sources.waiting import patiently

FOLDER = "folder"
FORMATS = (*(suffix[1:] for suffix in SUFFIXES), FOLDER)
"""Formats of sources that are no collections, as `--format` names them."""

_PEEKED = 4096
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<")
_FEED = re.compile(rb"(\xef\xbb\xbf)?\s*<(\?xml|rss|feed|urlset)\b")
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_LIST = re.compile(rb"(\xef\xbb\xbf)?\s*(\[|\{\s*$)", re.MULTILINE)
_OBJECT = re.compile(rb"(\xef\xbb\xbf)?\s*\{")


@dataclass(frozen=True)
class _Answer:
    """The start of a file: its first bytes, and of a web server the headers and the address after redirects."""

    head: bytes
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The content type, without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def suffix_at(url: str) -> str | None:
    """Return the suffix of the table at a URL, as `table_suffix` does; None if a folder is there, or nothing.

    Raises:
        SourceError: a picture or a file of another kind is there, or the server stays busy.
    """
    shown = without_credentials(url)
    if (suffix := table_suffix(shown)) is not None:
        return suffix
    try:
        answer = patiently(lambda: _asked(url))
    except (ImageError, SourceError) as error:
        raise error if isinstance(error, SourceError) else SourceError(f"{shown} {error}") from error
    except Exception:  # each kind of store raises its own errors; the listing will say what is wrong
        return None
    if answer is None:
        return None
    head = _unpacked(answer.head)
    if _PAGE.match(head):
        if _FEED.match(head) and b"<html" not in head.lower():
            raise SourceError(f"{shown} is XML, which is not read here; export it as .csv, .tsv, .jsonl or .parquet")
        return None
    names = _names(url, answer)
    if answer.kind.startswith("image/") or any(map(is_picture, names)):
        raise SourceError(f"{shown} is one picture; give the folder that it is in, or a table that names it")
    if (suffix := next(filter(None, map(table_suffix, names)), None)) is not None:
        return suffix
    if not head.strip():
        return None
    return _by_content(head) or _refuse(shown, answer.kind)


def _asked(url: str) -> _Answer | None:
    """Return the start of the file at a URL; None if a folder is there."""
    fs, path = file_system(url)
    if get_protocol(url) not in ("http", "https"):
        is_file = fs.info(path)["type"] == "file"
        return _Answer(fs.cat_file(path, end=_PEEKED), path) if is_file else None

    async def get() -> _Answer:
        session = await fs.set_session()
        async with session.get(fs.encode_url(path), **fs.kwargs) as answer:
            answer.raise_for_status()
            head = b""
            while len(head) < _PEEKED and (part := await answer.content.read(_PEEKED - len(head))):
                head += part
            return _Answer(head, str(answer.url), answer.headers)

    found: _Answer = sync(fs.loop, get)
    return found


def _names(url: str, answer: _Answer) -> list[str]:
    """Return the names that a file has in an answer: those in its headers, in its address, and in its query."""
    message = Message()
    message["content-disposition"] = answer.headers.get("content-disposition", "").encode("ascii", "replace").decode()
    disposition: list[tuple[str, Any]] = message.get_params([], "content-disposition")
    names = [unquote(collapse_rfc2231_value(value)) for name, value in disposition if name.lower() == "filename"]
    queries = [value for each in (answer.url, url) for _, value in parse_qsl(urlsplit(each).query)]
    return [*names, posixpath.basename(unquote(urlsplit(answer.url).path)), *(f"{FOLDER}.{value}" for value in queries)]


def _unpacked(head: bytes) -> bytes:
    if not head.startswith(ZIPPED):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _PEEKED)
    except zlib.error:
        return head


def _by_content(head: bytes) -> str | None:
    """Return the suffix that fits the start of a file; None if it is of no table."""
    if head.startswith(b"PAR1"):
        return ".parquet"
    if _BINARY.search(head) and not head.startswith(_WIDE):
        return None
    return ".json" if _LIST.match(head) else ".jsonl" if _OBJECT.match(head) else ".csv"


def _refuse(shown: str, kind: str) -> str:
    raise SourceError(
        f"{shown} answers with {kind or 'bytes'}, which is neither a table that is read here nor a page that lists pictures; "
        f"check the address, or give --format {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    )
