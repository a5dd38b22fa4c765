"""Fusion after composing: the pictures' vector, the composer's, and the change that the words made, mixed to one vector.

    q = norm((1 − b)(v + a·d) + b(t₀ + c·d)),  d = t − t₀

with v the unit vector of the pictures, t the composer's unit vector, and t₀ that of the same query without words.
b = c = 1 is the composer's own vector; a = b = 0 is the pictures'. The formula is PDV's (WACV 2026), there for
pseudo-words; here it serves every composer that reads pictures and words.

`keep` then turns the model's own vector q: towards v above 0.5, and below it towards the composer's vector at a `keep` of 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from cir_vectorizer.composers.base import Composer, Plan, mean_direction
from cir_vectorizer.errors import QueryError
from cir_vectorizer.query import ComposedQuery, Fusion, Options

_SHARES = {"guidance", "source_weight", "weights.image", "weights.text"}
"""Options that composers without fusion set by `keep`."""


Rows = TypeVar("Rows", Tensor, npt.NDArray[np.floating[Any]])


def mix(composed: Rows, wordless: Rows, pictures: Rows, fusion: Fusion) -> Rows:
    """Unit vectors t, t₀ and v of the formula, each (…, dim) -> the unnormalised mix, (…, dim); tensors or arrays."""
    a, b, c = fusion.a, fusion.b, fusion.c
    change = composed - wordless
    return (1 - b) * (pictures + a * change) + b * (wordless + c * change)


@dataclass(frozen=True, kw_only=True)
class FusedPlan(Plan):
    """A plan whose vector is mixed from those of several plans of the same composer.

    Attributes:
        parts: plans of the composed query, of the query without words, and of the query at a `keep` of 0; only the
            first is always there.
        fusion: numbers of the formula; None if only `keep` turns the vector.
        wordless: position of the part without words, 0 if the query has none.
        turn: how far `keep` turns the vector: 1 fully to the pictures, -1 fully to the last part.
    """

    parts: tuple[Plan, ...]
    fusion: Fusion | None
    wordless: int
    turn: float

    def vector(self, vectors: Tensor, pictures: Tensor) -> Tensor:
        """Unit vectors of the parts (parts, dim) and the pictures' direction (dim,) -> the plan's own, (dim,), unnormalised."""
        vector = vectors[0]
        if self.fusion is not None:
            vector = mix(vector, vectors[self.wordless], pictures, self.fusion)
        if self.turn:
            vector = torch.lerp(F.normalize(vector, dim=-1), pictures if self.turn > 0 else vectors[-1], abs(self.turn))
        return vector


def prepare(composer: Composer, query: ComposedQuery, defaults: Options | None = None) -> Plan:
    """Tokenise a query, with the model's default options, as `Composer.prepare`; a `FusedPlan` if vectors are to be mixed.

    `options.fusion` is ignored if the query has no picture, or if the composer does not fuse (`Takes.fuses`).

    Raises:
        QueryError: as `Composer.prepare`.
    """
    asked = query.options
    if defaults is not None and (query.wordless or not query.image):
        defaults = defaults.without_balance()  # a default weight of 0 would leave nothing of the only side
    options = asked if defaults is None else asked.over(defaults)
    fusion = options.fusion if query.image and composer.takes.fuses else None
    keep = options.keep if query.image and "keep" in composer.takes.options else None
    if keep is not None and fusion is None and not _SHARES & (options.names() - asked.names()):
        keep = None  # the model's own vector is the composer's, which has its own way to keep
    if fusion is None and keep is None:
        return composer.prepare(query.with_options(options))
    own = query.with_options(options.model_copy(update={"fusion": None, "keep": None}))
    parts = [composer.prepare(own)]
    wordless = 0
    if fusion is not None and fusion.own:
        fusion = None
    if fusion is not None and not query.wordless:
        wordless = len(parts)
        parts.append(composer.prepare(composer.without_words(own)))
    turn = 0.0 if keep is None else 2 * keep - 1
    if turn < 0 and not (query.text or "").strip():
        turn = 0.0
    if turn < 0:
        words = asked if defaults is None else asked.over(defaults.without_shares())
        words = words.model_copy(update={"fusion": None, "keep": 0.0})
        parts.append(composer.prepare(query.with_options(words)))
    if fusion is None and not turn:
        return parts[0]
    return FusedPlan(
        query,
        tuple(row for part in parts for row in part.rows),
        parts[0].notes,
        units=sum(part.units for part in parts),
        squash=parts[0].squash,
        parts=tuple(parts),
        fusion=fusion,
        wordless=wordless,
        turn=turn,
    )


def compose(composer: Composer, plans: Sequence[Plan], references: Sequence[Tensor]) -> Tensor:
    """Run the device for plans of `prepare`, as `Composer.compose`; the composer runs once for the parts of all plans.

    Raises:
        QueryError: the parts of a mix cancel out.
    """
    if not any(isinstance(plan, FusedPlan) for plan in plans):
        return composer.compose(plans, references)
    groups = [
        [replace(part, mask=plan.mask) for part in plan.parts] if isinstance(plan, FusedPlan) else [plan]
        for plan in plans
    ]
    vectors = composer.compose(
        [part for parts in groups for part in parts],
        [reference for parts, reference in zip(groups, references, strict=True) for _ in parts],
    ).float()
    pictures = mean_direction(references, vectors.shape[-1]).to(vectors.device)
    split = vectors.split([len(parts) for parts in groups])  # type: ignore[no-untyped-call]
    mixed = torch.stack(
        [
            plan.vector(own, picture) if isinstance(plan, FusedPlan) else own[0]
            for plan, own, picture in zip(plans, split, pictures, strict=True)
        ]
    )
    for plan, length in zip(plans, mixed.norm(dim=-1).tolist(), strict=True):
        if isinstance(plan, FusedPlan) and length < 1e-6:
            raise QueryError("options.fusion", "the vectors that it mixes cancel out; change its numbers")
    return F.normalize(mixed, dim=-1)
