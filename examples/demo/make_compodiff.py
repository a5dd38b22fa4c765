"""Make the packaged CompoDiff of `tiny`: both stages, on triplets, captions and masked pictures of the drawn shop.

    python -m examples.demo.make_compodiff --out first --strange 0 --drift 0.3 --prior-steps 400 --steps 5600
    python -m examples.demo.make_compodiff --start first --out second --drift 0.3 --prior-steps 0 --steps 2000 --lr 7e-4
    python -m examples.demo.make_compodiff --start second --prior-steps 0 --steps 1500 --lr 7e-4

These commands made the packaged weights.

1. Draw pictures of every combination except the held-out ones, some beside a distraction that a mask hides; embed them.
2. Write texts: captions; edits in many wordings (none of those that the demo's queries use), with random filler words,
   because words that it never read confuse a small text tower.
3. Train stage 1 and stage 2, choose the knobs on the demo's validation queries, and add the composer to the model folder.
"""

import argparse
import itertools
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cir_vectorizer.backbones import TokenRow
from cir_vectorizer.composers.compodiff.checkpoint import load_network, save_network
from cir_vectorizer.composers.compodiff.composer import CompoDiff
from cir_vectorizer.composers.compodiff.knobs import Knobs
from cir_vectorizer.composers.compodiff.network import Network, NetworkConfig
from cir_vectorizer.models import load, read_record, save
from cir_vectorizer.models.published import TINY_FOLDER
from cir_vectorizer.models.vectorizer import Vectorizer
from cir_vectorizer.pictures.masks import load_mask
from cir_vectorizer.query import MaskRef
from cir_vectorizer.query.encoded import DEFAULT_LIMITS
from cir_vectorizer_trainer.compodiff.examples import Data, Examples
from cir_vectorizer_trainer.compodiff.folder import noise_scale
from cir_vectorizer_trainer.compodiff.trainer import CompoDiffTrainer, Hyperparameters
from examples.demo.catalog import (
    SEEN,
    Box,
    Product,
    Transition,
    caption,
    catalog,
    changes,
    draw,
    draw_scene,
    pictures,
    queries,
)
from examples.demo.evaluate import composed_vectors, embed_drawn, score, unit
from examples.demo.harder import VALUES

CONFIG = NetworkConfig(dim=128, depth=4, heads=8, head_dim=32, text_width=128)
HYPERPARAMETERS = Hyperparameters(
    batch_size=96, draws=4, lr=1.5e-3, ema=0.999, shares=(0.2, 0.55, 0.25), validate_every=500
)
PICTURES_A_PRODUCT, SCENES, BOXES = 20, 7000, 5000
TRIPLETS, CAPTIONS, EDITS_A_SCENE = 80_000, 20_000, 3
DRIFT = 0.5
SAMPLES = 4
"""Embeddings drawn and averaged for a query: for this small network a mean of four is better than one of two."""
DRAWN_SIZE = 128
_SEEN = frozenset(SEEN)

_WORDS = {
    "plain": (("plain", "solid"), ("no pattern", "a plain finish")),
    "striped": (("striped", "stripy"), ("stripes", "a striped pattern")),
    "dotted": (("dotted", "polka dot"), ("dots", "a dotted pattern")),
    "checked": (("checked", "checkered"), ("checks", "a checked pattern")),
}
_FORMS = ("{n}", "in {n} instead of {o}", "{n} instead of {o}", "{n}, not {o}", "the same but {n}", "{n} this time",
          "change the {a} to {n}", "make it {n}", "{a}: {n}", "i want it {n}", "same thing, {n}", "in {n}")  # fmt: skip
_OWN_FORMS = {
    "colour": ("{n} colour", "a {n} one", "painted {n}", "of {n} colour"),
    "pattern": ("with {w}", "having {w}", "{w} instead", "a {n} one", "covered in {w}", "with {n} pattern"),
    "category": ("as a {n}", "a {n} like this", "turn it into a {n}", "the same look on a {n}", "a {n} with this look"),
}
_OPEN_FORMS = ("in a different {a}", "another {a}", "a different {a}", "with another {a}", "change the {a}")
_FILLERS = (
    "please maybe now this one but just i want would like it to be make really rather looking for something similar "
    "version same product thing style my your give me with still only also should could very quite pretty nice need "
    "prefer exactly actually more less than instead about again get find search see let us can you do have turn go "
    "perhaps today here then simply kindly thanks hello think better best good new next item piece kind sort such as "
    "more less than more less than"
).split()


