"""The baselines: image only, text only, and a weighted sum of the two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from cir_vectorizer.backbones import Backbone
from cir_vectorizer.composers.base import Composer, Plan, cut_note, encode_rows, mean_direction
from cir_vectorizer.errors import QueryError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.takes import Takes

IMAGE_WEIGHT = 0.5
TEXT_WEIGHT = 0.5


@dataclass(frozen=True)
class _Weights:
    """A plan's numbers: the weight of the pictures' mean, and one for each row of text."""

    image: float
    rows: tuple[float, ...]


class _Arithmetic(Composer):
    """Unit vectors of the pictures (their mean) and of the texts, added with weights; the result is a unit vector."""

    weightless = True
    default_weights: tuple[float, float, float]

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @classmethod
    def load(cls, record: Mapping[str, Any], folder: Path, backbone: Backbone) -> Self:
        return cls(backbone)

    def prepare(self, query: ComposedQuery) -> Plan:
        image, text, negative = self.weights(query)
        tokenizer = self.backbone.text.tokenizer
        rows, notes, weights = [], [], []
        for field_name, words, weight in (
            ("text", query.text, text),
            ("negative_text", query.negative, -negative),
        ):
            if words and self.takes.reads(field_name):
                rows.append(tokenizer.row(words))
                weights.append(weight)
                notes += [cut_note(field_name, tokenizer)] if rows[-1].cut else []
        return Plan(query, tuple(rows), tuple(notes), own=_Weights(image if query.image else 0.0, tuple(weights)))

    def without_words(self, query: ComposedQuery) -> ComposedQuery:
        """Return the query of the pictures alone, without weights: they have nothing to weigh."""
        bare = super().without_words(query)
        return bare.with_options(bare.options.model_copy(update={"weights": None}))

    def weights(self, query: ComposedQuery) -> tuple[float, float, float]:
        """Return the weights of image, text and negative text for this query; 0 for a part that is not read."""
        asked, keep = query.options.weights, query.options.keep
        given = (None, None, None) if asked is None else (asked.image, asked.text, asked.negative)
        kept = self.default_weights
        if keep is not None and "keep" in self.takes.options:
            kept = (keep, 1 - keep, self.default_weights[2])
        image, text, negative = (
            usual if weight is None or not default else weight
            for weight, usual, default in zip(given, kept, self.default_weights, strict=True)
        )
        return image, text, negative

    def compose(self, plans: Sequence[Plan], references: Sequence[Tensor]) -> Tensor:
        device = self.backbone.device
        wanted: list[_Weights] = [plan.own for plan in plans]
        total = torch.zeros(len(plans), self.backbone.dim, device=device)
        if any(each.image for each in wanted):
            weights = torch.tensor([each.image for each in wanted], device=device)
            total += weights[:, None] * mean_direction(references, self.backbone.dim).to(device)
        if any(each.rows for each in wanted):
            owners = torch.tensor([i for i, each in enumerate(wanted) for _ in each.rows], device=device)
            weights = torch.tensor([weight for each in wanted for weight in each.rows], device=device)
            encoded = encode_rows(self.backbone.text, [row for plan in plans for row in plan.rows])
            total.index_add_(0, owners, weights[:, None] * encoded)
        for plan, length in zip(plans, total.norm(dim=-1).tolist(), strict=True):
            if length < 1e-6:
                raise QueryError(
                    "options.weights",
                    f"the weighted parts of {plan.query.composer or 'sum'} cancel out; change the weights",
                )
        return F.normalize(total, dim=-1)


class ImageOnly(_Arithmetic):
    """Image search: the text is ignored."""

    takes = Takes(image="required", text="ignored", negative_text="ignored", options=("weights.image",))
    default_weights = (1.0, 0.0, 0.0)

    def plain(self, query: ComposedQuery) -> Plan:
        """Return the plan of a search by one picture."""
        return Plan(query, own=_Weights(1.0, ()))


class TextOnly(_Arithmetic):
    """Text search: the picture is ignored."""

    takes = Takes(image="ignored", text="required", negative_text="ignored", options=("weights.text",))
    default_weights = (0.0, 1.0, 0.0)

    def plain(self, text: str) -> Plan:
        """Return the plan of a search by a text, which may be empty."""
        tokenizer = self.backbone.text.tokenizer
        row = tokenizer.row(text)
        notes = (cut_note("text", tokenizer),) if row.cut else ()
        return Plan(ComposedQuery.model_construct(text=text), (row,), notes, own=_Weights(0.0, (1.0,)))


class WeightedSum(_Arithmetic):
    """image · w_image + text · w_text − negative text · w_negative, on unit vectors; weights may be negative.

    `options.keep` sets w_image to keep and w_text to 1 − keep; `options.weights` overrides it.
    """

    takes = Takes(negative_text="optional", options=("keep", "weights.image", "weights.text", "weights.negative"))
    default_weights = (IMAGE_WEIGHT, TEXT_WEIGHT, 0.5)
