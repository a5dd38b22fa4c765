"""CompoDiff's quality knobs, named as in the paper, and `keep`, the simple control that sets several of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from typing_extensions import Self

from cir_vectorizer.query import Options


@dataclass(frozen=True)
class Knobs:
    """Settings for drawing a query; the defaults are the published ones.

    Attributes:
        steps: evaluations of the network; more are slower and follow the conditions more closely. (The published
            "10 steps" make 9 evaluations.)
        image_scale: guidance by the picture, w_I in the paper: how far to go from no picture to this one.
        text_scale: guidance by the text, w_T: how far to go from the picture alone to the picture with the text.
        source_weight: share of the reference's own embedding in the result.
        samples: number of embeddings that are drawn and averaged.
        squash: whether a picture without a mask is squashed to a square too, as the published code does. Its embedding
            then differs from the one in the index, so the same reference gives another result when it is sent as a
            picture than when it is named by its object.
    """

    steps: int = 9
    image_scale: float = 1.5
    text_scale: float = 7.5
    source_weight: float = 0.1
    samples: int = 2
    squash: bool = False

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """Read the knobs of a model's record; missing ones get the published defaults."""
        names = [each.name for each in fields(cls) if each.name in record]
        found = cls(**{name: type(getattr(cls, name))(record[name]) for name in names})
        if found.steps < 1 or found.samples < 1:
            raise ValueError("knobs.steps and knobs.samples must be 1 or more")
        return found

    def to_record(self) -> dict[str, Any]:
        """Return the knobs as a JSON object."""
        return asdict(self)

    def asked(self, options: Options) -> Self:
        """Return these knobs with a query's options applied; explicit options override `keep`.

        `keep` of 0.5 changes nothing. Below it the picture's guidance and its share in the result fall, to zero at 0;
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
