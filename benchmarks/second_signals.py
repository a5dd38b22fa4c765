"""Benchmark of searches with a second score: words that results must or must not show, and texts beside pictures.

    python -m benchmarks.second_signals unwanted [--model demo/model]
    python -m benchmarks.second_signals texts [--model demo/model]
    python -m benchmarks.second_signals real --data DIR --published DIR --model DIR

`unwanted` and `texts` search the drawn shop with `tiny`, whose LinCIR was trained as published, and with an edit-aware
`--model`; `real` searches photos that no training saw, with the two models that `benchmarks.real_shop` trained on the others
(`--data` is its folder). Everything is chosen on one half of the queries and reported on the other, in which other
combinations of attributes are asked for. Forms and weights are compared over the vectors; what is reported runs as searches
of an embedded collection.
"""

import argparse
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.products import is_held_out, make_queries, read_items
from benchmarks.real_shop import embed
from benchmarks.second_signals_forms import FORMS, Floats, Form
from cir_vectorizer.collections import Collection, CreateOptions, ModelRecord, Point, ensure, open_collection
from cir_vectorizer.collections.rescoring import STRENGTH, TEXT_WEIGHT, Background
from cir_vectorizer.collections.searching import Search
from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.catalog.contenders import TEXT_WEIGHTS
from cir_vectorizer.models import Vectorizer, load
from examples.demo.catalog import COLOURS, PATTERNS, Product, caption, catalog, pictures, queries, rough_caption
from examples.demo.evaluate import Vectors, embed_drawn, unit
from examples.demo.harder import unwanted_queries

Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
PICTURES, QUERIES, FEW = 3000, 600, 300
CANDIDATES = (100, 250, 500, 1000)
STRENGTHS = (0.5, 1.0, 2.0, 3.0)
MOST_UNWANTED = 0.10
"""Largest share of unwanted results that a form may leave, with any composer, to be chosen."""
NARROW = (0.2, 0.1)
"""Cosines of other CLIPs lie closer together: mean and scale of a stand-in for them."""
DAMAGED = 1 / 9
"""Share of the drawn shop's texts that are another product's; as many are missing, and as many name the category alone."""


@dataclass(frozen=True)
class Asker:
    """A composer of a model, as tables name it."""

    name: str
    model: Vectorizer
    composer: str


@dataclass(frozen=True)
class Asked:
    """Queries to a shop with its right and its unwanted answers, (queries, objects) each.

    Attributes:
        references: row of each query's picture, which is no result.
        words: the unwanted, or wanted, words of each query; "" for none.
    """

    references: Sequence[int]
    texts: Sequence[str]
    right: Mask
    unwanted: Mask
    words: Sequence[str]


