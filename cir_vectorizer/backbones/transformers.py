"""Backbones of the transformers library: CLIPModel folders or hub names."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2 as transforms

from cir_vectorizer.backbones.base import BackboneSpec, ClipBackbone, TextFacts, check_options
from cir_vectorizer.errors import CheckpointError, ModelError

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3


class TransformersTowers(nn.Module):
    """Adapter from a transformers CLIPModel to the three calls of `Towers`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text_model = model.text_model
        self.vision_model = getattr(model, "vision_model", None)
        self.text_projection = model.text_projection
        self.visual_projection = getattr(model, "visual_projection", None)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        embeddings: Tensor = self.text_model.embeddings.token_embedding(ids)
        return embeddings

    def encode_tokens(self, embeddings: Tensor, ends: Tensor) -> Tensor:
        length = embeddings.shape[1]
        hidden = self.text_model.embeddings(inputs_embeds=embeddings)
        causal = torch.full((1, 1, length, length), float("-inf"), dtype=hidden.dtype, device=hidden.device).triu(1)
        states = self.text_model.encoder(inputs_embeds=hidden, attention_mask=causal).last_hidden_state
        pooled = self.text_model.final_layer_norm(states[torch.arange(len(ends), device=ends.device), ends])
        projected: Tensor = self.text_projection(pooled)
        return projected

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        if self.vision_model is None or self.visual_projection is None:
            raise ModelError("this backbone holds a text tower only; pictures need a whole CLIPModel")
        projected: Tensor = self.visual_projection(self.vision_model(pixel_values=pixels).pooler_output)
        return projected


def load(name: str, options: dict[str, str], device: torch.device, dtype: torch.dtype) -> ClipBackbone:
    """Load the CLIPModel in folder `name`, or of that hub name.

    Raises:
        ModelError: not a CLIP model, or not to be found.
        CheckpointError: its weights do not fit its config.
    """
    check_options(options, (), "transformers")
    from transformers import AutoConfig, CLIPModel

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"no CLIP model at {name!r} ({str(error).splitlines()[0]}); give a folder with config.json, or a hub name and a network"
        ) from error
    if config.model_type != "clip":
        raise ModelError(f"{name!r} is a {config.model_type} model, not a CLIP; choose a CLIPModel")
    try:
        model = CLIPModel.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the weights of {name!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    return from_model(BackboneSpec("transformers", name, options), model, _image_config(name), device, dtype)


def from_model(
    spec: BackboneSpec, model: Any, image_config: dict[str, Any] | None, device: torch.device, dtype: torch.dtype
) -> ClipBackbone:
    """Wrap a transformers CLIPModel; `image_config` is its preprocessor_config.json, None for CLIP's own."""
    text_config = getattr(model.config, "text_config", model.config)
    vision_config = getattr(model.config, "vision_config", None)
    side = getattr(vision_config, "image_size", 224)
    preprocessing = _preprocessing(image_config or {}, side)
    tokenizer_size = 49408
    if text_config.vocab_size != tokenizer_size:
        raise ModelError(f"{spec.name!r} has a vocabulary of {text_config.vocab_size}, not CLIP's {tokenizer_size}")
    text = TextFacts(
        context_length=text_config.max_position_embeddings,
        width=text_config.hidden_size,
        start_id=tokenizer_size - 2,
        end_id=tokenizer_size - 1,
        pad_id=tokenizer_size - 1,
        marker_id=259,
        causal=True,
        pools_at_end=True,
    )
    transform = transforms.Compose(
        [
            transforms.Resize(preprocessing["resize"], transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(preprocessing["crop"]),
            transforms.PILToTensor(),
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize(preprocessing["mean"], preprocessing["std"]),
        ]
    )
    return ClipBackbone(
        spec, TransformersTowers(model), text, model.config.projection_dim, transform, preprocessing, device, dtype
    )


def _image_config(name: str) -> dict[str, Any] | None:
    from transformers.utils import cached_file

    for file_name in ("preprocessor_config.json", "processor_config.json"):
        path = cached_file(name, file_name, _raise_exceptions_for_missing_entries=False)
        if path is not None:
            config: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            inner: dict[str, Any] = config.get("image_processor", config)
            return inner
    return None


def _preprocessing(config: dict[str, Any], side: int) -> dict[str, Any]:
    size, crop = config.get("size", side), config.get("crop_size", side)
    resize = size if isinstance(size, int) else size.get("shortest_edge") or [size["height"], size["width"]]
    if config.get("resample", _BICUBIC) != _BICUBIC:
        raise ModelError(
            "the model's preprocessor_config.json asks for another resampling than bicubic, which CLIP uses"
        )
    return {
        "resize": resize,
        "crop": crop if isinstance(crop, int) else [crop["height"], crop["width"]],
        "mean": list(config.get("image_mean", _CLIP_MEAN)),
        "std": list(config.get("image_std", _CLIP_STD)),
    }