def edit(product: Product, rng: random.Random) -> tuple[str, Product]:
    """Draw an edit of a product: its text, and the product asked for. It changes one or two attributes; some texts do not
    say the new value."""
    names = list(VALUES)
    kind = rng.random()
    if kind < 0.2:
        name = rng.choice(names)
        return _filled(rng.choice(_OPEN_FORMS).format(a=name), rng), _changed(product, name, rng)
    target, parts = product, []
    for name in rng.sample(names, 2 if kind < 0.3 else 1):
        old, target = getattr(target, name), _changed(target, name, rng)
        parts.append(_phrase(name, old, getattr(target, name), rng))
    return _filled(", ".join(parts), rng), target


def _changed(product: Product, name: str, rng: random.Random) -> Product:
    value = rng.choice([value for value in VALUES[name] if value != getattr(product, name)])
    return replace(product, **{name: value})


def _phrase(name: str, old: str, new: str, rng: random.Random) -> str:
    said = {value: rng.choice(_WORDS[value][0]) if name == "pattern" else value for value in (old, new)}
    noun = rng.choice(_WORDS[new][1]) if name == "pattern" else ""
    form = rng.choice(_FORMS if rng.random() < 0.6 else _OWN_FORMS[name])
    return form.format(n=said[new], o=said[old], a=name, w=noun).replace("a umbrella", "an umbrella")


def _filled(text: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return text
    before, after = rng.choice(((1, 0), (2, 0), (1, 0), (3, 0), (0, 1), (1, 1)))
    return " ".join([*rng.choices(_FILLERS, k=before), text, *rng.choices(_FILLERS, k=after)])


def partial_caption(product: Product, rng: random.Random) -> str:
    """Describe a product by one or two of its attributes, so that several looks fit."""
    colour, pattern, category = product.colour, rng.choice(_WORDS[product.pattern][0]), product.category
    forms = ("{c} {k}", "{p} {k}", "{c} {p} product", "{k}", "{k} in {c}", "{k} with {n}", "{c} product", "{p} product")
    text = rng.choice(forms).format(c=colour, p=pattern, k=category, n=rng.choice(_WORDS[product.pattern][1]))
    article = "an" if text[0] in "aeiou" else "a"
    return rng.choice(("", "a photo of ", "a picture of ")) + f"{article} {text}"


def edits(product: Product, rng: random.Random) -> Iterator[tuple[str, Product]]:
    """Yield edits without end, none of which asks for a held-out combination."""
    while True:
        text, target = edit(product, rng)
        if target in _SEEN:
            yield text, target


def drift(product: Product, target: Product, share: float, rng: random.Random) -> Product:
    """Return the target or, for a share of the triplets, one with another colour or pattern that the text does not mention.

    Real triplets drift like this. Negative text needs it to have an effect: if the text leaves stripes likely but not
    certain, "striped" as negative text makes them unlikely.
    """
    kept = [name for name in ("colour", "pattern") if getattr(product, name) == getattr(target, name)]
    if not kept or rng.random() >= share:
        return target
    drifted = _changed(target, rng.choice(kept), rng)
    return drifted if drifted in _SEEN else target


def _drawn(job: tuple[str, int, Product]) -> tuple[np.ndarray, Box | None]:
    kind, number, product = job
    rng = random.Random(f"compodiff/{kind}/{number}")
    if kind == "scene":
        scene, box = draw_scene(product, rng, DRAWN_SIZE)
        return np.asarray(scene), box
    picture = draw(product, rng, DRAWN_SIZE)
    if kind == "whole":
        return np.asarray(picture), None
    width, height = rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.7)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return np.asarray(picture), (left, top, left + width, top + height)


@torch.inference_mode()
def embedded(model: Vectorizer, kind: str, products: list[Product]) -> tuple[Tensor, Tensor]:
    """Draw pictures; return their unnormalised embeddings, (n, dim), and their masks, (n, 64, 64), if they have any."""
    jobs = [(kind, number, product) for number, product in enumerate(products)]
    embeddings, maps, pixels = [], [], []
    with ProcessPoolExecutor() as pool:
        for number, (drawn, box) in enumerate(pool.map(_drawn, jobs, chunksize=50), start=1):
            picture = Image.fromarray(drawn)
            mask = None if box is None else load_mask(MaskRef(box=box), model, DEFAULT_LIMITS, False)
            pixels.append(model.pixels(picture, mask))
            if mask is not None:
                maps.append(mask.map.to(torch.uint8))
            if len(pixels) == 256 or number == len(jobs):
                embeddings.append(model.backbone.encode_images(torch.stack(pixels)))
                pixels = []
    return torch.cat(embeddings).clone(), torch.stack(maps) if maps else torch.empty(0, 64, 64, dtype=torch.uint8)


