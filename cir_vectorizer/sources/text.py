r"""Text of tables: unpacked, decoded, and split into lines.

A file is unpacked if it is gzipped, whatever its name: web servers also unpack what is named .gz. Text is UTF-8, or
UTF-16 if its first bytes say so. Bytes that are not UTF-8 are read as Windows-1252, which most programs that write no
UTF-8 mean. Four of its letters in a row that are not ASCII hardly occur: a line with them is in an encoding that cannot be
told, and its bytes stay undecoded, as Python's `surrogateescape` writes them.
"""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, cast

from cir_vectorizer.errors import SourceError
from cir_vectorizer.redaction import cause

Opened = Callable[[], IO[bytes]]

ZIPPED = b"\x1f\x8b"
"""First bytes of a gzipped file."""
_REMEDY = "save it as UTF-8, for example with `iconv -f WINDOWS-1252 -t UTF-8` (or `-f UTF-16`)"
_WINDOWS = "cir_windows_1252"
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_NO_WORDS = re.compile(rb"[\x80-\xff]{4}")
_UNDECODED = re.compile("[\udc80-\udcff]")
_OTHERS = [
    (re.compile(pattern, re.IGNORECASE), what)
    for pattern, what in (
        (rb"\s*<(!doctype\s+html|html|head|body)\b", "a web page (HTML), not a table; open its address in a browser to see why"),
        (rb"\s*<[a-z?!]", "XML, which is not read here; export it as .csv"),
        (rb"PK\x03\x04|\xd0\xcf\x11\xe0", "an Excel file or an archive; save its table as .csv"),
        (rb"PAR1", "a parquet file; name it .parquet, or give --format parquet"),
    )
]  # fmt: skip


@contextmanager
def reading(name: str, opened: Opened) -> Iterator[IO[bytes]]:
    """Open a file, unpack it if it is gzipped, and turn errors while it is read into a `SourceError`."""
    try:
        with opened() as stream:
            zipped = _start(stream, len(ZIPPED)) == ZIPPED
            yield cast(IO[bytes], gzip.GzipFile(fileobj=stream)) if zipped else stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{name} is damaged or cut short ({cause(error)}); fetch or pack it again") from error
    except OSError as error:
        raise SourceError(f"{name} cannot be read ({cause(error)}); check the file") from error


def text_lines(stream: Iterable[bytes], name: str) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their line ends, without a byte order mark.

    Raises:
        SourceError: a line is not UTF-8.
    """
    for number, line in enumerate(stream, start=1):
        try:
            yield line.decode() if number > 1 else line.decode().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise SourceError(
                f"{name}, line {number:,}: not UTF-8 (byte 0x{line[error.start]:02x}); a file that is not UTF-8 cannot be "
                f"read, so {_REMEDY}"
            ) from error


class TableText:
    """The text of a table, and the lines of it that are not UTF-8.

    Attributes:
        undecoded: True if a line is in an encoding that cannot be told.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self._first = ""
        self.undecoded = False

    def lines(self, stream: IO[bytes]) -> Iterator[str]:
        """Yield the lines with their ends, without a byte order mark; a single carriage return ends a line too.

        Raises:
            SourceError: the file is of another kind, or UTF-16 that is damaged.
        """
        head = _start(stream, 256)
        for pattern, what in _OTHERS:
            if pattern.match(head.removeprefix(b"\xef\xbb\xbf")):
                raise SourceError(f"{self._name} is {what}")
        if (encoding := _utf16(head)) is not None:
            yield from self._wide(stream, encoding)
            return
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode()
            except UnicodeDecodeError:
                text = self._narrow(line, number)
            if number == 1:
                text = text.removeprefix("\ufeff")
            if "\r" in text and ("\r" in text[:-2] or text.endswith("\r")):
                yield from io.StringIO(text, newline="")
            else:
                yield text

    @property
    def notes(self) -> list[str]:
        """A sentence about the lines that were read as Windows-1252, if there are any."""
        if not self._count:
            return []
        lines = "1 line of {} is" if self._count == 1 else f"{self._count:,} lines of {{}} are"
        return [
            f"{lines.format(self._name)} not UTF-8 and read as Windows-1252, {self._first}; if that is wrong, save the "
            "table as UTF-8"
        ]

    def _wide(self, stream: IO[bytes], encoding: str) -> Iterator[str]:
        try:
            for line in io.TextIOWrapper(stream, encoding, newline=""):
                yield line.removeprefix("\ufeff")
        except UnicodeError as error:
            raise SourceError(f"{self._name} is damaged UTF-16 ({cause(error)}); {_REMEDY}") from error

    def _narrow(self, line: bytes, number: int) -> str:
        text = line.decode(errors=_WINDOWS)
        if _NO_WORDS.search(line) or "\ufffd" in text:
            self.undecoded = True
            return line.decode(errors="surrogateescape")
        self._count += 1
        if not self._first:
            at = next(i for i, letter in enumerate(text) if not letter.isascii())
            self._first = f"as in line {number:,} {text[max(0, at - 15) : at + 15].strip()!r}"
        return text


def is_undecoded(text: str) -> bool:
    """Tell whether a text holds bytes that could not be decoded."""
    return _UNDECODED.search(text) is not None


def _start(stream: IO[bytes], count: int) -> bytes:
    head = stream.read(count)
    stream.seek(0)
    return head


def _windows(error: UnicodeError) -> tuple[str, int]:
    """Read bytes that are not UTF-8 as Windows-1252, for `codecs.register_error`."""
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error(_WINDOWS, _windows)


def _utf16(head: bytes) -> str | None:
    """Return the encoding of UTF-16 text, by its byte order mark or the zeros of its first letters."""
    if head[:2] in _MARKS:
        return _MARKS[head[:2]]
    even, odd = head[:4:2], head[1:4:2]
    return "utf-16-le" if odd == b"\0\0" != even else "utf-16-be" if even == b"\0\0" != odd else None