class Shop:
    """Objects with vectors of their pictures and texts, as arrays and as an embedded collection."""

    def __init__(self, raw: Vectors, texts: Vectors | None, model: Vectorizer, folder: str) -> None:
        self.raw, self.index = raw, unit(raw)
        self.texts = np.zeros_like(raw) if texts is None else texts
        self.model = model
        self.has_text = self.texts.any(axis=1)
        some = np.linspace(0, len(raw) - 1, 256, dtype=np.intp)
        self.sample = some
        self.background = Background(self.index[some], self.texts[some][self.has_text[some]])
        self.collection: Collection = open_collection(f"qdrant:{folder}/shop")
        options = CreateOptions(text_columns=() if texts is None else ("title",))
        ensure(self.collection, ModelRecord.of(model), options)
        for at in range(0, len(raw), 500):
            self.collection.upsert(
                [
                    Point(row, self.index[row], {}, text_vector=self.texts[row] if self.has_text[row] else None)
                    for row in range(at, min(at + 500, len(raw)))
                ]
            )

    def composed(self, asker: Asker, asked: Asked, negative: bool = False) -> Vectors:
        """Return the vectors of queries; with `negative`, the composer has the words as negative text. (queries, dim)"""
        given = [
            {**self._query(asker, row, text), **({"negative_text": words} if negative else {})}
            for row, text, words in zip(asked.references, asked.texts, asked.words, strict=True)
        ]
        return np.concatenate([asker.model.compose(given[at : at + 64]).vectors for at in range(0, len(given), 64)])

    def _query(self, asker: Asker, row: int, text: str) -> dict[str, Any]:
        norm = float(np.linalg.norm(self.raw[row]))
        return {"image": {"vector": self.index[row].tolist(), "norm": norm}, "text": text, "composer": asker.composer}

    def cosines(self, vectors: Vectors, text_weight: float = 0.0) -> Floats:
        """Return the fused scores of all objects, as searches give them. (queries, objects)"""
        pictures = vectors @ self.index.T
        if not text_weight:
            return pictures
        said = vectors @ self.texts.T
        for row, vector in enumerate(vectors):
            share = self.background.share(vector, text_weight)
            said[row, ~self.has_text] = share.stand_in(pictures[row, ~self.has_text])
        return (1 - text_weight) * pictures + text_weight * said

    def found(self, asker: Asker, asked: Asked, kind: str = "", **options: Any) -> Rows:
        """Return the first ten objects of searches. (queries, 10)

        Args:
            kind: "negative_text" or "must_text", which is what the words are.
            options: of `Search`.
        """
        searches = [
            Search.read({**self._query(asker, row, text), **({kind: words} if kind else {})}, without=(row,), **options)
            for row, text, words in zip(asked.references, asked.texts, asked.words, strict=True)
        ]
        parts = [list(search.parts(asker.model).values()) for search in searches]
        flat = [part for own in parts for part in own]
        vectors = np.concatenate([asker.model.compose(flat[at : at + 64]).vectors for at in range(0, len(flat), 64)])
        info, at, rows = self.collection.info(), 0, []
        assert info is not None
        for search, own in zip(searches, parts, strict=True):
            hits = search.run(self.collection, list(vectors[at : at + len(own)]), info)
            rows.append([int(hit.id) for hit in hits])
            at += len(own)
        return np.array(rows, np.intp)


def half_of(target: object) -> bool:
    """Tell the half that queries for a combination of attributes belong to."""
    return bool(blake2b(repr(target).encode(), digest_size=2).digest()[0] % 2)


def first_ten(scores: Floats, asked: Asked) -> Rows:
    """Return the ten objects with the highest scores, (queries, 10), without the queries' own pictures."""
    scores = scores.copy()
    scores[np.arange(len(scores)), asked.references] = -np.inf
    return metrics.top(scores, 10)


def of(mask: Mask, rows: Rows) -> Mask:
    """Tell which results are in a mask. (queries, objects), (queries, ranks) -> (queries, ranks)"""
    return np.take_along_axis(mask, rows, axis=1)


def counted(asked: Asked, rows: Rows) -> tuple[float, float]:
    """Return the share of unwanted results in the first ten, and the share of queries with a right one there."""
    return float(of(asked.unwanted, rows).mean()), float(metrics.hits(of(asked.right, rows), 10).mean())


def scored(asked: Asked, rows: Rows) -> metrics.Values:
    """Return the mean of R@1 and R@10 of each query, by which weights are chosen."""
    right = of(asked.right, rows)
    return (metrics.hits(right, 1) + metrics.hits(right, 10)) / 2


def rescored(
    shop: Shop, vectors: Vectors, words: Vectors, asked: Asked, form: Form, candidates: int, strength: float,
    narrow: tuple[float, float] = (0.0, 1.0),
) -> Rows:  # fmt: skip
    """Return the first ten of the candidates by a form of the second score. (queries, 10)"""
    s = narrow[0] + narrow[1] * (vectors @ shop.index.T)
    c = narrow[0] + narrow[1] * (words @ shop.index.T)
    means = [each[:, shop.sample].mean(axis=1, keepdims=True) for each in (s, c)]
    s[np.arange(len(s)), asked.references] = -np.inf
    kept = metrics.top(s, candidates)
    scores = form(np.take_along_axis(s, kept, 1), means[0], np.take_along_axis(c, kept, 1), means[1], strength)
    return np.take_along_axis(kept, metrics.top(scores, 10), axis=1)