@dataclass
class Lessons:
    """Everything that the packaged CompoDiff is trained on, before embedding; examples refer to texts and pictures by
    number.

    Attributes:
        texts: all different texts; the first is empty.
        whole, scenes, boxes: products to draw alone, beside a distraction, and behind a random box. Their pictures are
            numbered in this order.
        pairs: (text, picture).
        triplets: (text, target picture, reference picture).
        masked: (text, target picture, reference picture, mask).
        edits: the reference's product of each triplet, and the product that its text asks for.
    """

    texts: list[str]
    whole: list[Product]
    scenes: list[Product]
    boxes: list[Product]
    pairs: list[tuple[int, int]]
    triplets: list[tuple[int, int, int]]
    masked: list[tuple[int, int, int, int]]
    edits: list[tuple[Product, Product]]

    def transitions(self) -> set[Transition]:
        """Return the changes of one attribute that the triplets contain."""
        return {change for pair in self.edits for change in changes(*pair)}


def lessons(drift_share: float = DRIFT) -> Lessons:
    """Draw all examples at random; every call draws the same.

    Args:
        drift_share: share of the triplets in which something changes that the text does not mention.
    """
    rng, chance = random.Random(0), random.Random(1)
    texts: dict[str, int] = {"": 0}

    def known(text: str) -> int:
        return texts.setdefault(text, len(texts))

    whole = [product for product in SEEN for _ in range(PICTURES_A_PRODUCT)]
    scenes, boxes = rng.choices(SEEN, k=SCENES), rng.choices(SEEN, k=BOXES)
    rows = {product: range(i * PICTURES_A_PRODUCT, (i + 1) * PICTURES_A_PRODUCT) for i, product in enumerate(SEEN)}

    pairs = []
    for _ in range(CAPTIONS):
        product = rng.choice(SEEN)
        words = (partial_caption if rng.random() < 0.4 else caption)(product, rng)
        pairs.append((known(words), rng.choice(rows[product])))
    triplets, asked_for = [], []
    for _ in range(TRIPLETS):
        product = rng.choice(SEEN)
        text, target = next(edits(product, rng))
        asked, reference = rng.choice(rows[target]), rng.choice(rows[product])
        drifted = drift(product, target, drift_share, chance)
        if drifted != target:
            asked = chance.choice(rows[drifted])
        triplets.append((known(text), asked, reference))
        asked_for.append((product, target))
    masked = []
    for i, product in enumerate(scenes):
        for text, target in itertools.islice(edits(product, rng), EDITS_A_SCENE):
            masked.append((known(text), rng.choice(rows[target]), len(whole) + i, i))
    for i, product in enumerate(boxes, start=SCENES):
        masked.append((known(caption(product, rng)), rng.choice(rows[product]), len(whole) + i, i))
    return Lessons(list(texts), whole, scenes, boxes, pairs, triplets, masked, asked_for)


def training_data(model: Vectorizer, lessons: Lessons, strange_share: float = 0.5) -> Data:
    """Embed everything that the packaged CompoDiff is trained on.

    Args:
        strange_share: share of the words that `tiny` never read whose embeddings are replaced by random vectors.
    """
    pictures, _ = embedded(model, "whole", lessons.whole)
    parts = [embedded(model, "scene", lessons.scenes), embedded(model, "box", lessons.boxes)]
    return Data(
        embeddings=torch.cat([pictures, *(embeddings for embeddings, _ in parts)]),
        states=_states(model, lessons.texts, strange_share),
        empty=0,
        pairs=Examples(*_columns(lessons.pairs)),
        triplets=Examples(*_columns(lessons.triplets)),
        masked=Examples(*_columns(lessons.masked)),
        masks=torch.cat([maps for _, maps in parts]),
    )


def _columns(rows: list[tuple[int, ...]]) -> list[Tensor]:
    return [torch.tensor(column) for column in zip(*rows, strict=True)]


@torch.inference_mode()
def _states(model: Vectorizer, texts: list[str], strange_share: float) -> Tensor:
    """Return states (texts, 77, width) in half precision; a share of the words that `tiny` never read are random vectors.

    So CompoDiff learns to ignore such words, whatever their embedding is.
    """
    encoder = model.backbone.text
    rows = [encoder.tokenizer.row(text) for text in texts]
    rng = random.Random(2)
    read = {i for product in SEEN for _ in range(40) for i in _ids(model, caption(product, rng))}
    spread = encoder.embed_tokens(torch.tensor(_ids(model, "than more less"))).std().item()
    generator = torch.Generator().manual_seed(2)
    parts = []
    for at in range(0, len(rows), 256):
        batch = []
        strange = 0
        for row in rows[at : at + 256]:
            slots = []
            for place, i in enumerate(row.ids[1:-1], start=1):
                if i not in read and rng.random() < strange_share:
                    slots.append((place, strange))
                    strange += 1
            batch.append(TokenRow(row.ids, tuple(slots)))
        words = spread * torch.randn(strange, encoder.facts.width, generator=generator)
        parts.append(encoder.encode_states(batch, words).half())
    return torch.cat(parts).clone()


