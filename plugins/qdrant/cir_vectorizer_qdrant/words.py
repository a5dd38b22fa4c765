"""Keywords of a payload as a sparse vector of BM25's term weights; Qdrant adds the weight for rare words (IDF).

The plugin computes them, not the server's model `qdrant/bm25`, so that the embedded mode ranks in the same way. Words
are not stemmed.
"""

import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from qdrant_client import models

from cir_vectorizer.collections import texts
from cir_vectorizer.collections.words import wanted_words, words_of

VECTOR = "cir_words"
"""Name of the sparse vector."""
SATURATION, LENGTH_WEIGHT = 1.2, 0.75
"""BM25's k1 and b."""
USUAL_LENGTH = 24
"""Number of words in the texts of a typical product. It replaces BM25's average over the collection, because that would
change all vectors as the collection grows."""


def of_payload(payload: Mapping[str, Any]) -> models.SparseVector:
    """Return the sparse vector of the words in all text columns; empty if there are none."""
    counts = Counter(_code(word) for text in texts(payload) for word in words_of(text))
    length = 1 - LENGTH_WEIGHT + LENGTH_WEIGHT * sum(counts.values()) / USUAL_LENGTH
    weights = [count * (SATURATION + 1) / (count + SATURATION * length) for count in counts.values()]
    return models.SparseVector(indices=list(counts), values=weights)


def of_query(text: str) -> models.SparseVector:
    """Return the sparse vector of the words to search for."""
    codes = sorted({_code(word) for word in wanted_words(text)})
    return models.SparseVector(indices=codes, values=[1.0] * len(codes))


def _code(word: str) -> int:
    return zlib.crc32(word.encode())
