"""Masks: which part of the reference picture may change.

A mask is a picture (white where the reference may change) or a box. As in the published CompoDiff, picture and mask are
first squashed to a square; both then go through the same resize and crop, and the masked pixels of the preprocessed
picture are set to zero. Preprocessing subtracts the mean, so zero is the mean colour, roughly grey.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from cir_vectorizer.errors import ImageError
from cir_vectorizer.pictures.images import load_reference
from cir_vectorizer.query import ImageRef, MaskRef
from cir_vectorizer.query.encoded import Limits

SQUARE = 512
MAP_SIDE = 64


class _Preprocesses(Protocol):
    def preprocess(self, image: Image.Image) -> Tensor: ...


@dataclass(frozen=True)
class Mask:
    """A mask as one model sees it.

    Attributes:
        hidden: (height, width) bool, of the model's input: True where the picture may change.
        map: (64, 64) float32 of 0 and 1, the same for CompoDiff's network.
    """

    hidden: Tensor
    map: Tensor

    @property
    def content(self) -> bytes:
        """Bytes of `hidden`, one for each pixel, for the digest of a masked picture."""
        return self.hidden.numpy().tobytes()

    def pixels(self, model: _Preprocesses, image: Image.Image) -> Tensor:
        """Preprocess an RGB picture: (3, height, width), zero where the picture may change."""
        return model.preprocess(_squashed(image)).masked_fill(self.hidden, 0.0)


def nothing_hidden(model: _Preprocesses) -> Mask:
    """Return a mask that hides nothing: the picture is squashed to a square, and all of it stays."""
    shape = model.preprocess(Image.new("RGB", (SQUARE, SQUARE))).shape[1:]
    return Mask(torch.zeros(shape, dtype=torch.bool), torch.zeros(MAP_SIDE, MAP_SIDE))


def load_mask(ref: MaskRef, model: _Preprocesses, limits: Limits, allow_paths: bool) -> Mask:
    """Read a query's mask.

    Raises:
        ImageError: the picture is refused; its sentence begins with "mask".
    """
    if ref.box is not None:
        drawn = Image.new("RGB", (SQUARE, SQUARE))
        left, top, right, bottom = (round(SQUARE * side) for side in ref.box)
        ImageDraw.Draw(drawn).rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), fill="white")
    else:
        try:
            drawn = _squashed(load_reference(ImageRef(**ref.model_dump(exclude={"box"})), limits, allow_paths))
        except ImageError as error:
            raise error.at("mask", said="mask ") from error.__cause__
    black, white = (model.preprocess(Image.new("RGB", (SQUARE, SQUARE), shade))[0] for shade in ("black", "white"))
    hidden = model.preprocess(drawn)[0] > (black + white) / 2
    resized = F.interpolate(hidden.float()[None, None], (MAP_SIDE, MAP_SIDE), mode="bilinear", antialias=True)
    return Mask(hidden, (resized[0, 0] > 0.5).to(torch.float32))


def _squashed(image: Image.Image) -> Image.Image:
    return image.resize((SQUARE, SQUARE), Image.Resampling.BICUBIC)
