"""Frozen dual encoders behind one protocol.

A loader is an entry point of the group `cir_vectorizer.backbones`: a function
`load(name, options, device, dtype) -> Backbone`. The built-in ones are `open_clip`, `transformers`,
`sentence-transformers` and `tiny`.
"""

from typing import TYPE_CHECKING

from cir_vectorizer import extras
from cir_vectorizer.backbones.base import Backbone, BackboneSpec
from cir_vectorizer.backbones.text import LayerWeight, Pooling, TextEncoder, TextFacts, Tokenizer, TokenRow
from cir_vectorizer.errors import ModelError, first_line

if TYPE_CHECKING:
    import torch

__all__ = [
    "Backbone",
    "BackboneSpec",
    "LayerWeight",
    "Pooling",
    "TextEncoder",
    "TextFacts",
    "TokenRow",
    "Tokenizer",
    "load_backbone",
    "pick_device",
]


def pick_device(device: "str | torch.device | None" = None) -> "torch.device":
    """Return the requested device, or if None or "auto", the first CUDA device, else Apple's, else the CPU.

    Raises:
        ModelError: the device is unknown or not present.
    """
    import torch

    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {device!r} is not usable here ({first_line(error)}); try the device cpu") from error
    return chosen


def load_backbone(
    spec: BackboneSpec, device: "str | torch.device | None" = None, dtype: "torch.dtype | None" = None
) -> Backbone:
    """Load the backbone that `spec` names, frozen and in evaluation mode; its weights are float32 if `dtype` is None.

    Raises:
        ModelError: the loader is unknown or cannot build the model; says what to do.
    """
    import torch

    loaders = extras.plugins("cir_vectorizer.backbones")
    if spec.loader not in loaders:
        raise ModelError(f"no backbone loader {spec.loader!r}; installed are {', '.join(sorted(loaders))}")
    backbone: Backbone = loaders[spec.loader].load()(
        spec.name, dict(spec.options), pick_device(device), dtype or torch.float32
    )
    return backbone
