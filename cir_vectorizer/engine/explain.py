"""Why a composed query finds what it finds: the words its pictures became, and what each part of it does."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cir_vectorizer.backbones import Tokenizer
from cir_vectorizer.engine.stages import Vector
from cir_vectorizer.models import Vectorizer
from cir_vectorizer.query import ComposedQuery

MAX_WORDS = 40
"""Words of a text that are dropped in turn; the rest stays."""


@dataclass(frozen=True)
class Part:
    """A part of a query, and the query without it."""

    field: str
    word: str | None
    without: ComposedQuery


def parts_of(query: ComposedQuery) -> list[Part]:
    """Each picture, each word of the text and the negative text, where something is left to search for without it."""
    parts = []
    words = (query.text or "").split()
    for i in range(len(query.image)):
        left = query.image[:i] + query.image[i + 1 :]
        if left or words:
            parts.append(Part(f"image.{i}", None, _without(query, image=left, template=None)))
    for i, word in enumerate(words[:MAX_WORDS]):
        text = " ".join(words[:i] + words[i + 1 :]) or None
        if text:
            parts.append(Part("text", word, _without(query, text=text)))
        elif query.image:
            parts.append(Part("text", word, _without(query, text=None, template=None)))
    if query.negative_text and query.negative_text.strip():
        parts.append(Part("negative_text", None, _without(query, negative_text=None)))
    return parts


@torch.inference_mode()
def nearest_words(
    vectorizer: Vectorizer, composer: str, embeddings: Sequence[Vector], count: int
) -> list[list[tuple[str, float]]] | None:
    """The vocabulary's words whose token embeddings are most like the pseudo-tokens of pictures; on the device.

    Args:
        composer: one that writes pictures as words.
        embeddings: (dim,) unnormalised, one for each picture.
        count: words for each picture.

    Returns:
        For each picture (word, cosine) from near to far; None if the composer writes no words.
    """
    phi = getattr(vectorizer.composers[composer], "phi", None)
    if phi is None or not embeddings:
        return None
    backbone = vectorizer.backbone
    ids, words = vocabulary(backbone.text.tokenizer)
    table = F.normalize(backbone.text.embed_tokens(ids.to(backbone.device)[None])[0].float(), dim=-1)
    pseudo_tokens = F.normalize(phi(torch.from_numpy(np.stack(embeddings)).to(backbone.device).float()), dim=-1)
    nearest = []
    for similarities in (pseudo_tokens @ table.T).cpu():
        _, group, sizes = torch.unique(similarities, return_inverse=True, return_counts=True)
        similarities[sizes[group] > 1] = -2.0  # words that the model never saw share one embedding
        values, order = similarities.topk(min(count, len(words)))
        nearest.append([(words[i], v) for i, v in zip(order.tolist(), values.tolist(), strict=True) if v > -2.0])
    return nearest


@lru_cache(maxsize=8)
def vocabulary(tokenizer: Tokenizer) -> tuple[Tensor, list[str]]:
    """The tokens that are whole English words of three letters or more; seconds of work the first time."""
    ids, words = [], []
    for number in range(tokenizer.vocab_size):
        word = tokenizer.decode([number])
        if len(word) > 2 and word.isascii() and word.isalpha() and tokenizer.encode(word, 2).ids == (number,):
            ids.append(number)
            words.append(word)
    return torch.tensor(ids), words


def _without(query: ComposedQuery, **changes: object) -> ComposedQuery:
    return query.model_copy(update=changes)