def sweep(shop: Shop, askers: Sequence[Asker], asked: Asked) -> tuple[str, int, float]:
    """Print all forms, K and strengths, and return the best: most found, with few unwanted results for each composer."""
    words = embedded(shop.model, asked.words)
    vectors = [shop.composed(asker, asked, negative=True) for asker in askers]
    best, choice = -1.0, ("", 0, 0.0)
    print(f"unwanted share / found in the first ten, by {' | '.join(asker.name for asker in askers)}")
    for name, form in FORMS.items():
        for candidates in CANDIDATES:
            for strength in STRENGTHS:
                cells = [
                    counted(asked, rescored(shop, each, words, asked, form, candidates, strength)) for each in vectors
                ]
                found = float(np.mean([found for _, found in cells]))
                print(f"  {name:32} K {candidates:5} p {strength:3g}   {shown(cells)}")
                if max(unwanted for unwanted, _ in cells) <= MOST_UNWANTED and found > best:
                    best, choice = found, (name, candidates, strength)
    print(f"chosen: {choice[0]}, K {choice[1]}, p {choice[2]:g}; searches use {STRENGTH:g}", flush=True)
    for name in ("s · (1 − min-max)^p", "above mean · (1 − above mean)^p"):
        cells = [counted(asked, rescored(shop, each, words, asked, FORMS[name], 500, 1.0, NARROW)) for each in vectors]
        print(f"  cosines of {NARROW[0]} + {NARROW[1]} · cosine: {name}, K 500, p 1   {shown(cells)}")
    return choice


def shown(cells: Sequence[tuple[float, float]]) -> str:
    """Return pairs of figures as a row of a table."""
    return " | ".join(f"{one:.3f} {other:.3f}" for one, other in cells)


def embedded(model: Vectorizer, texts: Sequence[str]) -> Vectors:
    """Embed texts, 256 at a time. (texts, dim)"""
    return np.concatenate([model.embed_texts(texts[at : at + 256]) for at in range(0, len(texts), 256)])


# --- the parts ------------------------------------------------------------------------------------


def halves(made: Iterator[tuple[object, int, str, Callable[[Any], bool], Callable[[Any], bool], str]],
           products: Sequence[object], count: int) -> list[Asked]:  # fmt: skip
    """Return queries for choosing, and others for reporting, `count` each.

    Args:
        made: the combination asked for, the picture's row, the text, tests for right and for unwanted products, and the words.
    """
    found: tuple[list[Any], list[Any]] = ([], [])
    different = {product: at for at, product in enumerate(dict.fromkeys(products))}
    number = np.array([different[product] for product in products])
    for target, reference, text, right, unwanted, words in made:
        own = found[half_of(target)]
        marks = [np.array([test(product) for product in different])[number] for test in (right, unwanted)]
        marks[0][reference] = False
        if len(own) < count and marks[0].any():
            own.append((reference, text, *marks, words))
        if all(len(each) == count for each in found):
            break
    return [
        Asked([q[0] for q in own], [q[1] for q in own], np.stack([q[2] for q in own]), np.stack([q[3] for q in own]),
              [q[4] for q in own])
        for own in found
    ]  # fmt: skip


def _drawn_unwanted(products: list[Product]) -> Iterator[Any]:
    for query in unwanted_queries(products, 12 * QUERIES, seed=1501):
        attribute, value = query.attribute, query.unwanted
        yield (
            query.edit.target, query.edit.reference, query.edit.text, query.wanted,
            lambda product, attribute=attribute, value=value: getattr(product, attribute) == value, value,
        )  # fmt: skip


def _drawn_other(products: list[Product], must: bool) -> Iterator[Any]:
    """Yield edits with words for another attribute: a value that must be there, or a colour that nobody mentioned."""
    draw = random.Random(77)
    for query in queries(products, 20 * FEW, seed=1601):
        base, target = products[query.reference], query.target
        attribute = draw.choice([name for name in ("colour", "pattern") if name != query.change])
        values = list(COLOURS) if attribute == "colour" or not must else list(PATTERNS)
        if must:
            word = draw.choice([value for value in values if value != getattr(base, attribute)])
            target = replace(target, **{attribute: word})
        else:
            word = draw.choice([value for value in COLOURS if value not in (base.colour, target.colour)])
        yield query.target, query.reference, query.text, target.__eq__, lambda _: False, word