def _ids(model: Vectorizer, text: str) -> tuple[int, ...]:
    return model.backbone.text.tokenizer.row(text).ids[1:-1]


def best_knobs(model: Vectorizer, network: Network) -> Knobs:
    """Choose guidance and source weight by R@1 + R@10 on the demo's validation queries.

    Among the knobs within 0.02 of the best, those with the most text guidance win, because negative text acts through it.
    """
    products = catalog(3000)
    raw = embed_drawn(model, pictures(products))
    asked = queries(products, 300, seed=11)
    found: dict[Knobs, float] = {}
    for image_scale, text_scale, source_weight in itertools.product((1.0, 1.5), (2.0, 3.0, 5.0), (0.0, 0.1)):
        knobs = Knobs(9, image_scale, text_scale, source_weight, SAMPLES)
        trial = Vectorizer(
            "", model.backbone, {"compodiff": CompoDiff(model.backbone, network, knobs=knobs)}, "compodiff"
        )
        recall = score(composed_vectors(trial, raw, asked, "compodiff"), asked, products, unit(raw)).recall()
        print(f"{knobs}: {recall}", flush=True)
        found[knobs] = sum(recall.values())
    good = [knobs for knobs, sum_ in found.items() if sum_ > max(found.values()) - 0.02]
    return max(good, key=lambda knobs: (knobs.text_scale, found[knobs]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=TINY_FOLDER, help="model folder that gets the composer")
    parser.add_argument("--start", type=Path, help="start from the CompoDiff in this model folder")
    parser.add_argument("--strange", type=float, default=0.5, help="share of unread words that are random vectors")
    parser.add_argument(
        "--drift", type=float, default=DRIFT, help="share of triplets where more changes than the text says"
    )
    parser.add_argument("--prior-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=5600)
    parser.add_argument("--lr", type=float, default=HYPERPARAMETERS.lr)
    arguments = parser.parse_args()
    model = load("tiny", "cpu")
    learnt = lessons(arguments.drift)
    data = training_data(model, learnt, arguments.strange)
    print(f"{len(learnt.texts):,} texts, {len(data.embeddings):,} pictures", flush=True)
    torch.manual_seed(0)
    config = replace(CONFIG, noise_scale=noise_scale(model.backbone, data, None))
    network = Network(config)
    before = None
    if arguments.start:
        before = read_record(arguments.start)["composers"]["compodiff"]["training"]
        network = load_network(
            arguments.start / read_record(arguments.start)["composers"]["compodiff"]["file"], config.to_record()
        )
    trainer = CompoDiffTrainer(network, data, replace(HYPERPARAMETERS, lr=arguments.lr))
    for progress in trainer.run(arguments.prior_steps, arguments.steps):
        if progress.step % 250 == 0:
            print(
                f"{progress.step:5} {progress.validation.stage:8} loss {progress.loss:.4f}  {progress.validation}",
                flush=True,
            )
    network = trainer.best_network()
    knobs = best_knobs(model, network)
    assert data.triplets is not None
    assert data.pairs is not None
    assert data.masked is not None
    record: dict[str, Any] = {
        "network": config.to_record(),
        "knobs": knobs.to_record(),
        "training": {
            "triplets": len(data.triplets),
            "pairs": len(data.pairs),
            "masked": len(data.masked),
            "prior_steps": arguments.prior_steps,
            "steps": arguments.steps,
            "batch_size": HYPERPARAMETERS.batch_size,
            "draws": HYPERPARAMETERS.draws,
            "lr": arguments.lr,
            "drift": arguments.drift,
            "transitions": len(learnt.transitions()),
            "validation_loss": trainer.best_validation.loss if trainer.best_validation else None,
            **({"before": before} if before else {}),
        },
    }
    write = partial(save_network, network=network, dtype=torch.float16)
    save(arguments.out, model.backbone, {"compodiff": (record, write)}, beside=TINY_FOLDER)
    print(f"{arguments.out}: {knobs}")


if __name__ == "__main__":
    main()
