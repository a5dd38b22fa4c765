"""Places of values in captions, and captions that differ in one of them alone.

Each place is kept as a few numbers, with a digest of its caption in which the value is blanked and articles are left
out: captions of equal digests differ in that value alone. A million captions with three places each take about 200 MB.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt

from cir_vectorizer_trainer.captions.keywords import tokens_of
from cir_vectorizer_trainer.edits.kinds import MOST_TOKENS, Kind, Tokens
from cir_vectorizer_trainer.edits.phrasings import BLANK

_TRIES = 8


@dataclass(frozen=True)
class Place:
    """A value in a caption: the number of its kind, the value, and its characters from `start` to `end`."""

    kind: int
    value: str
    start: int
    end: int

    def text(self, caption: str) -> str:
        """Return the value as its caption spells it."""
        return caption[self.start : self.end]

    def replaced(self, caption: str, words: str) -> str:
        """Return its caption with other words in its place."""
        return caption[: self.start] + words + caption[self.end :]


class Finder:
    """Finds the values of kinds in captions; a caption with several values of a kind has no place of that kind.

    Args:
        kinds: if two hold the same words, they belong to the first.
    """

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._owners: dict[Tokens, tuple[int, str]] = {}
        for number, kind in enumerate(kinds):
            for value, surfaces in kind.values.items():
                for tokens in surfaces:
                    self._owners.setdefault(tokens, (number, value))

    def places(self, caption: str) -> list[Place]:
        """Return the places of a prepared caption, in order; where values overlap, the longest counts."""
        tokens = tokens_of(caption)
        words = [token[0] for token in tokens]
        found: list[Place] = []
        at = 0
        while at < len(words):
            for length in range(min(MOST_TOKENS, len(words) - at), 0, -1):
                owner = self._owners.get(tuple(words[at : at + length]))
                if owner is not None:
                    found.append(Place(*owner, tokens[at].start(), tokens[at + length - 1].end()))
                    at += length
                    break
            else:
                at += 1
        kinds = [place.kind for place in found]
        return [place for place in found if kinds.count(place.kind) == 1]


def grouped(captions: Sequence[str], kinds: Sequence[Kind]) -> list[int]:
    """Return the number of each caption's group: captions that hold the same values, at least two, are in one group."""
    finder = Finder(kinds)
    numbers: dict[int | str, int] = {}
    groups = []
    for caption in captions:
        places = finder.places(caption)
        key = combination(places) if len(places) > 1 else caption
        groups.append(numbers.setdefault(key, len(numbers)))
    return groups


def combination(places: Sequence[Place]) -> int:
    """Return a digest of the values that a caption holds, in whatever order."""
    values = sorted(f"{place.kind} {place.value}" for place in places)
    return int.from_bytes(hashlib.blake2b("\n".join(values).encode(), digest_size=8).digest(), "big")


class CaptionIndex:
    """Captions by the kinds whose values they hold.

    Args:
        captions: prepared.
        articles: words that are left out where captions are compared.

    Attributes:
        holding: numbers of the captions that hold each kind.
        combinations: digests of the combinations of values that captions hold.
        used: number of captions with at least one place.
    """

    def __init__(self, captions: Sequence[str], kinds: Sequence[Kind], articles: frozenset[str] = frozenset()) -> None:
        self._captions = captions
        self._finder = Finder(kinds)
        self._articles = articles
        keys, owners, kind_of = array("Q"), array("i"), array("i")
        self.combinations: set[int] = set()
        used = 0
        for number, caption in enumerate(captions):
            places = self._finder.places(caption)
            used += bool(places)
            self.combinations.add(combination(places))
            for place in places:
                keys.append(self._key(caption, place))
                owners.append(number)
                kind_of.append(place.kind)
        self.used = used
        by_kind = np.array(kind_of, np.int32)
        numbers = np.array(owners, np.int32)
        self.holding: list[npt.NDArray[np.int32]] = [numbers[by_kind == kind] for kind in range(len(kinds))]
        unsorted = np.array(keys, np.uint64)
        order = np.argsort(unsorted, kind="stable")
        self._keys, self._numbers = unsorted[order], numbers[order]

    def places(self, number: int) -> list[Place]:
        """Return the places of a caption."""
        return self._finder.places(self._captions[number])

    def partner(self, number: int, place: Place, random: Random) -> tuple[int, Place] | None:
        """Draw another caption that differs in the value of `place` alone, with its own place; None if there is none."""
        caption = self._captions[number]
        key = np.uint64(self._key(caption, place))
        first, last = (int(np.searchsorted(self._keys, key, side)) for side in ("left", "right"))
        if last - first < 2:
            return None
        for _ in range(_TRIES):
            other = int(self._numbers[random.randrange(first, last)])
            for theirs in self.places(other):
                same = theirs.kind == place.kind and self._key(self._captions[other], theirs) == int(key)
                if same and theirs.value != place.value:
                    return other, theirs
        return None

    def _key(self, caption: str, place: Place) -> int:
        words = [str(place.kind), *self._blanked(caption, place)]
        return int.from_bytes(hashlib.blake2b(" ".join(words).encode(), digest_size=8).digest(), "big")

    def _blanked(self, caption: str, place: Place) -> Iterator[str]:
        for token in tokens_of(caption):
            if token.start() == place.start:
                yield BLANK
            elif not place.start < token.start() < place.end and token[0] not in self._articles:
                yield token[0]
