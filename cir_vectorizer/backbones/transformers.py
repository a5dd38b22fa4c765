"""Backbones of the transformers library: CLIPModel folders or hub names."""

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.transforms import v2 as transforms

from cir_vectorizer.backbones.base import BackboneSpec
from cir_vectorizer.backbones.clip import ClipBackbone, check_options
from cir_vectorizer.backbones.fingerprint import EncoderFacts, module_facts
from cir_vectorizer.backbones.packed import TextTower
from cir_vectorizer.backbones.text import TextFacts
from cir_vectorizer.errors import CheckpointError, ModelError, first_line

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3
END_ID = 49407
"""CLIP's end token; most of its tokenizers also pad with it."""


class TransformersTowers(nn.Module):
    """Adapter from a transformers CLIPModel to the calls of `Towers`."""

    layers = "text_model.encoder."
    stacked: ClassVar[dict[str, int]] = {}

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
        return self._project(states[torch.arange(len(ends), device=ends.device), ends])

    def text_tower(self) -> TextTower:
        positions = self.text_model.embeddings.position_embedding.weight
        layers = [TransformersLayer(layer) for layer in self.text_model.encoder.layers]
        return TextTower(positions, layers, self._project)

    def _project(self, pooled: Tensor) -> Tensor:
        projected: Tensor = self.text_projection(self.text_model.final_layer_norm(pooled))
        return projected

    def encode_states(self, embeddings: Tensor, ends: Tensor) -> Tensor:
        length = embeddings.shape[1]
        hidden = self.text_model.embeddings(inputs_embeds=embeddings)
        at = torch.arange(length, device=ends.device)
        hides = (at > at[:, None]) | (at > ends[:, None, None])
        mask = torch.zeros(len(ends), 1, length, length, dtype=hidden.dtype, device=hidden.device)
        mask = mask.masked_fill(hides[:, None], float("-inf"))
        states: Tensor = self.text_model.encoder(inputs_embeds=hidden, attention_mask=mask).last_hidden_state
        normed: Tensor = self.text_model.final_layer_norm(states)
        return normed

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        if self.vision_model is None or self.visual_projection is None:
            raise ModelError("this backbone holds a text tower only; pictures need a whole CLIPModel")
        projected: Tensor = self.visual_projection(self.vision_model(pixel_values=pixels).pooler_output)
        return projected

    def picture_facts(self) -> EncoderFacts:
        return EncoderFacts(
            ("vision_model.", "visual_projection."), module_facts(self.vision_model) | {"pooling": "first"}
        )

    def text_facts(self) -> EncoderFacts:
        return EncoderFacts(("text_model.", "text_projection."), module_facts(self.text_model))


class TransformersLayer:
    """A `TextLayer` of transformers."""

    def __init__(self, layer: Any) -> None:
        self.heads: int = layer.self_attn.num_heads
        self.norm = layer.layer_norm1
        self.queries = layer.self_attn.q_proj
        self._layer = layer

    def keys_values(self, normed: Tensor) -> Tensor:
        attention = self._layer.self_attn
        return torch.cat([attention.k_proj(normed), attention.v_proj(normed)], -1)

    def finish(self, states: Tensor, attended: Tensor) -> Tensor:
        states = states + self._layer.self_attn.out_proj(attended)
        finished: Tensor = states + self._layer.mlp(self._layer.layer_norm2(states))
        return finished


