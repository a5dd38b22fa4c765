"""Fingerprints of a backbone: what an index, a model folder and a query name it by.

A fingerprint of version 2 holds all that decides about a vector: the weights as they were published (before they are
rounded to another precision), the preprocessing of pictures or the tokenizer of texts, and what the weights do not
tell: activation, heads, mask and pooling. Pictures and texts have one each, since an index is made by the picture part.

Version 1 hashed the weights of both towers and the preprocessing alone, so that `gelu` and `quick_gelu` over the same
weights shared one. It is still computed, to recognise what earlier releases made.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
class Fingerprints:
    """All fingerprints of one backbone, in hexadecimal digits.

    Attributes:
        picture: of the picture encoder; an index is known by it.
        text: of the text encoder and the tokenizer.
        former: version 1, of both together.
    """

    picture: str
    text: str
    former: str


@dataclass(frozen=True)
class EncoderFacts:
    """One side of a backbone, for its fingerprint.

    Attributes:
        weights: names in the state dict that begin so belong to this side.
        facts: what decides about a vector beside the weights, as JSON values.
    """

    weights: tuple[str, ...]
    facts: Mapping[str, Any]


def fingerprints(
    weights: Mapping[str, Tensor], picture: EncoderFacts, text: EncoderFacts, preprocessing: Mapping[str, Any]
) -> Fingerprints:
    """Hash a backbone's weights once for all its fingerprints.

    Args:
        weights: the state dict, in the precision of the file that it was read from.
        preprocessing: of pictures, as version 1 hashed it.
    """
    former = hashlib.sha256(json.dumps(preprocessing, sort_keys=True).encode())
    digests = []
    for side, name in ((picture, "picture"), (text, "text")):
        digests.append(PartsDigest(VERSION, name, json.dumps(side.facts, sort_keys=True)))
    for name, tensor in sorted(weights.items()):
        if not tensor.is_floating_point():
            continue
        shape = f"{name}{tuple(tensor.shape)}"
        content = tensor.detach().to("cpu", torch.float32).contiguous().numpy().reshape(-1).view(np.uint8).data
        former.update(shape.encode())
        former.update(content)
        for side, digest in zip((picture, text), digests, strict=True):
            if name.startswith(side.weights):
                digest.add(shape).part(len(content)).update(content)
    return Fingerprints(digests[0].hexdigest(), digests[1].hexdigest(), former.hexdigest())


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
