"""Print for every model configuration of open_clip whether it is taken, and compare the smallest of each family.

    python -m benchmarks.open_clip_models [--compare]

Every configuration is built without memory for its weights. With `--compare`, the smallest of each family runs at random
weights: vectors of twenty texts and two pictures beside those of open_clip's own `encode_text` and `encode_image`.
Tokenizers and text configs of the hub are made here, so no network is needed.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    _CACHE = tempfile.TemporaryDirectory()
    os.environ.update(HF_HUB_CACHE=_CACHE.name, HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

import open_clip
import torch
from PIL import Image

from benchmarks.made_encoders import TEXTS, fill_hub
from cir_vectorizer.backbones import BackboneSpec, load_backbone
from cir_vectorizer.errors import ModelError, first_line

SMALLEST = [
    "RN50", "ViT-B-32", "convnext_base", "EVA02-B-16", "ViTamin-S", "MobileCLIP-S1", "MobileCLIP-B", "PE-Core-T-16-384",
    "coca_ViT-B-32", "coca_roberta-ViT-B-32", "roberta-ViT-B-32", "xlm-roberta-base-ViT-B-32", "mt5-base-ViT-B-32",
    "nllb-clip-base", "nllb-clip-base-siglip", "ViT-B-16-SigLIP", "ViT-B-16-SigLIP-i18n-256", "ViT-B-32-SigLIP2-256",
    "ViT-L-14-CLIPA", "ViT-L-14-worldwide", "ViT-H-14-worldwide",
]  # fmt: skip
"""The smallest model of each family, by how its text tower attends, pools, projects and tokenises."""


def hub_names(names: Sequence[str]) -> list[str]:
    """Return the hub repositories that the configs of these models name."""
    texts = [open_clip.get_model_config(name)["text_cfg"] for name in names]
    wanted = {text.get(key) for text in texts for key in ("hf_tokenizer_name", "hf_model_name")}
    return sorted(wanted - {None, ""})


def taken(name: str) -> str | None:
    """Return None if the model is taken, else the reason why it isn't."""
    try:
        with torch.device("meta"):
            load_backbone(BackboneSpec("open_clip", name, {"pretrained": "random"}), "meta")
    except ModelError as error:
        return first_line(error)
    return None


def differences(name: str) -> tuple[float, float]:
    """Return the largest difference of texts' and of pictures' vectors to open_clip's own, per length of a vector."""
    backbone = load_backbone(BackboneSpec("open_clip", name, {"pretrained": "random"}), "cpu")
    torch.manual_seed(0)
    model: Any = open_clip.create_model(name, pretrained=None, pretrained_text=False).eval()
    pictures = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (90, 70, 3), dtype=np.uint8)) for i in (0, 1)]
    cfg = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    transform = open_clip.transform.image_transform_v2(cfg, is_train=False)
    with torch.no_grad():
        texts = model.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=False)
        ours = backbone.text.encode_text([backbone.text.tokenizer.row(text) for text in TEXTS])
        seen = model.encode_image(torch.stack([transform(picture) for picture in pictures]), normalize=False)
        our_seen = backbone.encode_images(torch.stack([backbone.preprocess(picture) for picture in pictures]))
    return _difference(ours, texts), _difference(our_seen, seen)


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.norm(dim=-1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", action="store_true", help="run the smallest of each family")
    parser.add_argument("--only", nargs="*", help="compare these models instead")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # open_clip says of each model that it has no weights
    names = open_clip.list_models()
    fill_hub(Path(_CACHE.name), hub_names(names))
    refused = {}
    for name in names:
        refused[name] = taken(name)
        print(f"{name:40} {refused[name] or 'taken'}", flush=True)
    print(f"{sum(reason is None for reason in refused.values())} of {len(names)} taken")
    for name in (arguments.only or SMALLEST) if arguments.compare or arguments.only else ():
        began = time.monotonic()
        texts, pictures = differences(name)
        print(f"{name:40} texts {texts:.1e}, pictures {pictures:.1e} ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
