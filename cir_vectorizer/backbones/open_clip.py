"""Backbones of the open_clip library: CLIP, SigLIP, MetaCLIP 2, towers of the transformers library, CoCa and others.

The name is one of open_clip's, `hf-hub:ORG/NAME`, or a folder with `open_clip_config.json`, weights and the tokenizer's
files, as open_clip writes it for the hub.

Options: `pretrained` (a tag, a local weights file, or `random` for untrained weights) and `activation`
(`quick_gelu` or `gelu`), which is required for a local file: the file does not record it, and the wrong one
gives wrong vectors without an error. A folder and a hub name bring both with them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import HF_CONFIG_NAME
from open_clip.factory import HF_HUB_PREFIX, LOCAL_DIR_PREFIX
from torch import nn

from cir_vectorizer.backbones.base import BackboneSpec
from cir_vectorizer.backbones.clip import ClipBackbone, check_options
from cir_vectorizer.backbones.hf_tokenizer import HFTokenizer, check_vocabulary, read_tokenizer
from cir_vectorizer.backbones.open_clip_towers import OpenClipHFTowers, OpenClipTowers
from cir_vectorizer.backbones.text import Pooling, TextFacts
from cir_vectorizer.backbones.tokenizer import ClipTokenizer
from cir_vectorizer.errors import CheckpointError, ModelError, first_line

CLIP_VOCABULARY = 49408


def load(name: str, options: dict[str, str], device: torch.device, dtype: torch.dtype) -> ClipBackbone:
    """Build the open_clip model `name`.

    Raises:
        ModelError: the name or tag is unknown, the tokenizer or the config of its text tower cannot be read or fits
            no text tower that is known here, or the activation is missing or does not fit.
        CheckpointError: a local weights file does not fit the architecture.
    """
    check_options(options, ("pretrained", "activation", "seed"), "open_clip")
    source = _Source.find(name)
    check_text_tower(name, source.config)
    pretrained = options.get("pretrained", "")
    if source.is_library_name or pretrained == "random":
        quick_gelu = _quick_gelu(name, source.config, pretrained, options.get("activation"))
    elif extra := sorted(options.keys() & {"pretrained", "activation", "seed"}):
        raise ModelError(f"{name!r} brings its weights and its activation with it; leave out {extra[0]}")
    else:
        quick_gelu = False  # the config says it
    tokenizer = source.tokenizer()
    if pretrained == "random":
        torch.manual_seed(int(options.get("seed", "0")))
        model = _create(source, None, quick_gelu, device)
    else:
        model = _create(source, pretrained or None, quick_gelu, device)
    spec = BackboneSpec("open_clip", source.recorded_name, options)
    return from_model(spec, model, source.config, device, dtype, source.mean_image_norm, tokenizer)


@dataclass(frozen=True)
class _Source:
    """Place that a model comes from.

    Attributes:
        name: as the user gave it.
        config: `embed_dim`, `vision_cfg`, `text_cfg`.
        folder: the local folder, if it is one.
        mean_image_norm: mean length of unnormalised picture embeddings, if a folder's config says it.
    """

    name: str
    config: Mapping[str, Any]
    folder: Path | None = None
    mean_image_norm: float | None = None

    @classmethod
    def find(cls, name: str) -> "_Source":
        """Raises ModelError if there is no such model."""
        folder = Path(name.removeprefix(LOCAL_DIR_PREFIX))
        if name.startswith(LOCAL_DIR_PREFIX) or (folder / HF_CONFIG_NAME).is_file():
            try:
                content = json.loads((folder / HF_CONFIG_NAME).read_text(encoding="utf-8"))
                config = content["model_cfg"]
                missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ModelError(
                    f"{folder / HF_CONFIG_NAME} cannot be read ({type(error).__name__}: {first_line(error)}); "
                    "copy or download the whole folder again"
                ) from error
            if missing:
                raise ModelError(f"{folder / HF_CONFIG_NAME} lacks model_cfg.{min(missing)}; download the folder again")
            if (folder / "config.json").is_file() and config["text_cfg"].get("hf_model_name"):
                config["text_cfg"]["hf_model_name"] = str(folder)
            return cls(name, config, folder, content.get("mean_image_norm"))
        if Path(name).is_dir():
            raise ModelError(f"folder {name} holds no {HF_CONFIG_NAME}; point at a folder as open_clip writes it")
        try:
            config = open_clip.get_model_config(name)
        except Exception as error:  # no network, no such repository, or a damaged file
            raise ModelError(
                f"open_clip cannot fetch the config of {name!r} ({first_line(error)}); check the name, or with no network "
                "download the repository elsewhere and give its folder"
            ) from error
        if config is None:
            raise ModelError(
                f"open_clip knows no model {name!r}; `python -c 'import open_clip; print(open_clip.list_models())'` lists them"
            )
        return cls(name, config)

    @property
    def is_library_name(self) -> bool:
        """True if the name is one of open_clip's own models, whose weights `pretrained` names."""
        return self.folder is None and not self.name.startswith(HF_HUB_PREFIX)

    @property
    def recorded_name(self) -> str:
        return self.name if self.folder is None else str(self.folder.resolve())

    @property
    def library_name(self) -> str:
        """The name in the library's own form."""
        return self.name if self.folder is None else f"{LOCAL_DIR_PREFIX}{self.folder}"

    def tokenizer(self) -> HFTokenizer | None:
        """Return the tokenizer that the config names; None for CLIP's. Raises ModelError if it cannot be read."""
        text = self.config["text_cfg"]
        if not text.get("hf_tokenizer_name"):
            return None
        read = read_tokenizer(str(self.folder or self.name), lambda: open_clip.get_tokenizer(self.library_name))
        return HFTokenizer(
            read.tokenizer, read.context_length, read.clean_fn, separator_becomes=0 if read.strip_sep_token else None
        )


