"""Backbones of the open_clip library: every CLIP it can build that reads text with the CLIP tokenizer.

Options: `pretrained` (a tag, a local weights file, or `random` for untrained weights) and `activation`
(`quick_gelu` or `gelu`), which is required for a local file: the file does not record it, and the wrong one
gives wrong vectors without an error.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import open_clip
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from cir_vectorizer.backbones.base import BackboneSpec
from cir_vectorizer.backbones.clip import ClipBackbone, check_options
from cir_vectorizer.backbones.fingerprint import EncoderFacts, module_facts
from cir_vectorizer.backbones.packed import TextTower
from cir_vectorizer.backbones.text import TextFacts
from cir_vectorizer.errors import CheckpointError, ModelError, first_line

CLIP_VOCABULARY = 49408


class OpenClipTowers(nn.Module):
    """Adapter from an open_clip model to the calls of `Towers`."""

    layers = "transformer."
    stacked: ClassVar[dict[str, int]] = {".in_proj_weight": 3}

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.visual: Any = model.visual
        text: Any = getattr(model, "text", model)  # CustomTextCLIP has its text tower in `text`
        self.token_embedding = text.token_embedding
        self.positional_embedding = text.positional_embedding
        self.transformer = text.transformer
        self.ln_final = text.ln_final
        self.text_projection = text.text_projection
        self.attn_mask: Tensor | None
        self.register_buffer("attn_mask", text.attn_mask, persistent=False)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        embeddings: Tensor = self.token_embedding(ids)
        return embeddings

    def encode_tokens(self, embeddings: Tensor, ends: Tensor) -> Tensor:
        length = embeddings.shape[1]
        hidden = embeddings + self.positional_embedding[:length]
        mask = None if self.attn_mask is None else self.attn_mask[:length, :length]
        hidden = self.transformer(hidden, attn_mask=mask)
        return self._project(hidden[torch.arange(len(ends), device=ends.device), ends])

    def text_tower(self) -> TextTower | None:
        blocks = self.transformer.resblocks
        if any(type(block) is not ResidualAttentionBlock for block in blocks):
            return None
        return TextTower(self.positional_embedding, [OpenClipLayer(block) for block in blocks], self._project)

    def _project(self, pooled: Tensor) -> Tensor:
        pooled = self.ln_final(pooled)
        projection = self.text_projection
        projected: Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
        return projected

    def encode_states(self, embeddings: Tensor, ends: Tensor) -> Tensor:
        length = embeddings.shape[1]
        hidden = embeddings + self.positional_embedding[:length]
        padding = torch.arange(length, device=ends.device) > ends[:, None]
        mask = torch.zeros(len(ends), length, length, dtype=hidden.dtype, device=hidden.device)
        if self.attn_mask is not None:
            mask = mask + self.attn_mask[:length, :length]
        mask = mask.masked_fill(padding[:, None, :], float("-inf"))
        for block in self.transformer.resblocks:
            hidden = block(hidden, attn_mask=mask.repeat_interleave(block.attn.num_heads, 0))
        states: Tensor = self.ln_final(hidden)
        return states

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        embeddings: Tensor = self.visual(pixels)
        return embeddings

    def picture_facts(self) -> EncoderFacts:
        pooling = {"pooling": str(getattr(self.visual, "pool_type", "the model's own"))}
        return EncoderFacts(("visual.",), module_facts(self.visual) | pooling)

    def text_facts(self) -> EncoderFacts:
        weights = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
        return EncoderFacts(weights, module_facts(self.transformer))


class OpenClipLayer:
    """A `TextLayer` of open_clip, which keeps the weights of queries, keys and values in one tensor."""

    def __init__(self, block: Any) -> None:
        self.heads: int = block.attn.num_heads
        self.norm = block.ln_1
        self._block = block

    def queries(self, normed: Tensor) -> Tensor:
        attention = self._block.attn
        return F.linear(normed, *(x[: attention.embed_dim] for x in (attention.in_proj_weight, attention.in_proj_bias)))

    def keys_values(self, normed: Tensor) -> Tensor:
        attention = self._block.attn
        return F.linear(normed, *(x[attention.embed_dim :] for x in (attention.in_proj_weight, attention.in_proj_bias)))

    def finish(self, states: Tensor, attended: Tensor) -> Tensor:
        block = self._block
        states = states + block.ls_1(block.attn.out_proj(attended))
        finished: Tensor = states + block.ls_2(block.mlp(block.ln_2(states)))
        return finished


def load(name: str, options: dict[str, str], device: torch.device, dtype: torch.dtype) -> ClipBackbone:
    """Build the open_clip model `name`.

    Raises:
        ModelError: the name or tag is unknown, the tokenizer or text tower is not CLIP's, or the activation is
            missing or does not fit.
        CheckpointError: a local weights file does not fit the architecture.
    """
    check_options(options, ("pretrained", "activation", "seed"), "open_clip")
    config = open_clip.get_model_config(name)
    if config is None:
        raise ModelError(
            f"open_clip knows no model {name!r}; `python -c 'import open_clip; print(open_clip.list_models())'` lists them"
        )
    check_clip_text(name, config)
    pretrained = options.get("pretrained", "")
    quick_gelu = _quick_gelu(name, config, pretrained, options.get("activation"))
    if pretrained == "random":
        torch.manual_seed(int(options.get("seed", "0")))
        model = open_clip.create_model(name, pretrained=None, force_quick_gelu=quick_gelu)
    else:
        model = _create(name, pretrained, quick_gelu)
    return from_model(BackboneSpec("open_clip", name, options), model, config, device, dtype)


def from_model(
    spec: BackboneSpec,
    model: nn.Module,
    config: Mapping[str, Any],
    device: torch.device,
    dtype: torch.dtype,
    mean_image_norm: float | None = None,
) -> ClipBackbone:
    """Wrap an open_clip model and its config (`embed_dim`, `vision_cfg`, `text_cfg`) as a backbone."""
    visual: Any = model.visual
    cfg = open_clip.transform.PreprocessCfg(**(getattr(visual, "preprocess_cfg", None) or {"size": visual.image_size}))
    text_cfg = config["text_cfg"]
    text = TextFacts(
        context_length=text_cfg.get("context_length", 77),
        width=text_cfg.get("width", 512),
        start_id=CLIP_VOCABULARY - 2,
        end_id=CLIP_VOCABULARY - 1,
        pad_id=text_cfg.get("pad_id", 0),
        marker_id=259,
        causal=not text_cfg.get("no_causal_mask", False),
        pooling="end",
    )
    transform = open_clip.transform.image_transform_v2(cfg, is_train=False)
    return ClipBackbone(
        spec, OpenClipTowers(model), text, config["embed_dim"], transform, asdict(cfg), device, dtype, mean_image_norm
    )


def check_clip_text(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a model whose text encoder is not CLIP's.

    Raises:
        ModelError: says what the model uses instead.
    """
    text = config.get("text_cfg", {})
    other = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    if not other and (text.get("tokenizer_kwargs") or text.get("vocab_size", CLIP_VOCABULARY) != CLIP_VOCABULARY):
        other = "a vocabulary of its own"
    if other:
        raise ModelError(
            f"open_clip model {name!r} reads text with {other}, not with the CLIP tokenizer; choose a CLIP such as ViT-B-32"
        )
    if (
        text.get("embed_cls")
        or text.get("pool_type", "argmax") not in ("argmax", "eos")
        or text.get("proj_type") == "none"
    ):
        raise ModelError(
            f"open_clip model {name!r} does not pool its text at the end token as CLIP does; choose a CLIP such as ViT-B-32"
        )


