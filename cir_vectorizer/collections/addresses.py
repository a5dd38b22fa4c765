"""Addresses of collections.

qdrant://HOST[:PORT]/COLLECTION      a Qdrant server (`qdrants://` with TLS); KEY@HOST carries an API key
qdrant:DIRECTORY/COLLECTION          Qdrant embedded in a directory of this machine
weaviate://HOST[:PORT]/COLLECTION    a Weaviate server (`weaviates://` with TLS)
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cir_vectorizer.errors import AddressError
from cir_vectorizer.redaction import without_user


@dataclass(frozen=True)
class Address:
    """Address of a collection: on a server (`host`) or embedded in a directory (`path`). Printing it hides the key."""

    scheme: str
    collection: str
    host: str | None = None
    port: int | None = None
    path: Path | None = None
    api_key: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        if self.path is not None:
            return f"{self.scheme}:{self.path}/{self.collection}"
        return f"{self.scheme}://{self.server}/{self.collection}"

    @property
    def server(self) -> str:
        """The server as in a URL: `host[:port]`, with IPv6 addresses in brackets."""
        host = f"[{self.host}]" if ":" in (self.host or "") else self.host or ""
        return host if self.port is None else f"{host}:{self.port}"

    def with_key(self, api_key: str | None) -> "Address":
        """Return the same address with another API key; None keeps the key it has."""
        return replace(self, api_key=api_key) if api_key else self


def parse_address(text: str) -> Address:
    """Parse an address; the module's docstring lists its forms.

    Raises:
        AddressError: the address is malformed; the sentence says how to write it and never repeats an API key.
    """
    shown = without_user(text)
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if not colon or not re.fullmatch(r"[a-z][a-z0-9+.-]+", scheme):
        raise AddressError(
            f"address {shown!r} does not say which database; write qdrant://HOST:PORT/COLLECTION or "
            "weaviate://HOST:PORT/COLLECTION for a server, or qdrant:DIRECTORY/COLLECTION for one in a directory"
        )
    if scheme in ("http", "https"):
        tls = "s" if scheme == "https" else ""
        raise AddressError(
            f"address {shown!r} is a web address; write qdrant{tls}://HOST:PORT/COLLECTION or "
            f"weaviate{tls}://HOST:PORT/COLLECTION"
        )
    if rest.startswith("//"):
        return _server_address(text, scheme, shown)
    directory, slash, collection = rest.rpartition("/")
    if not slash or not directory:
        raise AddressError(
            f"address {shown!r} names no directory; write {scheme}:DIRECTORY/COLLECTION, say {scheme}:./index/shop"
        )
    if not collection:
        raise AddressError(f"address {shown!r} ends in a slash; its last part is the collection: {shown}COLLECTION")
    try:
        path = Path(directory).expanduser()
    except RuntimeError as error:
        raise AddressError(f"address {shown!r} is in the home of an unknown user; write the directory out") from error
    return Address(scheme, _collection_name(collection, shown), path=path)


def _server_address(text: str, scheme: str, shown: str) -> Address:
    form = f"{scheme}://HOST[:PORT]/COLLECTION"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise AddressError(f"address {shown!r} has a wrong host or port ({error}); write {form}") from error
    if not host:
        raise AddressError(
            f"address {shown!r} names no host; write {form}, or {scheme}:DIRECTORY/COLLECTION if embedded"
        )
    if parts.query or parts.fragment:
        raise AddressError(f"address {shown!r} holds ? or #; write {form}, and %3F or %23 for such a letter in a name")
    collection = parts.path.strip("/")
    if not collection:
        raise AddressError(f"address {shown!r} names no collection; write {form}")
    if "/" in collection:
        raise AddressError(f"address {shown!r} has more than a collection after the host; write {form}")
    key = unquote(parts.password or parts.username or "") or None
    return Address(scheme, _collection_name(unquote(collection), shown), host, port, api_key=key)


def _collection_name(name: str, shown: str) -> str:
    if name in (".", "..") or not re.fullmatch(r'[^<>:"/\\|?*\x00-\x1f]{1,255}', name):
        raise AddressError(
            f"address {shown!r} has a collection name that databases refuse; use letters, digits, - and _, at most 255"
        )
    return name
