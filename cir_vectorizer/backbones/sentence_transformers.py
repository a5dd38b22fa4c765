"""Backbones of the sentence-transformers library.

A model is either a dual encoder such as `clip-ViT-B-32`, or a text encoder in the space of one, such as
`clip-ViT-B-32-multilingual-v1`; the option `pictures` then names that dual encoder.
"""

from typing import Any

import torch
from torch import Tensor, nn

from cir_vectorizer.backbones import transformers
from cir_vectorizer.backbones.base import BackboneSpec
from cir_vectorizer.backbones.clip import ClipBackbone, check_options
from cir_vectorizer.backbones.hf_tokenizer import HFTokenizer
from cir_vectorizer.backbones.text import Pooling
from cir_vectorizer.backbones.transformers_text import KINDS, TextPart, bidirectional
from cir_vectorizer.errors import ModelError, first_line

_POOLINGS: dict[str, Pooling] = {"mean": "mean", "max": "max", "cls": "first"}


def load(name: str, options: dict[str, str], device: torch.device, dtype: torch.dtype) -> ClipBackbone:
    """Load the sentence-transformers model `name` (a folder or hub name, for example `clip-ViT-B-32`).

    Raises:
        ModelError: the model cannot be found, it is neither a dual encoder nor a text encoder that can be read, or
            `pictures` is missing or has embeddings of another length.
    """
    check_options(options, ("pictures",), "sentence-transformers")
    spec = BackboneSpec("sentence-transformers", name, options)
    model = _read(name)
    inner = _dual_encoder(model)
    if inner is not None:
        if "pictures" in options:
            raise ModelError(f"{name!r} encodes pictures itself; leave out pictures")
        return transformers.from_model(spec, inner.float(), _image_config(model), device, dtype)
    if "pictures" not in options:
        raise ModelError(
            f"{name!r} contains no CLIPModel and reads texts only; add pictures=NAME, the model whose space its texts are "
            "in, or choose one of the clip-ViT models, for example clip-ViT-B-32"
        )
    other = _read(options["pictures"])
    pictures = _dual_encoder(other)
    if pictures is None:
        raise ModelError(f"pictures={options['pictures']} encodes no pictures; name a model such as clip-ViT-B-32")
    text = _text_part(name, model, pictures.float())
    dim = getattr(pictures.config, "projection_dim", None) or pictures.config.vision_config.hidden_size
    if text.dim != dim:
        raise ModelError(
            f"{name!r} makes embeddings of {text.dim} numbers, and pictures={options['pictures']} of {dim}; name the model "
            "whose space its texts are in"
        )
    return transformers.from_model(spec, pictures, _image_config(other), device, dtype, text)


def _read(name: str) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(name, device="cpu")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"no sentence-transformers model {name!r} ({first_line(error)}); give its folder, or a hub name and a network"
        ) from error


def _dual_encoder(model: Any) -> Any | None:
    """Return the model of pictures and texts inside, if there is one."""
    for module in model.modules():
        if hasattr(module, "vision_model") and getattr(getattr(module, "config", None), "model_type", None) in KINDS:
            return module
    return None


class _Head(nn.Module):
    """Modules after the pooling, up to the one that normalises."""

    def __init__(self, modules: list[Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, pooled: Tensor) -> Tensor:
        features = {"sentence_embedding": pooled}
        for part in self.parts:
            features = part(features)
        return features["sentence_embedding"]


def _text_part(name: str, model: Any, pictures: Any) -> TextPart:
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    parts = list(model)
    kinds = [type(part).__name__ for part in parts]
    if len(parts) < 2 or not isinstance(parts[0], Transformer) or not isinstance(parts[1], Pooling):
        raise ModelError(f"{name!r} consists of {', '.join(kinds)}; a transformer and a pooling must come first")
    mode = str(parts[1].pooling_mode)
    if mode not in _POOLINGS:
        raise ModelError(f"{name!r} pools by {mode}, and only {', '.join(_POOLINGS)} are known; choose another model")
    pool = parts[1]

    def pooled(output: Any, mask: Tensor) -> Tensor:
        features: Tensor = pool({"token_embeddings": output.last_hidden_state, "attention_mask": mask})[
            "sentence_embedding"
        ]
        return features

    rest = [part for part in parts[2:] if not isinstance(part, Normalize)]  # its length is needed, too
    tokenizer = HFTokenizer(parts[0].tokenizer, parts[0].max_seq_length, str.lower if parts[0].do_lower_case else None)
    dim = model.get_sentence_embedding_dimension()
    encoder = parts[0].auto_model.float()
    return bidirectional(name, pictures, encoder, _Head(rest), _POOLINGS[mode], dim, pooled, tokenizer)


def _image_config(model: Any) -> dict[str, Any] | None:
    processor = getattr(model[0], "processor", None)
    image_processor = getattr(processor, "image_processor", processor)
    config: dict[str, Any] | None = image_processor.to_dict() if image_processor is not None else None
    return config
