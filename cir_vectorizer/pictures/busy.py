"""Busy servers: answers after which a request is made again, and how long to wait before."""

import random

from cir_vectorizer.errors import ImageError

_SHORTEST, _LONGEST = 0.5, 30.0
"""Seconds of the first wait, if the server does not ask for another, and of the longest."""


def is_busy(status: int) -> bool:
    """Tell whether a status says that the same request may succeed later; 501 and 505 refuse it for good."""
    return status == 429 or (status >= 500 and status not in (501, 505))


class Waits:
    """The waits of one request.

    Args:
        patience: seconds to wait in all.
        instead: end of the sentence for a server that stays busy.
    """

    def __init__(self, patience: float, instead: str = "") -> None:
        self._left = patience
        self._instead = instead
        self._tries = 0

    def next(self, status: int, asked: float | None) -> float:
        """Return the seconds to wait after an answer: those that the server asks for, or more from try to try.

        Raises:
            ImageError: the patience ends before.
        """
        self._tries += 1
        growing = min(_SHORTEST * 2 ** (self._tries - 1), _LONGEST) * random.uniform(0.75, 1.0)
        wait = growing if asked is None else asked
        self._left -= wait
        if self._left < 0:
            times = "" if self._tries == 1 else f" for {self._tries} tries"
            wants = "" if asked is None else f" and asks to wait {asked:,.0f} s"
            problem = f"is at a server that is busy{times} (status {status}){wants}"
            raise ImageError("url", f"{problem}; try again later{self._instead}")
        return wait
