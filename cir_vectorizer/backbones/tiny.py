"""The packaged `tiny` backbone: a small CLIP of our own, trained on drawn product pictures.

It is an ordinary open_clip model in a small file: only embeddings of tokens that its captions use are stored,
and all other tokens get the mean of these when it is loaded.
"""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cir_vectorizer.backbones import open_clip as open_clip_loader
from cir_vectorizer.backbones.base import BackboneSpec
from cir_vectorizer.backbones.clip import ClipBackbone, check_options
from cir_vectorizer.errors import CheckpointError, first_line

WEIGHTS = Path(__file__).parent.parent / "weights" / "tiny" / "clip.safetensors"
_EMBEDDING = "token_embedding.weight"


def load(name: str, options: dict[str, str], device: torch.device, dtype: torch.dtype) -> ClipBackbone:
    """Load the packaged weights, or the file `name` in the same format.

    Raises:
        CheckpointError: the file is missing or not of this format.
    """
    check_options(options, (), "tiny")
    model, config = read(Path(name) if name else WEIGHTS)
    mean_image_norm = config.pop("mean_image_norm")
    return open_clip_loader.from_model(
        BackboneSpec("tiny", name, options), model, config, device, dtype, mean_image_norm
    )


def read(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the open_clip model in a file that `save` wrote, and its config with `mean_image_norm`.

    Raises:
        CheckpointError: the file is missing or not of this format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            config: dict[str, Any] = json.loads(file.metadata()["config"])
            weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 - not a dict
    except Exception as error:  # safetensors raises several types for damaged files
        raise CheckpointError(f"{path} cannot be read ({first_line(error)}); install cir-vectorizer again") from error
    used, rows = weights.pop("used_tokens").long(), weights.pop(_EMBEDDING)
    embedding = rows.mean(0).repeat(open_clip_loader.CLIP_VOCABULARY, 1)
    embedding[used] = rows
    model = build({name: part for name, part in config.items() if name != "mean_image_norm"})
    model.load_state_dict({**weights, _EMBEDDING: embedding})
    return model, config


def build(config: dict[str, Any]) -> nn.Module:
    """Build an untrained open_clip model from `config` (`embed_dim`, `vision_cfg`, `text_cfg`)."""
    model: nn.Module = open_clip.CLIP(**config)
    return model


def save(path: Path, model: nn.Module, config: dict[str, Any], used_tokens: Tensor, mean_image_norm: float) -> None:
    """Write a trained model in half precision; `used_tokens` are the ids whose embeddings are kept."""
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    weights[_EMBEDDING] = weights[_EMBEDDING][used_tokens].contiguous()
    metadata = {"config": json.dumps({**config, "mean_image_norm": mean_image_norm})}
    save_file({**weights, "used_tokens": used_tokens.to(torch.int32)}, path, metadata)
    path.chmod(0o644)
