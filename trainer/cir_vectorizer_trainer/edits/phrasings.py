"""Phrasings of a change: templates by language, kind of change and role of the value that changes.

The file `phrasings.json` beside this module holds ours; a customer's file of the same form replaces a language's
phrasings, or adds to them if it says `"extend": true`:

    {"en": {"extend": true, "replace": {"colour": ["dip it in {new}"]}}}

A language holds `replace`, `add` and `remove`, each with lists of templates by role ("any" for all roles), `two` (templates that
join two changes), `roles` (words by which a column or a set of values is given its role), `same` (lists of words that mean the
same value), `ignored` (words of captions that are no values, such as "photo"), and `articles`.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from string import Formatter
from typing import Any

from cir_vectorizer.errors import SourceError
from cir_vectorizer.redaction import cause

OURS = Path(__file__).with_name("phrasings.json")
ROLES = ("colour", "pattern", "audience", "noun", "part", "adjective")
"""Roles of values, by their place in a sentence ("in red", "with a striped pattern", "for men", "a shirt", "with
stripes", "make it warm")."""
ANY = "any"
BLANK = "…"
_CHANGES: Mapping[str, Collection[str]] = {
    "replace": ("new", "old", "a_new", "a_old"),
    "add": ("new", "a_new"),
    "remove": ("old", "a_old"),
}
"""The placeholders that the templates of each kind of change may have."""
_JOINED = ("first", "second")
_FACTS = ("roles", "absent", "same", "ignored", "articles")
"""Keys that describe a language's words; where a customer's file lacks one, ours is used."""
_KEYS = frozenset({*_CHANGES, "two", *_FACTS, "extend"})


class NoPhrasingsError(SourceError):
    """Refusal of a language in which we have no phrasings."""


@dataclass(frozen=True)
class Said:
    """Words of a change, and their wording: the same words with each value blanked."""

    words: str
    wording: str


class Phrasings:
    """Phrasings of one language.

    Args:
        entry: the language's object in the file, checked.
    """

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self._entry = entry
        self._templates = {
            (change, role): (*entry[change].get(ANY, ()), *entry[change].get(role, ()))
            for change in _CHANGES
            for role in ROLES
        }
        self._roles = entry.get("roles", {})
        self.same: Sequence[Sequence[str]] = entry.get("same", [])
        """Lists of words that mean the same value."""
        self.absent = frozenset(entry.get("absent", ()))
        """Words for a pattern that is not there, such as "plain"."""
        self.ignored = frozenset(entry.get("ignored", ()))
        """Words of captions that are no values."""

    @classmethod
    def read(cls, path: Path | None = None, language: str = "en") -> "Phrasings":
        """Read our phrasings, or those of a customer's file.

        Raises:
            SourceError: a file cannot be read, is not of the form above, or lacks the language.
        """
        entry = _languages(OURS).get(language)
        if path is not None:
            given = _languages(path)
            if language not in given:
                raise SourceError(f"{path} has no phrasings for {language!r}; it has {', '.join(given) or 'none'}")
            theirs = given[language]
            if theirs.get("extend") and entry is not None:
                entry = _extended(entry, theirs)
            else:
                facts = {key: entry[key] for key in _FACTS if key in entry} if entry is not None else {}
                entry = {**facts, **theirs}
        if entry is None:
            known = ", ".join(cls.languages())
            raise NoPhrasingsError(
                f"no phrasings for {language!r}; choose one of {known}, or give a file with --phrasings"
            )
        _check_complete(str(path or OURS), language, entry)
        return cls(entry)

    @staticmethod
    def languages() -> list[str]:
        """Return the languages of our phrasings."""
        return list(_languages(OURS))

    def templates(self, change: str, role: str) -> tuple[str, ...]:
        """Return the templates of a kind of change ("replace", "add" or "remove") for values of a role."""
        return self._templates[change, role]

    def say(self, change: str, role: str, old: str, new: str, random: Random) -> Said:
        """Put a change into words by a template drawn at random; `old` or `new` is empty where the change has none."""
        template = random.choice(self._templates[change, role])
        filled = template.format(old=old, new=new, a_old=self.with_article(old), a_new=self.with_article(new))
        article = self._entry.get("articles", {}).get("consonant", "")
        named = f"{article} {BLANK}".strip()
        return Said(filled, template.format(old=BLANK, new=BLANK, a_old=named, a_new=named))

    def join(self, first: Said, second: Said, random: Random) -> Said:
        """Join the words of two changes."""
        template = random.choice(self._entry["two"])
        return Said(
            template.format(first=first.words, second=second.words),
            template.format(first=first.wording, second=second.wording),
        )

    def article(self, word: str) -> str:
        """Return the indefinite article before a word; empty in a language whose articles are not known."""
        return str(self._entry.get("articles", {}).get("vowel" if word[:1] in tuple("aeiou") else "consonant", ""))

    def articles(self) -> frozenset[str]:
        """Return the indefinite articles of the language."""
        return frozenset(self._entry.get("articles", {}).values())

    def articled(self, caption: str) -> str:
        """Return a caption with "a" and "an" as the words after them ask for."""
        articles = self.articles()
        words = caption.split()
        for at, word in enumerate(words[:-1]):
            if word in articles:
                words[at] = self.article(words[at + 1])
        return " ".join(words)

    def with_article(self, words: str) -> str:
        """Return words with their article: "a shirt"; a plural has none."""
        plural = re.search(r"[^su]s$", words)
        return words if plural or not words else f"{self.article(words)} {words}".strip()

    def role_of_column(self, column: str) -> str | None:
        """Return the role of a column's values by the column's name; None if its name says none."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|[\W_]+", " ", column).lower().split()
        for role in ROLES:
            names = self._roles.get(role, {}).get("columns", ())
            if " ".join(words) in names or any(word in names for word in words):
                return role
        return None

    def role_of_values(self, values: Iterable[str]) -> str | None:
        """Return the role whose list holds at least half of the values; None if none does."""
        roles = [self.role_of_value(value) for value in values]
        for role in ROLES:
            if roles and 2 * roles.count(role) >= len(roles):
                return role
        return None

    def role_of_value(self, value: str) -> str | None:
        """Return the role whose list holds a value; None if none does."""
        for role in ROLES:
            if value in self._roles.get(role, {}).get("values", ()):
                return role
        return None


def _languages(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({cause(error)}); check --phrasings") from error
    except ValueError as error:
        raise SourceError(f"{path} is not valid JSON ({cause(error)}); correct it") from error
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise SourceError(f'{path} is no file of phrasings; write {{"en": {{"replace": {{"any": ["…"]}}, …}}}}')
    for language, entry in found.items():
        _check(f"{path}, {language}", entry)
    return found


def _check(place: str, entry: Mapping[str, Any]) -> None:
    if unknown := set(entry) - _KEYS:
        raise SourceError(f"{place}: {min(unknown)!r} is unknown; the keys are {', '.join(sorted(_KEYS))}")
    for change, fields in _CHANGES.items():
        by_role = entry.get(change, {})
        if not isinstance(by_role, dict) or (unknown := set(by_role) - {ANY, *ROLES}):
            raise SourceError(f"{place}: {change!r} must hold lists of phrasings by role: {', '.join((ANY, *ROLES))}")
        for role, templates in by_role.items():
            _check_templates(f"{place}, {change}, {role}", templates, fields, 1)
    _check_templates(f"{place}, two", entry.get("two", []), _JOINED, 2)
    roles = entry.get("roles", {})
    sound = isinstance(roles, dict) and all(
        role in ROLES and isinstance(lists, dict) and all(map(_is_texts, lists.values()))
        for role, lists in roles.items()
    )
    if not sound:
        raise SourceError(f'{place}: "roles" must hold {{"columns": […], "values": […]}} by role: {", ".join(ROLES)}')
    same = entry.get("same", [])
    lists = [entry.get(key, []) for key in ("absent", "ignored")]
    if not isinstance(same, list) or not all(map(_is_texts, [*same, *lists])):
        raise SourceError(
            f'{place}: "same" must be lists of words, "absent" and "ignored" a list each; write [["grey", "gray"]], '
            '["plain"], ["photo"]'
        )
    articles = entry.get("articles", {})
    if not isinstance(articles, dict) or not _is_texts(list(articles.values())):
        raise SourceError(f'{place}: "articles" must be {{"consonant": "a", "vowel": "an"}} or {{}}')


def _check_templates(place: str, templates: object, fields: Collection[str], least: int) -> None:
    if not _is_texts(templates):
        raise SourceError(f"{place}: not a list of phrasings; write texts in []")
    assert isinstance(templates, list)
    for template in templates:
        try:
            used = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        except ValueError as error:
            raise SourceError(f"{place}: {template!r} has a brace too many or too few; correct it") from error
        if not used <= set(fields) or len(used) < least:
            names = ", ".join(f"{{{name}}}" for name in fields)
            raise SourceError(f"{place}: {template!r} must have its values as {names}, and no others")


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) and text.strip() for text in value)


def _check_complete(name: str, language: str, entry: Mapping[str, Any]) -> None:
    for change in _CHANGES:
        bare = [role for role in ROLES if not entry.get(change, {}).get(ANY) and not entry.get(change, {}).get(role)]
        if bare:
            raise SourceError(f"{name}, {language}: no phrasing for {change!r} of {bare[0]!r}; add it, or {ANY!r} ones")
    if not entry.get("two"):
        raise SourceError(f'{name}, {language}: no phrasing for "two"; add "{{first}} and {{second}}"')


def _extended(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return both languages' entries in one: lists follow each other, other values are theirs."""
    merged: dict[str, Any] = dict(ours)
    for key, value in theirs.items():
        own = merged.get(key)
        if isinstance(own, dict) and isinstance(value, dict):
            merged[key] = _extended(own, value)
        elif isinstance(own, list) and isinstance(value, list):
            merged[key] = list(dict.fromkeys([*own, *value]))
        else:
            merged[key] = value
    return merged
