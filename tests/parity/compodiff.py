"""CompoDiff: one evaluation of the network, and whole samples: with the context cached and computed again at every step,
alone and in a batch with unrelated queries."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.compodiff import plain_sample
from cir_vectorizer.composers.compodiff.checkpoint import load_network
from cir_vectorizer.composers.compodiff.network import MASK_SIDE, Network
from cir_vectorizer.composers.compodiff.sampler import Draw, sample
from cir_vectorizer.composers.compodiff.schedule import Schedule, cosine_schedule, times
from tests.parity.file import distance, part

NET_BAR = 1e-5
SAMPLE_BAR = 1e-4
"""Multiplied by the largest output if that is over 1."""

Found = Iterator[tuple[str, float, float]]


def differences(config: dict[str, Any], tensors: dict[str, Tensor]) -> Found:
    """Yield (name, largest absolute difference, bar) for everything recorded."""
    network, schedule = load(config, tensors), cosine_schedule()
    with torch.inference_mode():
        yield from _tables(schedule, tensors)
        if "net.output" in tensors:
            yield from _evaluation(network, tensors)
        if "sample.output" in tensors:
            yield from _samples(network, schedule, config, tensors)


def load(config: dict[str, Any], tensors: dict[str, Tensor]) -> Network:
    """Write a folder in the published layout and read it with the real loader."""
    with tempfile.TemporaryDirectory() as folder:
        published = {
            "embed_dim": config["dim"],
            "model_depth": config["depth"],
            "model_dim": config["dim_head"],
            "model_heads": config["heads"],
            "timesteps": config["timesteps"],
        }
        (Path(folder) / "config.json").write_text(json.dumps(published))
        weights = {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}
        save_file(weights, Path(folder) / "model.safetensors")
        return load_network(Path(folder)).eval()


def _tables(schedule: Schedule, tensors: dict[str, Tensor]) -> Found:
    for name, table in part(tensors, "model.noise_scheduler.").items():
        if hasattr(schedule, name):
            yield f"schedule {name}", distance(getattr(schedule, name), table), NET_BAR


def _conditions(tensors: dict[str, Tensor], count: int, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Text, negative text, image and mask of `count` queries; zeros for those that are not recorded."""
    cond = part(tensors, "cond.")
    image = cond.get("image", torch.zeros(count, 1, dim)).reshape(count, 1, dim)
    mask = cond.get("mask", torch.zeros(count, MASK_SIDE, MASK_SIDE)).float().reshape(count, MASK_SIDE, MASK_SIDE)
    return cond["text"], cond.get("negative_text", torch.zeros_like(cond["text"])), image, mask


def _evaluation(network: Network, tensors: dict[str, Tensor]) -> Found:
    x, theirs = tensors["net.input"].flatten(1), tensors["net.output"].flatten(1)
    text, _, image, mask = _conditions(tensors, len(x), x.shape[1])
    memories = network.remember_whole(text[: len(x)], image[: len(x)], mask[: len(x)])
    at = network.embed_times(tensors["net.time"])
    yield "net.output", distance(network(x, at, memories), theirs), NET_BAR
    yield "net.output, last layer whole", distance(network(x, at, memories, whole=True), theirs), NET_BAR


def _samples(network: Network, schedule: Schedule, config: dict[str, Any], tensors: dict[str, Tensor]) -> Found:
    theirs = tensors["sample.output"]
    bar = SAMPLE_BAR * max(1.0, theirs.abs().max().item())
    count, dim = theirs.shape
    noise = tensors["sample.noise"].flatten(2)
    text, negative, image, mask = _conditions(tensors, count, dim)
    scales = (config["cond_scale"][0], config["cond_scale"][1])
    visited = times(len(noise))[:-1]
    yield "sample.times", float(visited != tensors["sample.times"].tolist()), 0.0

    plain = plain_sample(network, schedule, text, negative, image, mask, noise, scales)
    yield "samples, context anew at every step", distance(plain.view(count, -1, dim).mean(1), theirs), bar

    own = noise.view(len(noise), count, -1, dim)
    referenced = [each if each.any() else None for each in image[:, 0]]
    draws = [Draw(i, count + i, i, referenced[i], *scales, own[:, i]) for i in range(count)]
    states = torch.cat([text, negative])
    together = sample(network, schedule, states, mask, draws).mean(1)
    yield "samples, context remembered", distance(together, theirs), bar
    for i, draw in enumerate(draws):
        alone = sample(network, schedule, states, mask, [draw]).mean(1)
        yield f"sample {i}, alone", distance(alone[0], theirs[i]), bar
    strangers = _strangers(draws, states)
    mixed = [strangers[0], *draws, *strangers[1:]]
    found = sample(network, schedule, states, mask, mixed).mean(1)[1 : 1 + count]
    yield "samples, among strangers with other steps, scales and conditions", distance(found, theirs), bar


def _strangers(draws: list[Draw], states: Tensor) -> list[Draw]:
    """Queries unrelated to the recorded ones: fewer and more steps, other scales, no picture."""
    generator = torch.Generator().manual_seed(1)
    _, samples, dim = draws[0].noise.shape

    def stranger(steps: int, image: Tensor | None, scales: tuple[float, float]) -> Draw:
        noise = torch.randn(steps, samples, dim, generator=generator)
        return Draw(len(states) - 1, 0, 0, image, *scales, noise)

    picture = torch.randn(dim, generator=generator)
    return [stranger(1, picture, (0.0, 3.0)), stranger(4, None, (1.0, 7.5)), stranger(13, picture, (2.5, 1.0))]
