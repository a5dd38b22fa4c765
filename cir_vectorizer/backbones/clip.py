"""A dual encoder of any library as a backbone: the picture encoder, with the text encoder of clip_text.py beside it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from cir_vectorizer.backbones.base import BackboneSpec
from cir_vectorizer.backbones.clip_text import ClipTextEncoder, TextTowers
from cir_vectorizer.backbones.fingerprint import EncoderFacts, encoder_fingerprint, former_fingerprint
from cir_vectorizer.backbones.text import TextFacts, Tokenizer
from cir_vectorizer.errors import ModelError


class Towers(TextTowers, Protocol):
    """Calls that each library implements in its own way, on an `nn.Module`."""

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Encode pixels: (n, 3, height, width) -> (n, dim), projected."""
        ...

    def picture_facts(self) -> EncoderFacts:
        """Return weights and layers of the picture encoder, for the fingerprint."""
        ...


class ClipBackbone:
    """A dual encoder of any library; the fingerprints and the order of steps are the same for all.

    Args:
        spec: loader, name and options with which it was loaded.
        towers: implements `Towers`.
        text: facts of the text tower.
        tokenizer: builds its rows.
        dim: length of an embedding.
        transform: RGB picture -> (3, height, width) float32.
        preprocessing: settings of `transform` as JSON values, for the fingerprint.
        mean_image_norm: mean length of unnormalised picture embeddings, if known.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        towers: nn.Module,
        text: TextFacts,
        tokenizer: Tokenizer,
        dim: int,
        transform: Callable[[Image.Image], Tensor],
        preprocessing: Mapping[str, Any],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        mean_image_norm: float | None = None,
    ) -> None:
        self.spec = spec
        self.dim = dim
        self.mean_image_norm = mean_image_norm
        self.device = device
        self.dtype = dtype
        ratio = _ratio(spec)
        self._transform = transform if ratio is None else PadThen(ratio, transform)
        self._preprocessing = preprocessing if ratio is None else {**preprocessing, "target_pad": ratio}
        self._towers: Any = towers.requires_grad_(False).eval()
        self.text = ClipTextEncoder(spec, towers, text, dim, device, dtype, tokenizer)
        if dtype != torch.float32:  # compute fingerprints from the published weights, before they are rounded
            _ = self.fingerprint, self.text.fingerprint, self.former_fingerprint
        towers.to(device=device, dtype=dtype)

    @cached_property
    def fingerprint(self) -> str:
        seen = self._towers.picture_facts()
        facts = {**seen.facts, "preprocessing": self._preprocessing}
        return encoder_fingerprint("picture", self._towers.state_dict(), replace(seen, facts=facts))

    @cached_property
    def former_fingerprint(self) -> str:
        return former_fingerprint(self._towers.state_dict(), self._preprocessing)

    @property
    def towers(self) -> Any:
        """The model, with the calls of `Towers`."""
        return self._towers

    @property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        return self._transform

    def preprocess(self, image: Image.Image) -> Tensor:
        return self._transform(image)

    def encode_images(self, pixels: Tensor) -> Tensor:
        embeddings: Tensor = self._towers.encode_pixels(pixels.to(self.device, self.dtype, non_blocking=True))
        return embeddings.float()


class PadThen:
    """Preprocessing that first pads a long picture with black towards a square, as SEARLE's published runs did.

    Args:
        ratio: largest ratio of long to short side that is not padded; 1.25 as published.
        transform: the backbone's own preprocessing, applied afterwards.
    """

    def __init__(self, ratio: float, transform: Callable[[Image.Image], Tensor]) -> None:
        self._ratio = ratio
        self._transform = transform

    def __call__(self, image: Image.Image) -> Tensor:
        least = max(image.size) / self._ratio
        across, down = (max(0, int((least - side) / 2)) for side in image.size)
        padded = ImageOps.expand(image, (across, down, across, down)) if across or down else image
        return self._transform(padded)


def _ratio(spec: BackboneSpec) -> float | None:
    """Return the option `target_pad` of a spec, or None.

    Raises:
        ModelError: it is not a number of at least 1.
    """
    text = spec.options.get("target_pad")
    if text is None:
        return None
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not 1 <= ratio < math.inf:
        raise ModelError(f"{spec}: target_pad is {text!r}; give the longest ratio of sides to keep, such as 1.25")
    return ratio


COMMON_OPTIONS = ("target_pad",)
"""Options that every loader takes."""


def check_options(options: Mapping[str, str], known: Sequence[str], loader: str) -> None:
    """Refuse unknown loader options.

    Raises:
        ModelError: names the option and lists the known ones.
    """
    known = (*known, *COMMON_OPTIONS)
    if unknown := sorted(set(options) - set(known)):
        raise ModelError(f"{loader} knows no option {unknown[0]!r}; it knows {', '.join(known)}")
