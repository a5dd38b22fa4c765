"""Benchmark of CompoDiff on the drawn shop: compared with a regressor and LinCIR, with negative text, and with masks.

    python -m benchmarks.compodiff_world

The packaged CompoDiff of `tiny` and the regressor (two layers, from picture and text embedding to the target's) were
trained on the same triplets. Neither these nor the backbone's training had the queries' wordings or the held-out
combinations.
"""

import io
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.negative_text import HEADINGS, counted, has_unwanted, ranked
from cir_vectorizer.evaluate import metrics
from cir_vectorizer.models import Vectorizer, Work, load
from cir_vectorizer.query import ComposedQuery
from examples.demo.catalog import HELD_OUT, Query, catalog, pictures, queries
from examples.demo.evaluate import KS, Hits, by_wording, composed, embed_drawn, score, slices, unit
from examples.demo.harder import UnwantedQuery, mask_queries, unwanted_queries
from examples.demo.make_compodiff import lessons, training_data
from examples.demo.run import show_wordings

PICTURES, QUERIES, MASK_QUERIES = 3000, 600, 300
UNWANTED_CANDIDATES = 600
LEAST_UNWANTED = 3
"""Least number of unwanted results in the plain query's top 10, for the query to be tested with negative text."""


class Shop:
    """The drawn shop, indexed by `tiny`."""

    def __init__(self) -> None:
        self.model = load("tiny", "cpu")
        self.products = catalog(PICTURES)
        self.raw = embed_drawn(self.model, pictures(self.products))
        self.index = unit(self.raw)

    def reference(self, at: int) -> dict[str, object]:
        """Return a picture of the shop as a query's image."""
        return {"vector": self.index[at].tolist(), "norm": float(np.linalg.norm(self.raw[at]))}


def regressor(model: Vectorizer, seed: int) -> nn.Module:
    """Train two layers on the packaged CompoDiff's triplets: [picture, text] -> target, all unnormalised."""
    learnt = lessons()
    data, texts = training_data(model, learnt), learnt.texts
    triplets = data.triplets
    assert triplets is not None
    assert triplets.reference is not None
    with torch.inference_mode():
        parts = [_encode(model, texts[at : at + 512]) for at in range(0, len(texts), 512)]
    encoded = torch.cat(parts).clone()
    torch.manual_seed(seed)
    dim = model.dim
    network = nn.Sequential(nn.Linear(2 * dim, 8 * dim), nn.GELU(), nn.Linear(8 * dim, dim))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    passes, size = 12, 512
    steps = passes * len(triplets) // size
    for step in range(steps):
        rows = torch.randint(0, len(triplets), (size,))
        given = torch.cat([data.embeddings[triplets.reference[rows]], encoded[triplets.text[rows]]], dim=1)
        loss = F.mse_loss(network(given), data.embeddings[triplets.target[rows]])
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def _encode(model: Vectorizer, texts: list[str]) -> Tensor:
    encoder = model.backbone.text
    return encoder.encode_text([encoder.tokenizer.row(text) for text in texts])


def edits(shop: Shop, asked: list[Query]) -> None:
    """Print the recall of CompoDiff, the regressor and LinCIR on changes of one attribute."""
    references = torch.from_numpy(shop.raw[[query.reference for query in asked]])
    network = regressor(shop.model, seed=0)
    with torch.inference_mode():
        given = torch.cat([references, _encode(shop.model, [query.text for query in asked])], dim=1)
        vectors = {"regressor": network(given).numpy()}
    for name, composer in (("lincir_published", "lincir"), ("compodiff", "compodiff")):
        vectors[name] = composed(
            shop.model, [{"image": shop.reference(q.reference), "text": q.text, "composer": composer} for q in asked]
        )
    hits = {name: score(found, asked, shop.products, shop.index) for name, found in vectors.items()}
    for name, found in hits.items():
        parts = ", ".join(f"{part} {found.recall(rows)['R@1']:.3f}" for part, rows in slices(asked).items())
        print(f"{name:16} R@1 {found.recall()['R@1']:.3f}  R@10 {found.recall()['R@10']:.3f}  R@1 by kind: {parts}")
    show_wordings(hits, by_wording(asked, shop.products, lessons().transitions()))
    for other in ("regressor", "lincir_published"):
        for k in KS:
            gain = metrics.paired(hits["compodiff"].at[k], hits[other].at[k])
            print(f"  CompoDiff - {other}, R@{k}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")


