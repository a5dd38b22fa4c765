"""A shop assistant's conversation: each step takes a result and says what should be different from it.

python examples/refine_in_steps.py --in qdrant:index/shop --model my-model --text "a red dress"

Then type, for example, `2 with long sleeves` (like the second result, but with long sleeves), `1 not striped`, `back`, or an
empty line to end. Words for what to avoid are kept for the rest of the conversation.
"""

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

import cir_vectorizer
from cir_vectorizer.collections import Hit, open_collection

_STEP = re.compile(r"(?P<number>\d+)\s+(?P<refusal>not\s+)?(?P<words>.+)")


@click.command()
@click.option("--in", "address", required=True, help="The collection, for example qdrant:index/shop.")
@click.option("--model", required=True, help="The model that made it.")
@click.option("--image", type=click.Path(exists=True, path_type=Path), help="A picture to begin with.")
@click.option("--text", help="Words to begin with.")
@click.option("--column", default="title", show_default=True, help="Column that names a product to the shopper.")
@click.option("--limit", default=5, show_default=True)
def main(address: str, model: str, image: Path | None, text: str | None, column: str, limit: int) -> None:
    """Search a shop in several steps."""
    vectorizer = cir_vectorizer.load(model)
    query: dict[str, Any] = {name: value for name, value in (("image", image), ("text", text)) if value is not None}
    unwanted: list[str] = []
    earlier: list[tuple[dict[str, Any], list[str]]] = []
    with closing(open_collection(address)) as shop:
        while True:
            avoided = {"negative_text": unwanted} if unwanted else {}
            hits = cir_vectorizer.search(shop, {**query, **avoided}, model=vectorizer, limit=limit)
            show(hits, column)
            line = click.prompt("then", default="", show_default=False).strip()
            if not line:
                return
            if line == "back":
                if earlier:
                    query, unwanted = earlier.pop()
                continue
            step = _STEP.fullmatch(line)
            if step is None or not 1 <= int(step["number"]) <= len(hits):
                click.echo("say the number of a result and what should be different, for example: 2 in blue")
                continue
            earlier.append((query, unwanted))
            query = {"image": {"id": hits[int(step["number"]) - 1].id}}
            if step["refusal"]:
                unwanted = [*unwanted, step["words"]]
            else:
                query["text"] = step["words"]


def show(hits: Sequence[Hit], column: str) -> None:
    """Print the results with their numbers."""
    for number, hit in enumerate(hits, 1):
        payload = hit.payload or {}
        click.echo(f"{number}  {hit.score:.3f}  {payload.get(column) or hit.id}")


if __name__ == "__main__":
    main()
