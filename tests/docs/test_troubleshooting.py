"""The page of error sentences quotes sentences that the program can say."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
GAP = "…"


def sentences() -> Iterator[str]:
    """Yield each text of the program's code, with a gap for each value that is put in."""
    for folder in ("cir_vectorizer", "trainer", "plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


SENTENCES = list(sentences())
QUOTED = [
    quoted
    for line in PAGE.splitlines()
    if line.startswith("**`")
    for quoted in re.findall(r"`([^`]+)`", line.split("** in ")[0])
    if " " in quoted and not quoted.startswith("pip ")
]


def test_the_page_quotes_sentences():
    assert len(QUOTED) > 25


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_sentence_can_be_said(quoted):
    pieces = [piece.strip() for piece in quoted.split(GAP) if piece.strip()]
    assert any(all(piece in said for piece in pieces) for said in SENTENCES), f"no code says {quoted!r}"
