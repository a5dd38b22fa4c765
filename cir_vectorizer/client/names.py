"""Names of a service's models, read from the answer of `/v1/models`."""

from typing import Any

from cir_vectorizer.errors import ModelError


def pinned(name: str, fingerprint: str) -> str:
    """Return the name with the model's fingerprint, unless it has one; a composer's digest stays."""
    if "@" in name.partition("/")[0]:
        return name
    model, slash, composer = name.partition("/")
    return f"{model}@{fingerprint[:12]}{slash}{composer}"


def find_model(listed: dict[str, Any], name: str | None) -> tuple[dict[str, Any], str]:
    """Return the entry of /v1/models for a model's name or alias, and the composer that the name includes, or "".

    Raises:
        ModelError: the service has no such model.
    """
    entries: list[dict[str, Any]] = listed.get("data", [])
    if name is None:
        chosen = next((entry for entry in entries if entry.get("default")), None)
        if chosen is None:
            raise ModelError("the service names no default model; check that it is cir-vectorizer")
        return chosen, ""
    head, _, composer = name.partition("/")
    model = head.partition("@")[0]
    composer = composer.partition("@")[0]
    aliases: dict[str, str] = listed.get("aliases", {})
    if model in aliases and not composer:
        model, _, composer = aliases[model].partition("/")
    for entry in entries:
        if entry["id"] == model:
            return entry, composer
    served = ", ".join([*(str(entry["id"]) for entry in entries), *aliases])
    raise ModelError(f"the service has no model {name!r}; name one that it has: {served}")