def load(name: str, options: dict[str, str], device: torch.device, dtype: torch.dtype) -> ClipBackbone:
    """Load the CLIPModel in folder `name`, or of that hub name; with the option `tower=text`, only its text tower.

    Raises:
        ModelError: the model cannot be found or is not a CLIP.
        CheckpointError: its weights do not fit its config.
    """
    check_options(options, ("tower",), "transformers")
    if options.get("tower", "text") != "text":
        raise ModelError(f"tower={options['tower']}: say tower=text for the text tower alone, or leave it out")
    from transformers import AutoConfig, CLIPModel, CLIPTextModelWithProjection

    try:
        config = AutoConfig.from_pretrained(name)
    except Exception as error:  # a malformed config raises many types
        raise ModelError(
            f"no CLIP model at {name!r} ({first_line(error)}); give a folder with config.json, or a hub name and a network"
        ) from error
    if config.model_type not in ("clip", "clip_text_model"):
        raise ModelError(f"{name!r} is a {config.model_type} model, not a CLIP; choose a CLIPModel")
    try:
        kind: Any = CLIPTextModelWithProjection if "tower" in options else CLIPModel
        if "tower" in options and config.model_type == "clip":
            config.text_config.projection_dim = config.projection_dim  # the text config alone may have another
            config = config.text_config
        model, loaded = kind.from_pretrained(name, config=config, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # files of another model raise many types
        raise CheckpointError(
            f"the weights of {name!r} cannot be loaded ({first_line(error)}); download them again"
        ) from error
    if missing := sorted(loaded["missing_keys"]):
        raise CheckpointError(
            f"the weights of {name!r} lack {missing[0]} and {len(missing) - 1} more, so they are not a whole "
            f"{kind.__name__}; download them again, or add tower=text where only texts are to be read"
        )
    spec = BackboneSpec("transformers", name, options)
    return from_model(spec, model, _image_config(name), device, dtype, _pad_id(name))


def from_model(
    spec: BackboneSpec,
    model: Any,
    image_config: dict[str, Any] | None,
    device: torch.device,
    dtype: torch.dtype,
    pad_id: int = END_ID,
) -> ClipBackbone:
    """Wrap a transformers CLIPModel; `image_config` is its preprocessor_config.json, None for CLIP's own.

    Raises:
        ModelError: the config, the preprocessing or the tokenizer does not fit the model.
    """
    text_config = getattr(model.config, "text_config", model.config)
    vision_config = getattr(model.config, "vision_config", None)
    side = getattr(vision_config, "image_size", 224)
    preprocessing = _preprocessing(spec.name, image_config or {}, side)
    if not 0 <= pad_id < text_config.vocab_size:
        raise ModelError(
            f"the tokenizer of {spec.name!r} pads with id {pad_id}, and the model has {text_config.vocab_size} token "
            "embeddings; put the tokenizer files that belong to the model into its folder"
        )
    if vision_config is not None and preprocessing["crop"] not in (side, [side, side]):
        raise ModelError(
            f"the preprocessing of {spec.name!r} makes pictures of {preprocessing['crop']} pixels, and the model takes "
            f"{side}; put the preprocessor_config.json that belongs to the model into its folder"
        )
    if text_config.vocab_size != END_ID + 1:
        raise ModelError(
            f"{spec.name!r} has a vocabulary of {text_config.vocab_size}, not CLIP's {END_ID + 1}; choose a CLIP"
        )
    text = TextFacts(
        context_length=text_config.max_position_embeddings,
        width=text_config.hidden_size,
        start_id=END_ID - 1,
        end_id=END_ID,
        pad_id=pad_id,
        marker_id=259,
        causal=True,
        pooling="end",
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


def _pad_id(name: str) -> int:
    """Return the pad id of the model's own tokenizer, or CLIP's end token if it has none."""
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(name)
    except (OSError, ValueError, TypeError):
        return END_ID
    return END_ID if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


def _image_config(name: str) -> dict[str, Any] | None:
    from transformers.utils import cached_file

    for file_name in ("preprocessor_config.json", "processor_config.json"):
        path = cached_file(name, file_name, _raise_exceptions_for_missing_entries=False)
        if path is not None:
            try:
                config: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
                inner: dict[str, Any] = config.get("image_processor", config)
            except (OSError, ValueError, AttributeError) as error:
                raise ModelError(f"{path} is no JSON object ({first_line(error)}); download it again") from error
            return inner
    return None


def _preprocessing(name: str, config: dict[str, Any], side: int) -> dict[str, Any]:
    try:
        return _read_preprocessing(config, side)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"the preprocessing of {name!r} cannot be read ({type(error).__name__}: {error}); its "
            "preprocessor_config.json must have size, crop_size, image_mean and image_std as CLIP's has them"
        ) from error


def _read_preprocessing(config: dict[str, Any], side: int) -> dict[str, Any]:
    size, crop = config.get("size", side), config.get("crop_size", side)
    resize = size if isinstance(size, int) else size.get("shortest_edge") or [size["height"], size["width"]]
    if config.get("resample", _BICUBIC) != _BICUBIC:
        raise ModelError(
            "the model's preprocessor_config.json asks for another resampling than bicubic, which CLIP uses; correct it if "
            "it is wrong, else choose another model"
        )
    mean, std = list(config.get("image_mean", _CLIP_MEAN)), list(config.get("image_std", _CLIP_STD))
    if not len(mean) == len(std) == 3 or not all(math.isfinite(each) for each in mean) or not all(s > 0 for s in std):
        raise ValueError("image_mean and image_std must be three numbers each, and std above 0")
    crop = crop if isinstance(crop, int) else [crop["height"], crop["width"]]
    return {"resize": resize, "crop": crop, "mean": mean, "std": std}
