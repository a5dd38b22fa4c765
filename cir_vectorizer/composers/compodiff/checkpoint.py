"""Weights of CompoDiff's network in the published layout: a folder with config.json and a state dict.

Our own weights are written under the published names too, so that the original code could read them.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cir_vectorizer.composers.checkpoints import read_weights
from cir_vectorizer.composers.compodiff.network import Network, NetworkConfig
from cir_vectorizer.composers.compodiff.schedule import cosine_schedule
from cir_vectorizer.errors import CheckpointError

PREFIX = "model.net."
_SCHEDULE_PREFIX = "model.noise_scheduler."

_PUBLISHED_NAMES = (
    ("layers.", "transformer.layers."),
    (".self_attention.", ".0."),
    (".cross_attention.", ".1."),
    (".feed_forward.norm.", ".2.0."),
    (".feed_forward.inner.", ".2.1."),
    (".feed_forward.outer.", ".2.5."),
    (".to_out.", ".to_out.0."),
    (".out_norm.", ".to_out.1."),
    (".rotary", ".rotary_emb.freqs"),
    ("time_mlp.", "to_time_embeds.0.1.net."),
    ("mask_mlp.", "to_mask_embeds.1.net."),
    (".net.0.", ".net.0.0."),
    (".net.2.", ".net.1.0."),
    (".net.4.", ".net.2."),
    ("text_projection.", "to_text_embeds.0."),
    ("relative_bias.", "transformer.rel_pos_bias.relative_attention_bias."),
)
"""Part of our name -> the same part of the published name; applied in order."""


def published_name(name: str) -> str:
    """Return a parameter's name in published checkpoints, without `PREFIX`."""
    for ours, theirs in _PUBLISHED_NAMES:
        name = name.replace(ours, theirs, 1)
    return f"transformer.{name}" if name.startswith(("norm.", "project_out.")) else name


def save_network(path: Path, network: Network, dtype: torch.dtype = torch.float32) -> None:
    """Write the network's weights as safetensors under the published names."""
    weights = {
        PREFIX + published_name(name): tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in network.state_dict().items()
    }
    save_file(weights, path)


def load_network(source: Path, config: Mapping[str, Any] | None = None) -> Network:
    """Load the network from a weights file, or from a folder of the published layout (weights sharded or not).

    Args:
        config: `NetworkConfig.to_record()`; None reads the published config.json in the folder.

    Raises:
        CheckpointError: a file is missing, truncated or foreign, or a weight has another shape; it is named.
    """
    weights = {
        name.removeprefix(PREFIX): tensor.float()
        for name, tensor in _read(source).items()
        if not name.startswith(_SCHEDULE_PREFIX) or _check_table(source, name, tensor)
    }
    if "to_text_embeds.0.weight" not in weights:
        raise CheckpointError(
            f"{source} is no CompoDiff: it holds {', '.join(sorted(weights)[:3]) or 'nothing'}, …; check the file"
        )
    text_width = weights["to_text_embeds.0.weight"].shape[1]
    network = Network(_config(source, config, text_width))
    wanted = {published_name(name): (name, tensor) for name, tensor in network.state_dict().items()}
    if missing := sorted(wanted.keys() - weights):
        raise CheckpointError(f"{source} lacks {missing[0]} and {len(missing) - 1} more; download it again")
    if unknown := sorted(weights.keys() - wanted):
        raise CheckpointError(
            f"{source} holds {unknown[0]}, which this network has not (and {len(unknown) - 1} more); check its config"
        )
    for name, (_, tensor) in wanted.items():
        if weights[name].shape != tensor.shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(weights[name].shape)}, its config asks for {tuple(tensor.shape)}; "
                "take the config and the weights of one model"
            )
    network.load_state_dict({ours: weights[name] for name, (ours, _) in wanted.items()})
    return network


def _config(source: Path, config: Mapping[str, Any] | None, text_width: int) -> NetworkConfig:
    path = source / "config.json"
    try:
        if config is None:
            theirs = json.loads(path.read_text(encoding="utf-8"))
            found = NetworkConfig(
                theirs["embed_dim"], theirs["model_depth"], theirs["model_heads"], theirs["model_dim"], text_width
            )
        else:
            found = NetworkConfig(**config)
    except OSError as error:
        raise CheckpointError(f"{path} not found; a CompoDiff folder holds config.json beside its weights") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path if config is None else source}: its config is not CompoDiff's ({type(error).__name__}: {error}); "
            "it needs embed_dim, model_depth, model_dim and model_heads"
        ) from error
    if not isinstance(found.noise_scale, int | float) or not 0 < found.noise_scale < math.inf:
        raise CheckpointError(f"{source}: its config has noise_scale {found.noise_scale!r}; give a positive number")
    sizes = (found.dim, found.depth, found.heads, found.head_dim)
    if any(not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= 16_384 for size in sizes):
        raise CheckpointError(f"{source}: its config has sizes {sizes}, which no CompoDiff has; check config.json")
    return found


def _read(source: Path) -> dict[str, Tensor]:
    if not source.is_dir():
        return _read_file(source)
    for stem in ("model.safetensors", "pytorch_model.bin"):
        index = source / f"{stem}.index.json"
        if index.is_file():
            return _read_shards(index)
        if (source / stem).is_file():
            return _read_file(source / stem)
    raise CheckpointError(f"{source} holds no weights; put model.safetensors or pytorch_model.bin there")


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of shards ({error}); download it again") from error
    if outside := [file for file in files if Path(file).name != file]:
        raise CheckpointError(f"{index} names {outside[0]!r}, which is outside its folder; download it again")
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= _read_file(index.parent / file)
    return weights


def _read_file(path: Path) -> dict[str, Tensor]:
    return {str(name): tensor for name, tensor in read_weights(path).items() if isinstance(tensor, Tensor)}


def _check_table(source: Path, name: str, tensor: Tensor) -> bool:
    """Check that a noise table of the file equals ours. Always returns False, because the file's table is never used."""
    ours = getattr(cosine_schedule(), name.removeprefix(_SCHEDULE_PREFIX), None)
    if ours is not None and (
        tensor.shape != ours.shape or not torch.allclose(tensor.float(), ours, rtol=1e-2, atol=1e-3)
    ):
        raise CheckpointError(
            f"{source}: {name} is another noise schedule than the cosine one over {len(ours)} times; "
            "only that one is supported"
        )
    return False
