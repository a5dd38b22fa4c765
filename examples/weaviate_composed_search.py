"""Composed search with the stock Weaviate client: Weaviate itself calls the container at CLIP_INFERENCE_API.

CIR_MODEL=lincir-vit-l CIR_KEY=$(openssl rand -hex 16) docker compose -f plugins/weaviate/compose.yaml up --detach
python examples/weaviate_composed_search.py --collection Shop --image dress.jpg --text "is red"
"""

from pathlib import Path

import click
import weaviate
from weaviate.classes.query import MetadataQuery

from cir_vectorizer_weaviate import composed


@click.command()
@click.option("--host", default="localhost", show_default=True, help="Where Weaviate listens.")
@click.option("--port", default=8080, show_default=True)
@click.option("--grpc-port", default=50051, show_default=True)
@click.option("--collection", "name", required=True)
@click.option("--image", type=click.Path(exists=True, path_type=Path), help="A reference picture in a file …")
@click.option("--like", help="… or the UUID of an object whose picture is the reference.")
@click.option("--text", required=True, help="What should be different.")
@click.option("--limit", default=5, show_default=True)
def main(
    host: str, port: int, grpc_port: int, name: str, image: Path | None, like: str | None, text: str, limit: int
) -> None:
    """Print the objects that look like the picture, changed as TEXT says."""
    with weaviate.connect_to_local(host, port, grpc_port) as client:
        collection = client.collections.get(name)
        if like is not None:
            query = composed(image_id=like, collection=collection, text=text)
        else:
            query = composed(image=image, text=text)
        found = collection.query.near_text(query, limit=limit, return_metadata=MetadataQuery(distance=True))
        for each in found.objects:
            click.echo(f"{1 - (each.metadata.distance or 0):.4f}  {each.uuid}")


if __name__ == "__main__":
    main()
