"""Edits drawn from captions: a value swapped for another of its kind, added, removed, unwanted, or two changes at once.

Where captions differ in one value alone, the target is such a caption; elsewhere the value is swapped in the text. Kinds
are drawn by their weight and not by how many captions hold them, so that rare changes are learnt too.

A removed value takes the words around it along ("with stripes", ", striped", "that is striped"). These rules are English;
in other languages values are removed after commas and before other words.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from cir_vectorizer.errors import SourceError
from cir_vectorizer_trainer.captions.lexicon import kind_of
from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.edits.kinds import Kind
from cir_vectorizer_trainer.edits.mining import CaptionIndex, Finder, Place, combination
from cir_vectorizer_trainer.edits.phrasings import Phrasings, Said

SHARES = {"replace": 0.49, "add": 0.06, "remove": 0.12, "two": 0.12, "not": 0.16, "empty": 0.05}
"""Shares of the kinds of edits in draws; kinds that are hard to find end up with less."""
REVERSED_SHARE = 0.3
"""Share of the replaced values that are also given the other way round."""
SECOND_SHARES = {"replace": 0.7, "remove": 0.3}
"""Shares of the second changes in "two" edits."""
BARE_SHARE, KEPT_SHARE, NONE_SHARE = 0.15, 0.4, 0.1
"""Shares of the "not" edits that have no words, whose words say what the reference has already, and whose target has no
value instead of the unwanted one. Where words change nothing else, the reference is what the loss must tell from the target."""

NOUN_SHARE = 0.5
"""Share of the patterns that are added or removed by their noun ("no stripes") where captions have it."""

_TRIES = 8
_CARRIERS = r"pattern|print|prints|finish|design|colou?r|one"
_CLOSED = re.compile(rf"(?: (?:{_CARRIERS}))?(?=\s*(?:$|[,.;|]|&|\b(?:and|with|in|that|for)\b))")
"""The end of a value that no other word follows as its noun."""
_LED = re.compile(r"\s(?:and\s)?(?:(?:that|which)\s)?(?:is|are|has|have|with|in|for)\s(?:an?\s)?$")
_JOINED = re.compile(r"(?:\s*[,;|]\s*|\s(?:and|&)\s(?:an?\s)?)$")
_OPENS = re.compile(r"(?:^|\s(?:is|are|has|have|with|in|for)\s(?:an?\s)?)$")
_AND = re.compile(r"\s*(?:,|and\b|&)\s*")
_NOUN = re.compile(rf"\s+(?!(?:{_CARRIERS})\b)(\w\S*)")
_CONTENT = ("adj", "noun", "participle", "deverbal", "compound", "uninflected")


@dataclass(frozen=True)
class Change:
    """A changed value: the caption after it, and the surfaces of the value before and after."""

    target: str
    old: str
    new: str


class NoEditError(SourceError):
    """Refusal of captions from which no edit can be made."""


class EditMaker:
    """Draws edits from captions; the same seed draws the same edits.

    Args:
        captions: prepared, each once.
        kinds: the kinds whose values change.
        known_only: a value is swapped only if some caption has the combination of values that results.

    Raises:
        NoEditError: no caption holds a value of a kind.
    """

    def __init__(
        self,
        captions: Sequence[str],
        kinds: Sequence[Kind],
        phrasings: Phrasings,
        seed: int = 0,
        known_only: bool = False,
    ) -> None:
        self._captions = captions
        self._kinds = kinds
        self._phrasings = phrasings
        self._known_only = known_only
        self._random = Random(f"edits/{seed}")
        self._finder = Finder(kinds)
        self.index = CaptionIndex(captions, kinds, phrasings.articles())
        self._changing = [
            number for number, kind in enumerate(kinds) if len(kind.values) > 1 and len(self.index.holding[number])
        ]
        if not self._changing:
            raise NoEditError(
                "no words of the captions take each other's place, so no edit can be made; name columns of the captions' table "
                "with --attributes, or give more captions"
            )
        self._plain = _plain_value(kinds, phrasings)
        patterns = [] if self._plain is None else list(kinds[self._plain[0]].values)
        self._pattern_of: dict[str, str] = {}
        """Patterns by the nouns that name them: "striped" by "stripe"."""
        self._noun_of: dict[str, str] = {}
        """Such nouns, as they are written, by their patterns."""
        for kind in kinds:
            for noun in kind.values if kind.role == "part" else ():
                for pattern in patterns:
                    if _related(noun, pattern):
                        self._pattern_of[noun] = pattern
                        self._noun_of[pattern] = kind.commonest(noun)
        self.references: set[int] = set()
        """Numbers of the captions that gave edits."""

    def draw(self, count: int) -> Iterator[Edit]:
        """Yield up to `count` different edits; fewer if more are hard to find."""
        seen: set[bytes] = set()
        missed = 0
        while len(seen) < count and missed < 1000 + 10 * len(seen):
            fresh = 0
            for edit in self._draw():
                key = hashlib.blake2b(
                    f"{edit.reference}\n{edit.words}\n{edit.target}\n{edit.negative}".encode(), digest_size=8
                )
                if key.digest() not in seen and len(seen) < count:
                    seen.add(key.digest())
                    fresh += 1
                    yield edit
            missed += not fresh

    def _draw(self) -> list[Edit]:
        """Draw one edit, a replaced value also the other way round; none if the drawn caption allows none."""
        random = self._random
        change = random.choices(list(SHARES), list(SHARES.values()))[0]
        removable = [number for number in self._changing if self._kinds[number].role != "noun"]
        among = removable if change in ("add", "remove", "not") and removable else self._changing
        kind = random.choices(among, [self._kinds[number].weight for number in among])[0]
        holding = self.index.holding[kind]
        number = int(holding[random.randrange(len(holding))])
        caption = self._captions[number]
        place = next(each for each in self.index.places(number) if each.kind == kind)
        found: list[Edit] = []
        if change == "empty":
            found = [Edit(caption, "", caption, "empty", "")]
        elif change in ("add", "remove"):
            found = self._removed(caption, place, change)
        elif change == "not":
            found = self._unwanted(caption, place, number)
        else:
            first = self._swapped(caption, place, number)
            if first is not None and change == "two":
                found = self._two(caption, place, first)
            elif first is not None:
                found = [self._edit(caption, self._said(place, first), first.target, "replace")]
                if random.random() < REVERSED_SHARE:
                    back = Change(caption, first.new, first.old)
                    found.append(self._edit(first.target, self._said(place, back), caption, "replace"))
        if found:
            self.references.add(number)
        return found

    def _said(self, place: Place, change: Change) -> Said:
        return self._phrasings.say("replace", self._kinds[place.kind].role, change.old, change.new, self._random)

    def _edit(self, reference: str, said: Said, target: str, kind: str) -> Edit:
        return Edit(reference, said.words, target, kind, said.wording)

    def _removed(self, caption: str, place: Place, change: str) -> list[Edit]:
        role = self._kinds[place.kind].role
        rest = self._gone(caption, place)
        if rest is None:
            return []
        value = place.text(caption)
        if place.value in self._noun_of and self._random.random() < NOUN_SHARE:
            role, value = "part", self._noun_of[place.value]
        if change == "add":
            return [self._edit(rest, self._phrasings.say("add", role, "", value, self._random), caption, "add")]
        return [self._edit(caption, self._phrasings.say("remove", role, value, "", self._random), rest, "remove")]

    def _two(self, caption: str, place: Place, first: Change) -> list[Edit]:
        random = self._random
        others = [
            each
            for each in self._finder.places(first.target)
            if each.kind in self._changing and each.kind != place.kind
        ]
        if not others:
            return []
        second = random.choice(others)
        role = self._kinds[second.kind].role
        said = self._said(place, first)
        what = random.choices(list(SECOND_SHARES), list(SECOND_SHARES.values()))[0]
        if what == "replace":
            change = self._swapped(first.target, second)
            if change is None:
                return []
            one, other = random.sample([said, self._said(second, change)], 2)
            return [self._edit(caption, self._phrasings.join(one, other, random), change.target, "two")]
        value = second.text(first.target)
        rest = self._gone(first.target, second)
        if rest is None:
            return []
        gone = self._phrasings.say("remove", role, value, "", random)
        return [self._edit(caption, self._phrasings.join(said, gone, random), rest, "two")]

    def _gone(self, caption: str, place: Place) -> str | None:
        """Return a caption without a value; a pattern becomes "plain" where captions have such a word.

        None if the value is that word, or cannot be taken out, or a plain caption must be known and is not.
        """
        if self._plain is None or not self._is_pattern(place, place.text(caption)):
            rest = without(caption, place, self._kinds[place.kind].role)
            return None if rest is None else self._phrasings.articled(rest)
        rest = self._made_plain(caption, place, *self._plain)
        return rest if rest is not None and self._may_be_made(rest) else None

    def _made_plain(self, caption: str, place: Place, kind: int, plain: str) -> str | None:
        word = self._kinds[kind].surface(plain, place.text(caption), self._random)
        if place.kind == kind:
            return None if place.value == plain else self._phrasings.articled(place.replaced(caption, word))
        rest = without(caption, place, self._kinds[place.kind].role)
        if rest is None:
            return None
        places = self._finder.places(rest)
        if any(each.kind == kind for each in places):
            return rest
        first = next((each for each in places if self._kinds[each.kind].role in ("colour", "noun")), None)
        if first is not None:
            rest = f"{rest[: first.start]}{word} {rest[first.start :]}"
        return self._phrasings.articled(rest)

    def _may_be_made(self, caption: str) -> bool:
        """Tell whether a caption may be a target: any, or one whose combination of values some caption has."""
        return not self._known_only or combination(self._finder.places(caption)) in self.index.combinations

    def _is_pattern(self, place: Place, value: str) -> bool:
        """Tell whether a value is a pattern, or names one as a noun ("stripes")."""
        return self._phrasings.role_of_value(value) == "pattern" or place.value in self._pattern_of

    def _unwanted(self, caption: str, place: Place, number: int) -> list[Edit]:
        """Draw an edit with a value that is unwanted beside its words: the target has another value of the kind, or none."""
        random = self._random
        said, target = Said("", ""), caption
        others = [each for each in self.index.places(number) if each.kind in self._changing and each.kind != place.kind]
        keeping = [each for each in others if self._kinds[each.kind].role != "noun"]
        part = random.random()
        if keeping and part < KEPT_SHARE:
            other = random.choice(keeping)
            kept = other.text(caption)
            said = self._phrasings.say("add", self._kinds[other.kind].role, "", kept, random)
        elif others and part < 1 - BARE_SHARE:
            other = random.choice(others)
            first = self._swapped(caption, other, number)
            if first is None:
                return []
            said, target = self._said(other, first), first.target
        own = next((each for each in self._finder.places(target) if each.kind == place.kind), None)
        if own is None or own.value != place.value:
            return []
        rest: str | None = None
        if random.random() < NONE_SHARE:
            rest = without(target, own, self._kinds[place.kind].role)
        else:
            second = self._swapped(target, own)
            rest = second.target if second is not None else None
        if rest is None:
            return []
        return [
            Edit(
                caption,
                said.words,
                self._phrasings.articled(rest),
                "not",
                said.wording,
                place.text(caption),
            )
        ]

    def _swapped(self, caption: str, place: Place, number: int | None = None) -> Change | None:
        """Swap a value for another of its kind.

        Args:
            number: the caption's number; a caption that differs in this value alone is then the target, where there is one.
        """
        random = self._random
        old = place.text(caption)
        kind = self._kinds[place.kind]
        partner = self.index.partner(number, place, random) if number is not None and random.random() < 0.5 else None
        if partner is not None:
            other, theirs = partner
            target = self._captions[other]
            return Change(target, old, theirs.text(target))
        values = [value for value in kind.values if value != place.value]
        if not values:
            return None
        counts = [sum(kind.values[value].values()) ** 0.5 for value in values]
        for value in random.choices(values, counts, k=_TRIES if self._known_only else 1):
            new = kind.surface(value, old, random)
            target = self._phrasings.articled(place.replaced(caption, new))
            if self._may_be_made(target):
                return Change(target, old, new)
        return None


def _plain_value(kinds: Sequence[Kind], phrasings: Phrasings) -> tuple[int, str] | None:
    """Return the number of the kind of patterns and its value for none, such as "plain"; None if captions have none."""
    for number, kind in enumerate(kinds):
        if kind.role == "pattern":
            for value, surfaces in kind.values.items():
                if any(" ".join(tokens) in phrasings.absent for tokens in surfaces):
                    return number, value
    return None


def _related(noun: str, pattern: str) -> bool:
    """Tell whether words share their stem: "stripe" and "striped", "dot" and "dotted"."""
    stem = max(3, min(len(noun), len(pattern)) - 1)
    return noun[:stem] == pattern[:stem] and len(noun) >= stem <= len(pattern)


def without(caption: str, place: Place, role: str) -> str | None:
    """Return a caption without a value and the words that lead to it; None if the value cannot be taken out.

    A noun is taken out only after "with" or "has", since elsewhere the caption is about it.
    """
    before, after = caption[: place.start], caption[place.end :]
    closed = _CLOSED.match(after)
    rest: str | None = None
    if closed is not None and role != "noun" and (joined := _JOINED.search(before)):
        rest = before[: joined.start()] + after[closed.end() :]
    elif closed is not None and _OPENS.search(before) and (also := _AND.match(after, closed.end())) and role != "noun":
        rest = before + after[also.end() :]
    elif (
        closed is not None and (led := _LED.search(before)) and (role != "noun" or re.search(r"with|has|have", led[0]))
    ):
        rest = before[: led.start()] + after[closed.end() :]
    elif role in ("noun", "part"):
        return None
    elif (noun := _NOUN.match(after)) and kind_of(noun[1].strip(",.;")).startswith(_CONTENT):
        rest = before + after.lstrip()
    elif not after and (words := before.split()) and kind_of(words[-1]).startswith(_CONTENT):
        rest = before
    if rest is None:
        return None
    rest = re.sub(r"\s+,", ",", " ".join(rest.split())).strip(" ,;|")
    return rest if len(rest.split()) > 1 or (rest and len(caption.split()) == 2) else None
