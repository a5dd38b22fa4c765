"""Guard against forgetting: a blend of the weights before and after a training, chosen on the customer's captions and on
general ones.

A training that goes on from existing weights fits a customer's captions and may lose what general captions taught. So
blends of old and new weights are judged (see `judging`) on both. The one with the best score on the customer's is kept
among those whose score on general captions is hardly lower than before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cir_vectorizer.backbones import Backbone
from cir_vectorizer_trainer.edits.making import MadeEdits, Making
from cir_vectorizer_trainer.edits.phrasings import Phrasings
from cir_vectorizer_trainer.edits.probes import ProbeMaker
from cir_vectorizer_trainer.phi.judging import Judge

CAPTIONS = Path(__file__).parent / "general_captions.txt"
"""Captions of everyday scenes, one a line."""
SHARES = (1.0, 0.75, 0.5, 0.25)
"""Shares of the new weights in the blends, the rest being the old."""
TOLERANCE = 0.02
"""How much lower the score on general captions may be than before."""
MOST_PROBES = 300
_ALIKE, _MOST_ALIKE = 0.9999, 0.2
"""Cosine above which captions have one embedding, and the share of captions that may share theirs."""

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Blend:
    """A blend of old and new weights, and scores on the customer's and on general captions.

    Attributes:
        share: of the new weights.
        own, general: scores of the blend.
        own_before, general_before: scores of the old weights.
    """

    share: float
    own: float
    general: float
    own_before: float
    general_before: float

    @property
    def forgets(self) -> bool:
        """Tell whether the score on general captions is lower than it may be."""
        return self.general < self.general_before - TOLERANCE

    def to_record(self) -> dict[str, Any]:
        """Return the entry of a model's record."""
        return {
            "new_share": self.share,
            "score": [self.own_before, self.own],
            "general_score": [self.general_before, self.general],
        }

    def sentence(self) -> str:
        """Return what was chosen, in words."""
        kept = f"{self.share:.0%} of the new weights are kept" if self.share < 1 else "the new weights are kept"
        forgets = f"; no blend stays within {TOLERANCE} on general captions" if self.forgets else ""
        return (
            f"{kept}: score on these captions {self.own_before:.3f} before, {self.own:.3f} now; on general captions "
            f"{self.general_before:.3f} before, {self.general:.3f} now{forgets}"
        )


def blended(old: Weights, new: Weights, share: float) -> dict[str, Tensor]:
    """Return share · new + (1 - share) · old."""
    return {name: torch.lerp(old[name], tensor, share) for name, tensor in new.items()}


def choose(old: Weights, new: Weights, own: Callable[[Weights], float], general: Callable[[Weights], float]) -> Blend:
    """Return the blend with the best score on the customer's captions among those that do not forget.

    If all forget, it is the one with the best score on general captions.

    Args:
        own, general: score weights on the customer's and on general captions, from 0 to 1.
    """
    own_before, general_before = own(old), general(old)
    blends = []
    for share in SHARES:
        weights = blended(old, new, share)
        blends.append(Blend(share, own(weights), general(weights), own_before, general_before))
    fitting = [blend for blend in blends if not blend.forgets]
    return max(fitting, key=lambda blend: blend.own) if fitting else max(blends, key=lambda blend: blend.general)


def general_judge(backbone: Backbone) -> Judge | None:
    """Return a judge on general captions; None if the text tower cannot tell them apart, as a small one may not."""
    captions = CAPTIONS.read_text(encoding="utf-8").splitlines()
    made = MadeEdits(captions, (), Making(count=2 * MOST_PROBES))
    edits = [edit for edit in made.draw() if edit.words]
    judge = Judge(
        backbone, ProbeMaker(made.kinds, Phrasings.read()).make(edits, MOST_PROBES), made.captions, made.kinds
    )
    unit = F.normalize(judge.embeddings, dim=-1)
    alike = ((unit @ unit.T) > _ALIKE).sum(dim=1) > 1
    return None if alike.float().mean() > _MOST_ALIKE else judge
