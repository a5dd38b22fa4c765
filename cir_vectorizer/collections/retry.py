"""Retries while a database is busy or restarting."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def persist(work: Callable[[], _T], may_pass: Callable[[Exception], bool], attempts: int) -> _T:
    """Run `work` until it succeeds, at most `attempts` times, with growing random waits in between.

    Ten attempts take about 40 s. The last error, or an error for which `may_pass` is False, is raised unchanged.
    """
    for attempt in range(1, attempts + 1):
        try:
            return work()
        except Exception as error:
            if attempt == attempts or not may_pass(error):
                raise
        time.sleep(min(0.25 * 2**attempt, 8) * random.uniform(0.5, 1))
    raise AssertionError("attempts is at least 1")
