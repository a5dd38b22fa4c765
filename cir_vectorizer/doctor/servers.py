"""The two databases as their servers present themselves: versions, and what older ones lack."""

import os
import re
from dataclasses import dataclass, replace

import httpx

from cir_vectorizer.collections.addresses import Address
from cir_vectorizer.doctor.findings import Finding, Level

TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Need:
    """What a server lacks that is older than `version`."""

    version: tuple[int, int]
    level: Level
    missing: str


@dataclass(frozen=True)
class Kind:
    """A database as its server presents itself."""

    name: str
    path: str
    key_header: str
    key_variable: str
    setting: str
    needs: tuple[Need, ...]


KINDS = {
    "qdrant": Kind(
        "Qdrant", "/", "api-key", "QDRANT_API_KEY", "QDRANT__INFERENCE__ADDRESS",
        (
            Need((1, 10), "problem", "the query interface, so no search works"),
            Need((1, 16), "warning", "the collection's metadata, so what sync noted in its objects alone tells the model"),
        ),
    ),
    "weaviate": Kind(
        "Weaviate", "/v1/meta", "authorization", "WEAVIATE_API_KEY", "CLIP_INFERENCE_API",
        (
            Need((1, 27), "problem", "what the client needs, so nothing works"),
            Need((1, 32), "warning", "aliases, so sync --reembed cannot switch"),
        ),
    ),
}  # fmt: skip


def version_of(address: Address, kind: Kind) -> str | None:
    """What the server says its version is, asked without its client, which may refuse an old one; None if it is mute."""
    tls = address.scheme.endswith("s")
    host = replace(address, port=address.port or address.usual_port).server
    key = address.api_key or os.environ.get(kind.key_variable)
    value = f"Bearer {key}" if kind.key_header == "authorization" else str(key)
    try:
        answer = httpx.get(
            f"http{'s' if tls else ''}://{host}{kind.path}",
            headers={kind.key_header: value} if key else None,
            timeout=TIMEOUT_S,
        )
        version = answer.json()["version"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) else None


def version_finding(kind: Kind, version: str) -> Finding:
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers is None:
        return Finding("version", "ok", f"{kind.name} {version}")
    found = (int(numbers[1]), int(numbers[2]))
    lacking = [need for need in kind.needs if found < need.version]
    if not lacking:
        return Finding("version", "ok", f"{kind.name} {version}")
    newest = max(need.version for need in lacking)
    missing = "; ".join(need.missing for need in lacking)
    needed = ".".join(map(str, newest))
    level: Level = "problem" if any(need.level == "problem" for need in lacking) else "warning"
    return Finding("version", level, f"{kind.name} {version} lacks {missing}; update the server to {needed} or later")
