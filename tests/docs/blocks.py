"""Code blocks of the documents, found by markdown-it, with the remark before each that says how a test treats it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PATTERNS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/**/*.md",
    "plugins/*/README.md",
    "integrations/**/*.md",
    "charts/*/README.md",
    "examples/**/*.md",
    "cir_vectorizer/SKILL.md",
)
RUN = ("bash", "python", "js", "typescript")
PARSED = ("json", "jsonl", "yaml", "toml", "ini", "dockerfile")
SHOWN = ("", "text", "mermaid")
REASONS = (
    "GPU",
    "cluster",
    "container engine",
    "network",
    "model hub",
    "installs packages",
    "takes long",
    "needs ",
)
"""Words with which the reason in `<!-- not run: REASON -->` begins; a detail may follow."""

_REMARK = re.compile(r"<!--\s*(not run|background|hidden|exit status)\b:?\s*(.*?)\s*-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code in a document.

    Attributes:
        page: path of the document, relative to the repository.
        line: line of the first line of code, counted from 1.
        language: as the fence names it, in lower case; "" if it names none.
        code: the text of the block.
        reason: why it is not run; "" if it is.
        background: true if it starts a program that stays until the end of the page.
        ready: address that answers once that program is ready; "" for the default.
        status: the exit status that the block is to end with.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str = ""
    background: bool = False
    ready: str = ""
    status: int = 0

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in RUN and not self.reason


def pages() -> list[str]:
    """Return the paths of all documents, relative to the repository."""
    return sorted({path.relative_to(ROOT).as_posix() for pattern in PATTERNS for path in ROOT.glob(pattern)})


def blocks(page: str, text: str | None = None) -> list[Block]:
    """Return the blocks of a document in their order, those hidden in comments included."""
    return list(_blocks(page, (ROOT / page).read_text(encoding="utf-8") if text is None else text, 0))


def _blocks(page: str, text: str, before: int) -> Iterator[Block]:
    """Yield the blocks of a text that begins after so many lines of its page."""
    remark: re.Match[str] | None = None
    for token in MarkdownIt("commonmark").parse(text):
        line = before + (token.map[0] if token.map else 0) + 1
        if token.type == "html_block":
            remark = _REMARK.match(token.content.strip())
            if remark is not None and remark[1] == "hidden":
                language, _, code = remark[2].partition("\n")
                yield Block(page, line + 1, language.strip(), code)
                remark = None
        elif token.type == "fence":
            language = token.info.split()[0].lower() if token.info.strip() else ""
            kind, detail = (remark[1], remark[2]) if remark is not None else ("", "")
            yield Block(
                page,
                line + 1,
                language,
                token.content,
                reason=detail if kind == "not run" else "",
                background=kind == "background",
                ready=detail if kind == "background" else "",
                status=int(detail) if kind == "exit status" else 0,
            )
            remark = None
        elif token.type == "code_block" and "```" in token.content:  # the indented content of a tab or an admonition
            yield from _blocks(page, token.content, line - 1)
            remark = None
        elif token.type == "code_block":
            yield Block(page, line, "", token.content)
            remark = None
        elif token.content:
            remark = None
