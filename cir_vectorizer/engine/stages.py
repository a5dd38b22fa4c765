"""What the device runs for the engine: each stage is a function from a batch of payloads to as many results."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cir_vectorizer.backbones import TokenRow
from cir_vectorizer.composers import Composer, Plan
from cir_vectorizer.composers.base import encode_rows
from cir_vectorizer.engine.batching import BatchQueue
from cir_vectorizer.errors import QueryError
from cir_vectorizer.models import Vectorizer
from cir_vectorizer.query import ComposedQuery

Vector = npt.NDArray[np.float32]

PICTURE, TEXT, CALL = "picture", "text", "call"


def composer_stage(name: str) -> str:
    """The name of a composer's queue."""
    return f"composer {name}"


class PictureStage:
    """(3, height, width) pixels -> (dim,) unnormalised embeddings."""

    def __init__(self, vectorizer: Vectorizer) -> None:
        self._backbone = vectorizer.backbone

    @torch.inference_mode()
    def __call__(self, pixels: Sequence[Tensor]) -> Sequence[Vector]:
        return _rows(self._backbone.encode_images(torch.stack(list(pixels))))


class TextStage:
    """Token rows -> unit vectors."""

    def __init__(self, vectorizer: Vectorizer) -> None:
        self._encoder = vectorizer.backbone.text

    @torch.inference_mode()
    def __call__(self, rows: Sequence[TokenRow]) -> Sequence[Vector]:
        return _rows(encode_rows(self._encoder, rows))


class ComposerStage:
    """Plans, each with its (dim,) unnormalised picture embeddings -> unit vectors."""

    def __init__(self, vectorizer: Vectorizer, composer: Composer) -> None:
        self._backbone = vectorizer.backbone
        self._composer = composer

    @torch.inference_mode()
    def __call__(self, payloads: Sequence[tuple[Plan, Sequence[Vector]]]) -> Sequence[Vector]:
        counts = [len(embeddings) for _, embeddings in payloads]
        rows = [embedding for _, embeddings in payloads for embedding in embeddings]
        pictures = torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, self._backbone.dim)
        references = pictures.to(self._backbone.device).split(counts)  # type: ignore[no-untyped-call]
        return _rows(self._composer.compose([plan for plan, _ in payloads], references))


_SAMPLE_TEXT = "a dress that is red and has long sleeves"


def samples(vectorizer: Vectorizer) -> list[tuple[str, Any, int]]:
    """For each stage something that it can run, with its units."""
    row = vectorizer.backbone.text.tokenizer.row(_SAMPLE_TEXT)
    samples: list[tuple[str, Any, int]] = [
        (PICTURE, vectorizer.preprocess(Image.new("RGB", (64, 64), "red")), 1),
        (TEXT, row, len(row.ids)),
    ]
    embedding = np.ones(vectorizer.dim, np.float32)
    query = ComposedQuery.parse({"image": [1.0] * vectorizer.dim, "text": _SAMPLE_TEXT})
    for name, composer in vectorizer.composers.items():
        try:
            plan = composer.prepare(query)
        except QueryError:
            continue
        samples.append((composer_stage(name), (plan, [embedding]), plan.units))
    return samples


def seconds_of(queue: BatchQueue, payloads: Sequence[Any]) -> float:
    """How long a batch takes."""
    began = time.monotonic()
    queue.run(payloads)
    return time.monotonic() - began


def _rows(vectors: Tensor) -> list[Vector]:
    return list(vectors.float().cpu().numpy())


def use_threads(count: int) -> None:
    """Let PyTorch use so many cores from this thread; asking first makes it forget what other threads set."""
    torch.get_num_threads()
    torch.set_num_threads(count)


def out_of_memory(error: Exception) -> bool:
    """Whether a batch was too large for the device; frees what can be freed."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        torch.cuda.empty_cache()
        return True
    return isinstance(error, MemoryError) or "allocate memory" in str(error)
