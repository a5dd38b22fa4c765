"""Built-in model names: the packaged `tiny`, and published weights by hub id.

Weights are downloaded once, into `store()`, which has one folder for each name.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from cir_vectorizer.errors import ModelError, first_line
from cir_vectorizer.files import cache_folder

TINY_FOLDER = Path(__file__).parents[1] / "weights" / "tiny"


@dataclass(frozen=True)
class Published:
    """Published weights: their source on the hub, and the composer and backbone that they belong to."""

    composer: str
    backbone: str
    repo: str
    files: tuple[str, ...]
    about: str
    text_backbone: str | None = None
    """Backbone that reads the texts, if it is not the one for pictures."""


PUBLISHED: dict[str, Published] = {
    "lincir-vit-l": Published(
        "lincir",
        "open_clip:ViT-L-14-quickgelu,pretrained=openai",
        "navervision/zeroshot-cir-models",
        ("lincir_large.pt",),
        "LinCIR's published Φ over OpenAI's CLIP ViT-L/14 (CC BY-NC 4.0 weights)",
    ),
    "compodiff-aesthetic": Published(
        "compodiff",
        "open_clip:ViT-L-14-quickgelu,pretrained=openai",
        "navervision/CompoDiff-Aesthetic",
        ("config.json", "pytorch_model.bin"),
        "CompoDiff's published weights over ViT-L/14 pictures and ViT-bigG/14 texts",
        "transformers:laion/CLIP-ViT-bigG-14-laion2B-39B-b160k,tower=text",
    ),
}
"""Published models by name; the published Φ of ViT-H/14 and ViT-bigG/14 are imported as files: `models import`."""


def names() -> list[str]:
    """Return all built-in model names."""
    return ["tiny", *PUBLISHED]


def store() -> Path:
    """Return the folder of downloaded models: $CIR_MODELS, else cir-vectorizer/models in the user's cache folder."""
    if folder := os.environ.get("CIR_MODELS"):
        return Path(folder)
    return cache_folder() / "models"


def fetch(name: str) -> list[Path]:
    """Return a published model's files in the store; missing ones are downloaded from the hub, with a progress bar.

    Raises:
        ModelError: the name is unknown, or there is no network; then the message says which file to put where.
    """
    if name not in PUBLISHED:
        raise ModelError(f"no published model {name!r}; there are {', '.join(PUBLISHED)}")
    entry = PUBLISHED[name]
    folder = store() / name
    paths = [folder / file for file in entry.files]
    for file, path in zip(entry.files, paths, strict=True):
        if path.is_file():
            continue
        from huggingface_hub import hf_hub_download

        try:
            hf_hub_download(entry.repo, file, local_dir=folder)
        except Exception as error:  # the hub library raises errors of requests, of httpx and of its own
            raise ModelError(
                f"{file} of {name!r} could not be fetched from the hub ({first_line(error)}); "
                f"download it elsewhere from {entry.repo} and put it at {path}"
            ) from error
    return paths
