"""Protocol of a backbone: a picture encoder and a text encoder that share one space."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cir_vectorizer.backbones.text import TextEncoder
from cir_vectorizer.errors import ModelError

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor


@dataclass(frozen=True)
class BackboneSpec:
    """Specification of a backbone: loader, model name or folder, and the loader's own options.

    Written `loader:name` or `loader:name,key=value,…`, for example
    `open_clip:ViT-L-14-quickgelu,pretrained=openai`.
    """

    loader: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "BackboneSpec":
        """Read `loader:name,key=value`.

        Raises:
            ModelError: an option has no `=`.
        """
        loader, _, rest = text.partition(":")
        name, *pairs = rest.split(",")
        options = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals:
                raise ModelError(f"model {text!r}: option {pair!r} has no value; write {pair}=VALUE")
            options[key.strip()] = value.strip()
        return cls(loader, name, options)

    def __str__(self) -> str:
        return ",".join([f"{self.loader}:{self.name}", *(f"{k}={v}" for k, v in self.options.items())])


class Backbone(Protocol):
    """A frozen dual encoder: a picture encoder, and in `text` the text encoder of the same space.

    Embeddings are (n, dim) float32, projected and **not** normalised.
    """

    spec: BackboneSpec
    dim: int
    text: TextEncoder
    mean_image_norm: float | None
    device: "torch.device"
    dtype: "torch.dtype"

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the picture encoder (hex), which an index records."""
        ...

    @property
    def former_fingerprint(self) -> str:
        """Fingerprint that releases up to 0.1.0 gave to both encoders together (hex)."""
        ...

    @property
    def transform(self) -> "Callable[[Image.Image], Tensor]":
        """`preprocess` as a function that holds no weights, to send to other processes."""
        ...

    def preprocess(self, image: "Image.Image") -> "Tensor":
        """Preprocess an RGB picture: (3, height, width) float32 on the host. Thread-safe."""
        ...

    def encode_images(self, pixels: "Tensor") -> "Tensor":
        """Encode preprocessed pictures: (n, 3, height, width) -> (n, dim)."""
        ...
