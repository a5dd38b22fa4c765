"""The query vocabulary that all doors share: a composed query, its wire form, and filters. Imports no torch."""

from cir_vectorizer.query.composed import (
    MAX_REFERENCES,
    TEXT_SLOT,
    ComposedQuery,
    ImageRef,
    MaskRef,
    check_template,
    parse_pictures,
    read_text,
)
from cir_vectorizer.query.options import Fusion, Options

__all__ = [
    "MAX_REFERENCES",
    "TEXT_SLOT",
    "ComposedQuery",
    "Fusion",
    "ImageRef",
    "MaskRef",
    "Options",
    "check_template",
    "parse_pictures",
    "read_text",
]
