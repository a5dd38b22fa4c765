"""The map of the tree in CONTRIBUTING.md: one line a room, drawn from the rooms' own docstrings.

python -m tests.support.house            draw it again
python -m tests.support.house --check    exit 1 if it is out of date
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- map: drawn by `make lint` -->", "<!-- end of the map -->"
WIDTH = 44
PACKAGES = (
    "cir_vectorizer",
    "trainer/cir_vectorizer_trainer",
    "plugins/qdrant/cir_vectorizer_qdrant",
    "plugins/weaviate/cir_vectorizer_weaviate",
    "integrations/langchain/cir_vectorizer_langchain",
    "integrations/llamaindex/cir_vectorizer_llamaindex",
    "integrations/mcp/cir_vectorizer_mcp",
)
OTHERS = {
    "examples/": "Searches with the stock clients and the integrations, and the demo: a drawn shop, its model and its page of results.",
    "benchmarks/": "One script for each figure that the documents state.",
    "docs/": "Documents for users, which `make docs` builds into a site.",
    "website/": "How the documents become a site: hooks of MkDocs, the reference that the program makes, styles.",
    "docker/": "The container's image, and the chart's manifest for clusters without Helm.",
    "charts/": "The Helm chart.",
    "tests/": "Tests in folders by subject; `support/` holds their helpers, `data/` their inputs.",
}


def first_line(module: Path) -> str:
    """Return the first line of a module's docstring; empty where it has none."""
    return (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def rooms(package: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield each room and each loose module of a package: its name, indented by its depth, and what it is."""
    for entry in sorted(package.iterdir(), key=lambda each: (each.is_file(), each.name)):
        indent = "  " * (depth + 1)
        if (entry / "__init__.py").is_file():
            yield f"{indent}{entry.name}/", first_line(entry / "__init__.py")
            yield from (room for room in rooms(entry, depth + 1) if room[0].endswith("/"))
        elif depth == 0 and entry.suffix == ".py" and not entry.name.startswith("__"):
            yield f"{indent}{entry.name}", first_line(entry)


def draw() -> str:
    """Return the map as a block of text."""
    lines = []
    for name in PACKAGES:
        package = ROOT / name
        lines += [(f"{name}/", first_line(package / "__init__.py")), *rooms(package)]
    lines += list(OTHERS.items())
    return "\n".join(f"{name:<{WIDTH - 1}} {what}".rstrip() for name, what in lines)


def main() -> int:
    """Draw the map into the document, or compare it with the one there."""
    text = DOCUMENT.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    drawn = f"{head}{BEGIN}\n```\n{draw()}\n```\n{END}{tail}"
    if "--check" in sys.argv[1:]:
        return int(drawn != text)
    DOCUMENT.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
