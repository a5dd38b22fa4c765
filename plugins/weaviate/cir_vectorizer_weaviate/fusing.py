"""Searches of stock clients by picture and text at once, by two of an object's vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from weaviate.classes.query import TargetVectors

from cir_vectorizer.collections import TEXT_VECTOR
from cir_vectorizer.collections.protocol import check_range
from cir_vectorizer_weaviate.objects import numbers
from cir_vectorizer_weaviate.schema import UNNAMED


def composed_targets(
    vector: Sequence[float] | npt.NDArray[np.floating[Any]], *, text_weight: float, using: str = UNNAMED
) -> dict[str, Any]:
    """Return `near_vector` and `target_vector` for `near_vector` of a blocking or an asynchronous collection.

        vector = Client("http://localhost:8000").compose([{"image": Path("dress.jpg"), "text": "in red"}]).vectors[0]
        shop.query.near_vector(**composed_targets(vector, text_weight=0.3), limit=10)

    Objects are ranked by (1 − text_weight) · distance to the picture + text_weight · distance to the text. The query is
    composed before, by `cir_vectorizer.client` or by a model: `near_text` would send one text for both vectors, and have it
    composed twice.

    Weaviate leaves out objects without a text, and scores the first `limit` objects by picture and by text alone: ask for
    more than you show. The search of this project (`cir-vectorizer search`, `/v1/search`, `cir_vectorizer.search`) finds
    objects without a text too, and it alone can score unwanted words, by the cosines of the candidates.

    Args:
        vector: the composed query, (dim,).
        text_weight: weight of the texts that `sync --text-column` stored, from 0 to 1.
        using: name of the picture's vector.

    Raises:
        QueryError: the weight is outside its range.
    """
    check_range("text_weight", text_weight, 1)
    query = numbers(vector)
    return {
        "near_vector": {using: query, TEXT_VECTOR: query},
        "target_vector": TargetVectors.manual_weights({using: 1 - text_weight, TEXT_VECTOR: text_weight}),
    }
