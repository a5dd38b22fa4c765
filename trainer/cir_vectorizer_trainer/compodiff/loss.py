"""Denoising loss of CompoDiff: the mean squared error of the picture embeddings that the network draws from noise.

The context costs most: every layer attends to all text states (77 with CLIP). So an example is noised several times while its
context is computed once, and a text that several examples of a batch share is projected once.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cir_vectorizer.composers.compodiff.network import MASK_SIDE, Network
from cir_vectorizer.composers.compodiff.schedule import STEPS, Schedule
from cir_vectorizer_trainer.compodiff.denoise import denoise
from cir_vectorizer_trainer.compodiff.examples import Data, Examples, rows_of


@dataclass(frozen=True)
class Batch:
    """Examples with their times, (n, draws), and noises, (n, draws, dim)."""

    examples: Examples
    times: Tensor
    noise: Tensor

    def __getitem__(self, rows: Tensor) -> "Batch":
        return Batch(self.examples[rows], self.times[rows], self.noise[rows])


def draw_noise(examples: Examples, draws: int, dim: int, scale: float, generator: torch.Generator) -> Batch:
    """Draw `draws` times and noises of deviation `scale` for each example.

    The times of an example are spread over the schedule, one in each of `draws` equal parts.
    """
    at = (torch.rand(len(examples), draws, generator=generator) + torch.arange(draws)) / draws
    times = (at * STEPS).long().clamp(max=STEPS - 1)
    noise = torch.randn(*times.shape, dim, generator=generator)
    return Batch(examples, times, scale * noise)


def denoising_losses(network: Network, data: Data, schedule: Schedule, batch: Batch) -> Tensor:
    """Return the mean squared errors of a batch, (n, draws), on the network's device."""
    examples, device = batch.examples, network.project_out.weight.device
    n, draws = batch.times.shape
    text, which_text = torch.unique(examples.text, return_inverse=True)
    mask, which_mask = torch.unique(examples.column("mask"), return_inverse=True)
    target = data.embeddings[examples.target].to(device, torch.float32).repeat_interleave(draws, 0)
    times = batch.times.flatten().to(device)
    noised = schedule.noised(target, batch.noise.flatten(0, 1).to(device), times)
    image = rows_of(data.embeddings, examples.column("reference")).to(device)
    with _autocast(device):
        # index_select, because the gradient of indexing is summed in a random order on several threads
        context = (
            network.embed_texts(_states(data, text).to(device)).index_select(0, which_text.to(device)),
            image.unsqueeze(1),
            network.embed_masks(_masks(data, mask).to(device)).index_select(0, which_mask.to(device)),
        )
        drawn = denoise(network, noised, network.embed_times(times), torch.cat(context, dim=1))
    return (drawn.float() - target).square().mean(1).view(n, draws)


def _states(data: Data, text: Tensor) -> Tensor:
    states = data.states
    return (states[text] if isinstance(states, Tensor) else states(text)).float()


def _masks(data: Data, mask: Tensor) -> Tensor:
    return rows_of(torch.zeros(1, MASK_SIDE, MASK_SIDE) if data.masks is None else data.masks, mask)


def _autocast(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
