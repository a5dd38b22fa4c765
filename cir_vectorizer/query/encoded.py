"""Encoded pictures: their limits, and reading their bytes from files and base64. Needs no Pillow."""

import binascii
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from cir_vectorizer.errors import ImageError

_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


@dataclass(frozen=True)
class Limits:
    """Upper limits for a picture: encoded bytes, pixels (width × height), and long side divided by short side.

    The aspect is limited because a model resizes the short side to its input width: a narrow strip would become huge.
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 64_000_000
    max_aspect: int = 200


DEFAULT_LIMITS = Limits()


def decode_base64(text: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Decode bare base64 or a data URI; white space, missing padding and the URL-safe alphabet are accepted.

    Raises:
        ImageError: with reason "base64", or "bytes" if the result would be over `limits.max_bytes`.
    """
    body = text
    if text[:64].lstrip()[:5].lower() == "data:":
        header, _, body = text.partition(",")
        if not header[-16:].rstrip().lower().endswith(";base64"):
            raise ImageError("base64", "is a data URI that is not base64; write data:image/png;base64,…")
    try:
        letters = body.encode("ascii").translate(_URL_SAFE, b" \t\r\n\f\v").rstrip(b"=")
    except UnicodeEncodeError as error:
        raise _not_base64(body[error.start]) from error
    if wrong := letters.translate(None, _ALPHABET):
        raise _not_base64(chr(wrong[0]))
    if not letters:
        raise ImageError("base64", "is empty; send the picture's bytes as base64")
    if len(letters) % 4 == 1:
        raise ImageError("base64", "is base64 that was cut short (one letter is left over); send all of it")
    check_bytes(len(letters) * 3 // 4, limits)
    return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4))


def check_bytes(count: int, limits: Limits) -> None:
    """Refuse an encoded picture that is empty or over the limit.

    Raises:
        ImageError: with reason "truncated" or "bytes".
    """
    if not count:
        raise ImageError("truncated", "is empty (0 bytes); copy or export it again")
    if count > limits.max_bytes:
        found = f"is {_size(count)}, over the limit of {_size(limits.max_bytes)}"
        raise ImageError("bytes", f"{found}; make it smaller")


def read_file(path: Path, limits: Limits) -> bytes:
    """Return the content of a picture file, at most one byte over the limit.

    Raises:
        ImageError: with reason "path", or as in `check_bytes`.
    """
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            kind = "a folder" if S_ISDIR(status.st_mode) else "not an ordinary file"
            raise ImageError("path", f"is {kind}; give the file of one picture")
        check_bytes(status.st_size, limits)
        with path.open("rb") as stream:
            return stream.read(limits.max_bytes + 1)
    except FileNotFoundError as error:
        raise ImageError("path", "does not exist; check the spelling and the folder it is looked for in") from error
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "its name is not valid"
        raise ImageError("path", f"cannot be read ({cause.lower()}); check the file and its permissions") from error


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB".replace(".0 ", " ") if count >= 2**20 else f"{count:,} bytes"


def _not_base64(character: str) -> ImageError:
    return ImageError(
        "base64", f"holds {character!r}, which base64 never does; send the picture's bytes as base64, not a file name"
    )
