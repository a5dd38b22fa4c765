"""Probes made of held-out edits: captions that a composed query must not take for its target."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.edits.kinds import Kind
from cir_vectorizer_trainer.edits.mining import Finder, Place
from cir_vectorizer_trainer.edits.phrasings import Phrasings


@dataclass(frozen=True)
class Probe:
    """An edit with its hard negatives; the reference of the edit is one too.

    Attributes:
        wrong_value: the right item with a wrong value: the target with yet another value of the changed kind.
        wrong_item: the right value on a wrong item: the target with another value of a kind that does not change, or
            another target that has the new value. Both are None where the caption allows none.
    """

    edit: Edit
    wrong_value: str | None
    wrong_item: str | None


class ProbeMaker:
    """Makes probes of edits.

    Args:
        kinds: the kinds of values that captions hold; without kinds, probes have no hard negatives but the reference.
    """

    def __init__(self, kinds: Sequence[Kind], phrasings: Phrasings) -> None:
        self._kinds = kinds
        self._phrasings = phrasings
        self._finder = Finder(kinds)

    def make(self, edits: Sequence[Edit], count: int, seed: int = 0) -> list[Probe]:
        """Return a probe for each of up to `count` edits, drawn at random."""
        random = Random(f"probes/{seed}")
        drawn = random.sample(edits, count) if len(edits) > count else list(edits)
        holding: dict[tuple[int, str], list[str]] = {}
        for edit in edits:
            for place in self._finder.places(edit.target):
                holding.setdefault((place.kind, place.value), []).append(edit.target)
        return [self._probe(edit, holding, random) for edit in drawn]

    def _probe(self, edit: Edit, holding: dict[tuple[int, str], list[str]], random: Random) -> Probe:
        before = {place.kind: place.value for place in self._finder.places(edit.reference)}
        places = self._finder.places(edit.target)
        changed = [place for place in places if before.get(place.kind) != place.value]
        kept = [place for place in places if before.get(place.kind) == place.value]
        wrong_value = self._swapped(edit.target, changed, before, random)
        wrong_item = self._swapped(edit.target, kept, before, random)
        if wrong_item is None and changed:
            place = random.choice(changed)
            others = [each for each in holding[place.kind, place.value] if each not in (edit.target, edit.reference)]
            wrong_item = random.choice(others) if others else None
        return Probe(edit, wrong_value, wrong_item)

    def _swapped(self, caption: str, places: Sequence[Place], before: dict[int, str], random: Random) -> str | None:
        """Return a caption with a value, at one of some places, that neither it nor the reference has."""
        if not places:
            return None
        place = random.choice(places)
        kind = self._kinds[place.kind]
        values = [value for value in kind.values if value not in (place.value, before.get(place.kind))]
        if not values:
            return None
        surface = kind.surface(random.choice(values), place.text(caption), random)
        return self._phrasings.articled(place.replaced(caption, surface))
