"""Prompts by language: the words around a picture's pseudo-word.

The file `prompts.json` beside this module holds ours, by BCP 47 tag. A model's record may have further languages, or its own
words for one of ours, under `prompts`; its `language` is that of queries that name none, and English if it is missing.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator
from typing_extensions import Self

from cir_vectorizer.errors import CheckpointError, QueryError
from cir_vectorizer.query import TEXT_SLOT, check_template
from cir_vectorizer.query.options import Strict
from cir_vectorizer.query.validation import first_invalid_field

NEGATIVE_SLOT = "{negative_text}"
_SLOTS = re.compile(f"{re.escape(TEXT_SLOT)}|{re.escape(NEGATIVE_SLOT)}")
_ENGLISH = "en"


class Wording(Strict):
    """Prompts of one language, and the words that join their parts.

    Attributes:
        prompt: template for queries with text.
        prompt_without_text: template for queries of pictures alone.
        photo: text that names nothing but a photo, for a query without pictures and without text.
        join: word between the pictures, where `$` stands for several.
        negative: text of a prompt that also says what is not wanted.
        negative_alone: the same for a query without text.
    """

    prompt: str
    prompt_without_text: str
    photo: str
    join: str
    negative: str
    negative_alone: str

    @field_validator("prompt", "prompt_without_text")
    @classmethod
    def _is_template(cls, template: str, info: Any) -> str:
        try:
            check_template(template, 1, has_text=info.field_name == "prompt")
        except QueryError as error:
            raise ValueError(error.problem) from error
        return template

    @field_validator("negative", "negative_alone")
    @classmethod
    def _has_slots(cls, words: str, info: Any) -> str:
        wanted = [NEGATIVE_SLOT] if info.field_name == "negative_alone" else [NEGATIVE_SLOT, TEXT_SLOT]
        if sorted(_SLOTS.findall(words)) != wanted:
            raise ValueError(f"is {words!r}; write {' and '.join(wanted)} once, and no other slot")
        return words

    def words_of_edit(self, text: str, negative: str) -> str:
        """Return the words of a prompt that says what is wanted, and what is not: "is red, not striped"."""
        if not negative:
            return text
        parts = {TEXT_SLOT: text, NEGATIVE_SLOT: negative}
        return _SLOTS.sub(lambda slot: parts[slot[0]], self.negative if text else self.negative_alone)


OURS: Mapping[str, Wording] = {
    tag: Wording.model_validate(entry)
    for tag, entry in json.loads(Path(__file__).with_name("prompts.json").read_text(encoding="utf-8")).items()
}
"""Built-in prompts by BCP 47 tag, English first."""
ENGLISH = OURS[_ENGLISH]


class Prompts:
    """Prompts of a model, by language.

    Args:
        wordings: by BCP 47 tag.
        language: the language of queries that name none.

    Raises:
        CheckpointError: there are no prompts of that language.
    """

    def __init__(self, wordings: Mapping[str, Wording] = OURS, language: str = _ENGLISH) -> None:
        self.wordings = wordings
        tag = known_tag(language, self.wordings)
        if tag is None:
            raise CheckpointError(
                f"language: is {language!r}, and there are no prompts of it; add them to prompts, or choose one of "
                f"{', '.join(self.wordings)}"
            )
        self.language = tag

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read a composer's record: ours, with those of its `prompts` in their place, and its English `prompt`.

        Raises:
            CheckpointError: a prompt cannot be used; says which.
        """
        wordings = dict(OURS)
        given = dict(record.get("prompts", {}))
        if "prompt" in record:
            given.setdefault(_ENGLISH, {"prompt": record["prompt"]})
        for tag, entry in given.items():
            own = wordings[tag].model_dump() if tag in wordings else {}
            try:
                wordings[tag] = Wording.model_validate({**own, **entry})
            except ValidationError as error:
                found = first_invalid_field(error)
                place = ".".join(["prompts", tag, *map(str, found.path)])
                problem = f"is no part of a prompt; they are {', '.join(Wording.model_fields)}"
                raise CheckpointError(f"{place}: {problem if found.unknown else found.problem}") from error
        return cls(wordings, record.get("language", _ENGLISH))

    @classmethod
    def built_in(cls, language: str) -> Self:
        """Return ours for queries in a language; in English if we have none in that language."""
        return cls(language=language if known_tag(language, OURS) else _ENGLISH)

    def of(self, language: str | None) -> Wording:
        """Return the prompts of a language; of the model's own if None.

        Raises:
            QueryError: there are none.
        """
        tag = self.language if language is None else known_tag(language, self.wordings)
        if tag is None:
            raise QueryError(
                "language",
                f"the model has no prompt in {language!r}; choose one of {', '.join(self.wordings)}, or give a template",
            )
        return self.wordings[tag]

    def to_record(self) -> dict[str, Any]:
        """Return the entries of a composer's record for queries in the model's own language.

        English keeps the form of earlier releases. Other prompts are written out, so that a model keeps those that it was
        trained with.
        """
        own = self.of(None)
        if self.language == _ENGLISH:
            return {"prompt": own.prompt}
        return {"language": self.language, "prompts": {self.language: own.model_dump()}}


def known_tag(language: str, known: Mapping[str, Any]) -> str | None:
    """Return the known tag that fits a language best: its own, or else a shorter one ("de" for "de-AT"); None if none does."""
    tags = {tag.lower(): tag for tag in known}
    parts = language.lower().split("-")
    fitting = ("-".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((tags[tag] for tag in fitting if tag in tags), None)
