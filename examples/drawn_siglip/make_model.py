"""Make a small SigLIP-like model of the drawn shop: sigmoid loss, a text tower without a mask, rows always padded to 64.

    python -m examples.drawn_siglip.make_model [--device cuda]

1. Train a tokenizer on the captions, on general English and on the wordings of edits, so that common words are one token.
2. Draw pictures of every combination except the held-out ones, and write captions; half of them use a line's name.
3. Train both towers with the sigmoid loss, no product twice in a batch.
4. Give all tokens that no caption uses their mean embedding, and scale both projections so that embeddings are `NORM` long
   on average, as `examples.demo.make_tiny` does.
5. Write the folder as open_clip's `push_to_hf_hub` does, load it again, and look for 600 targets of the drawn catalog by
   their captions.
"""

import argparse
import copy
import json
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from open_clip.push_to_hf_hub import save_for_hf
from open_clip.tokenizer import HFTokenizer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

import cir_vectorizer_trainer
from examples.demo.catalog import (
    HELD_OUT,
    SEEN,
    Product,
    caption,
    catalog,
    draw,
    full_caption,
    line_caption,
    queries,
)
from examples.drawn_siglip.tokenizer import common_words, make_tokenizer

FOLDER = Path(__file__).parent / "model"
CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "init_logit_scale": math.log(10),
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 64,
        "layers": 4,
        "width": 192,
        "head_width": 48,
        "patch_size": 8,
        "no_ln_pre": True,
        "attentional_pool": True,
        "attn_pooler_queries": 1,
        "attn_pooler_heads": 4,
        "norm_kwargs": {"eps": 1e-6},
        "act_kwargs": {"approximate": "tanh"},
    },
    "text_cfg": {
        "context_length": 64,
        "hf_tokenizer_name": "drawn-siglip",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 128,
        "heads": 4,
        "layers": 4,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
        "act_kwargs": {"approximate": "tanh"},
    },
}
"""The open_clip model; `vocab_size` is the trained tokenizer's."""
PREPROCESSING = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "resize_mode": "squash"}
NORM = 8.0
IDS, COMMON_WORDS = 6000, 2500
DRAWN_SIZE = 128
TEXTS = 200
WARMUP = 100
PROCESSES = min(16, os.cpu_count() or 1)
TRAINER = Path(cir_vectorizer_trainer.__file__).parent
"""The trainer's package, whose data files hold general captions and the wordings of edits."""


@dataclass(frozen=True)
class World:
    """Pictures and texts of products.

    Attributes:
        pixels: (products, pictures, side, side, 3) uint8.
        rows: (products, 2, texts, context length) ids of captions, and of captions that use a line's name.
    """

    pixels: Tensor
    rows: Tensor

    def to(self, device: torch.device) -> "World":
        return World(self.pixels.to(device), self.rows.to(device))


def general_lines() -> Iterator[str]:
    """Yield common words, general captions, and the wordings of edits with which `train` makes its edits."""
    yield from common_words(COMMON_WORDS)
    yield from (TRAINER / "phi" / "general_captions.txt").read_text(encoding="utf-8").splitlines()
    yield from _texts(json.loads((TRAINER / "edits" / "phrasings.json").read_text(encoding="utf-8"))["en"])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    else:
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def write_texts(products: Sequence[Product], count: int, seed: int) -> list[str]:
    """Write `count` captions and `count` captions that use a line's name for each product, in this order."""
    rng = random.Random(f"siglip/{seed}/texts")
    return [write(product, rng) for product in products for write in (caption, line_caption) for _ in range(count)]


def draw_product(job: tuple[str, Product, int, int]) -> npt.NDArray[np.uint8]:
    """Draw pictures of one product: (count, side, side, 3).

    Args:
        job: the seed, the product, the number of pictures and their side.
    """
    seed, product, count, side = job
    rng = random.Random(seed)
    return np.stack([np.asarray(draw(product, rng, DRAWN_SIZE).resize((side, side), 3)) for _ in range(count)])


