"""The noise schedule that CompoDiff was trained with, and the times that its sampler visits."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 1000
_OFFSET = 0.008
_LARGEST_BETA = 0.999


@dataclass(frozen=True)
class Schedule:
    """Tables over the times 0 … 999: computed in float64, rounded to float32, as they were published.

    Attributes:
        alphas_cumprod: (1000,) ᾱ, the share of the clean embedding's variance.
        alphas_cumprod_prev: (1000,) ᾱ one time earlier, 1 before the first.
        sqrt_recip_alphas_cumprod: (1000,) √(1/ᾱ).
        sqrt_recipm1_alphas_cumprod: (1000,) √(1/ᾱ − 1).
    """

    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    sqrt_recip_alphas_cumprod: Tensor
    sqrt_recipm1_alphas_cumprod: Tensor

    def noised(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Add noise to clean embeddings, both (n, dim), at (n,) times."""
        share = self.alphas_cumprod.to(clean)[times][:, None]
        return share.sqrt() * clean + (1 - share).sqrt() * noise


def cosine_schedule() -> Schedule:
    """Return Nichol and Dhariwal's cosine schedule: s = 0.008, 1,000 times, betas clipped at 0.999."""
    at = torch.linspace(0, STEPS, STEPS + 1, dtype=torch.float64) / STEPS
    shape = torch.cos((at + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2
    betas = (1 - shape[1:] / shape[:-1]).clamp(0, _LARGEST_BETA)
    cumprod = torch.cumprod(1 - betas, dim=0)
    previous = torch.cat([torch.ones(1, dtype=torch.float64), cumprod[:-1]])
    return Schedule(cumprod.float(), previous.float(), (1 / cumprod).sqrt().float(), (1 / cumprod - 1).sqrt().float())


def times(evaluations: int) -> list[int]:
    """Return the time of each evaluation of the network, from noise to picture, and −1 at the end.

    Raises:
        ValueError: `evaluations` is not between 1 and 1,000.
    """
    if not 1 <= evaluations <= STEPS:
        raise ValueError(f"{evaluations} evaluations; the schedule has room for 1 to {STEPS}")
    visited = torch.linspace(-1.0, STEPS, evaluations + 2)[:-1].int().tolist()
    return visited[::-1]
