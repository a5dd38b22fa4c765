"""The whole page: its head, and its sections in the order in which a reader needs them."""

from collections.abc import Iterator
from importlib.resources import files

from cir_vectorizer.evaluate.page import tables
from cir_vectorizer.evaluate.page.confusions import confusions
from cir_vectorizer.evaluate.page.markup import cell, escaped, folded, items, name, table
from cir_vectorizer.evaluate.page.pictures import examples
from cir_vectorizer.evaluate.report import Report
from cir_vectorizer.evaluate.sentences import overview

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Content security policy: the page loads nothing, not even by a mistake of ours."""


def page(report: Report) -> str:
    """Return a report as one HTML page that needs no other file and no network."""
    sections = list(_sections(report))
    links = "".join(f'<a href="#{_anchor(title)}">{title}</a>' for title, _ in sections)
    body = "\n".join(
        f'<section id="{_anchor(title)}"><h2>{title}</h2>\n{content}\n</section>' for title, content in sections
    )
    first, *others = report.summary or ("",)
    lead = f'<p class="lead">{escaped(first)}</p>' if first else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escaped(report.title)}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<header>
<p class="kind">Evaluation of composed image retrieval</p>
<h1>{escaped(report.title)}</h1>
<p class="size">{overview(report)}</p>
<div class="summary">{lead}{items(others) if others else ""}</div>
<nav aria-label="Sections">{links}</nav>
</header>
<main>
{body}
</main>
<script>
{_asset("page.js")}</script>
</body>
</html>
"""


def _sections(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the title and the content of each section that has something to show."""
    if report.figure_names:
        yield "Figures", tables.figures(report)
        if content := tables.cost(report):
            yield "Time of a query", content
    if report.comparisons:
        yield "Differences", tables.comparisons(report)
    if report.figure_names:
        if content := tables.curves(report):
            yield "Curves over k", content
        if content := tables.parts(report):
            yield "By part", content
    if report.examples:
        yield "Queries as pictures", examples(report)
    if report.confusions:
        yield "Confused values", confusions(report)
    if report.published:
        yield "Published figures", tables.published(report)
    if content := _choices(report):
        yield "Choices", content
    if report.missing_count:
        yield "Missing pictures", _missing(report)


def _choices(report: Report) -> str:
    """Return what the figures depend on, and the settings of each row."""
    chosen = [[name(key), cell(escaped(value))] for key, value in report.choices]
    content = table("Choices that the figures depend on", [], chosen, "choices") if chosen else ""
    settings = [
        [name(row.name), cell(" · ".join(f"{escaped(key)} {escaped(value)}" for key, value in row.settings.items()))]
        for row in report.rows
        if row.settings
    ]
    return content + (folded("Settings of each row", table("Settings", [], settings, "choices")) if settings else "")


def _missing(report: Report) -> str:
    count = report.missing_count
    said = "1 picture could not be read" if count == 1 else f"{count:,} pictures could not be read"
    more = count - len(report.missing)
    title = "Their names" if more <= 0 else f"The first {len(report.missing):,} names"
    names = folded(title, items(report.missing)) if report.missing else ""
    return f"<p>{said}; what is missing can be neither found nor judged.</p>{names}"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _asset(file: str) -> str:
    return (files(__package__) / file).read_text(encoding="utf-8")
