"""A customer's own judged queries: read from a file, and searched for in a collection."""

from cir_vectorizer.evaluate.judged.judging import Searching, judge
from cir_vectorizer.evaluate.judged.reading import read_judged

__all__ = ["Searching", "judge", "read_judged"]
