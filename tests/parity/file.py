"""A parity file: numbers that an original implementation produced on random weights."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, safe_open
from torch import Tensor


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the config and the tensors of a parity file; weights are widened to float32."""
    with safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()["config"])
    tensors = load_file(path)
    return config, {name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest absolute difference of two tensors of one shape."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} instead of {tuple(theirs.shape)}"
    return (ours.detach() - theirs).abs().max().item()
