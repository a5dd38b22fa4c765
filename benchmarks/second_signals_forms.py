"""Forms of the second score by unwanted words, which `benchmarks.second_signals` compares."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cir_vectorizer.collections.rescoring import combined, scaled

Floats = npt.NDArray[np.floating[Any]]

Form = Callable[[Floats, Floats, Floats, Floats, float], Floats]
"""(s, its mean, c, its mean, strength) -> scores; s are cosines to the query and c to the unwanted words, (queries, K)."""


def spread(values: Floats) -> Floats:
    """Return each row scaled from 0 at its smallest to 1 at its largest value."""
    low = values.min(axis=1, keepdims=True)
    return (values - low) / (values.max(axis=1, keepdims=True) - low)


def ranks(values: Floats) -> Floats:
    """Return 1 for the largest value of each row, 2 for the next, …"""
    return np.argsort(np.argsort(-values, axis=1, kind="stable"), axis=1) + 1.0


def ours(s: Floats, s_mean: Floats, c: Floats, c_mean: Floats, strength: float) -> Floats:
    """Return the scores as searches have them."""
    rows = zip(s, s_mean, c, c_mean, strict=True)
    return np.stack(
        [
            combined(base - mean, scaled(words[:, None], low), np.zeros((len(base), 0)), strength)
            for base, mean, words, low in rows
        ]
    )


FORMS: dict[str, Form] = {
    "s · (1 − min-max)^p": lambda s, _, c, __, p: s * (1 - spread(c)) ** p,
    "min-max · (1 − min-max)^p": lambda s, _, c, __, p: spread(s) * (1 - spread(c)) ** p,
    "above mean · (1 − min-max)^p": lambda s, m, c, __, p: np.maximum(s - m, 0) * (1 - spread(c)) ** p,
    "above mean · (1 − rank)^p": lambda s, m, c, __, p: np.maximum(s - m, 0) * (ranks(c) / c.shape[1]) ** p,
    "above mean · (1 − above mean)^p": ours,
    "s − p · min-max": lambda s, _, c, __, p: s - p * spread(c),
    "rank · rank^p": lambda s, _, c, __, p: -ranks(s) * ranks(-c) ** p,
}
