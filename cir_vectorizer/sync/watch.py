"""Repeated sync: a cheap look at the source tells whether another round is needed."""

import time
from collections.abc import Callable

from cir_vectorizer.errors import CirError, ImageError
from cir_vectorizer.sources.base import Item, Source
from cir_vectorizer.sync.compare import columns_digest
from cir_vectorizer.sync.report import Report


def watch(
    opened: Callable[[], Source],
    run: Callable[[Source], Report],
    interval: float,
    on_round: Callable[[Report | CirError], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Sync whenever the source's listing has changed, until KeyboardInterrupt.

    After a round that failed, or in which pictures failed, another round follows at the next look in any case.

    Args:
        opened: opens the source.
        run: syncs once.
        interval: seconds between looks.
        on_round: called with each round's report or error.
        sleep: waits for a number of seconds.
    """
    done: int | None = None
    while True:
        try:
            source = opened()
            try:
                seen = look(source)
                if seen is None or seen != done:
                    done = None
                    report = run(source)
                    done = None if report.failed else seen
                    on_round(report)
            finally:
                source.close()
        except (CirError, OSError) as error:
            done = None
            on_round(error if isinstance(error, CirError) else CirError(str(error)))
        sleep(interval)


def look(source: Source) -> int | None:
    """Return a hash of the source's listing; None if only a round can tell whether anything changed."""
    seen = hash(source.count())
    for entry in source.items():
        if not isinstance(entry, Item):
            seen = hash((seen, str(entry)))
            continue
        if not entry.picture.near:
            return None
        try:
            stamp = entry.picture.stamp()
        except (ImageError, OSError, ValueError):
            stamp = None
        seen = hash((seen, entry.id, stamp, columns_digest(entry.columns)))
    return seen