def make_world(
    products: Sequence[Product], pictures: int, texts: Sequence[str], tokenizer: HFTokenizer, seed: int
) -> World:
    """Draw `pictures` pictures of each product and tokenise the texts of `write_texts`."""
    side = CONFIG["vision_cfg"]["image_size"]
    jobs = [(f"siglip/{seed}/{at}", product, pictures, side) for at, product in enumerate(products)]
    with ProcessPoolExecutor(PROCESSES) as pool:
        pixels = np.stack(list(pool.map(draw_product, jobs)))
    rows = torch.cat([tokenizer(list(texts[at : at + 10_000])).to(torch.int32) for at in range(0, len(texts), 10_000)])
    return World(torch.from_numpy(pixels), rows.view(len(products), 2, -1, rows.shape[1]))


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """(n, side, side, 3) uint8 -> (n, 3, side, side), normalised, mirrored in half of the cases, zoomed and shifted a little."""
    count = len(pixels)
    zoom = torch.empty(count, 1).uniform_(0.9, 1.1, generator=generator)
    mirror = torch.randint(0, 2, (count, 1), generator=generator) * 2 - 1
    shift = torch.empty(count, 2).uniform_(-0.08, 0.08, generator=generator)
    none = torch.zeros(count, 1)
    places = torch.cat([zoom * mirror, none, shift[:, :1], none, zoom, shift[:, 1:]], 1).view(count, 2, 3)
    planes = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    grid = F.affine_grid(places.to(pixels.device), list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, padding_mode="border", align_corners=False)


def build(vocab_size: int, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """Build the untrained model for a tokenizer of `vocab_size` ids; also return its config."""
    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "vocab_size": vocab_size}}
    torch.manual_seed(seed)
    model = open_clip.CustomTextCLIP(**{name: part for name, part in config.items() if name != "custom_text"})
    open_clip.factory.set_model_preprocess_cfg(model, {"size": model.visual.image_size, **PREPROCESSING})
    return model, config


def train(model: nn.Module, world: World, steps: int, batch: int, lr: float, seed: int) -> list[float]:
    """Train both towers with the sigmoid loss, and return the losses.

    Args:
        world: lies on the model's device.
        batch: number of products in a batch, at most as many as the world has.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    loss_of = open_clip.loss.SigLipLoss()
    device = world.pixels.device
    started, losses = time.monotonic(), []

    def pick(below: int) -> Tensor:
        return torch.randint(below, (len(products),), generator=generator).to(device)

    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        products = torch.randperm(len(world.pixels), generator=generator)[:batch].to(device)
        rows = world.rows[products, pick(2), pick(world.rows.shape[2])].long()
        pictures = augment(world.pixels[products, pick(world.pixels.shape[1])], generator)
        with torch.autocast(device.type, torch.bfloat16):
            embedded, worded = model.encode_image(pictures), model.encode_text(rows)
        images, texts = F.normalize(embedded.float(), dim=-1), F.normalize(worded.float(), dim=-1)
        loss = loss_of(images, texts, model.logit_scale.exp(), model.logit_bias)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        losses.append(loss.detach())
        if step % 100 == 0 or step == steps - 1:
            first = (images @ texts.T).argmax(0) == torch.arange(len(texts), device=device)
            print(
                f"step {step:5}  loss {loss.item():7.4f}  scale {model.logit_scale.exp().item():5.1f}  "
                f"bias {model.logit_bias.item():6.2f}  R@1 in the batch {first.float().mean().item():.3f}  "
                f"{(time.monotonic() - started) / (step + 1):.3f} s a step",
                flush=True,
            )
    return torch.stack(losses).tolist()


@torch.no_grad()
def finish(model: nn.Module, world: World) -> None:
    """Give unused tokens the mean of the used ones' embeddings, and scale the projections to embeddings `NORM` long, in place."""
    embedding = model.text.token_embedding.weight
    used = world.rows.unique().long()
    unused = torch.ones(len(embedding), dtype=torch.bool, device=embedding.device)
    unused[used] = False
    embedding[unused] = embedding[used].mean(0)
    generator = torch.Generator().manual_seed(0)
    picked = torch.randint(len(world.pixels), (2000,), generator=generator).to(world.pixels.device)
    pixels = world.pixels[picked, 0].permute(0, 3, 1, 2).float() / 127.5 - 1
    images, texts = model.encode_image(pixels), model.encode_text(world.rows[picked, 0, 0].long())
    model.visual.proj *= NORM / images.norm(dim=-1).mean()
    for part in (model.text.text_projection.weight, model.text.text_projection.bias):
        part *= NORM / texts.norm(dim=-1).mean()


