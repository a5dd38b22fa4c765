"""Pieces of HTML that the sections of the page share. Arguments are HTML, unless they are named as text."""

import html
from collections.abc import Iterable, Sequence


def escaped(text: object) -> str:
    """Return a text as HTML that shows it; a number and its sign % stay on one line."""
    return html.escape(str(text)).replace(" %", "&nbsp;%")


def heading(text: object) -> str:
    """Return the head of a column."""
    return f'<th scope="col">{escaped(text)}</th>'


def name(text: object) -> str:
    """Return the head of a row."""
    return f'<th scope="row">{escaped(text)}</th>'


def cell(content: str, kind: str = "", style: str = "", hint: str = "") -> str:
    """Return a cell of a table.

    Args:
        kind: its classes.
        hint: a text that is shown when the pointer rests on the cell.
    """
    given = (("class", kind), ("style", style), ("title", escaped(hint)))
    attributes = "".join(f' {key}="{value}"' for key, value in given if value)
    return f"<td{attributes}>{content}</td>"


def table(about: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Return a table in a box of its own, which scrolls where it is wider than the page.

    Args:
        about: a text that says what the table shows, for screen readers.
        head: heads of columns, as `heading` makes them; none leaves the row of heads out.
        rows: the cells of each row, as `name` and `cell` make them.
    """
    top = f"<thead><tr>{''.join(head)}</tr></thead>" if head else ""
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(about)}">'
        f'<table class="{kind}">{top}<tbody>{body}</tbody></table></div>'
    )


def panels(label: str, each: Sequence[tuple[str, str]]) -> str:
    """Return parts of which the reader chooses one to see; all of them are seen on paper and without scripts.

    Args:
        label: a text that says what is chosen.
        each: title, as text, and content of each part.
    """
    parts = "\n".join(f'<div class="panel"><h3>{escaped(title)}</h3>{content}</div>' for title, content in each)
    return f'<div class="panels" data-label="{escaped(label)}">{parts}</div>' if len(each) > 1 else parts


def folded(title: str, content: str) -> str:
    """Return a part that is closed until the reader opens it; `title` is text."""
    return f"<details><summary>{escaped(title)}</summary>{content}</details>"


def items(texts: Iterable[object]) -> str:
    """Return a list of texts."""
    return f"<ul>{''.join(f'<li>{escaped(text)}</li>' for text in texts)}</ul>"
