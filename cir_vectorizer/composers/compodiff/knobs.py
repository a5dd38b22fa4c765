"""CompoDiff's quality knobs, named as in the paper, and the plain control above them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from typing_extensions import Self

from cir_vectorizer.query import Options


@dataclass(frozen=True)
class Knobs:
    """How a query is drawn; the defaults are the published ones.

    Attributes:
        steps: evaluations of the network; more are slower and follow the conditions more closely. (The published
            "10 steps" make 9 evaluations.)
        image_scale: guidance by the picture, w_I in the paper: how far to go from no picture to this one.
        text_scale: guidance by the text, w_T: how far to go from the picture alone to the picture with the text.
        source_weight: share of the reference's own embedding in the result.
        samples: embeddings that are drawn and averaged.
        squash: whether a picture without a mask is squashed to a square too, as the published code does. It then has
            another embedding than the same picture in the index, so a reference sent as a picture and the same one
            named by its object differ.
    """

    steps: int = 9
    image_scale: float = 1.5
    text_scale: float = 7.5
    source_weight: float = 0.1
    samples: int = 2
    squash: bool = False

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """From a model's record; what it leaves out is as published."""
        names = [each.name for each in fields(cls) if each.name in record]
        found = cls(**{name: type(getattr(cls, name))(record[name]) for name in names})
        if found.steps < 1 or found.samples < 1:
            raise ValueError("knobs.steps and knobs.samples must be 1 or more")
        return found

    def to_record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def asked(self, options: Options) -> Self:
        """These knobs with a query's own wishes: `keep` first, then what is named.

        `keep` of 0.5 changes nothing. Below it the picture's guidance and its share in the result fall to nothing;
        above it both rise, until at 1 the result is the picture itself.
        """
        knobs = self
        if options.keep is not None:
            less, more = min(1.0, 2 * options.keep), max(0.0, 2 * options.keep - 1)
            knobs = replace(
                knobs,
                image_scale=knobs.image_scale * (less + more),
                source_weight=knobs.source_weight * less + (1 - knobs.source_weight) * more,
            )
        if options.steps is not None:
            knobs = replace(knobs, steps=options.steps)
        if options.guidance is not None:
            knobs = replace(knobs, image_scale=options.guidance[0], text_scale=options.guidance[1])
        if options.source_weight is not None:
            knobs = replace(knobs, source_weight=options.source_weight)
        if options.squash is not None:
            knobs = replace(knobs, squash=options.squash)
        return knobs
