"""Picture embeddings and text states for CompoDiff's training, computed once by the frozen encoders.

Not handled: pictures whose embeddings do not fit in memory ((1 + masks) · dim · 4 bytes a picture).
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from cir_vectorizer.backbones import Backbone, TextEncoder
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import ImageError, SourceError
from cir_vectorizer.pictures.images import open_image
from cir_vectorizer.pictures.masks import MAP_SIDE, Mask, load_mask
from cir_vectorizer.query import MaskRef
from cir_vectorizer.query.encoded import DEFAULT_LIMITS
from cir_vectorizer.redaction import cause
from cir_vectorizer.sources.base import Failure, SourcePicture
from cir_vectorizer_trainer.compodiff.examples import Data, Examples
from cir_vectorizer_trainer.compodiff.tables import Tables

MOST_BOXES = 256
"""Largest number of different masks."""
STATES_BYTES = 4 * 2**30
"""Memory for the states of all texts; if they need more, each batch's texts are encoded when the batch is trained on."""
_TEXTS = 256


@dataclass(frozen=True)
class Embedded:
    """Embeddings of whole and masked pictures.

    Attributes:
        digest: digest of the pictures' locations, the masks and the backbone (hex).
        embeddings: (p + d · v, dim): p pictures, then v masked variants of each of the d pictures with a text, in order.
        readable: (p,) bool, False for pictures that could not be read; their embeddings are zeros.
        failures: reasons why they could not be read.
    """

    digest: str
    embeddings: Tensor
    readable: Tensor
    failures: list[Failure]


@dataclass(frozen=True)
class _Boxes:
    """Masks of the `described` pictures, those with a text: `variants`, (d, v), has indices of each one's masks."""

    described: Tensor
    variants: Tensor
    masks: list[Mask]


def assemble(
    tables: Tables,
    backbone: Backbone,
    text: TextEncoder,
    masks: int = 4,
    seed: int = 0,
    states_bytes: int = STATES_BYTES,
    kept: Embedded | None = None,
    on_pictures: Callable[[int, int], None] = lambda *_: None,
) -> tuple[Data, Embedded]:
    """Return all examples of the tables. Pictures that cannot be read are noted in `tables` and their rows left out.

    Args:
        masks: number of masked variants of each picture that has a text.
        states_bytes: memory for text states.
        kept: result of an earlier call; used if the pictures are the same.
        on_pictures: called with the number of embedded pictures and of all pictures.

    Returns:
        The data, and the embeddings to keep.

    Raises:
        SourceError: nothing is left to train on.
    """
    boxes = _boxes(tables, backbone, masks, seed)
    digest = _digest(tables, backbone, boxes)
    embedded = kept if kept is not None and kept.digest == digest else None
    embedded = embedded or _embed(tables.pictures, backbone, boxes, digest, on_pictures)
    for failure in embedded.failures:
        tables.fail(failure)
    readable = embedded.readable
    pictures, texts = _columns(tables.pairs)
    pairs = Examples(texts, pictures)[readable[pictures].nonzero()[:, 0]]
    references, edits, targets = _columns(tables.triplets)
    triplets = Examples(edits, targets, references)[(readable[references] & readable[targets]).nonzero()[:, 0]]
    if not len(pairs) and not len(triplets):
        raise SourceError("no row is left to train on; see the reasons above, and correct the pictures' paths")
    data = Data(
        embeddings=embedded.embeddings,
        states=text_states(tables.texts, text, states_bytes),
        empty=0,
        pairs=pairs,
        triplets=triplets,
        masked=_masked(pairs, boxes, len(tables.pictures)),
        masks=torch.stack([mask.map for mask in boxes.masks]) if boxes.masks else None,
        digest=PartsDigest(tables.digest, digest, text.fingerprint).hexdigest(),
    )
    return data, embedded


def text_states(texts: Sequence[str], encoder: TextEncoder, most_bytes: int) -> Tensor | Callable[[Tensor], Tensor]:
    """Return half-precision states of texts, (n, context_length, width), or a function that encodes them on demand."""
    facts = encoder.facts
    rows = [encoder.tokenizer.row(text) for text in texts]

    @torch.no_grad()
    def encode(index: Tensor) -> Tensor:
        return torch.cat([encoder.encode_states([rows[i] for i in part]) for part in torch.split(index, _TEXTS)])

    if 2 * len(rows) * facts.context_length * facts.width > most_bytes:
        return encode
    states = torch.empty(len(rows), facts.context_length, facts.width, dtype=torch.float16)
    for part in torch.split(torch.arange(len(rows)), _TEXTS):
        states[part] = encode(part).to(states)
    return states


def _columns(columns: tuple[Sequence[int], ...]) -> Iterator[Tensor]:
    return (torch.tensor(column, dtype=torch.long) for column in columns)


