"""Requests through fsspec that are made again while their server is busy."""

import time
from collections.abc import Callable
from typing import TypeVar

from cir_vectorizer.pictures.busy import Waits, is_busy
from cir_vectorizer.retry_after import retry_after

PATIENCE = 120.0
"""Seconds to wait for a busy server to give a picture, a table or a listing."""

_T = TypeVar("_T")


def patiently(work: Callable[[], _T]) -> _T:
    """Return the result of a request through fsspec; while the server is busy, make it again after a wait.

    Raises:
        ImageError: the server stays busy.
    """
    waits = Waits(PATIENCE)
    while True:
        try:
            return work()
        except Exception as error:  # fsspec hides the answer of a web server in the cause of other errors
            for answer in (error, error.__cause__):
                status = getattr(answer, "status", None)
                if isinstance(status, int) and is_busy(status):
                    time.sleep(waits.next(status, retry_after(getattr(answer, "headers", None) or {})))
                    break
            else:
                raise
