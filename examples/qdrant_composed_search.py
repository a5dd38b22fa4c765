"""Composed search with the stock Qdrant client: Qdrant itself calls the container at QDRANT__INFERENCE__ADDRESS.

CIR_MODEL=lincir-vit-l CIR_KEY=$(openssl rand -hex 16) docker compose -f plugins/qdrant/compose.yaml up --detach
python examples/qdrant_composed_search.py --collection shop --image dress.jpg --text "is red"
"""

from pathlib import Path

import click
from qdrant_client import QdrantClient

from cir_vectorizer_qdrant import composed, composed_query


@click.command()
@click.option("--url", default="http://localhost:6333", show_default=True, help="Where Qdrant listens.")
@click.option("--collection", required=True)
@click.option("--image", type=click.Path(exists=True, path_type=Path), help="A reference picture in a file …")
@click.option("--like", help="… or the id of an object whose picture is the reference.")
@click.option("--text", required=True, help="What should be different.")
@click.option("--model", default="lincir", show_default=True, help="Name of a model in the container's /v1/models.")
@click.option("--text-weight", default=0.0, show_default=True, help="Weight of the texts of `sync --text-column`.")
@click.option("--unwanted", multiple=True, help="What results should not show; repeatable.")
@click.option("--limit", default=5, show_default=True)
def main(
    url: str,
    collection: str,
    image: Path | None,
    like: str | None,
    text: str,
    model: str,
    text_weight: float,
    unwanted: tuple[str, ...],
    limit: int,
) -> None:
    """Print the objects that look like the picture, changed as TEXT says."""
    client = QdrantClient(url=url, cloud_inference=True, timeout=30)
    if like is not None:
        id_ = int(like) if like.isdecimal() else like
        query = composed(image_id=id_, client=client, collection=collection, text=text, model=model)
    else:
        query = composed(image=image, text=text, model=model)
    arguments = composed_query(query, text_weight=text_weight, unwanted=unwanted)
    for hit in client.query_points(collection, **arguments, limit=limit).points:
        click.echo(f"{hit.score:.4f}  {hit.id}")


if __name__ == "__main__":
    main()
