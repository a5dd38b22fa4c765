"""Parts of a training step that trainers share."""

import math

import torch
from torch import Tensor, nn

from cir_vectorizer.errors import ModelError


def update_average(average: nn.Module, learnt: nn.Module, decay: float, step: int) -> None:
    """Move a moving average of weights towards those that were learnt, after a step counted from 0.

    The decay rises to `decay`, so that the first weights are soon forgotten.
    """
    averaged: list[Tensor] = list(average.parameters())
    now = [each.detach() for each in learnt.parameters()]
    torch._foreach_lerp_([each.detach() for each in averaged], now, 1 - min(decay, (1 + step) / (10 + step)))


def check_finite(loss: float, step: int) -> None:
    """Check the loss of a step, counted from 0.

    Raises:
        ModelError: it is not finite.
    """
    if not math.isfinite(loss):
        raise ModelError(
            f"the loss is {loss} at step {step + 1:,}; train anew with --overwrite (without --resume) and a lower --lr"
        )
