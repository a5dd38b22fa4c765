"""Composed search as a step of a LangChain chain: the retriever finds products, the next step writes them as text for a model.

pip install 'cir-vectorizer[models,qdrant,langchain]'
cir-vectorizer sync ./photos --to qdrant:./index/shop --model lincir-vit-l
python examples/langchain_composed_search.py --in qdrant:./index/shop --model lincir-vit-l --image dress.jpg --text "is red"
"""

from pathlib import Path

import click
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from cir_vectorizer_langchain import ComposedRetriever


def as_lines(documents: list[Document]) -> str:
    """Return the products as lines that a prompt can hold."""
    return "\n".join(f"{each.metadata['score']:.4f}  {each.id}  {each.page_content}".rstrip() for each in documents)


@click.command()
@click.option("--in", "address", required=True, help="The collection, for example qdrant:./index/shop.")
@click.option("--model", help="The model that composes the query; with --service one of its models.")
@click.option("--service", help="A running service in place of a local model; its key is CIR_API_KEY.")
@click.option("--image", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--text", required=True, help="What should be different.")
@click.option("--filter", "conditions", help="For example price<50.")
@click.option("--limit", default=5, show_default=True)
def main(
    address: str, model: str | None, service: str | None, image: Path, text: str, conditions: str | None, limit: int
) -> None:
    """Print the objects that look like IMAGE, changed as TEXT says."""
    retriever = ComposedRetriever(collection=address, model=model, service=service, k=limit, filter=conditions)
    chain = retriever | RunnableLambda(as_lines)
    try:
        click.echo(chain.invoke({"image": image, "text": text}))
    finally:
        retriever.close()


if __name__ == "__main__":
    main()