def _boxes(tables: Tables, backbone: Backbone, masks: int, seed: int) -> _Boxes:
    """Draw random boxes, with sides from a fifth to all of the picture's, and which of them mask each picture."""
    described = torch.tensor(sorted(set(tables.pairs[0])), dtype=torch.long)
    count = min(MOST_BOXES, len(described) * masks)
    random = Random(f"boxes/{seed}")
    found = []
    for _ in range(count):
        width, height = random.uniform(0.2, 1), random.uniform(0.2, 1)
        left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
        box = MaskRef.model_validate([left, top, min(1.0, left + width), min(1.0, top + height)])
        found.append(load_mask(box, backbone, DEFAULT_LIMITS, allow_paths=False))
    generator = torch.Generator().manual_seed(seed)
    return _Boxes(described, torch.randint(max(1, count), (len(described), masks), generator=generator), found)


def _masked(pairs: Examples, boxes: _Boxes, pictures: int) -> Examples:
    """Return an example for each pair and each masked variant of its picture, whose hidden part is to be filled in."""
    variants = boxes.variants.shape[1]
    place = torch.searchsorted(boxes.described, pairs.target)
    which = torch.arange(variants)
    return Examples(
        pairs.text.repeat_interleave(variants),
        pairs.target.repeat_interleave(variants),
        (pictures + place[:, None] * variants + which).flatten(),
        boxes.variants[place].flatten(),
    )


def _digest(tables: Tables, backbone: Backbone, boxes: _Boxes) -> str:
    digest = PartsDigest(backbone.fingerprint, str(len(tables.pictures)))
    digest.add(*(picture.location for picture in tables.pictures))
    digest.add(boxes.described.numpy().tobytes(), boxes.variants.numpy().tobytes())
    return digest.add(*(mask.content for mask in boxes.masks)).hexdigest()


# --- pictures --------------------------------------------------------------------------------------


@torch.no_grad()
def _embed(
    pictures: Sequence[SourcePicture],
    backbone: Backbone,
    boxes: _Boxes,
    digest: str,
    on_pictures: Callable[[int, int], None],
) -> Embedded:
    """Read, decode and mask pictures on threads; encode whole and masked ones together in batches."""
    variants = boxes.variants.shape[1]
    embeddings = torch.zeros(len(pictures) + boxes.variants.numel(), backbone.dim)
    readable = torch.zeros(len(pictures), dtype=torch.bool)
    failures = []
    waiting: list[tuple[list[int], Tensor]] = []
    size = 32 if backbone.device.type == "cpu" else 256

    def encode() -> None:
        if waiting:
            rows = [row for each, _ in waiting for row in each]
            encoded = backbone.encode_images(torch.cat([pixels for _, pixels in waiting]))
            embeddings[rows] = encoded.float().cpu()
            waiting.clear()

    for number, found in enumerate(_decoded(pictures, backbone, boxes)):
        if isinstance(found, Failure):
            failures.append(found)
        else:
            readable[number] = True
            first = len(pictures) + int(torch.searchsorted(boxes.described, number)) * variants
            waiting.append(([number, *range(first, first + len(found) - 1)], found))
            if sum(len(rows) for rows, _ in waiting) >= size:
                encode()
        on_pictures(number + 1, len(pictures))
    encode()
    return Embedded(digest, embeddings, readable, failures)


def _decoded(pictures: Sequence[SourcePicture], backbone: Backbone, boxes: _Boxes) -> Iterator[Tensor | Failure]:
    """Yield each picture's pixels, whole and then masked, (1 + v, 3, height, width), or why it cannot be read; in order."""
    masks_of = {
        int(picture): [boxes.masks[i] for i in row]
        for picture, row in zip(boxes.described, boxes.variants.tolist(), strict=True)
    }
    nothing = Mask(torch.tensor(False), torch.zeros(MAP_SIDE, MAP_SIDE))

    def decode(number: int) -> Tensor | Failure:
        picture = pictures[number]
        try:
            image = open_image(picture.read(DEFAULT_LIMITS))
            pixels = [backbone.preprocess(image)]
            if masks := masks_of.get(number):
                square = nothing.pixels(backbone, image)
                pixels += [square.masked_fill(mask.hidden, 0.0) for mask in masks]
            return torch.stack(pixels)
        except ImageError as error:
            return Failure(picture.location, error.reason, str(error))
        except FileNotFoundError:
            return Failure(picture.location, "path", "does not exist; correct the path in the table")
        except (OSError, ValueError) as error:
            return Failure(picture.location, "path", f"cannot be read ({cause(error)}); check the file")

    workers = min(8, os.cpu_count() or 1)
    pending: deque[Future[Tensor | Failure]] = deque()
    with ThreadPoolExecutor(workers, "cir-decode") as pool:
        try:
            for number in range(len(pictures)):
                pending.append(pool.submit(decode, number))
                if len(pending) > 3 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
