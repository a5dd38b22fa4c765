"""Sampling: a pure function of the network, conditions, times and noise.

DDIM with eta 1 and classifier-free guidance over two conditions (the CompoDiff paper, section 4), as in the published
code: where DDIM uses ᾱ of a time, that code uses ᾱ of the time before it, except in the noise prediction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cir_vectorizer.composers.compodiff.network import Network
from cir_vectorizer.composers.compodiff.schedule import Schedule, times

Denoiser = Callable[[Tensor, Tensor, Sequence[Tensor]], Tensor]
"""`Network.forward`, perhaps compiled."""

SIZES = (4, 8, 16, 32, 48)
"""Batch sizes, in contexts, of a compiled network; few, because each needs a program of its own."""


@dataclass(frozen=True)
class Draw:
    """Conditions and noise of one query.

    Attributes:
        text, negative: indices into the batch's texts.
        mask: index into the batch's masks.
        image: (dim,) unnormalised embedding of the reference; None draws from the text alone.
        image_scale, text_scale: guidance.
        noise: (evaluations, samples, dim): row 0 is the start, the others are added after one evaluation each.
            All draws of a batch have the same number of samples.
    """

    text: int
    negative: int
    mask: int
    image: Tensor | None
    image_scale: float
    text_scale: float
    noise: Tensor

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the network."""
        return len(self.noise)


def sample(
    network: Network,
    schedule: Schedule,
    states: Tensor,
    masks: Tensor,
    draws: Sequence[Draw],
    denoise: Denoiser | None = None,
    sizes: Sequence[int] = (),
) -> Tensor:
    """Draw picture embeddings, all draws in one batch; draws with fewer evaluations join later, so all end together.

    Args:
        states: (m, 77, text_width) states of the different texts.
        masks: (k, 64, 64) different masks, 1 where the picture may change.
        denoise: runs in place of the network.
        sizes: allowed batch sizes in contexts, ascending; a batch is padded to the next one. A draw has two contexts,
            or three with a picture. If empty, batches are not padded.

    Returns:
        (draws, samples, dim) unnormalised embeddings, float32.
    """
    order = sorted(range(len(draws)), key=lambda i: -draws[i].evaluations)
    sorted_draws = [draws[i] for i in order]
    guidance = _Guidance(network, states, masks, sorted_draws, network if denoise is None else denoise, sizes)
    tables = _Tables(network, schedule, sorted_draws, states.device)
    x = states.new_empty(0, *draws[0].noise.shape[1:], dtype=torch.float32)
    for left in range(sorted_draws[0].evaluations, 0, -1):
        active = sum(draw.evaluations >= left for draw in sorted_draws)
        starting = [draw.noise[0] for draw in sorted_draws[len(x) : active]]
        x = torch.cat([x, torch.stack(starting)]) if starting else x
        now = tables.at(left, active)
        clean = guidance(x, now.time)
        if left == 1:
            x = clean
            break
        noise = torch.stack([draw.noise[draw.evaluations - left + 1] for draw in sorted_draws[:active]])
        predicted_noise = (now.reciprocal * x - clean) / now.reciprocal_less_one
        x = now.clean_share * clean + now.noise_share * noise + now.direction_share * predicted_noise
    out = torch.empty_like(x)
    out[order] = x
    return out


