"""Composed search by LlamaIndex's retriever: a QueryBundle of picture and words finds image nodes.

pip install 'cir-vectorizer[models,qdrant,llamaindex]'
cir-vectorizer sync ./photos --to qdrant:./index/shop --model lincir-vit-l
python examples/llamaindex_composed_search.py --in qdrant:./index/shop --model lincir-vit-l --image dress.jpg --text "is red"
"""

import click
from llama_index.core.schema import QueryBundle

from cir_vectorizer_llamaindex import ComposedRetriever


@click.command()
@click.option("--in", "address", required=True, help="The collection, for example qdrant:./index/shop.")
@click.option("--model", help="The model that composes the query; with --service one of its models.")
@click.option("--service", help="A running service in place of a local model; its key is CIR_API_KEY.")
@click.option("--image", required=True, type=click.Path(exists=True))
@click.option("--text", required=True, help="What should be different.")
@click.option("--filter", "conditions", help="For example price<50.")
@click.option("--limit", default=5, show_default=True)
def main(
    address: str, model: str | None, service: str | None, image: str, text: str, conditions: str | None, limit: int
) -> None:
    """Print the objects that look like IMAGE, changed as TEXT says."""
    retriever = ComposedRetriever(address, model, service=service, similarity_top_k=limit, filter=conditions)
    try:
        for found in retriever.retrieve(QueryBundle(text, image_path=image)):
            click.echo(f"{found.score:.4f}  {found.node.id_}  {found.node.get_content()}".rstrip())
    finally:
        retriever.close()


if __name__ == "__main__":
    main()
