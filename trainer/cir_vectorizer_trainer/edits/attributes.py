"""Attributes of a catalog for `evaluate catalog`: the roles of columns, and the kinds of words that captions hold."""

from collections.abc import Sequence
from random import Random

from cir_vectorizer.evaluate.catalog.attributes import Attribute
from cir_vectorizer_trainer.captions.keywords import prepare
from cir_vectorizer_trainer.edits.kinds import learn_kinds
from cir_vectorizer_trainer.edits.mining import Finder
from cir_vectorizer_trainer.edits.phrasings import Phrasings

_LEAST_SHARE = 0.1
"""Smallest share of the captions that hold a kind of words."""


class Words:
    """A language's product words, as the core's `CatalogWords`.

    Raises:
        SourceError: the language is not known.
    """

    def __init__(self, language: str) -> None:
        self._phrasings = Phrasings.read(None, language)

    def role(self, column: str, values: Sequence[str]) -> str:
        """Return the role of a column's values, by its name, else by its commonest values; "adjective" if neither says one."""
        return self._phrasings.role_of_column(column) or self._phrasings.role_of_values(values[:20]) or "adjective"

    def absent(self, values: Sequence[str]) -> frozenset[str]:
        """Return those of the values that say that there is nothing, such as "plain"."""
        return self._phrasings.absent.intersection(values)

    def attributes(self, captions: Sequence[str]) -> list[Attribute]:
        """Return the kinds of words of the captions, each spelling by its commonest one."""
        prepared = [prepare(caption) for caption in captions]
        kinds = learn_kinds(list(dict.fromkeys(prepared)), self._phrasings, Random(0))
        finder = Finder(kinds)
        values: list[list[str | None]] = [[None] * len(captions) for _ in kinds]
        for row, caption in enumerate(prepared):
            for place in finder.places(caption):
                values[place.kind][row] = kinds[place.kind].commonest(place.value)
        found = []
        for kind, own in zip(kinds, values, strict=True):
            name = kind.name.replace(", ", "/")  # reports list names with commas
            attribute = Attribute(name, kind.role, own, self.absent([value for value in own if value is not None]))
            if len(attribute.counts) > 1 and attribute.counts.total() >= _LEAST_SHARE * len(captions):
                found.append(attribute)
        return found
