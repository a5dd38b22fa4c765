"""Fingerprints of a backbone, by which indexes, model folders and queries identify it.

A fingerprint of version 2 covers all that determines a vector: the published weights (before they are rounded to
another precision), the preprocessing of pictures or the tokenizer of texts, and settings that the weights do not show:
activation, heads, mask and pooling. Each encoder has its own, since an index depends on the picture encoder only.

Version 1 hashed only the weights of both towers and the preprocessing, so `gelu` and `quick_gelu` over the same weights
shared a fingerprint. It is still computed, to recognise indexes and model folders of earlier releases.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cir_vectorizer.digests import PartsDigest

VERSION = "cir-vectorizer fingerprint 2"

_ACTIVATIONS = {
    "GELU": "gelu",
    "GELUActivation": "gelu",
    "NewGELUActivation": "gelu_tanh",
    "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
    "QuickGELU": "quick_gelu",
    "QuickGELUActivation": "quick_gelu",
    "ReLU": "relu",
    "SiLU": "silu",
    "SiLUActivation": "silu",
    "Swish": "silu",
    "Hardswish": "hardswish",
}
"""Activations by class name; libraries name the same activation differently."""


@dataclass(frozen=True)
class EncoderFacts:
    """Facts of one encoder of a backbone, for its fingerprint.

    Attributes:
        weights: prefixes of the encoder's names in the state dict.
        facts: settings that determine a vector besides the weights, as JSON values.
    """

    weights: tuple[str, ...]
    facts: Mapping[str, Any]


def encoder_fingerprint(side: Literal["picture", "text"], weights: Mapping[str, Tensor], encoder: EncoderFacts) -> str:
    """Hash one encoder: its facts, and its part of the published `weights` of the backbone."""
    digest = PartsDigest(VERSION, side, json.dumps(encoder.facts, sort_keys=True))
    for name, shape, content in _contents(weights):
        if name.startswith(encoder.weights):
            digest.add(shape).part(len(content)).update(content)
    return digest.hexdigest()


def former_fingerprint(weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]) -> str:
    """Hash a backbone as version 1 did: all published weights, and the preprocessing of pictures."""
    digest = hashlib.sha256(json.dumps(preprocessing, sort_keys=True).encode())
    for _, shape, content in _contents(weights):
        digest.update(shape.encode())
        digest.update(content)
    return digest.hexdigest()


def _contents(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, str, memoryview]]:
    """Yield name, name with shape, and float32 bytes of each weight, sorted by name."""
    for name, tensor in sorted(weights.items()):
        if tensor.is_floating_point():
            array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
            yield name, f"{name}{tuple(tensor.shape)}", array.reshape(-1).view(np.uint8).data


def module_facts(*modules: nn.Module | None) -> dict[str, Any]:
    """Return settings that the modules' weights do not show: the distinct `activations` and numbers of `heads`."""
    parts = [part for module in modules if module is not None for part in module.modules()]
    activations = {
        "gelu_tanh" if getattr(part, "approximate", "none") == "tanh" else _ACTIVATIONS[type(part).__name__]
        for part in parts
        if type(part).__name__ in _ACTIVATIONS
    }
    heads = {part.num_heads for part in parts if isinstance(getattr(part, "num_heads", None), int)}
    return {"activations": sorted(activations), "heads": sorted(heads)}
