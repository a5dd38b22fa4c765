"""Benchmark of the sampler against a plain version of the published one, at the published size.

    python -m benchmarks.compodiff [--queries 1 16] [--evaluations 9] [--repeats 3]

Both use random weights, float32, the CPU and the same noise. The plain version puts its branches and samples in one
batch, as published, and computes the context's keys and values at every evaluation. Runs of the two alternate; the
ratio is that of the median times. Two limits of the ratio are also printed: by the number of multiply-adds, and by the
weights that are read from memory.
"""

import argparse
import copy
import statistics
import time
from itertools import pairwise

import torch
from torch import Tensor

from cir_vectorizer.composers.compodiff.network import CROSS_HEADS, Network, NetworkConfig
from cir_vectorizer.composers.compodiff.sampler import Draw, sample
from cir_vectorizer.composers.compodiff.schedule import Schedule, cosine_schedule, times

SAMPLES = 2
SCALES = (1.5, 7.5)
TEXT_TOKENS = 77
CONTEXT = TEXT_TOKENS + 2


def plain_sample(
    network: Network,
    schedule: Schedule,
    states: Tensor,
    negative_states: Tensor,
    images: Tensor,
    masks: Tensor,
    noise: Tensor,
    scales: tuple[float, float],
) -> Tensor:
    """Run the published sampler, written plainly: it remembers nothing between evaluations.

    Args:
        states, negative_states: (n, 77, text_width).
        images: (n, 1, dim) unnormalised.
        masks: (n, 64, 64).
        noise: (evaluations, n · samples, dim); a query's samples are neighbours.
        scales: guidance of the image and of the text.

    Returns:
        (n · samples, dim) unnormalised.
    """
    evaluations, rows, _ = noise.shape
    samples = rows // len(states)
    text, negative, image, mask = (
        each.repeat_interleave(samples, 0) for each in (states, negative_states, images, masks)
    )
    conditions = (
        torch.cat([text, negative, negative]),
        torch.cat([image, image, torch.zeros_like(image)]),
        torch.cat([mask, mask, mask]),
    )
    visited = times(evaluations)
    x = noise[0]
    for step, (now, then) in enumerate(pairwise(visited)):
        at = network.embed_times(torch.full((3 * rows,), now))
        out = network(x.repeat(3, 1), at, network.remember_whole(*conditions), whole=True)
        full, picture, nothing = out.chunk(3)
        clean = nothing + (full - picture) * scales[1] + (picture - nothing) * scales[0]
        if then < 0:
            return clean
        predicted = (schedule.sqrt_recip_alphas_cumprod[now] * x - clean) / schedule.sqrt_recipm1_alphas_cumprod[now]
        a, b = schedule.alphas_cumprod_prev[now], schedule.alphas_cumprod_prev[then]
        c1 = ((1 - a / b) * (1 - b) / (1 - a)).sqrt()
        c2 = (1 - b - c1**2).sqrt()
        x = clean * b.sqrt() + c1 * noise[step + 1] + c2 * predicted
    raise AssertionError("the last time is −1")


def multiply_adds(config: NetworkConfig, evaluations: int) -> tuple[int, int]:
    """Return the multiply-adds for one query of the plain version and of our sampler."""
    dim, inner, cross = config.dim, config.heads * config.head_dim, CROSS_HEADS * config.head_dim
    attention = 2 * dim * inner + 2 * dim * cross + 2 * CONTEXT * cross
    token = attention + 12 * dim**2
    both = 2 * token + 2 * 2 * dim * config.head_dim
    remembered = 2 * dim * cross
    last = token + 2 * 2 * dim * config.head_dim
    prepared = dim * (config.text_width * TEXT_TOKENS + 2 * 64**2)
    rows = 3 * SAMPLES
    plain = evaluations * rows * (config.depth * (both + CONTEXT * remembered) + prepared)
    context = 2 * TEXT_TOKENS + 2 + 1
    ours = evaluations * rows * ((config.depth - 1) * both + last) + config.depth * context * remembered + 2 * prepared
    return plain, ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--evaluations", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = NetworkConfig()
    network = Network(config).eval().requires_grad_(False)
    weights = sum(each.numel() for each in network.parameters())
    evaluations = arguments.evaluations
    plain, ours = multiply_adds(config, evaluations)
    print(f"published size: {weights / 1e6:.0f} M weights, {evaluations} evaluations, {arguments.threads} threads")
    print(
        f"multiply-adds a query: plain {plain / 1e9:.1f} G, ours {ours / 1e9:.1f} G: at most {plain / ours:.1f} times"
    )
    print(
        f"weights read for a query alone in its batch: {weights * 4 * evaluations / 1e9:.1f} GB in both; reading them "
        "takes longer than the remaining arithmetic"
    )
    for queries in arguments.queries:
        compare(network, queries, evaluations, arguments.repeats)


@torch.inference_mode()
def compare(network: Network, queries: int, evaluations: int, repeats: int) -> None:
    """Print both times, their ratio and the largest difference of the results."""
    config = network.config
    schedule = cosine_schedule()
    packed = copy.deepcopy(network).pack()
    states, negative = torch.randn(2, queries, TEXT_TOKENS, config.text_width)
    images = 10 * torch.nn.functional.normalize(torch.randn(queries, 1, config.dim), dim=-1)
    masks = torch.zeros(queries, 64, 64)
    noise = torch.randn(evaluations, queries * SAMPLES, config.dim)

    def run_plain() -> Tensor:
        found = plain_sample(network, schedule, states, negative, images, masks, noise, SCALES)
        return found.view(queries, SAMPLES, config.dim)

    def run_ours() -> Tensor:
        own = noise.view(evaluations, queries, SAMPLES, config.dim)
        draws = [Draw(i, queries + i, 0, images[i, 0], *SCALES, own[:, i]) for i in range(queries)]
        return sample(packed, schedule, torch.cat([states, negative]), masks[:1], draws)

    theirs, found = run_plain(), run_ours()
    difference = (theirs - found).abs().max().item() / max(1.0, theirs.abs().max().item())
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(repeats):
        for name, run in (("plain", run_plain), ("ours", run_ours)):
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    plain, ours = (statistics.median(seconds[name]) for name in ("plain", "ours"))
    wanted = 2.5 if queries == 1 else 3.3
    print(
        f"{queries:3} queries: plain {plain / queries:.3f} s a query, ours {ours / queries:.3f}: "
        f"{plain / ours:.2f} times ({wanted} wanted); largest difference {difference:.1e} (1e-04 allowed)"
    )


if __name__ == "__main__":
    main()
