"""Loss of edit-aware training: prompts with a picture's pseudo-word must find the caption that their edit leads to.

For a batch of n edits there are 2n prompts: each edit's own, whose target is the edit's target caption, and the empty
edit of its reference, whose target is the reference itself. So a reference is the hard negative of its own edit, and
the other way round. Targets come from the frozen tower, in whose space the index is. A target lies between its caption's
embedding and the mean over the captions that hold the same values: titles differ in names and codes that no picture shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from cir_vectorizer.backbones import TokenRow
from cir_vectorizer_trainer.phi.examples import with_own_slots
from cir_vectorizer_trainer.phi.processes import Reader

UNIT = 0.7
"""Mean ‖e‖/√dim in the space of the tower that the weights were chosen for."""


@dataclass(frozen=True)
class EditWeights:
    """Weights of the parts of the loss.

    Attributes:
        temperature: by which cosines are divided in the contrastive part, whose weight is 1.
        squared: weight of the mean squared error of the unnormalised embeddings.
        anchor: weight of LinCIR's own loss on captions without edits, if a batch has as many of them as edits; with fewer
            captions it is scaled down in proportion.
    """

    temperature: float = 0.1
    squared: float = 2.0
    anchor: float = 1.0

    def for_unit(self, unit: float) -> "EditWeights":
        """Return the weights that amount to these where mean ‖e‖/√dim is `unit`: squared errors grow with its square."""
        factor = (UNIT / unit) ** 2
        return replace(self, squared=self.squared * factor, anchor=self.anchor * factor)


@dataclass(frozen=True)
class EditBatch:
    """Prompts of n edits and the embeddings that they must have.

    Attributes:
        prompts: of the edits, each with markers for pseudo-token 0.
        empty: the prompt of the empty edit.
        references: (n, dim), embeddings of the reference captions by the frozen tower, unnormalised.
        targets: (2n, dim), the embeddings that the prompts must have: those of the edits, then of the empty edits.
        groups: (2n,), numbers of the targets' groups; targets of one group are no negatives of each other.
    """

    prompts: Sequence[TokenRow]
    empty: TokenRow
    references: Tensor
    targets: Tensor
    groups: Tensor


def edits_loss(text: Reader, pseudo_tokens: Tensor, batch: EditBatch, weights: EditWeights) -> Tensor:
    """Return the loss of a batch.

    Args:
        text: the encoder that reads prompts.
        pseudo_tokens: (n, width), Φ of the noised references.
    """
    rows = with_own_slots(batch.prompts) + with_own_slots([batch.empty] * len(batch.prompts))
    queries = text.encode_text(rows, pseudo_tokens)
    contrast = contrastive_loss(queries, batch.targets, batch.groups, weights.temperature)
    return contrast + weights.squared * F.mse_loss(queries, batch.targets)


def contrastive_loss(queries: Tensor, targets: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of finding each query's target among all targets, by cosine over `temperature`.

    Args:
        queries, targets: (n, dim).
        groups: (n,), numbers of the targets' groups; other targets of a query's own group are no negatives.
    """
    cosines = F.normalize(queries, dim=-1) @ F.normalize(targets, dim=-1).T
    twins = groups[:, None] == groups[None]
    twins = twins & ~torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    logits = (cosines / temperature).masked_fill(twins, float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(groups), device=groups.device))
