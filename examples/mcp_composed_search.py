"""An agent's search in two steps over MCP: by picture and words, then the best result itself with another wish.

pip install 'cir-vectorizer[models,qdrant,mcp]'
cir-vectorizer sync ./photos --to qdrant:./index/shop --model lincir-vit-l
python examples/mcp_composed_search.py --in qdrant:./index/shop --model lincir-vit-l --image dress.jpg --text "is red" --then "is long"
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import click
from fastmcp import Client
from fastmcp.client.transports import StdioTransport


async def search(server: list[str], image: Path, wishes: tuple[str, str], limit: int) -> list[list[dict[str, Any]]]:
    """Return the results of both steps, as an agent that calls the tool sees them."""
    transport = StdioTransport(sys.executable, ["-m", "cir_vectorizer_mcp", *server], env=dict(os.environ))
    async with Client(transport) as client:
        first = await client.call_tool("composed_search", {"image": str(image), "text": wishes[0], "limit": limit})
        results = first.structured_content["results"]
        again = {"image_id": results[0]["id"], "text": wishes[1], "limit": limit}
        second = await client.call_tool("composed_search", again)
    return [results, second.structured_content["results"]]


@click.command()
@click.option("--in", "address", required=True, help="The collection, for example qdrant:./index/shop.")
@click.option("--model", required=True, help="The model that composes the queries.")
@click.option("--image", required=True, type=click.Path(exists=True, resolve_path=True, path_type=Path))
@click.option("--text", required=True, help="What should be different.")
@click.option("--then", "then", required=True, help="What should be different from the best result.")
@click.option("--limit", default=5, show_default=True)
def main(address: str, model: str, image: Path, text: str, then: str, limit: int) -> None:
    """Print what both steps found."""
    server = ["--in", address, "--model", model, "--folder", str(image.parent)]
    for results in asyncio.run(search(server, image, (text, then), limit)):
        for each in results:
            click.echo(f"{each['score']:.4f}  {each['id']}  {each['picture']}")
        click.echo()


if __name__ == "__main__":
    main()
