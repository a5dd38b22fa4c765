"""CLIP models of the sentence-transformers library: their inner CLIPModel is the backbone."""

from typing import Any

import torch

from cir_vectorizer.backbones import transformers
from cir_vectorizer.backbones.base import BackboneSpec
from cir_vectorizer.backbones.clip import ClipBackbone, check_options
from cir_vectorizer.errors import ModelError, first_line


def load(name: str, options: dict[str, str], device: torch.device, dtype: torch.dtype) -> ClipBackbone:
    """Load the sentence-transformers model `name` (a folder or hub name, for example `clip-ViT-B-32`).

    Raises:
        ModelError: the model cannot be found, or it contains no CLIPModel.
    """
    check_options(options, (), "sentence-transformers")
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPModel

    try:
        model = SentenceTransformer(name, device="cpu")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"no sentence-transformers model {name!r} ({first_line(error)}); give its folder, or a hub name and a network"
        ) from error
    inner = next((module for module in model.modules() if isinstance(module, CLIPModel)), None)
    if inner is None:
        raise ModelError(
            f"{name!r} contains no CLIPModel; choose one of the clip-ViT models, for example clip-ViT-B-32"
        )
    spec = BackboneSpec("sentence-transformers", name, options)
    return transformers.from_model(spec, inner.float(), _image_config(model), device, dtype)


def _image_config(model: Any) -> dict[str, Any] | None:
    processor = getattr(model[0], "processor", None)
    image_processor = getattr(processor, "image_processor", processor)
    config: dict[str, Any] | None = image_processor.to_dict() if image_processor is not None else None
    return config