def _quick_gelu(name: str, config: Mapping[str, Any], pretrained: str, activation: str | None) -> bool:
    built_in = bool(config.get("quick_gelu", False))
    if activation not in (None, "gelu", "quick_gelu"):
        raise ModelError(f"activation {activation!r} is unknown; say gelu or quick_gelu")
    asked = built_in if activation is None else activation == "quick_gelu"
    if built_in and not asked:
        raise ModelError(
            f"model {name!r} is built with quick_gelu; drop activation=gelu or use {name.removesuffix('-quickgelu')!r}"
        )
    if pretrained == "random":
        return asked
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not pretrained:
        raise ModelError(
            f"say which weights {name!r} should have: pretrained=TAG ({', '.join(tags) or 'none known'}), a local file, or random"
        )
    if pretrained in tags:
        published = bool(open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu", False))
        if published != asked:
            right, fitting = (
                ("quick_gelu", f"{name.removesuffix('-quickgelu')}-quickgelu")
                if published
                else ("gelu", name.removesuffix("-quickgelu"))
            )
            raise ModelError(
                f"weights {pretrained!r} were trained with {right}; use model {fitting!r} or activation={right}"
            )
    elif not Path(pretrained).is_file():
        raise ModelError(
            f"{name!r} has no weights {pretrained!r}: no such file, and its tags are {', '.join(tags) or 'none'}; "
            "give one of these or a file"
        )
    elif activation is None and not built_in:
        raise ModelError(
            f"{pretrained}: the file does not tell its activation; add activation=quick_gelu (OpenAI's weights) or activation=gelu (most others)"
        )
    return asked


def _create(name: str, pretrained: str, quick_gelu: bool) -> nn.Module:
    try:
        model: nn.Module = open_clip.create_model(
            name, pretrained=pretrained, force_quick_gelu=quick_gelu, require_pretrained=True
        )
    except Exception as error:
        if Path(pretrained).is_file():
            raise CheckpointError(
                f"{pretrained} is no weights file of open_clip's {name!r}: {first_line(error)}; check the name and the download"
            ) from error
        raise ModelError(
            f"weights {pretrained!r} of {name!r} could not be fetched ({first_line(error)}); "
            "with no network, download the file elsewhere and pass pretrained=FILE"
        ) from error
    return model
