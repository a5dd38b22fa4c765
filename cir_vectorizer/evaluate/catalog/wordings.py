"""Wordings of made queries: no training of ours used them, so that a composer is judged on words it has not seen.

The file `wordings.json` beside this module holds, by language and kind of change, lists of wordings by the role of the value
("any" for other roles): `{v}` is the value, `{a}` the value with an article.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cir_vectorizer.errors import SourceError

OURS = Path(__file__).with_name("wordings.json")
BLANK = "…"
PAIRS = frozenset(
    """shoes sandals heels flats flops trousers jeans shorts socks sunglasses briefs pants capris leggings tights stockings
    gloves cufflinks boots clogs boxers pyjamas tracksuits bottoms slippers dungarees earrings glasses sneakers trainers
    loafers scissors headphones""".split()
)
"""Words for things that come in pairs or have no singular; they take no article."""
_IE = ("ties", "hoodies", "beanies", "onesies")
"""Ends of plurals whose singular ends in "ie"."""


class Wordings:
    """Wordings of one language.

    Raises:
        SourceError: there are none for the language.
    """

    def __init__(self, language: str = "en") -> None:
        found: dict[str, Any] = json.loads(OURS.read_text(encoding="utf-8"))
        if language not in found:
            raise SourceError(f"there are no wordings for {language!r}; choose one of {', '.join(found)}")
        self._entry: Mapping[str, Any] = found[language]

    def of(self, change: str, role: str) -> Sequence[str]:
        """Return the wordings of a kind of change ("change", "add" or "remove") for values of a role."""
        by_role: Mapping[str, list[str]] = self._entry[change]
        return by_role.get(role) or by_role["any"]

    @property
    def joined(self) -> Sequence[str]:
        """Wordings that join two changes."""
        found: list[str] = self._entry["two"]
        return found

    def all(self) -> list[str]:
        """Return every wording of every role and kind of change."""
        return [each for change in ("change", "add", "remove") for own in self._entry[change].values() for each in own]

    def say(self, wording: str, value: str, role: str) -> str:
        """Put a value into a wording."""
        return wording.format(v=self.word(value, role), a=self.with_article(self.word(value, role)))

    def word(self, value: str, role: str) -> str:
        """Return a value as it stands in a sentence; a noun in the singular ("tshirts" is "tshirt")."""
        return singular(value) if role == "noun" and self._entry["articles"] else value

    def with_article(self, words: str) -> str:
        """Return words with their article: "a red shirt"; a pair has none, "red shoes"."""
        articles: Mapping[str, str] = self._entry["articles"]
        if not articles or words.split()[-1] in PAIRS:
            return words
        return f"{articles['vowel' if words[:1] in tuple('aeiou') else 'consonant']} {words}"

    def target(self, values: Mapping[str, tuple[str, str]]) -> str:
        """Describe a product in words: "a photo of a red striped shirt for men".

        Args:
            values: value and role by attribute.
        """
        forms: Mapping[str, str] = self._entry["target"]
        by_role: dict[str, list[str]] = {}
        for value, role in values.values():
            by_role.setdefault(role, []).append(self.word(value, role))
        before = [word for role in ("colour", "pattern", "adjective") for word in by_role.get(role, ())]
        named = self.with_article(" ".join([*before, *by_role.get("noun", [self._entry["thing"]])]))
        behind = [forms[role].format(v=word) for role in ("audience", "part") for word in by_role.get(role, ())]
        return " ".join([self._entry["opening"], named, *behind])


def blanked(wording: str) -> str:
    """Return a wording with its value blanked, as reports show it: "is …"."""
    return wording.format(v=BLANK, a=f"a {BLANK}")


def singular(words: str) -> str:
    """Return English words with the last one in the singular; pairs stay plural: "casual shoes", "t-shirt"."""
    *before, last = words.split()
    if last not in PAIRS and len(last) > 3 and re.search(r"[^su]s$|ses$", last):
        for ending, single in (
            ("ies", "y"),
            ("ches", "ch"),
            ("shes", "sh"),
            ("sses", "ss"),
            ("xes", "x"),
            ("rves", "rf"),
        ):
            if last.endswith(ending) and not last.endswith(_IE):
                return " ".join([*before, last.removesuffix(ending) + single])
        last = last[:-1]
    return " ".join([*before, last])
