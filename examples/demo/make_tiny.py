"""Make the packaged `tiny` model: a small CLIP and its Φ, trained on the drawn shop.

    python -m examples.demo.make_tiny --out first
    python -m examples.demo.make_tiny --start first/clip.safetensors --seed 1 --pictures 30000 --steps 320 --text-steps 700

These commands made the packaged weights.

1. Draw pictures of every combination except the held-out ones.
2. Train both towers on pictures and captions (contrastive, no product twice in a batch); with `--start`, half of the
   captions use a line's name.
3. Keep the image tower and train the text tower alone; half of the captions use a line's name.
4. Scale both projections so that embeddings are `NORM` long on average: cosines stay the same, and the published noise
   of Φ's training suits this encoder.
5. Train Φ on captions alone.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cir_vectorizer import models
from cir_vectorizer.backbones import BackboneSpec, load_backbone, tiny
from cir_vectorizer.backbones import open_clip as open_clip_loader
from cir_vectorizer.backbones.clip import ClipBackbone
from cir_vectorizer.models.published import TINY_FOLDER
from cir_vectorizer_trainer.captions.keywords import BuiltinTagger
from cir_vectorizer_trainer.phi.trainer import Hyperparameters, PhiTrainer
from cir_vectorizer_trainer.phi.training import train as train_phi
from examples.demo.catalog import COLOURS, SEEN, caption, draw, line_caption

CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 192, "head_width": 48, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4},
}
NORM = 8.0
DRAWN_SIZE = 128
Captioner = Callable[[random.Random, int], str]
TextEncoder = Callable[[Sequence[str]], Tensor]
Batches = Callable[[random.Random], tuple[list[str], list[int]]]


def draw_part(job: tuple[str, int]) -> tuple[np.ndarray, list[int]]:
    """Draw pictures of random seen products: (count, 64, 64, 3) uint8, and the products' indices in SEEN.

    Args:
        job: the seed, and the number of pictures.
    """
    part, count = job
    rng = random.Random(part)
    products = [rng.randrange(len(SEEN)) for _ in range(count)]
    side = CONFIG["vision_cfg"]["image_size"]
    return np.stack([np.asarray(draw(SEEN[i], rng, DRAWN_SIZE).resize((side, side), 3)) for i in products]), products


def draw_pictures(count: int, seed: int) -> tuple[np.ndarray, dict[int, list[int]]]:
    """Draw all pictures; also return the rows that show each seen product."""
    with ProcessPoolExecutor() as pool:
        parts = list(pool.map(draw_part, [(f"tiny/{seed}/{part}", 500) for part in range(count // 500)]))
    rows: dict[int, list[int]] = {}
    for row, product in enumerate(i for _, products in parts for i in products):
        rows.setdefault(product, []).append(row)
    return np.concatenate([pixels for pixels, _ in parts]), rows


def normalise(pixels: np.ndarray, backbone: ClipBackbone) -> Tensor:
    """(n, 64, 64, 3) uint8 -> (n, 3, 64, 64), normalised as by the model's own preprocessing."""
    mean, std = (torch.tensor(backbone._preprocessing[name]) for name in ("mean", "std"))
    return ((torch.from_numpy(pixels).float() / 255 - mean) / std).permute(0, 3, 1, 2)