def save(folder: Path, model: nn.Module, tokenizer: PreTrainedTokenizerFast, config: dict[str, Any]) -> None:
    """Write the folder as open_clip's `push_to_hf_hub` does, in half precision, with `mean_image_norm` in its config."""
    save_for_hf(copy.deepcopy(model).cpu().half(), tokenizer, config, str(folder), safe_serialization=True)
    path = folder / "open_clip_config.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), "mean_image_norm": NORM}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def draw_catalog_picture(job: tuple[int, Product]) -> Image.Image:
    index, product = job
    return draw(product, random.Random(f"7/{index}"))


def draw_catalog(count: int) -> list[Image.Image]:
    """Draw the first `count` pictures of the demo's shop."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        return list(pool.map(draw_catalog_picture, enumerate(catalog(count)), chunksize=50))


@torch.no_grad()
def caption_recall(folder: Path, device: torch.device, pictures: Sequence[Image.Image], count: int) -> dict[str, float]:
    """Look for the targets of the demo's queries by captions that name them; return R@1, R@10, and R@1 of held-out targets.

    The folder is loaded as open_clip loads one that was fetched from the hub.

    Args:
        pictures: those of `draw_catalog`.
        count: number of queries.
    """
    name = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name, device=device)
    model.eval()
    products = catalog(len(pictures))
    pixels = torch.stack([preprocess(picture) for picture in pictures]).to(device)
    index = torch.cat([model.encode_image(part, normalize=True) for part in pixels.split(500)])
    asked = queries(products, count, seed=12)
    rows = open_clip.get_tokenizer(name)([full_caption(query.target) for query in asked])
    similarities = model.encode_text(rows.to(device), normalize=True) @ index.T
    similarities[torch.arange(count), [query.reference for query in asked]] = -math.inf
    ranking = similarities.topk(10).indices.tolist()
    right = np.array([[products[i] == q.target for i in row] for row, q in zip(ranking, asked, strict=True)])
    unseen = np.array([query.target in HELD_OUT for query in asked])
    return {
        "R@1": float(right[:, 0].mean()),
        "R@10": float(right.any(1).mean()),
        "R@1 of held-out targets": float(right[unseen, 0].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=100, help="pictures of each product")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=384, help="products in a batch")
    parser.add_argument("--lr", type=float, default=1e-3)
    arguments = parser.parse_args()
    device, started = torch.device(arguments.device), time.monotonic()

    texts = write_texts(SEEN, TEXTS, arguments.seed)
    text_cfg = CONFIG["text_cfg"]
    tokenizer = make_tokenizer([*texts, *general_lines()], IDS, text_cfg["context_length"])
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(arguments.out)
    reader = HFTokenizer(str(arguments.out), context_length=text_cfg["context_length"], **text_cfg["tokenizer_kwargs"])
    shop = draw_catalog(3000)  # before CUDA starts, with which processes do not mix well
    world = make_world(SEEN, arguments.pictures, texts, reader, arguments.seed).to(device)
    print(
        f"{len(tokenizer):,} ids; {arguments.pictures} pictures of each of {len(SEEN)} products; "
        f"{time.monotonic() - started:.0f} s",
        flush=True,
    )

    model, config = build(len(tokenizer), arguments.seed)
    model.to(device)
    train(model, world, arguments.steps, arguments.batch, arguments.lr, arguments.seed)
    model.eval()
    finish(model, world)
    save(arguments.out, model, tokenizer, config)
    print(f"written to {arguments.out}; {time.monotonic() - started:.0f} s", flush=True)
    for name, value in caption_recall(arguments.out, device, shop, 600).items():
        print(f"by captions, {name}: {value:.3f}")
    print(f"{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
