"""The report as one HTML page: self-contained, for phone and desktop, light and dark, screen and paper."""

from cir_vectorizer.evaluate.page.document import page

__all__ = ["page"]
