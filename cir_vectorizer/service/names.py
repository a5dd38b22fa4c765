"""Names of models: `<model>`, `<model>/<composer>`, or an alias of a composer.

`<model>@<fingerprint prefix>` pins the backbone, and a composer's name with `@<digest prefix>` pins its weights and
settings: `<model>@<fingerprint>/<composer>@<digest>`. Behind a composer, the model's fingerprint is accepted too.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cir_vectorizer.collections import note_former
from cir_vectorizer.errors import BackboneMismatch, ComposerMismatch, ModelError, QueryError
from cir_vectorizer.models import Vectorizer
from cir_vectorizer.query import ComposedQuery

LEAST_PREFIX = 4


@dataclass(frozen=True)
class Target:
    """A served model, and the composer that the name includes, if any."""

    model: str
    composer: str | None = None

    def pin(self, query: ComposedQuery) -> ComposedQuery:
        """Return the query with the composer that the name includes.

        Raises:
            QueryError: the query names another composer.
        """
        if self.composer is None:
            return query
        if query.composer not in (None, self.composer):
            problem = f"is {query.composer!r}, but the model was named {self.model}/{self.composer}"
            raise QueryError("composer", f"{problem}; drop one of the two")
        return query.model_copy(update={"composer": self.composer})


class Names:
    """Resolves names to models and composers. The first model is the default one.

    Args:
        vectorizers: the models, by the names that they are served under.
        leaving: models that only requests under way may still use; no name refers to them any more.
    """

    def __init__(self, vectorizers: Mapping[str, Vectorizer], leaving: Collection[str] = ()) -> None:
        self._vectorizers = vectorizers
        self.served = {name: each for name, each in vectorizers.items() if name not in leaving}
        """The models that names refer to."""
        self.default = next(iter(vectorizers))

    def aliases(self, model: str) -> dict[str, str]:
        """Return the short names of a model's composers, without those that a model has as its name."""
        composers = self._vectorizers[model].composers
        return {composer: f"{model}/{composer}" for composer in composers if composer not in self.served}

    def full_name(self, model: str) -> str:
        """Return `model@fingerprint`, the name that a collection is configured with."""
        return f"{model}@{self._vectorizers[model].fingerprint[:12]}"

    def composer_names(self, model: str) -> list[str]:
        """Return `composer@digest` for each composer of a model; the name alone if it came from no model folder."""
        digests = self._vectorizers[model].digests
        return [
            f"{name}@{digests[name][:12]}" if name in digests else name for name in self._vectorizers[model].composers
        ]

    def resolve(self, name: str | None, default: str | None = None) -> Target:
        """Return the model and composer that `name` refers to.

        Args:
            default: the model that an empty name refers to, and whose composers have aliases; `self.default` if None.

        Raises:
            ModelError: no such model or composer.
            BackboneMismatch: the fingerprint is not the model's.
            ComposerMismatch: the digest is not the composer's.
        """
        default = default or self.default
        if not name:
            return Target(default)
        head, _, composer = name.partition("/")
        model, _, fingerprint = head.partition("@")
        composer, _, digest = composer.partition("@")
        aliases = self.aliases(default)
        if model in aliases and not composer:
            model, composer, fingerprint, digest = default, model, "", fingerprint
        vectorizer = self.served.get(model)
        if vectorizer is None:
            known = ", ".join([*self.served, *aliases])
            raise ModelError(f"no model {_short(model)} is served here; there is {known}")
        if composer and composer not in vectorizer.composers:
            raise ModelError(
                f"model {model!r} has no composer {_short(composer)}; it has {', '.join(vectorizer.composers)}"
            )
        if fingerprint and not _names(vectorizer, fingerprint.lower()):
            raise BackboneMismatch(
                f"{_short(f'{model}@{fingerprint}')} was asked for, but what is served here is {self.full_name(model)!r}: "
                "vectors of the two cannot be compared; serve the model that the collection was made with, or index again"
            )
        if digest and not self._pins(model, composer, digest.lower()):
            served = next(each for each in self.composer_names(model) if each.partition("@")[0] == composer)
            raise ComposerMismatch(
                f"{_short(f'{model}/{composer}@{digest}')} was asked for, but what is served here is "
                f"'{self.full_name(model)}/{served}', whose weights or settings are others; deploy the same model folder "
                "everywhere, or correct the name"
            )
        return Target(model, composer or None)

    def _pins(self, model: str, composer: str, prefix: str) -> bool:
        """Tell whether a prefix fits a composer's digest, or its model's fingerprint."""
        vectorizer = self._vectorizers[model]
        own = vectorizer.digests.get(composer, "")
        return (len(prefix) >= LEAST_PREFIX and own.startswith(prefix)) or _names(vectorizer, prefix)


def served_name(text: str) -> tuple[str, str]:
    """Return the name that a model written `[NAME=]MODEL` is served under, and the model.

    Raises:
        ModelError: the name contains a character that has a meaning in names.
    """
    head, equals, model = text.partition("=")
    named = bool(equals) and not set(head) & set("/:,")
    name = head if named else text.partition(":")[2].partition(",")[0] if ":" in text else text
    name = name if named else os.path.basename(os.path.normpath(name))
    if not name or set(name) & set("/@ ") or name in ("plain", "."):
        raise ModelError(f"{name!r} cannot be a served model's name; write NAME=MODEL with letters, digits, - and _")
    return name, model if named else text


def _names(vectorizer: Vectorizer, fingerprint: str) -> bool:
    """Tell whether a prefix fits the model's fingerprint or its former one."""
    if len(fingerprint) < LEAST_PREFIX:
        return False
    if vectorizer.fingerprint.startswith(fingerprint):
        return True
    former = vectorizer.former_fingerprint.startswith(fingerprint)
    if former:
        note_former(f"a request for {vectorizer.name}", vectorizer.former_fingerprint)
    return former


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:79]}…")
