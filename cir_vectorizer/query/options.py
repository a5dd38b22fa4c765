"""Options of a query: settings of the composer that a caller, or a model's record, may choose."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from typing_extensions import Self


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number, not NaN or infinity")
    return value


Finite = Annotated[float, AfterValidator(_finite)]
Fraction = Annotated[Finite, Field(ge=0, le=1)]


def _whole(value: Any) -> Any:
    """Turn 7.0 into 7: in JSON they are the same number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Strict(BaseModel):
    """Immutable fields of exactly these names and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Weights(Strict):
    """Weights of a query's parts; a weight that is left out keeps the composer's default."""

    image: Finite | None = None
    text: Finite | None = None
    negative: Finite | None = None


class Fusion(Strict):
    """Numbers of the fusion after composing, norm((1 − b)(v + a·d) + b(t₀ + c·d)); see `composers.fusion`."""

    a: Annotated[Finite, Field(ge=0, le=5)] = Field(1.0, description="how far the picture's vector follows the words")
    b: Fraction = Field(1.0, description="share of the composer's side: 0 is the picture's side, 1 the composer's")
    c: Annotated[Finite, Field(ge=0, le=5)] = Field(1.0, description="how far the composer's side follows the words")

    @property
    def own(self) -> bool:
        """True if the result is the composer's own vector."""
        return self.b == self.c == 1


class Options(Strict):
    """Settings of a composer; a setting that is left out keeps the model's default, or else the composer's."""

    steps: Annotated[int, Field(ge=1, le=1000), BeforeValidator(_whole)] | None = Field(
        None, description="CompoDiff: evaluations of the network"
    )
    guidance: tuple[Finite, Finite] | None = Field(None, description="CompoDiff: (image scale, text scale)")
    seed: Annotated[int, Field(ge=0, lt=2**63), BeforeValidator(_whole)] | None = Field(
        None, description="CompoDiff: seed of the noise"
    )
    weights: Weights | None = Field(None, description="sum: image and text; LinCIR: negative")
    fusion: Fusion | None = Field(
        None, description="mix of the picture's vector, the composer's, and the change that the words made"
    )
    source_weight: Fraction | None = Field(
        None, description="CompoDiff: share of the reference picture's own embedding in the result"
    )
    squash: bool | None = Field(
        None, description="CompoDiff: squash the picture to a square first, even without a mask, as it was published"
    )
    keep: Fraction | None = Field(
        None,
        description="how much of the picture stays: 0 asks for the words alone, 1 for the picture alone, and 0.5 is "
        "the model's own vector",
    )
    adapter: bool | None = Field(
        None,
        description="LinCIR: false has prompts read by the text tower as it was published, without the adapter of a "
        "model that has one",
    )

    @model_validator(mode="before")
    @classmethod
    def _pairs_from_json(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("guidance"), list):
            return {**value, "guidance": tuple(value["guidance"])}
        return value

    def to_json(self) -> dict[str, Any]:
        """Return the options that are given as JSON values."""
        return self.model_dump(mode="json", exclude_none=True)

    def names(self) -> set[str]:
        """Return the names of the options that are given, with dots if nested: `keep`, `weights.negative`."""
        given = self.model_dump(exclude_none=True)
        plain = {name for name, value in given.items() if not isinstance(value, dict)}
        return plain | {
            f"{name}.{inner}" for name, value in given.items() if isinstance(value, dict) for inner in value
        }

    def over(self, defaults: "Options") -> Self:
        """Return these options, and defaults for those not given; weights are taken one by one, fusion as a whole."""
        missing: dict[str, Any] = {
            name: getattr(defaults, name) for name in type(self).model_fields if getattr(self, name) is None
        }
        if self.weights is not None and defaults.weights is not None:
            given = self.weights.model_dump(exclude_none=True)
            missing["weights"] = defaults.weights.model_copy(update=given)
        return self.model_copy(update=missing)

    def without_shares(self) -> Self:
        """Return these options without those that set how much of the picture stays, as `keep` does."""
        shares = {"fusion": None, "guidance": None, "source_weight": None}
        return self.without_balance().model_copy(update=shares)

    def without_balance(self) -> Self:
        """Return these options without the weights of image and text, which balance the two."""
        weights = self.weights and self.weights.model_copy(update={"image": None, "text": None})
        return self.model_copy(update={"weights": weights})
