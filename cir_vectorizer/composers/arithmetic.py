"""The baselines: image only, text only, and a weighted sum of the two."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cir_vectorizer.backbones import Backbone
from cir_vectorizer.composers.base import Plan, cut_note, encode_rows, mean_direction
from cir_vectorizer.errors import QueryError
from cir_vectorizer.query import ComposedQuery

IMAGE_WEIGHT = 0.5
TEXT_WEIGHT = 0.5


class _Arithmetic:
    """Unit vectors of the pictures (their mean) and of the texts, added with weights; the result is a unit vector.

    Raises:
        QueryError: from `prepare`, when a part that the baseline needs is missing or another cannot be used.
    """

    weightless = True
    default_weights: tuple[float, float, float]
    needs: str = ""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @classmethod
    def load(cls, record: Mapping[str, Any], folder: Path, backbone: Backbone) -> "_Arithmetic":
        return cls(backbone)

    def prepare(self, query: ComposedQuery) -> Plan:
        if query.mask is not None or query.template is not None:
            raise QueryError(
                "mask" if query.mask else "template",
                "a sum of vectors cannot use it; use composer 'lincir' or 'compodiff'",
            )
        if self.needs and not getattr(query, self.needs):
            raise QueryError(self.needs, f"this composer searches by {self.needs} alone; add {self.needs}")
        tokenizer = self.backbone.text.tokenizer
        rows, notes = [], []
        for field_name in ("text", "negative_text"):
            rows.append(tokenizer.row(getattr(query, field_name) or ""))
            notes += [cut_note(field_name, tokenizer)] if rows[-1].cut else []
        return Plan(query, tuple(rows), tuple(notes))

    def weights(self, query: ComposedQuery) -> tuple[float, float, float]:
        """What image, text and negative text count for this query; 0 where it has none or the baseline ignores it."""
        asked, keep = query.options.weights, query.options.keep
        given = (None, None, None) if asked is None else (asked.image, asked.text, asked.negative)
        kept = self.default_weights if keep is None or self.needs else (keep, 1 - keep, self.default_weights[2])
        image, text, negative = (
            usual if weight is None or not default else weight
            for weight, usual, default in zip(given, kept, self.default_weights, strict=True)
        )
        return image if query.image else 0.0, text if query.text else 0.0, negative if query.negative_text else 0.0

    def compose(self, plans: Sequence[Plan], references: Sequence[Tensor]) -> Tensor:
        images = mean_direction(references, self.backbone.dim).to(self.backbone.device)
        encoded = encode_rows(self.backbone.text, [row for plan in plans for row in plan.rows])
        texts, negatives = encoded[0::2], encoded[1::2]
        image, text, negative = torch.tensor(
            [self.weights(plan.query) for plan in plans], device=self.backbone.device
        ).T.unsqueeze(-1)
        total = image * images + text * texts - negative * negatives
        for plan, length in zip(plans, total.norm(dim=-1).tolist(), strict=True):
            if length < 1e-6:
                raise QueryError(
                    "options.weights",
                    f"the weighted parts of {plan.query.composer or 'sum'} cancel out; change the weights",
                )
        return F.normalize(total, dim=-1)


class ImageOnly(_Arithmetic):
    """Image search: the text is not looked at."""

    default_weights = (1.0, 0.0, 0.0)
    needs = "image"


class TextOnly(_Arithmetic):
    """Text search: the picture is not looked at."""

    default_weights = (0.0, 1.0, 0.0)
    needs = "text"


class WeightedSum(_Arithmetic):
    """image · w_image + text · w_text − negative text · w_negative, on unit vectors; weights may be negative.

    `options.keep` is w_image, and 1 − keep is w_text, where `options.weights` says nothing else.
    """

    default_weights = (IMAGE_WEIGHT, TEXT_WEIGHT, 0.5)
