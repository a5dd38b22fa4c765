"""The section of the page about values found instead of those asked for."""

from itertools import islice

from cir_vectorizer.evaluate.page.markup import cell, escaped, items, name, panels, table
from cir_vectorizer.evaluate.report import Confusion, Report
from cir_vectorizer.evaluate.sentences import mistake, mistakes

MOST_VALUES = 30
"""Largest number of rows and of columns of a matrix."""
_SENTENCES = 5


def confusions(report: Report) -> str:
    """Return the most frequent mistakes in words, and a matrix, for each attribute and row."""
    each = [
        (f"{confusion.attribute}, {confusion.row}", _words(confusion) + _matrix(confusion))
        for confusion in report.confusions
    ]
    return "<p>The first result of each query that asks for a value.</p>" + panels("Attribute and row", each)


def _words(confusion: Confusion) -> str:
    sentences = [mistake(*each) for each in islice(mistakes(confusion), _SENTENCES)]
    return items(sentences or ["Every first result has the value asked for."])


def _matrix(confusion: Confusion) -> str:
    counts = confusion.counts
    most = sorted(range(len(confusion.values)), key=lambda i: -sum(counts[i]))[:MOST_VALUES]
    asked = [i for i in sorted(most) if sum(counts[i])]
    often = sorted(range(len(confusion.found)), key=lambda j: -sum(counts[i][j] for i in asked))[:MOST_VALUES]
    found = [j for j in sorted(often) if any(counts[i][j] for i in asked)]
    rows = []
    for i in asked:
        total = sum(counts[i])
        cells = []
        for j in found:
            right = confusion.values[i] == confusion.found[j]
            hint = f"asked {confusion.values[i]}, found {confusion.found[j]}: {counts[i][j]:,} of {total:,}"
            kind = "shade good" if right else "shade bad"
            shown = f"{counts[i][j]:,}" if counts[i][j] else ""
            cells.append(cell(shown, kind, f"--shade: {counts[i][j] / total:.2f}", hint))
        rows.append([name(confusion.values[i]), *cells])
    head = ['<th class="corner">asked \\ found</th>']
    head += [f'<th scope="col"><span>{escaped(confusion.found[j])}</span></th>' for j in found]
    left = len(confusion.values) > MOST_VALUES or len(confusion.found) > MOST_VALUES
    more = f"<p>The {MOST_VALUES} most frequent values; report.md has all.</p>" if left else ""
    return table(f"{confusion.attribute} asked for and found", head, rows, "matrix") + more if rows else ""
