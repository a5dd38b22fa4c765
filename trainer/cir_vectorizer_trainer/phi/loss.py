"""Self-masking loss of Φ, and the noise that closes the gap between text and picture embeddings (LinCIR, section 3)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cir_vectorizer.backbones import Backbone, TokenRow
from cir_vectorizer_trainer.phi.examples import with_own_slots
from cir_vectorizer_trainer.phi.processes import Reader


def self_masking_loss(
    backbone: Backbone,
    phi: nn.Module,
    masked: Sequence[TokenRow],
    originals: Tensor,
    noised: Tensor,
    reader: Reader | None = None,
) -> Tensor:
    """Return the mean squared error between the embeddings of the masked captions, with Φ(noised) at their markers,
    and `originals`. Both are (n, dim) and unnormalised; the mean is over all elements. `reader` reads the masked captions;
    the backbone's text encoder does if it is None."""
    encoded = (reader or backbone.text).encode_text(with_own_slots(masked), phi(noised))
    return F.mse_loss(encoded, originals)


def add_noise(embeddings: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """Return e + scale · u · g, where u ~ U(0, 1) is one number for each row and g ~ N(0, I). (n, dim) -> (n, dim)"""
    u = torch.rand(len(embeddings), 1, generator=generator)
    g = torch.randn(embeddings.shape, generator=generator)
    return embeddings + scale * (u * g).to(embeddings.device)


def noise_strengths(dim: int, embeddings: Tensor, asked: float | None) -> tuple[float, float, float]:
    """Return the published noise's strength in units of mean ‖e‖/√dim, the strength to use, and its scale for `add_noise`.

    Args:
        embeddings: (n, dim), on which mean ‖e‖ is measured.
        asked: the strength to use; the published one if None.
    """
    published = math.sqrt(dim) / embeddings.norm(dim=-1).mean().item()
    strength = published if asked is None else asked
    return published, strength, strength / published
