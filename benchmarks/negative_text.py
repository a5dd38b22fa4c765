"""Benchmark on the drawn shop: negative text, and words that take something away.

    python -m benchmarks.negative_text [--model demo/model] [--published demo/published]

Negative text: 150 edits of one attribute, with the picture's own value of another attribute unwanted. Words that take a
pattern away: pictures with a pattern, for which the plain product must be found.
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cir_vectorizer.evaluate import metrics
from cir_vectorizer.models import Vectorizer, load
from examples.demo.catalog import Product, Query, catalog, pictures
from examples.demo.evaluate import Vectors, composed, composed_vectors, embed_drawn, rank, score, unit
from examples.demo.harder import UnwantedQuery, unwanted_queries

PICTURES, QUERIES, SEED = 3000, 150, 21
REMOVAL_QUERIES = 100
NOUNS = {"striped": "stripes", "dotted": "dots", "checked": "checks"}
REMOVALS = ("no {noun}", "without {noun}", "remove the {noun}", "is not {v} any more", "not {v} any more", "plain")
"""Words that take a pattern away; {v} is the pattern's adjective, {noun} its noun."""


@dataclass(frozen=True)
class Counted:
    """Results of queries with something unwanted.

    Attributes:
        unwanted: share of results in the top 10 that have the unwanted value.
        found: share of queries with a wanted result in the top 10.
        wanted: share of results in the top 10 that are wanted.
    """

    unwanted: float
    found: float
    wanted: float

    def __str__(self) -> str:
        return f"{self.unwanted:8.3f}{self.found:8.3f}{self.wanted:8.3f}"


HEADINGS = "unwanted    R@10    P@10"


def ranked(
    model: Vectorizer,
    raw: Vectors,
    asked: Sequence[UnwantedQuery],
    composer: str,
    negative: bool,
    options: Mapping[str, Any] | None = None,
) -> npt.NDArray[np.intp]:
    """Return the ten first results of each query, without its own picture. (queries, 10)

    Args:
        raw: (products, dim) unnormalised embeddings of the index.
        negative: whether the unwanted value is given as negative text.
    """
    given = []
    for query in asked:
        words = {"negative_text": query.unwanted} if negative else {}
        image = {"vector": raw[query.edit.reference].tolist()}
        given.append(
            {"image": image, "text": query.edit.text, "composer": composer, "options": dict(options or {}), **words}
        )
    return rank(composed(model, given), [query.edit.reference for query in asked], unit(raw), 10)


def has_unwanted(query: UnwantedQuery, product: Product) -> bool:
    """Tell whether a product has the query's unwanted value."""
    return bool(getattr(product, query.attribute) == query.unwanted)


def counted(asked: Sequence[UnwantedQuery], rows: npt.NDArray[np.intp], products: Sequence[Product]) -> Counted:
    """Count what is unwanted and what is wanted among the results.

    Args:
        rows: (queries, 10) indices of the results.
    """
    pairs = list(zip(asked, rows, strict=True))
    unwanted = np.array([[has_unwanted(query, products[i]) for i in row] for query, row in pairs])
    wanted = np.array([[query.wanted(products[i]) for i in row] for query, row in pairs])
    values = metrics.precision(unwanted, 10), metrics.hits(wanted, 10), metrics.precision(wanted, 10)
    return Counted(*(float(each.mean()) for each in values))


def removal_queries(products: Sequence[Product], words: str, count: int, seed: int) -> list[Query]:
    """Draw pictures with a pattern, each with words that take it away; the target is the plain product."""
    rng = random.Random(seed)
    patterned = [i for i, product in enumerate(products) if product.pattern in NOUNS]
    found = []
    for reference in rng.sample(patterned, count):
        product = products[reference]
        text = words.format(v=product.pattern, noun=NOUNS[product.pattern])
        found.append(Query(reference, text, replace(product, pattern="plain"), "pattern", words))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo/model", help="edit-aware model folder")
    parser.add_argument("--published", default="demo/published", help="model folder trained as published")
    arguments = parser.parse_args()
    model, published = load(arguments.model, "cpu"), load(arguments.published, "cpu")
    products = catalog(PICTURES)
    raw = embed_drawn(model, pictures(products))
    asked = unwanted_queries(products, QUERIES, SEED)
    print(f"{len(asked)} edits of one attribute, another value of the picture unwanted")
    print(f"{'':42}{HEADINGS}")
    for name, vectorizer, composer in (
        ("LinCIR as published", published, "lincir"),
        ("LinCIR, edit-aware", model, "lincir"),
        ("CompoDiff", model, "compodiff"),
    ):
        for negative in (False, True):
            rows = ranked(vectorizer, raw, asked, composer, negative)
            title = f"{name}, {'negative text' if negative else 'no negative text'}"
            print(f"{title:42}{counted(asked, rows, products)}")
    print(f"\n{REMOVAL_QUERIES} pictures with a pattern: share whose plain product is at rank 1, and in the first 3")
    for words in REMOVALS:
        removals = removal_queries(products, words, REMOVAL_QUERIES, SEED)
        cells = []
        for vectorizer in (published, model):
            vectors = composed_vectors(vectorizer, raw, removals, "lincir")
            hits = score(vectors, removals, products, unit(raw), ks=(1, 3)).recall()
            cells.append(f"{hits['R@1']:.2f} {hits['R@3']:.2f}")
        print(f"  {words:22} as published {cells[0]}   edit-aware {cells[1]}")


if __name__ == "__main__":
    main()