def unwanted(arguments: argparse.Namespace, folder: str) -> None:
    """Print the sweep over forms, the chosen one on other queries, and the words' effect where they change nothing."""
    products = catalog(PICTURES)
    tiny, askers = drawn_askers(arguments.model)
    shop = Shop(embed_drawn(tiny, pictures(products)), None, tiny, folder)
    choosing, reported = halves(_drawn_unwanted(products), products, QUERIES)
    name, candidates, strength = sweep(shop, askers, choosing)
    words = embedded(tiny, reported.words)
    print(f"{QUERIES} other queries with an unwanted value: unwanted share / found in the first ten")
    for asker in askers:
        vectors = shop.composed(asker, reported, negative=True)
        form = counted(reported, rescored(shop, vectors, words, reported, FORMS[name], candidates, strength))
        cells = [
            counted(reported, shop.found(asker, reported)),
            counted(reported, shop.found(asker, reported, "negative_text", strength=0.0)),
            form,
            counted(reported, shop.found(asker, reported, "negative_text")),
        ]
        print(f"  {asker.name:20} no words | composer alone | chosen form | search   {shown(cells)}", flush=True)
    for must in (True, False):
        _, others = halves(_drawn_other(products, must), products, FEW)
        kind = "must_text" if must else "negative_text"
        print(
            f"{FEW} queries with {'must_text' if must else 'an unwanted colour that neither picture nor target has'}: R@10"
        )
        for asker in askers:
            runs = [shop.found(asker, others), *([] if must else [shop.found(asker, others, kind, strength=0.0)])]
            runs.append(shop.found(asker, others, kind))
            heads = "no words | search" if must else "no words | composer alone | search"
            print(f"  {asker.name:20} {heads}   {' | '.join(f'{counted(others, rows)[1]:.3f}' for rows in runs)}")
    shop.collection.close()


def drawn_askers(edit_aware: str | None) -> tuple[Vectorizer, list[Asker]]:
    """Return `tiny`, and the composers over its backbone."""
    tiny = load("tiny", "cpu")
    found = [Asker("LinCIR as published", tiny, "lincir"), Asker("CompoDiff", tiny, "compodiff")]
    if edit_aware:
        found.insert(1, Asker("LinCIR, edit-aware", load(edit_aware, "cpu"), "lincir"))
    return tiny, found


def weigh(shop: Shop, askers: Sequence[Asker], choosing: Asked, reported: Asked) -> None:
    """Print the weight of texts chosen on some queries, and the searches with it on others, against either alone."""
    for asker in askers:
        vectors = shop.composed(asker, choosing)
        means = [float(scored(choosing, first_ten(shop.cosines(vectors, w), choosing)).mean()) for w in TEXT_WEIGHTS]
        best = TEXT_WEIGHTS[int(np.argmax(means))]
        print(f"  {asker.name}: mean of R@1 and R@10 on the half for choosing, by weight of texts:")
        print("    " + ", ".join(f"{w:g} {mean:.3f}" for w, mean in zip(TEXT_WEIGHTS, means, strict=True)))
        values = {
            w: scored(reported, shop.found(asker, reported, text_weight=w)) for w in (best, TEXT_WEIGHT, 0.0, 1.0)
        }
        others = ", ".join(f"{w:g} {values[w].mean():.3f}" for w in (TEXT_WEIGHT, 0.0, 1.0))
        print(f"    on the other half: {best:g} (chosen) {values[best].mean():.3f}; {others}")
        for name, w in (("pictures alone", 0.0), ("texts alone", 1.0)):
            gain = metrics.paired(values[best], values[w])
            print(f"    chosen - {name}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]", flush=True)