def from_model(
    spec: BackboneSpec,
    model: nn.Module,
    config: Mapping[str, Any],
    device: torch.device,
    dtype: torch.dtype,
    mean_image_norm: float | None = None,
    tokenizer: HFTokenizer | None = None,
) -> ClipBackbone:
    """Wrap an open_clip model and its config (`embed_dim`, `vision_cfg`, `text_cfg`) as a backbone.

    Args:
        tokenizer: the model's own; None for CLIP's.

    Raises:
        ModelError: the tokenizer does not fit the text tower.
    """
    visual: Any = model.visual
    cfg = open_clip.transform.PreprocessCfg(**(getattr(visual, "preprocess_cfg", None) or {"size": visual.image_size}))
    text_cfg = config["text_cfg"]
    pooling = _pooling(text_cfg, model)
    is_hf = bool(text_cfg.get("hf_model_name"))
    towers = OpenClipHFTowers(model, pooling) if is_hf else OpenClipTowers(model, pooling, text_cfg.get("pad_id", 0))
    rows, width = towers.token_table.shape
    if tokenizer is not None:
        check_vocabulary(spec.name, tokenizer, rows)
    context_length = text_cfg.get("context_length", 77)
    rows_of = tokenizer or ClipTokenizer(context_length)
    text = TextFacts(
        context_length=context_length,
        width=width,
        start_id=rows_of.start_id,
        end_id=rows_of.end_id,
        pad_id=text_cfg.get("pad_id", 0) if tokenizer is None else tokenizer.pad_id,
        marker_id=rows_of.marker_id,
        causal=not (is_hf or text_cfg.get("no_causal_mask", False)),
        pooling=pooling,
        attends_padding=not is_hf,
    )
    transform = open_clip.transform.image_transform_v2(cfg, is_train=False)
    return ClipBackbone(
        spec, towers, text, rows_of, config["embed_dim"], transform, asdict(cfg), device, dtype, mean_image_norm
    )


def _pooling(text_cfg: Mapping[str, Any], model: nn.Module) -> Pooling:
    if text_cfg.get("hf_model_name"):
        pooler = type(model.text.pooler).__name__  # type: ignore[union-attr]
        return "mean" if pooler == "MeanPooler" else "max" if pooler == "MaxPooler" else "first"
    if text_cfg.get("embed_cls"):
        return "last"
    named: Pooling = _POOLINGS[text_cfg.get("pool_type", "argmax")]
    return named


_POOLINGS: Mapping[str, Pooling] = {"argmax": "end", "eos": "end", "first": "first", "last": "last"}


def check_text_tower(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a model whose text cannot be read.

    Raises:
        ModelError: says why.
    """
    text = config.get("text_cfg", {})
    has_tokenizer = bool(text.get("hf_tokenizer_name"))
    if not has_tokenizer and (
        text.get("tokenizer_kwargs") or text.get("vocab_size", CLIP_VOCABULARY) != CLIP_VOCABULARY
    ):
        raise ModelError(
            f"open_clip model {name!r} has a vocabulary of its own and names no tokenizer for it, so its texts cannot be "
            "read; choose another model"
        )
    if text.get("tokenizer_mode"):
        raise ModelError(
            f"open_clip model {name!r} puts a class token after the padding (tokenizer_mode "
            f"{text['tokenizer_mode']!r}), which is not supported; choose another model"
        )
    if not text.get("hf_model_name") and text.get("pool_type", "argmax") not in _POOLINGS:
        raise ModelError(
            f"open_clip model {name!r} does not pool its text (pool_type {text['pool_type']!r}); choose another model"
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


def _create(source: _Source, pretrained: str | None, quick_gelu: bool, device: torch.device) -> nn.Module:
    """Build the model on the CPU, or on the meta device; with random weights if a library name has no `pretrained`."""
    text = {}
    if source.folder:  # its hf_model_name may have become this folder
        text = {"text_cfg": {**source.config["text_cfg"], "hf_model_pretrained": False}}
    required = pretrained is not None or not source.is_library_name
    try:
        model: nn.Module = open_clip.create_model(
            source.library_name,
            pretrained=pretrained,
            device=device if device.type == "meta" else "cpu",
            force_quick_gelu=quick_gelu,
            pretrained_text=False,
            require_pretrained=required,
            **text,
        )
    except Exception as error:  # missing configs and files of another model raise many types
        name = source.name
        if pretrained and Path(pretrained).is_file():
            raise CheckpointError(
                f"{pretrained} is no weights file of open_clip's {name!r}: {first_line(error)}; check the name and the download"
            ) from error
        if source.folder:
            raise CheckpointError(
                f"the weights in {source.folder} cannot be loaded ({first_line(error)}); copy or download the whole folder again"
            ) from error
        fetched = f"weights {pretrained!r} of {name!r}" if pretrained else f"parts of {name!r}"
        raise ModelError(
            f"{fetched} could not be fetched ({first_line(error)}); with no network, download them elsewhere and "
            + ("pass pretrained=FILE" if pretrained else "give the folder")
        ) from error
    return model
