"""Names of a batch's inputs that do not depend on their order, which a database may change before it asks the service.

Imports no torch and decodes no picture.
"""

import hashlib
import json
import re
from typing import Any

from cir_vectorizer.errors import ImageError
from cir_vectorizer.query.encoded import Limits, decode_base64
from cir_vectorizer.redaction import without_credentials

DIGITS = 12
"""Hexadecimal digits of a digest in a name."""
_SHOWN = 40
_URL_SHOWN = 120
_ANY_SIZE = Limits(max_bytes=1 << 62)
_DIGEST = re.compile(rf"\bsha256 ([0-9a-f]{{{DIGITS}}})\b")


def digest_of(data: Any, kind: str) -> str:
    """Return the first digits of an input's SHA-256.

    For a picture in base64 it is that of its bytes, which `sha256sum` prints for its file; for a text or a URL that of
    its UTF-8, and for an object that of its JSON with sorted keys and without blanks.

    Args:
        kind: "text", "image" or "object".
    """
    return hashlib.sha256(_content(data, kind)).hexdigest()[:DIGITS]


def name_of(data: Any, kind: str) -> str:
    """Return a name for an input by which its sender finds it: its digest, and the start of a text or a URL."""
    shown = ""
    if isinstance(data, str) and kind == "text":
        shown = f"{data[:_SHOWN]!r}, "
    elif isinstance(data, str) and data[:8].lower().startswith(("http://", "https://")):
        shown = f"{without_credentials(data)[:_URL_SHOWN]}, "
    return f"{shown}sha256 {digest_of(data, kind)}"


def digests_in(sentence: str) -> set[str]:
    """Return the digests of the inputs that a sentence names."""
    return set(_DIGEST.findall(sentence))


def _content(data: Any, kind: str) -> bytes:
    if not isinstance(data, str):
        return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    if kind == "image":
        try:
            return decode_base64(data, _ANY_SIZE)
        except ImageError:  # a URL, or damaged base64
            pass
    return data.encode("utf-8", "replace")
