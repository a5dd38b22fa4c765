"""Frozen dual encoders behind one protocol.

A loader is an entry point of the group `cir_vectorizer.backbones`: a function
`load(name, options, device, dtype) -> Backbone`. The built-in ones are `open_clip`, `transformers`,
`sentence-transformers` and `tiny`.
"""

import torch

from cir_vectorizer import extras
from cir_vectorizer.backbones.base import Backbone, BackboneSpec, TextFacts, TokenRow
from cir_vectorizer.errors import ModelError, first_line

__all__ = ["Backbone", "BackboneSpec", "TextFacts", "TokenRow", "load_backbone", "pick_device"]


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, else the first CUDA device, else Apple's, else the CPU.

    Raises:
        ModelError: the device is unknown or not present.
    """
    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {device!r} is not usable here ({first_line(error)}); try --device cpu") from error
    return chosen


def load_backbone(
    spec: BackboneSpec, device: str | torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Backbone:
    """Load the backbone that `spec` names, frozen and in evaluation mode.

    Raises:
        ModelError: no such loader, or the loader cannot build the model; says what to do.
    """
    loaders = extras.plugins("cir_vectorizer.backbones")
    if spec.loader not in loaders:
        raise ModelError(f"no backbone loader {spec.loader!r}; installed are {', '.join(sorted(loaders))}")
    backbone: Backbone = loaders[spec.loader].load()(spec.name, dict(spec.options), pick_device(device), dtype)
    return backbone
