"""Loss of edit-aware training: prompts with a picture's pseudo-word must find the caption that their edit leads to.

For a batch of n edits there are 2n prompts: each edit's own, whose target is the edit's target caption, and the empty
edit of its reference, whose target is the reference itself. So a reference is the hard negative of its own edit, and
the other way round. Targets come from the frozen tower, in whose space the index is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cir_vectorizer.backbones import TextEncoder, TokenRow


@dataclass(frozen=True)
class EditWeights:
    """Weights of the parts of the loss.

    Attributes:
        temperature: by which cosines are divided in the contrastive part, whose weight is 1.
        squared: weight of the mean squared error of the unnormalised embeddings.
        anchor: weight of LinCIR's own loss on captions without edits, if a batch has as many of them as edits; with fewer
            captions it is scaled down in proportion.
    """

    temperature: float = 0.07
    squared: float = 0.25
    anchor: float = 1.0


@dataclass(frozen=True)
class EditBatch:
    """Prompts of n edits and the embeddings that they must have.

    Attributes:
        prompts: of the edits, each with markers for pseudo-token 0.
        empty: the prompt of the empty edit.
        references: (n, dim), embeddings of the reference captions by the frozen tower, unnormalised.
        targets: (n, dim), those of the target captions.
        captions: (2n,), numbers of the target captions, then of the reference captions; equal captions have equal
            numbers.
    """

    prompts: Sequence[TokenRow]
    empty: TokenRow
    references: Tensor
    targets: Tensor
    captions: Tensor


def edits_loss(text: TextEncoder, pseudo_tokens: Tensor, batch: EditBatch, weights: EditWeights) -> Tensor:
    """Return the loss of a batch.

    Args:
        text: the encoder that reads prompts.
        pseudo_tokens: (n, width), Φ of the noised references.
    """
    edited = [TokenRow(row.ids, tuple((at, i) for at, _ in row.slots)) for i, row in enumerate(batch.prompts)]
    empty = [TokenRow(batch.empty.ids, tuple((at, i) for at, _ in batch.empty.slots)) for i in range(len(edited))]
    queries = text.encode_text([*edited, *empty], pseudo_tokens)
    targets = torch.cat([batch.targets, batch.references])
    contrast = contrastive_loss(queries, targets, batch.captions, weights.temperature)
    return contrast + weights.squared * F.mse_loss(queries, targets)


def contrastive_loss(queries: Tensor, targets: Tensor, captions: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of finding each query's target among all targets, by cosine over `temperature`.

    Args:
        queries, targets: (n, dim).
        captions: (n,), numbers of the target captions; other targets with a query's own caption are no negatives.
    """
    cosines = F.normalize(queries, dim=-1) @ F.normalize(targets, dim=-1).T
    twins = captions[:, None] == captions[None]
    twins = twins & ~torch.eye(len(captions), dtype=torch.bool, device=captions.device)
    logits = (cosines / temperature).masked_fill(twins, float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(captions), device=captions.device))