def train(
    texts: TextEncoder,
    parameters: Sequence[nn.Parameter],
    logit_scale: nn.Parameter,
    images: Callable[[list[int]], Tensor],
    batches: Batches,
    steps: int,
    lr: float,
    seed: int,
) -> None:
    """Train `parameters` with a contrastive loss, on the device of `logit_scale`.

    Args:
        texts: embeds texts.
        images: embeds the pictures in the given rows.
        batches: draws the texts of a batch and the row of each one's picture.
    """
    rng = random.Random(seed)
    decayed = [p for p in parameters if p.ndim >= 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": 0.1},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    started = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 60) * 0.5 * (1 + math.cos(math.pi * step / steps))
        captions, pictures = batches(rng)
        with torch.autocast(logit_scale.device.type, torch.bfloat16):
            text_embeddings = texts(captions)
            image_embeddings = images(pictures)
        logits = (
            logit_scale.exp() * F.normalize(image_embeddings.float(), dim=-1) @ F.normalize(text_embeddings, dim=-1).T
        )
        labels = torch.arange(len(captions), device=logits.device)
        loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            logit_scale.clamp_(0, math.log(100))
        if step % 20 == 0 or step == steps - 1:
            rate = (time.monotonic() - started) / (step + 1)
            print(
                f"step {step:4}  loss {loss.item():.4f}  scale {logit_scale.exp().item():.1f}  {rate:.2f} s a step",
                flush=True,
            )


def text_encoder(backbone: ClipBackbone) -> TextEncoder:
    """Return a function that embeds texts with the backbone's text tower."""
    return lambda texts: backbone.text.encode_text([backbone.text.tokenizer.row(text) for text in texts])


def batches(rows_of: dict[int, list[int]], captioner: Captioner, size: int) -> Batches:
    """Return a function that draws batches in which no product occurs twice."""

    def draw_batch(rng: random.Random) -> tuple[list[str], list[int]]:
        products = rng.sample(sorted(rows_of), min(size, len(rows_of)))
        texts = [captioner(rng, product) for product in products]
        return texts, [rng.choice(rows_of[product]) for product in products]

    return draw_batch


@torch.no_grad()
def rescale(model: nn.Module, backbone: ClipBackbone, pictures: Tensor, texts: Sequence[str]) -> None:
    """Scale both projections in place so that the embeddings of either side are `NORM` long on average."""
    model.text_projection *= NORM / text_encoder(backbone)(texts).norm(dim=-1).mean()
    model.visual.proj *= NORM / backbone.encode_images(pictures).norm(dim=-1).mean()


def used_tokens(backbone: ClipBackbone, texts: Sequence[str]) -> Tensor:
    """Return the ids of all tokens in the texts, of start, end, marker and padding, and of the words that queries use."""
    words = [
        *texts,
        *COLOURS,
        "and is has that comes looks takes the form of shows instead not without with no than more less",
    ]
    facts = backbone.text.facts
    ids = {facts.start_id, facts.end_id, facts.marker_id, facts.pad_id}
    for text in words:
        ids.update(backbone.text.tokenizer.row(text).ids)
    return torch.tensor(sorted(ids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=TINY_FOLDER)
    parser.add_argument(
        "--start", type=Path, help="start from these weights (a clip.safetensors) instead of random ones"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=40_000)
    parser.add_argument("--steps", type=int, default=500, help="steps of both towers")
    parser.add_argument("--text-steps", type=int, default=1500, help="steps of the text tower alone")
    parser.add_argument("--phi-steps", type=int, default=800)
    parser.add_argument("--captions", type=int, default=40_000, help="captions drawn for Φ")
    arguments = parser.parse_args()

    pixels, rows_of = draw_pictures(arguments.pictures, arguments.seed)
    print(f"{len(pixels):,} pictures of {len(rows_of)} products", flush=True)
    torch.manual_seed(0)
    model = tiny.read(arguments.start)[0] if arguments.start else tiny.build(CONFIG)
    cpu = torch.device("cpu")
    backbone = open_clip_loader.from_model(BackboneSpec("tiny", ""), model, CONFIG, cpu, torch.float32)
    model.requires_grad_(True)

    def encode(rows: list[int]) -> Tensor:
        return backbone.encode_images(normalise(pixels[rows], backbone))

    def plain(rng: random.Random, i: int) -> str:
        return caption(SEEN[i], rng)

    def either(rng: random.Random, i: int) -> str:
        return (caption if rng.random() < 0.5 else line_caption)(SEEN[i], rng)

    scale, seed = model.logit_scale, arguments.seed
    captioner, lr = (either, 1e-3) if arguments.start else (plain, 1.5e-3)
    both = list(model.parameters())
    train(text_encoder(backbone), both, scale, encode, batches(rows_of, captioner, 256), arguments.steps, lr, seed)

    model.visual.requires_grad_(False)
    with torch.no_grad():
        embedded = torch.cat([encode(list(range(at, min(at + 500, len(pixels))))) for at in range(0, len(pixels), 500)])
    text_side = [p for name, p in model.named_parameters() if not name.startswith("visual.")]

    drawn = batches(rows_of, either, 320)
    train(
        text_encoder(backbone), text_side, scale, lambda rows: embedded[rows], drawn, arguments.text_steps, 1e-3, seed
    )  # fmt: skip

    model.requires_grad_(False)
    rng = random.Random(1)
    captions = list(dict.fromkeys(caption(rng.choice(SEEN), rng) for _ in range(arguments.captions)))
    lines = [line_caption(rng.choice(SEEN), rng) for _ in range(20_000)]
    rescale(model, backbone, normalise(pixels[:2000], backbone), captions[:2000])
    arguments.out.mkdir(parents=True, exist_ok=True)
    tiny.save(arguments.out / "clip.safetensors", model, CONFIG, used_tokens(backbone, captions + lines), NORM)

    packaged = load_backbone(
        BackboneSpec("tiny", "" if arguments.out == TINY_FOLDER else str(arguments.out / "clip.safetensors")), "cpu"
    )
    trainer = PhiTrainer(packaged, captions, BuiltinTagger(), Hyperparameters(batch_size=256, lr=1e-3))
    train_phi(
        trainer, arguments.phi_steps, arguments.out, lambda p: print(p, flush=True) if p.step % 100 == 0 else None
    )
    (arguments.out / "training.pt").unlink()
    print(json.dumps(models.read_record(arguments.out), indent=2))


if __name__ == "__main__":
    main()
