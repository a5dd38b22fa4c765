"""Fingerprints of a backbone: what an index, a model folder and a query name it by.

A fingerprint of version 2 holds all that decides about a vector: the weights as they were published (before they are
rounded to another precision), the preprocessing of pictures or the tokenizer of texts, and what the weights do not
tell: activation, heads, mask and pooling. Pictures and texts have one each, since an index is made by the picture part.

Version 1 hashed the weights of both towers and the preprocessing alone, so that `gelu` and `quick_gelu` over the same
weights shared one. It is still computed, to recognise what earlier releases made.
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
"""The same activation under the names that libraries give to its module."""


@dataclass(frozen=True)
class EncoderFacts:
    """One side of a backbone, for its fingerprint.

    Attributes:
        weights: names in the state dict that begin so belong to this side.
        facts: what decides about a vector beside the weights, as JSON values.
    """

    weights: tuple[str, ...]
    facts: Mapping[str, Any]


def encoder_fingerprint(side: Literal["picture", "text"], weights: Mapping[str, Tensor], encoder: EncoderFacts) -> str:
    """Hash one encoder: its weights among those of the state dict, as they were published, and its facts."""
    digest = PartsDigest(VERSION, side, json.dumps(encoder.facts, sort_keys=True))
    for name, shape, content in _contents(weights):
        if name.startswith(encoder.weights):
            digest.add(shape).part(len(content)).update(content)
    return digest.hexdigest()


def former_fingerprint(weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]) -> str:
    """Hash a backbone as version 1 did: all weights as they were published, and the preprocessing of pictures."""
    digest = hashlib.sha256(json.dumps(preprocessing, sort_keys=True).encode())
    for _, shape, content in _contents(weights):
        digest.update(shape.encode())
        digest.update(content)
    return digest.hexdigest()


def _contents(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, str, memoryview]]:
    """Name, name with shape, and float32 bytes of each weight, in the order of names."""
    for name, tensor in sorted(weights.items()):
        if tensor.is_floating_point():
            array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
            yield name, f"{name}{tuple(tensor.shape)}", array.reshape(-1).view(np.uint8).data


def module_facts(*modules: nn.Module | None) -> dict[str, Any]:
    """Return what the weights of these modules do not tell: `activations` and `heads`, each kind and number once."""
    parts = [part for module in modules if module is not None for part in module.modules()]
    activations = {
        "gelu_tanh" if getattr(part, "approximate", "none") == "tanh" else _ACTIVATIONS[type(part).__name__]
        for part in parts
        if type(part).__name__ in _ACTIVATIONS
    }
    heads = {part.num_heads for part in parts if isinstance(getattr(part, "num_heads", None), int)}
    return {"activations": sorted(activations), "heads": sorted(heads)}
