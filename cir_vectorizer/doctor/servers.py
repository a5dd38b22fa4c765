"""Version of a database's server, and the features that it lacks if it is old."""

import re

import httpx

from cir_vectorizer.collections import Address, Database
from cir_vectorizer.doctor.findings import Finding, Level

TIMEOUT_S = 10.0


def version_of(address: Address, database: Database) -> str | None:
    """Return the server's version, or None if it gives none; its client, which may refuse an old server, is not used."""
    if not database.version_path:
        return None
    tls = address.scheme.endswith("s")
    host = database.with_port(address).server
    key, (header, value) = database.api_key(address), database.key_header
    try:
        answer = httpx.get(
            f"http{'s' if tls else ''}://{host}{database.version_path}",
            headers={header: value.format(key)} if key else None,
            timeout=TIMEOUT_S,
        )
        version = answer.json()["version"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) else None


def version_finding(database: Database, version: str) -> Finding:
    """Return the finding about a server's version."""
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers is None:
        return Finding("version", "ok", f"{database.name} {version}")
    found = (int(numbers[1]), int(numbers[2]))
    lacking = [lack for lack in database.lacks if found < lack.version]
    if not lacking:
        return Finding("version", "ok", f"{database.name} {version}")
    newest = max(lack.version for lack in lacking)
    missing = "; ".join(lack.feature for lack in lacking)
    needed = ".".join(map(str, newest))
    level: Level = "problem" if any(lack.level == "problem" for lack in lacking) else "warning"
    return Finding(
        "version", level, f"{database.name} {version} lacks {missing}; update the server to {needed} or later"
    )
