"""The fields of a query that a composer reads, for the doors, the page, the API's description, search and warm-up."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from typing_extensions import Self

from cir_vectorizer.query.composed import MAX_REFERENCES, ComposedQuery

Use = Literal["required", "optional", "ignored", "refused"]
"""Use of a query's field by a composer; an ignored field is accepted and changes nothing."""

FUSION = ("fusion.a", "fusion.b", "fusion.c")
"""Names of the options of fusion."""


@dataclass(frozen=True)
class Takes:
    """The fields and options of a query that a composer reads.

    Attributes:
        image: use of the reference pictures; `text`, `negative_text`, `mask`, `template` and `language` likewise.
        most_images: largest number of reference pictures.
        options: names of the options that change the vector, with dots if nested: `keep`, `weights.negative`.
        units_per_step: estimated work of one step (`options.steps`), in text tokens; 0 for a composer without steps.
    """

    image: Use = "optional"
    text: Use = "optional"
    negative_text: Use = "refused"
    mask: Use = "refused"
    template: Use = "refused"
    language: Use = "refused"
    most_images: int = MAX_REFERENCES
    options: tuple[str, ...] = ()
    units_per_step: int = 0

    @property
    def uses(self) -> Mapping[str, Use]:
        """Use of each field, by the field's name in the query."""
        return {
            "image": self.image,
            "text": self.text,
            "negative_text": self.negative_text,
            "mask": self.mask,
            "template": self.template,
            "language": self.language,
        }

    def reads(self, field: str) -> bool:
        """Tell whether a field of the query changes the vector."""
        return self.uses[field] in ("required", "optional")

    def required(self, field: str) -> bool:
        """Tell whether a query must have this field; False for an unknown field."""
        return self.uses.get(field) == "required"

    @property
    def picture_alone(self) -> bool:
        """True if a query with nothing but a picture can be composed."""
        others = [use for field, use in self.uses.items() if field != "image"]
        return self.reads("image") and "required" not in others

    @property
    def fuses(self) -> bool:
        """True if `options.fusion` applies: the composer makes vectors with words and without."""
        words = (self.text, self.negative_text, self.template)
        return self.reads("image") and "required" not in words and (self.reads("text") or self.reads("negative_text"))

    def with_fusion(self) -> Self:
        """Return the same with the options of fusion, which every composer has that reads pictures and words."""
        return replace(self, options=(*self.options, *FUSION)) if self.fuses else self

    def missing(self, query: ComposedQuery) -> str | None:
        """Return the first required field that the query lacks, or None."""
        given = _given(query)
        return next((field for field, use in self.uses.items() if use == "required" and not given[field]), None)

    def refused(self, query: ComposedQuery) -> str | None:
        """Return the first field of the query that the composer refuses, or None."""
        given = _given(query)
        return next((field for field, use in self.uses.items() if use == "refused" and given[field]), None)

    def to_json(self) -> dict[str, Any]:
        """Return the attributes by name, for answers and records."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` of any version wrote: unknown names are ignored, missing ones keep their default."""
        known = {each.name: content[each.name] for each in fields(cls) if each.name in content}
        return cls(**{**known, "options": tuple(known.get("options", ()))})


def _given(query: ComposedQuery) -> Mapping[str, bool]:
    return {
        "image": bool(query.image),
        "text": bool((query.text or "").strip()),
        "negative_text": bool(query.unwanted),
        "mask": query.mask is not None,
        "template": query.template is not None,
        "language": query.language is not None,
    }
