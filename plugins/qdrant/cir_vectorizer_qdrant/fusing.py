"""Searches of stock clients by picture and text at once, and away from unwanted words, as a formula that Qdrant evaluates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from cir_vectorizer.collections import TEXT_VECTOR, TextShare
from cir_vectorizer.collections.protocol import check_range
from cir_vectorizer.errors import QueryError
from cir_vectorizer_qdrant.inference import DEFAULT_MODEL
from cir_vectorizer_qdrant.objects import numbers

CANDIDATES = 500
"""Usual number of objects of each ranking that the formula scores."""

Numbers = Sequence[float] | npt.NDArray[np.floating[Any]]


def composed_query(
    query: models.InferenceObject | Numbers,
    *,
    text_weight: float = 0.0,
    slope: float = 1.0,
    offset: float = 0.0,
    unwanted: Sequence[str | Numbers] = (),
    penalty: float = 0.5,
    candidates: int = CANDIDATES,
    using: str | None = None,
    model: str | None = None,
) -> dict[str, Any]:
    """Return `prefetch` and `query` for `query_points`, of a blocking or an asynchronous client; without a second score, `query`
    and `using`.

        arguments = composed_query(composed(image=Path("dress.jpg"), text="in red"), text_weight=0.3, unwanted=["lace"])
        client.query_points("shop", **arguments, limit=10, query_filter=…)

    The first candidates by the picture and, with a weight, by the text get the score

        s(query) − penalty · Σ s(unwanted), where s = (1 − text_weight) · cos(picture) + text_weight · cos(text)

    For an object without a text, slope · cos(picture) + offset stands for cos(text). All numbers are constants here. The
    search of this project (`cir-vectorizer search`, `/v1/search`, `cir_vectorizer.search`) does better: it finds slope and
    offset from the collection, and it scales the cosines to unwanted words by those of the candidates, for which Qdrant's
    formulas have no means. It needs a server from 1.14 on, or the embedded mode with vectors alone.

    Args:
        query: a query made by `composed`, which the server has the container compose, or a vector, (dim,).
        text_weight: weight of the texts that `sync --text-column` stored, from 0 to 1.
        slope, offset: see above.
        unwanted: words that results should not show, each a text, which the server has the container embed, or its vector.
        penalty: weight of the cosines to unwanted words; with 0 they do not count.
        candidates: number of objects of each ranking that are scored.
        using: name of the picture's vector, if it has one.
        model: model that embeds the unwanted words, as for `composed`; None for that of the query.

    Raises:
        QueryError: a number is outside its range.
    """
    check_range("text_weight", text_weight, 1)
    check_range("penalty", penalty, np.inf)
    if candidates < 1:
        raise QueryError("candidates", "is below 1; score one object at least")
    named = model or (query.model if isinstance(query, models.InferenceObject) else DEFAULT_MODEL)
    vectors = [_query(query), *(_words(each, named) for each in unwanted)] if penalty else [_query(query)]
    if len(vectors) == 1 and not text_weight:
        return {"query": vectors[0], "using": using}
    names = [using, TEXT_VECTOR] if text_weight else [using]
    first = [models.Prefetch(query=vectors[0], using=name, limit=candidates) for name in names]
    exact = models.SearchParams(exact=True)
    compared = [
        models.Prefetch(prefetch=first, query=vector, using=name, limit=candidates * len(first), params=exact)
        for vector in vectors
        for name in names
    ]
    share = TextShare(text_weight, slope, offset)
    scores = [_fused(share, at) if text_weight else f"$score[{at}]" for at in range(0, len(compared), len(names))]
    less = [models.MultExpression(mult=[-penalty, score]) for score in scores[1:]]
    return {
        "prefetch": compared,
        "query": models.FormulaQuery(formula=models.SumExpression(sum=[scores[0], *less])),
    }


def _fused(share: TextShare, at: int) -> models.SumExpression:
    """Return the fused score of the cosines to picture and text, which are the scores `at` and `at + 1`."""
    picture, text, weight = f"$score[{at}]", f"$score[{at + 1}]", share.weight
    wordless = models.Filter(must_not=[models.HasVectorCondition(has_vector=TEXT_VECTOR)])
    stand_in = models.SumExpression(sum=[models.MultExpression(mult=[share.slope, picture]), share.offset])
    return models.SumExpression(
        sum=[
            models.MultExpression(mult=[1 - weight, picture]),
            models.MultExpression(mult=[weight, text]),  # 0 for an object without a text
            models.MultExpression(mult=[weight, wordless, stand_in]),
        ]
    )


def _query(query: models.InferenceObject | Numbers) -> Any:
    return query if isinstance(query, models.InferenceObject) else numbers(query)


def _words(words: str | Numbers, model: str) -> Any:
    if isinstance(words, str):
        return models.Document(text=words, model=model)
    return numbers(words)
