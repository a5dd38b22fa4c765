"""Backbones of the transformers library, from folders or hub names: CLIP, MetaCLIP 2, SigLIP, SigLIP 2, Chinese-CLIP,
AltCLIP, and pairs of any two encoders (VisionTextDualEncoderModel)."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms import v2 as transforms

from cir_vectorizer.backbones.base import BackboneSpec
from cir_vectorizer.backbones.clip import ClipBackbone, check_options
from cir_vectorizer.backbones.tokenizer import ClipTokenizer
from cir_vectorizer.backbones.transformers_text import KINDS, TextPart, clip_pad_id, text_part
from cir_vectorizer.errors import CheckpointError, ModelError, first_line

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC, _BILINEAR = 3, 2


def load(name: str, options: dict[str, str], device: torch.device, dtype: torch.dtype) -> ClipBackbone:
    """Load the model in folder `name`, or of that hub name; with the option `tower=text`, only a CLIP's text tower.

    Raises:
        ModelError: the model or its tokenizer cannot be found, or it is of no kind that is known here.
        CheckpointError: its weights do not fit its config.
    """
    check_options(options, ("tower",), "transformers")
    if options.get("tower", "text") != "text":
        raise ModelError(f"tower={options['tower']}: say tower=text for the text tower alone, or leave it out")
    from transformers import AutoConfig, AutoModel, CLIPTextModelWithProjection

    try:
        config = AutoConfig.from_pretrained(name)
    except Exception as error:  # a malformed config raises many types
        raise ModelError(
            f"no CLIP model at {name!r} ({first_line(error)}); give a folder with config.json, or a hub name and a network"
        ) from error
    only_text = "tower" in options
    if config.model_type not in KINDS:
        raise ModelError(
            f"{name!r} is a {config.model_type} model, not a CLIP or another model of pictures and texts; the kinds that "
            f"can be read are {', '.join(KINDS)}"
        )
    if only_text and config.model_type not in ("clip", "clip_text_model"):
        raise ModelError(f"tower=text is for CLIP only, and {name!r} is a {config.model_type} model; leave it out")
    if config.model_type == "clip_text_model" and not only_text:
        raise ModelError(f"{name!r} is a text tower only; add tower=text, or choose a whole CLIPModel")
    try:
        kind: Any = CLIPTextModelWithProjection if only_text else AutoModel
        if only_text and config.model_type == "clip":
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
            f"{type(model).__name__}; download them again, or add tower=text where only texts are to be read"
        )
    spec = BackboneSpec("transformers", name, options)
    text = text_part(name, model)
    if isinstance(text.tokenizer, ClipTokenizer):  # its own files may say another padding, which fingerprints cover
        text = replace(text, facts=replace(text.facts, pad_id=clip_pad_id(name)))
    return from_model(spec, model, _image_config(name), device, dtype, text)


def from_model(
    spec: BackboneSpec,
    model: Any,
    image_config: dict[str, Any] | None,
    device: torch.device,
    dtype: torch.dtype,
    text: TextPart | None = None,
) -> ClipBackbone:
    """Wrap a transformers model of pictures and texts.

    Args:
        image_config: its preprocessor_config.json; None for CLIP's own.
        text: a text tower that takes the place of the model's own; None for that.

    Raises:
        ModelError: the config, the preprocessing or the tokenizer does not fit the model.
    """
    text = text or text_part(spec.name, model)
    vision_config = getattr(model.config, "vision_config", None)
    side = _side(vision_config)
    preprocessing = _preprocessing(spec.name, image_config or {}, side)
    if vision_config is not None and preprocessing["crop"] not in (side, [side, side]):
        raise ModelError(
            f"the preprocessing of {spec.name!r} makes pictures of {preprocessing['crop']} pixels, and the model takes "
            f"{side}; put the preprocessor_config.json that belongs to the model into its folder"
        )
    bicubic = preprocessing.get("resample", _BICUBIC) == _BICUBIC
    transform = transforms.Compose(
        [
            transforms.Resize(
                preprocessing["resize"],
                transforms.InterpolationMode.BICUBIC if bicubic else transforms.InterpolationMode.BILINEAR,
            ),
            transforms.CenterCrop(preprocessing["crop"]),
            transforms.PILToTensor(),
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize(preprocessing["mean"], preprocessing["std"]),
        ]
    )
    return ClipBackbone(
        spec,
        text.towers,
        text.facts,
        text.tokenizer,
        text.dim,
        transform,
        preprocessing,
        device,
        dtype,
    )


def _side(vision_config: Any) -> int:
    """Return the side in pixels of the pictures that the model takes; SigLIP 2 for any ratio of sides takes squares."""
    if getattr(vision_config, "num_patches", None) and not getattr(vision_config, "image_size", None):
        return int(math.sqrt(vision_config.num_patches)) * int(vision_config.patch_size)
    return int(getattr(vision_config, "image_size", 224))


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
    resample = config.get("resample", _BICUBIC)
    if resample not in (_BICUBIC, _BILINEAR):
        raise ModelError(
            "the model's preprocessor_config.json asks for another resampling than bicubic or bilinear; correct it if it "
            "is wrong, else choose another model"
        )
    mean, std = list(config.get("image_mean", _CLIP_MEAN)), list(config.get("image_std", _CLIP_STD))
    if not len(mean) == len(std) == 3 or not all(math.isfinite(each) for each in mean) or not all(s > 0 for s in std):
        raise ValueError("image_mean and image_std must be three numbers each, and std above 0")
    crop = crop if isinstance(crop, int) else [crop["height"], crop["width"]]
    bilinear = {"resample": resample} if resample == _BILINEAR else {}  # left out for CLIP: in indexes' fingerprints
    return {"resize": resize, "crop": crop, "mean": mean, "std": std, **bilinear}
