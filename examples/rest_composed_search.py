"""Composed search over any collection: the service makes the vector, a plain vector search finds the objects.

cir-vectorizer serve --model lincir-vit-l
cir-vectorizer sync ./photos --to qdrant:./index/shop --model lincir-vit-l
python examples/rest_composed_search.py --in qdrant:./index/shop --image dress.jpg --text "is red"
"""

from pathlib import Path

import click

from cir_vectorizer.client import Client
from cir_vectorizer.collections import Ask, open_collection


@click.command()
@click.option("--service", default="http://localhost:8000", show_default=True, help="Where `serve` listens.")
@click.option("--api-key", envvar="CIR_API_KEY", help="Key of the service, if it asks for one.")
@click.option("--in", "address", required=True, help="The collection, for example qdrant:./index/shop.")
@click.option("--image", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--text", required=True, help="What should be different.")
@click.option("--limit", default=5, show_default=True)
def main(service: str, api_key: str | None, address: str, image: Path, text: str, limit: int) -> None:
    """Print the objects that look like IMAGE, changed as TEXT says."""
    with Client(service, api_key=api_key) as client:
        composed = client.compose([{"image": image, "text": text}])
    for note in composed.notes[0]:
        click.echo(f"Note: {note}", err=True)
    collection = open_collection(address)
    try:
        for hit in collection.search(composed.vectors[0], Ask(limit)):
            click.echo(f"{hit.score:.4f}  {hit.id}")
    finally:
        collection.close()


if __name__ == "__main__":
    main()
