"""Built-in model names: the packaged `tiny`, and published weights by hub id.

Weights that are fetched live in `store()`, one folder a name, and are read from there ever after.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from cir_vectorizer.errors import ModelError, first_line

TINY_FOLDER = Path(__file__).parents[1] / "weights" / "tiny"


@dataclass(frozen=True)
class Published:
    """Where published weights come from, and what they belong to."""

    composer: str
    backbone: str
    repo: str
    files: tuple[str, ...]
    about: str
    text_backbone: str | None = None
    """Where texts are read by another model than the pictures."""


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
"""The trained Φ of ViT-H/14 and ViT-bigG/14 load as files: `cir-vectorizer models import`."""


def names() -> list[str]:
    """All built-in model names."""
    return ["tiny", *PUBLISHED]


def store() -> Path:
    """Folder of fetched models: $CIR_MODELS, else cir-vectorizer/models in the user's cache folder."""
    if folder := os.environ.get("CIR_MODELS"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cir-vectorizer" / "models"


def fetch(name: str) -> list[Path]:
    """The files of a published model in the store, fetched from the hub (with a progress bar) where missing.

    Raises:
        ModelError: unknown name; or no network, and then says which file to put where.
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
        except Exception as error:  # the hub library raises requests', httpx's and its own kinds
            raise ModelError(
                f"{file} of {name!r} could not be fetched from the hub ({first_line(error)}); "
                f"download it elsewhere from {entry.repo} and put it at {path}"
            ) from error
    return paths
