"""Benchmark on the drawn shop: the recall lost by composing from stored vectors instead of from pictures.

    python -m benchmarks.stored

The same composed queries give their reference in three ways: as the picture itself; as an object's id in a collection
that sync filled, whose records hold the length of each embedding; and as an id in a collection of bare unit vectors, as
other programs store them, for which the model's mean length is used.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from cir_vectorizer.collections import Collection, Id, ModelRecord, Point, open_collection
from cir_vectorizer.collections.stored import resolve
from cir_vectorizer.models import load
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from examples.demo.catalog import catalog, queries
from examples.demo.evaluate import score, unit
from examples.demo.run import make_shop

BATCH = 64


def main() -> None:
    """Print the recall of each composer and way, and the vectors' cosine to those made from pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--queries", type=int, default=600)
    parser.add_argument("--composer", action="append")
    given = parser.parse_args()
    vectorizer = load("tiny", "cpu")
    products = catalog(given.pictures)
    asked = queries(products, given.queries, seed=12)
    with tempfile.TemporaryDirectory() as temporary:
        table = make_shop(Path(temporary) / "shop", products)
        synced = open_collection(f"qdrant:{temporary}/index/synced")
        sync(open_source(table, id_column="id"), synced, vectorizer)
        points = synced.get([id_ for id_, _ in synced.scan()])
        points.sort(key=lambda point: int(point.payload["id"]))
        index = unit(np.stack([point.vector for point in points if point.vector is not None]))
        bare = synced.beside("bare")
        bare.create(ModelRecord.of(vectorizer))
        bare.upsert([Point(i, vector, {}) for i, vector in enumerate(index)])
        ids: dict[str, list[Id]] = {"recorded length": [p.id for p in points], "mean length": list(range(len(points)))}
        places: dict[str, Collection] = {"recorded length": synced, "mean length": bare}
        print(f"{len(asked):,} composed queries over {len(products):,} pictures of the drawn shop, model tiny")
        print(f"{'composer':10} {'reference':16} {'R@1':>6} {'R@10':>6}  cosine to the picture's query: mean, least")
        for composer in given.composer or ["lincir", "compodiff", "sum"]:
            vectors = {}
            for way in ("picture", *places):
                composed = []
                for query in asked:
                    pictures = Path(temporary) / "shop" / "pictures"
                    image = (
                        pictures / f"{query.reference:05}.jpg"
                        if way == "picture"
                        else {"id": ids[way][query.reference]}
                    )
                    parsed = ComposedQuery.parse({"image": image, "text": query.text, "composer": composer})
                    composed.append(parsed if way == "picture" else resolve(parsed, places[way], places[way].info()))
                batches = [composed[at : at + BATCH] for at in range(0, len(composed), BATCH)]
                vectors[way] = np.concatenate([vectorizer.compose(batch).vectors for batch in batches])
                recall = score(vectors[way], asked, products, index).recall()
                same = np.sum(unit(vectors[way]) * unit(vectors["picture"]), axis=1)
                turned = f"{same.mean():.4f}, {same.min():.4f}"
                print(f"{composer:10} {way:16} {recall['R@1']:6.3f} {recall['R@10']:6.3f}  {turned}", flush=True)
        synced.close()


if __name__ == "__main__":
    main()