def negative_text(shop: Shop) -> None:
    """Print results for edits of a picture that has something unwanted, without and with negative text."""
    candidates = unwanted_queries(shop.products, UNWANTED_CANDIDATES, seed=21)

    def show(name: str, of: list[UnwantedQuery], rows: npt.NDArray[np.intp]) -> tuple[float, float]:
        found = counted(of, rows, shop.products)
        print(f"{name:34}{found}")
        return found.unwanted, found.found

    plain = ranked(shop.model, shop.raw, candidates, "compodiff", negative=False)
    kept = [
        i
        for i, (query, row) in enumerate(zip(candidates, plain, strict=True))
        if sum(has_unwanted(query, shop.products[at]) for at in row) >= LEAST_UNWANTED
        and any(query.wanted(product) for product in shop.products)
    ]
    of = [candidates[i] for i in kept]
    print(f"{len(of)} of {len(candidates)} queries have at least {LEAST_UNWANTED} unwanted in the plain top 10")
    print(f"{'':34}{HEADINGS}")
    before, _ = show("CompoDiff, no negative text", of, plain[kept])
    after, recall = show("CompoDiff, negative text", of, ranked(shop.model, shop.raw, of, "compodiff", negative=True))
    print(f"  unwanted is {after / before:.2f} of what it was (0.5 wanted)")
    sums = []
    for weight in np.round(np.arange(0, 1.51, 0.05), 2):
        options = {"weights": {"negative": float(weight)}}
        rows = ranked(shop.model, shop.raw, of, "sum", negative=True, options=options)
        sums.append(show(f"sum, negative weight {weight:g}", of, rows))
    enough = [unwanted for unwanted, found in sums if found >= recall]
    best = max(found for _, found in sums)
    said = f"has {min(enough):.3f} unwanted there" if enough else f"never gets there (at most {best:.3f})"
    print(f"  at CompoDiff's R@10 of {recall:.3f}, with {after:.3f} unwanted, the sum {said}")


def masks(shop: Shop) -> None:
    """Print the recall with a loud distraction beside the product: masked, hidden but without telling the network, and
    visible."""
    asked = mask_queries(shop.products, MASK_QUERIES, seed=31)

    def work_of(query: object, said: bool, hidden: bool) -> Work:
        work = shop.model.plan(query_of(query, hidden))
        return work if said or not hidden else replace(work, plan=replace(work.plan, mask=None))

    def query_of(query: object, hidden: bool) -> ComposedQuery:
        content = io.BytesIO()
        query.picture.save(content, "PNG")  # type: ignore[attr-defined]
        given = {"image": content.getvalue(), "text": query.text, "composer": "compodiff"}  # type: ignore[attr-defined]
        return ComposedQuery.parse({**given, "mask": {"box": query.box}} if hidden else given)  # type: ignore[attr-defined]

    hits = {}
    for name, said, hidden in (
        ("mask", True, True),
        ("same pixels, mask zero", False, True),
        ("no mask", False, False),
    ):
        vectors = np.concatenate(
            [shop.model.run([work_of(q, said, hidden) for q in asked[at : at + 64]]) for at in range(0, len(asked), 64)]
        )
        ranking = metrics.top(vectors @ shop.index.T, max(KS))
        right = np.array([[shop.products[i] == q.target for i in row] for row, q in zip(ranking, asked, strict=True)])
        hits[name] = Hits({k: metrics.hits(right, k) for k in KS})
        recall = hits[name].recall()
        print(f"{name:24} R@1 {recall['R@1']:.3f}  R@10 {recall['R@10']:.3f}")
    for k in KS:
        gain = metrics.paired(hits["mask"].at[k], hits["same pixels, mask zero"].at[k])
        print(f"  R@{k}: p = {gain.p:.2g} (below 0.01 wanted)")


def main() -> None:
    shop = Shop()
    print(
        f"{QUERIES} edits; {sum(p in HELD_OUT for p in shop.products)} of {PICTURES} pictures are of held-out combinations"
    )
    edits(shop, queries(shop.products, QUERIES, seed=12))
    print()
    negative_text(shop)
    print()
    masks(shop)


if __name__ == "__main__":
    main()