class _Guidance:
    """The guided prediction: branches, samples and draws in one batch; contexts are remembered once."""

    def __init__(
        self,
        network: Network,
        states: Tensor,
        masks: Tensor,
        draws: Sequence[Draw],
        denoise: Denoiser,
        sizes: Sequence[int],
    ) -> None:
        device = states.device
        images: list[Tensor] = [torch.zeros(1, network.config.dim, device=device)]
        text_of: list[int] = []
        image_of: list[int] = []
        mask_of: list[int] = []
        self._branches: list[tuple[int, int, int]] = []
        """Positions of each draw's contexts: with everything, with the picture only, with nothing."""
        for draw in draws:
            picture = 0
            if draw.image is not None:
                picture = len(images)
                images.append(draw.image.float()[None])
            contexts = [(draw.text, picture), (draw.negative, picture)] + [(draw.negative, 0)] * (picture > 0)
            first = len(text_of)
            self._branches.append((first, first + 1, first + len(contexts) - 1))
            text_of += [text for text, _ in contexts]
            image_of += [image for _, image in contexts]
            mask_of += [draw.mask] * len(contexts)
        self._denoise = denoise
        self._sizes = sizes
        filled = self._size(len(text_of)) - len(text_of)
        text_of, image_of, mask_of = (column + column[-1:] * filled for column in (text_of, image_of, mask_of))
        self._memories = network.remember(
            (network.embed_texts(states), torch.tensor(text_of, device=device)),
            (torch.stack(images).to(network.dtype), torch.tensor(image_of, device=device)),
            (network.embed_masks(masks), torch.tensor(mask_of, device=device)),
        )
        draw_of = [i for i, (a, _, c) in enumerate(self._branches) for _ in range(a, c + 1)]
        self._draw_of = torch.tensor(draw_of + draw_of[-1:] * filled, device=device)
        scales = torch.tensor([(draw.image_scale, draw.text_scale) for draw in draws], device=device)
        self._image_scale, self._text_scale = scales.T[:, :, None, None]
        self._at = torch.tensor(self._branches, device=device)

    def __call__(self, x: Tensor, times: Tensor) -> Tensor:
        """Predict the guided clean embeddings of the first n draws, (n, samples, dim), at times embedded as (n, dim)."""
        n, samples, dim = x.shape
        contexts = self._size(self._branches[n - 1][2] + 1)
        of = self._draw_of[:contexts].clamp(max=n - 1)
        embedded = times[of].repeat_interleave(samples, 0)
        memories = [memory[:, :contexts] for memory in self._memories]
        if self._sizes:
            memories = [memory.contiguous() for memory in memories]  # torch.compile recompiles for new strides
        out = self._denoise(x[of].reshape(-1, dim), embedded, memories).float().view(contexts, samples, dim)
        full, picture, nothing = out[self._at[:n].T]
        guided: Tensor = nothing + (full - picture) * self._text_scale[:n] + (picture - nothing) * self._image_scale[:n]
        return guided

    def _size(self, contexts: int) -> int:
        """Return the smallest size that holds so many contexts; the number itself if there is none."""
        return next((size for size in self._sizes if size >= contexts), contexts)


@dataclass(frozen=True)
class _Now:
    """Coefficients of one step for n draws: `time` is embedded, (n, dim); the others are (n, 1, 1)."""

    time: Tensor
    reciprocal: Tensor
    reciprocal_less_one: Tensor
    clean_share: Tensor
    noise_share: Tensor
    direction_share: Tensor


class _Tables:
    """Coefficients of every step of every draw."""

    def __init__(self, network: Network, schedule: Schedule, draws: Sequence[Draw], device: torch.device) -> None:
        longest = draws[0].evaluations
        visited = torch.full((len(draws), longest + 1), -1)
        for i, draw in enumerate(draws):
            visited[i, longest - draw.evaluations :] = torch.tensor(times(draw.evaluations))
        self._longest = longest
        now, then = visited[:, :-1].clamp(min=0), visited[:, 1:].clamp(min=0)
        a, b = schedule.alphas_cumprod_prev[now], schedule.alphas_cumprod_prev[then]
        noise = ((1 - a / b) * (1 - b) / (1 - a)).clamp(min=0).sqrt()
        direction = (1 - b - noise**2).clamp(min=0).sqrt()
        reciprocal = schedule.sqrt_recip_alphas_cumprod[now]
        columns = (reciprocal, schedule.sqrt_recipm1_alphas_cumprod[now], b.sqrt(), noise, direction)
        different, which = torch.unique(now, return_inverse=True)
        self._time = network.embed_times(different.to(device))[which.to(device)]
        self._numbers = torch.stack(columns).to(device)

    def at(self, left: int, active: int) -> _Now:
        """Return the step with `left` evaluations left, for the first `active` draws."""
        step = self._longest - left
        return _Now(self._time[:active, step], *self._numbers[:, :active, step, None, None])
