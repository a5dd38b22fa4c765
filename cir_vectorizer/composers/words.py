"""Words for pseudo-tokens: the words of the vocabulary that are nearest to them."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from cir_vectorizer.backbones import TextEncoder, Tokenizer

_MOST_WORDS = 50_000


def nearest_words(encoder: TextEncoder, pseudo_tokens: Tensor, count: int) -> list[list[tuple[str, float]]]:
    """Return the words whose embeddings are nearest to each of (k, width) pseudo-tokens: (word, cosine), nearest first."""
    ids, words = _vocabulary(encoder.tokenizer)
    table = F.normalize(encoder.embed_tokens(ids.to(encoder.device)[None])[0].float(), dim=-1)
    nearest = []
    for similarities in (F.normalize(pseudo_tokens, dim=-1) @ table.T).cpu():
        _, group, sizes = torch.unique(similarities, return_inverse=True, return_counts=True)
        similarities[sizes[group] > 1] = -2.0  # words that the model never saw share one embedding
        values, order = similarities.topk(min(count, len(words)))
        nearest.append([(words[i], v) for i, v in zip(order.tolist(), values.tolist(), strict=True) if v > -2.0])
    return nearest


@lru_cache(maxsize=8)
def _vocabulary(tokenizer: Tokenizer) -> tuple[Tensor, list[str]]:
    """Return the tokens that are whole words of three or more English letters; the first call takes seconds.

    Of a large vocabulary, in which common words come first, they are the first `_MOST_WORDS`.
    """
    ids: list[int] = []
    words: list[str] = []
    for number in range(tokenizer.vocab_size):
        if len(ids) == _MOST_WORDS:
            break
        word = tokenizer.decode([number])
        if len(word) > 2 and word.isascii() and word.isalpha() and tokenizer.encode(word, 2).ids == (number,):
            ids.append(number)
            words.append(word)
    return torch.tensor(ids, dtype=torch.long), words
