"""Names of models: `<model>`, `<model>/<composer>`, either with `@<fingerprint prefix>`, or an alias."""

from collections.abc import Mapping
from dataclasses import dataclass

from cir_vectorizer.collections import note_former
from cir_vectorizer.errors import BackboneMismatch, ModelError, QueryError
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
    """

    def __init__(self, vectorizers: Mapping[str, Vectorizer]) -> None:
        self._vectorizers = vectorizers
        self.default = next(iter(vectorizers))

    def aliases(self, model: str) -> dict[str, str]:
        """Return the short names of a model's composers, without those that a model has as its name."""
        composers = self._vectorizers[model].composers
        return {composer: f"{model}/{composer}" for composer in composers if composer not in self._vectorizers}

    def full_name(self, model: str) -> str:
        """Return `model@fingerprint`, the name that a collection is configured with."""
        return f"{model}@{self._vectorizers[model].fingerprint[:12]}"

    def resolve(self, name: str | None, default: str | None = None) -> Target:
        """Return the model and composer that `name` refers to.

        Args:
            default: the model that an empty name refers to, and whose composers have aliases; `self.default` if None.

        Raises:
            ModelError: no such model or composer.
            BackboneMismatch: the fingerprint is not the model's.
        """
        default = default or self.default
        if not name:
            return Target(default)
        head, _, composer = name.partition("/")
        model, _, fingerprint = head.partition("@")
        composer, _, late = composer.partition("@")
        fingerprint = (late or fingerprint).lower()
        aliases = self.aliases(default)
        if model in aliases and not composer:
            model, composer = default, model
        vectorizer = self._vectorizers.get(model)
        if vectorizer is None:
            known = ", ".join([*self._vectorizers, *aliases])
            raise ModelError(f"no model {_short(model)} is served here; there is {known}")
        if composer and composer not in vectorizer.composers:
            raise ModelError(
                f"model {model!r} has no composer {_short(composer)}; it has {', '.join(vectorizer.composers)}"
            )
        if fingerprint and not _names(vectorizer, fingerprint):
            raise BackboneMismatch(
                f"{_short(f'{model}@{fingerprint}')} was asked for, but what is served here is {self.full_name(model)!r}: "
                "vectors of the two cannot be compared; serve the model that the collection was made with, or index again"
            )
        return Target(model, composer or None)


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
