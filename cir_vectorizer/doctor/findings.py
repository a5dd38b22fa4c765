"""Findings of the checks."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]
"""Severity: a warning is a tolerable loss; a problem means that something does not work."""


@dataclass(frozen=True)
class Finding:
    """Result of a check: `sentence` is the cause, and the remedy where one is needed."""

    check: str
    level: Level
    sentence: str


def worst(findings: Iterable[Finding]) -> Level:
    """Return the level of the most serious finding."""
    order: tuple[Level, ...] = ("ok", "warning", "problem")
    return max((finding.level for finding in findings), key=order.index, default="ok")
