"""Keywords of a payload as one text, which Weaviate searches with BM25."""

from collections.abc import Callable, Mapping
from typing import Any

from weaviate.classes.config import DataType, Property, Tokenization

from cir_vectorizer.collections import RECORD_KEY, texts
from cir_vectorizer.collections.words import unspaced, wanted_words, words_of

WORDS = f"{RECORD_KEY}_words"
"""Name of the property."""


def of_payload(payload: Mapping[str, Any]) -> str:
    """Return all texts in a payload's columns, one per line; empty if there are none."""
    return "\n".join(_split(text, words_of) for text in texts(payload))


def of_query(text: str) -> str:
    """Return the text to search for."""
    return _split(text, wanted_words)


def _split(text: str, words: Callable[[str], list[str]]) -> str:
    """Return a text as its words if it is written without spaces; Weaviate splits other texts by itself."""
    return " ".join(map(_whole, words(text))) if unspaced(text) else text


def _whole(word: str) -> str:
    """Return a word with letters and digits in place of marks, such as Thai vowels: Weaviate splits words at marks."""
    return word if word.isalnum() else "".join(each if each.isalnum() else f"u{ord(each):x}" for each in word)


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
