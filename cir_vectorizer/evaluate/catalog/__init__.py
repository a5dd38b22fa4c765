"""A customer's own catalog as the judge: queries made of its attributes or captions, and contenders that answer them."""

from cir_vectorizer.evaluate.catalog.judging import CEILING, Asking, Judged, judge

__all__ = ["CEILING", "Asking", "Judged", "judge"]
