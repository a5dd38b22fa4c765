"""Sizes and work of the recommended encoders, counted without their weights.

    python -m benchmarks.encoders

Each configuration of open_clip is built on PyTorch's meta device, which holds no numbers: so it needs no network and little
memory. The work is the number of multiplications of the picture tower for one picture.
"""

from dataclasses import dataclass
from unittest import mock

import open_clip
import torch
from open_clip import hf_model
from open_clip.model import CLIP, CustomTextCLIP
from torch.utils.flop_counter import FlopCounterMode
from transformers import PretrainedConfig, XLMRobertaConfig

from cir_vectorizer.models.recommended import RECOMMENDED, SPEEDS

XLM_R = {"vocab_size": 250_002, "max_position_embeddings": 514, "type_vocab_size": 1}
HUB: dict[str, PretrainedConfig] = {"xlm-roberta-base": XLMRobertaConfig(**XLM_R)}
"""Configurations of text towers that open_clip would fetch from the hub."""


@dataclass(frozen=True)
class Counted:
    """Parameters of both towers, and multiplications for a picture, in billions."""

    parameters: int
    multiplications: float

    @property
    def speed(self) -> str:
        """Class of its speed."""
        return next(speed for most, speed in SPEEDS if self.multiplications <= most)


def count(config: str) -> Counted:
    """Count the parameters and the work of an open_clip configuration."""
    settings = open_clip.get_model_config(config)
    hub_tower = "hf_model_name" in settings["text_cfg"]
    kind = CustomTextCLIP if settings.pop("custom_text", False) or hub_tower else CLIP
    with torch.device("meta"), mock.patch.object(hf_model.AutoConfig, "from_pretrained", HUB.get):
        settings["text_cfg"]["hf_model_pretrained"] = False
        model = kind(**settings).eval().requires_grad_(False)
    sides = model.visual.image_size
    height, width = sides if isinstance(sides, tuple) else (sides, sides)
    with FlopCounterMode(display=False) as counter:
        model.encode_image(torch.zeros(1, 3, height, width, device="meta"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Counted(parameters, counter.get_total_flops() / 2e9)


def main() -> None:
    for encoder in RECOMMENDED:
        counted = count(encoder.config)
        print(
            f"{counted.parameters / 1e6:7,.0f} M  {counted.multiplications:7.1f} G  {counted.speed:10} {encoder.name}",
            flush=True,
        )


if __name__ == "__main__":
    main()
