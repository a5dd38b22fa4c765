"""Text made safe to print, log or record: without user, password or signature, and always valid UTF-8."""

import codecs
import json
import re
from typing import Any


def without_user(text: str) -> str:
    """Return a URL, or a text with URLs, without the user, password or key before the host."""
    return re.sub(r"//[^/]*@", "//", text)


def without_credentials(url: str) -> str:
    """Return a URL without user and password, and without its query, which is usually a signature."""
    return without_user(url).partition("?")[0]


def printable(name: str) -> str:
    """Return a file name as valid UTF-8; characters that cannot be encoded become "?"."""
    return name if name.isascii() else name.encode("utf-8", "replace").decode("utf-8")


def cause(error: Exception) -> str:
    """Return an error's first line, in lower case and without credentials, for the middle of a sentence."""
    text: str = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", without_user(text.splitlines()[0])).lower()


def json_text(value: Any, encoding: str | None, **how: Any) -> str:
    """Return a value as JSON; all characters but ASCII are escaped unless the encoding is UTF-8 and can hold them.

    Args:
        how: arguments of `json.dumps`.
    """
    text = json.dumps(value, ensure_ascii=False, **how)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a character, from a file name or a JSON table
        return json.dumps(value, **how)
    return text if codecs.lookup(encoding or "ascii").name == "utf-8" else json.dumps(value, **how)
