"""Keywords of a payload as one text, which Weaviate searches with BM25."""

from collections.abc import Mapping
from typing import Any

from weaviate.classes.config import DataType, Property, Tokenization

from cir_vectorizer.collections import RECORD_KEY, texts

WORDS = f"{RECORD_KEY}_words"
"""Name of the property."""


def of_payload(payload: Mapping[str, Any]) -> str:
    """Return all texts in a payload's columns, one per line; empty if there are none."""
    return "\n".join(texts(payload))


def new_property() -> Property:
    """Return the property for `create` and `add_property`."""
    return Property(
        name=WORDS,
        description="all texts of an object, for keyword search",
        data_type=DataType.TEXT,
        tokenization=Tokenization.WORD,
        index_filterable=False,
        index_searchable=True,
    )
