"""Self-masking loss of Φ, and the noise that closes the gap between text and picture embeddings (LinCIR, section 3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cir_vectorizer.backbones import Backbone, TextEncoder, TokenRow
from cir_vectorizer_trainer.phi.examples import with_own_slots
from cir_vectorizer_trainer.phi.processes import Reader

LENGTH = 10.0
"""Length of embeddings for which relative noise is the published one by default: about that of a caption's in CLIP's
spaces."""
_CLIP_CONTEXT, _CLIP_VOCABULARY = 77, 49_408


@dataclass(frozen=True)
class Noise:
    """Noise of a training: `scale` · u · g, where u ~ U(0, 1) is one number for each row and g ~ N(0, I).

    Attributes:
        kind: "published" if `sigma` is in the embeddings' own unit, "relative" if it is in units of mean ‖e‖/√dim.
        sigma: deviation of g; the published noise's is 1.
        unit: mean ‖e‖/√dim.
    """

    kind: Literal["published", "relative"]
    sigma: float
    unit: float

    @classmethod
    def of(cls, text: TextEncoder, embeddings: Tensor, asked: float | None = None) -> "Noise":
        """Return the noise for an encoder's captions.

        By default it is the published noise if the encoder has the form of those that it was published for. Other towers'
        embeddings are of other lengths, so theirs is the published noise times mean ‖e‖ / `LENGTH`.

        Args:
            embeddings: (n, dim), on which mean ‖e‖ is measured.
            asked: the strength to use; the default if None.
        """
        unit = embeddings.norm(dim=-1).mean().item() / math.sqrt(text.dim)
        if asked is None and has_form_of_clip(text):
            return cls("published", 1.0, unit)
        return cls("relative", math.sqrt(text.dim) / LENGTH if asked is None else asked, unit)

    @property
    def scale(self) -> float:
        """Factor of u · g."""
        return self.sigma if self.kind == "published" else self.sigma * self.unit

    @property
    def strength(self) -> float:
        """Scale in units of mean ‖e‖/√dim."""
        return self.scale / self.unit

    def to_record(self) -> dict[str, Any]:
        """Return the entry of a model's record."""
        return {"kind": self.kind, "sigma": self.sigma}

    def sentence(self) -> str:
        """Return the noise in words."""
        published = 1 / self.unit
        if self.kind == "published":
            return f"the published noise, {published:.3g} x mean ‖e‖/√dim"
        return f"noise {self.strength:.3g} x mean ‖e‖/√dim (published: {published:.3g})"


def has_form_of_clip(text: TextEncoder) -> bool:
    """Tell whether a text tower is causal and read at the end token, with CLIP's vocabulary and context."""
    facts = text.facts
    sizes = facts.context_length, text.tokenizer.vocab_size
    return facts.causal and facts.pooling == "end" and sizes == (_CLIP_CONTEXT, _CLIP_VOCABULARY)


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