def texts(arguments: argparse.Namespace, folder: str) -> None:
    """Print fused search on the drawn shop, where a third of the texts is wrong, missing or poor."""
    products = catalog(PICTURES)
    tiny, askers = drawn_askers(arguments.model)
    raw = embed_drawn(tiny, pictures(products))
    made = (
        (query.target, query.reference, query.text, query.target.__eq__, lambda _: False, "")
        for query in queries(products, 12 * QUERIES, seed=1701)
    )
    choosing, reported = halves(made, products, QUERIES)
    for name, write in (("captions", caption), ("rough titles", rough_caption)):
        draw = random.Random(5)
        lines: list[str] = []
        for product in products:
            kind = draw.random()
            if kind < DAMAGED:
                lines.append(write(draw.choice(products), draw))
            else:
                good = write(product, draw)
                lines.append("" if kind < 2 * DAMAGED else product.category if kind < 3 * DAMAGED else good)
        vectors = np.zeros_like(raw)
        rows = [row for row, line in enumerate(lines) if line]
        vectors[rows] = embedded(tiny, [lines[row] for row in rows])
        print(f"Drawn shop, {name}, {QUERIES} queries to choose on and {QUERIES} others:")
        shop = Shop(raw, vectors, tiny, f"{folder}/{name.split()[0]}")
        weigh(shop, askers, choosing, reported)
        shop.collection.close()


def real(arguments: argparse.Namespace, folder: str) -> None:
    """Print fused search and unwanted colours on real photos with titles."""
    published, edit_aware = load(arguments.published, "cpu"), load(arguments.model, "cpu")
    items = [item for item in read_items(arguments.data) if is_held_out(item)]
    products = [item.product for item in items]
    shop = Shop(embed(published, items), embedded(published, [item.title for item in items]), published, folder)
    askers = [Asker("LinCIR as published", published, "lincir"), Asker("LinCIR, edit-aware", edit_aware, "lincir")]
    named = np.mean([item.product.colour in item.title.lower() for item in items])
    print(f"{len(items):,} real photos; {named:.0%} of the titles name the colour")
    edits = (
        (query.target, query.reference, query.text, query.target.__eq__, lambda _: False, "")
        for query in make_queries(products, 12 * QUERIES, seed=1801)
    )
    weigh(shop, askers, *halves(edits, products, QUERIES))

    def unwanted_colours() -> Iterator[Any]:
        for query in make_queries(products, 12 * QUERIES, seed=1802):
            base, target = products[query.reference], query.target
            if query.kind == "colour":
                continue
            yield (
                target, query.reference, query.text,
                lambda p, base=base, target=target: replace(p, colour=base.colour) == target and p.colour != base.colour,
                lambda p, base=base: p.colour == base.colour, base.colour,
            )  # fmt: skip

    _, reported = halves(unwanted_colours(), products, QUERIES)
    print(f"{QUERIES} queries with the picture's own colour unwanted: unwanted share / found in the first ten")
    for asker in askers:
        for weight in (0.0, TEXT_WEIGHT):
            runs = {
                "no words": shop.found(asker, reported, text_weight=weight),
                "composer alone": shop.found(asker, reported, "negative_text", strength=0.0, text_weight=weight),
                "search": shop.found(asker, reported, "negative_text", text_weight=weight),
            }
            cells = [counted(reported, rows) for rows in runs.values()]
            print(f"  {asker.name:20} texts {weight:g}: {' | '.join(runs)}   {shown(cells)}")
            ours, before = (of(reported.right, runs[name]) for name in ("search", "composer alone"))
            gain = metrics.paired(metrics.hits(ours, 10), metrics.hits(before, 10))
            print(
                f"    found, search - composer alone: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]", flush=True
            )
    shop.collection.close()


PARTS: Mapping[str, Callable[[argparse.Namespace, str], None]] = {"unwanted": unwanted, "texts": texts, "real": real}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--model", help="edit-aware model folder")
    parser.add_argument("--published", help="real: model folder trained as published")
    parser.add_argument("--data", type=Path, help="real: folder with products.csv and photos")
    arguments = parser.parse_args()
    if arguments.part == "real" and not all((arguments.data, arguments.published, arguments.model)):
        parser.error("real needs --data, --published and --model")
    with tempfile.TemporaryDirectory() as folder:
        PARTS[arguments.part](arguments, folder)


if __name__ == "__main__":
    main()
