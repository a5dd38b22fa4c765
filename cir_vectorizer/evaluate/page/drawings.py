"""Drawings of the page as inline SVG: whiskers in cells, bars, and curves over k."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cir_vectorizer.evaluate.metrics import Estimate
from cir_vectorizer.evaluate.page.markup import escaped
from cir_vectorizer.evaluate.sentences import percent

COLOURS = 8
"""Number of curves that a reader can tell apart: colours in page.css, and as many dashes and markers here."""
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "", "5 2", "1 4", "12 4")
_MARKERS = (
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",  # disc
    "M-3.2 -3.2h6.4v6.4h-6.4z",  # square
    "M0 -4.2l4.2 7.2h-8.4z",  # triangle
    "M0 -4.6l4.6 4.6l-4.6 4.6l-4.6 -4.6z",  # diamond
    "M0 4.2l4.2 -7.2h-8.4z",  # triangle that points down
    "M-1.4 -4h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z",  # plus
    "M-4 -1.6h8v3.2h-8z",  # bar
    "M-1.6 -4h3.2v8h-3.2z",  # upright bar
)
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#5f5f6b}.grid{stroke:#e4e3ea}"
    ".curve path{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}"
    ".curve .leader{stroke-width:1;opacity:.45}.curve .marker{fill:currentColor;stroke:#fff;stroke-width:1}"
    ".curve text{fill:currentColor;font-weight:500}"
    ".c0{color:#2b5bd7}.c1{color:#b8500a}.c2{color:#0b7a50}.c3{color:#8a35b5}"
    ".c4{color:#c0224b}.c5{color:#0a6e86}.c6{color:#7a5a10}.c7{color:#55555f}"
)
"""Rules of page.css for charts, in its light colours."""
_LINE = 16
"""Least distance between two labels of curves, in pixels."""
_NUMBER = 30
"""Least distance between two numbers of the axis, in pixels."""
_ROOM = 28
"""Room for a label besides its letters: the line that leads to it, and a margin; in pixels."""
_LETTER = 7.5
"""Width of a letter of a label, in pixels; a rough mean."""


def whisker(estimate: Estimate, low: float, high: float, kind: str = "") -> str:
    """Return a dot with its 95 % interval on an axis from `low` to `high`, with a tick at zero if zero lies between."""

    def place(value: float) -> str:
        share = (value - low) / (high - low) if high > low else 0.5
        return f"{4 + 92 * min(max(share, 0), 1):.1f}%" if math.isfinite(share) else "50%"

    zero = f'<line class="zero" x1="{place(0)}" x2="{place(0)}" y1="0" y2="12"/>' if low < 0 < high else ""
    return (
        f'<svg class="whisker {kind}" aria-hidden="true"><line class="axis" x2="100%" y1="6" y2="6"/>{zero}'
        f'<line x1="{place(estimate.low)}" x2="{place(estimate.high)}" y1="6" y2="6"/>'
        f'<circle cx="{place(estimate.value)}" cy="6" r="4"/></svg>'
    )


def bar(share: float) -> str:
    """Return a bar over a share of the width, from 0 to 1."""
    return (
        '<svg class="bar" aria-hidden="true"><rect class="axis" width="100%" height="8"/>'
        f'<rect width="{max(100 * share, 0.8):.1f}%" height="8"/></svg>'
    )


@dataclass(frozen=True)
class Curve:
    """A line of a chart: its name, its style from 0 to COLOURS − 1, and its points (k, value)."""

    name: str
    style: int
    points: Sequence[tuple[int, float]]


def chart(about: str, curves: Sequence[Curve]) -> str:
    """Return curves over k; wide pages show their names at their ends, narrow ones letters, and the names below.

    Args:
        about: a text that says what the chart shows.
        curves: at least one, each with at least one point whose k is at least 1.
    """
    letters = [chr(ord("A") + i) for i in range(len(curves))]
    room = min(math.ceil(_ROOM + _LETTER * max(len(curve.name) for curve in curves)), 330)
    wide = _drawn(about, curves, [curve.name for curve in curves], 1060, 420, room)
    narrow = _drawn(about, curves, letters, 350, 300, 40)
    names = "".join(
        f'<li><svg class="curve c{curve.style}" viewBox="0 -8 46 16" aria-hidden="true">'
        f'<path d="M2 0h42" stroke-dasharray="{_DASHES[curve.style]}"/>'
        f'<path class="marker" transform="translate(23 0)" d="{_MARKERS[curve.style]}"/></svg>'
        f"<b>{letter}</b> {escaped(curve.name)}</li>"
        for letter, curve in zip(letters, curves, strict=True)
    )
    return f'<div class="wide">{wide}</div><div class="narrow">{narrow}<ul class="legend">{names}</ul></div>'


def svg(about: str, curves: Sequence[Curve], width: int = 600, height: int = 380) -> str:
    """Return curves over k as an SVG file with its own white paper, for documents; see `chart`."""
    room = min(math.ceil(_ROOM + _LETTER * max(len(curve.name) for curve in curves)), width // 2)
    drawn = _drawn(about, curves, [curve.name for curve in curves], width, height, room)
    drawn = drawn.replace("&nbsp;", "&#160;")  # XML knows no names of HTML
    return drawn.replace('<svg class="chart"', '<svg xmlns="http://www.w3.org/2000/svg"', 1).replace(
        ">", f'><style>{_STYLE}</style><rect width="{width}" height="{height}" fill="#fff"/>', 1
    )


def _drawn(about: str, curves: Sequence[Curve], labels: Sequence[str], width: int, height: int, room: int) -> str:
    left, right, top, bottom = 40, width - room, 14, height - 34
    ks = sorted({k for curve in curves for k, _ in curve.points})
    highest = max(value for curve in curves for _, value in curve.points)
    step = next((step for step in (0.01, 0.02, 0.05, 0.1) if highest / step <= 6), 0.2)
    ceiling = max(step * math.ceil(highest / step - 1e-9), step)
    widest = math.log(ks[-1] / ks[0]) or 1.0

    def x(k: int) -> float:
        return left + (right - left - 8) * math.log(k / ks[0]) / widest + 4

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / ceiling

    parts = []
    for i in range(round(ceiling / step) + 1):
        at = y(i * step)
        parts.append(f'<path class="grid" d="M{left} {at:.1f}H{right}"/>')
        parts.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{percent(i * step, 0)}</text>')
    marked = _apart({k: x(k) for k in ks})
    for k in marked:
        parts.append(f'<text x="{x(k):.1f}" y="{bottom + 19}" text-anchor="middle">{k:,}</text>')
    ends = [y(curve.points[-1][1]) for curve in curves]
    for curve, label, end, place in zip(curves, labels, ends, _spaced(ends, bottom), strict=True):
        path = "L".join(f"{x(k):.1f} {y(value):.1f}" for k, value in curve.points)
        markers = "".join(
            f'<path class="marker" transform="translate({x(k):.1f} {y(value):.1f})" d="{_MARKERS[curve.style]}"/>'
            for k, value in curve.points
            if k in marked
        )
        last = x(curve.points[-1][0])
        letters = int((room - _ROOM) / _LETTER)
        shown = label if len(label) <= letters else label[: letters - 1] + "…"
        parts.append(
            f'<g class="curve c{curve.style}"><title>{escaped(curve.name)}</title>'
            f'<path d="M{path}" stroke-dasharray="{_DASHES[curve.style]}"/>{markers}'
            f'<path class="leader" d="M{last + 6:.1f} {end:.1f}L{right + 16} {place:.1f}"/>'
            f'<text x="{right + 20}" y="{place + 4:.1f}">{escaped(shown)}</text></g>'
        )
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escaped(about)}">'
        f"{''.join(parts)}</svg>"
    )


def _apart(places: Mapping[int, float]) -> set[int]:
    """Return values of k whose places are far enough from each other for a number; 1, 2, 5, 10, … come first."""
    chosen: list[int] = []
    for k in sorted(places, key=lambda k: (str(k).rstrip("0") not in ("1", "2", "5"), k)):
        if all(abs(places[k] - places[other]) >= _NUMBER for other in chosen):
            chosen.append(k)
    return set(chosen)


def _spaced(ends: Sequence[float], bottom: float) -> list[float]:
    """Return heights for labels, near the ends of their curves but far enough from each other."""
    order = sorted(range(len(ends)), key=lambda i: ends[i])
    heights = list(ends)
    for before, after in pairwise(order):
        heights[after] = max(heights[after], heights[before] + _LINE)
    limit = bottom
    for i in reversed(order):
        heights[i] = min(heights[i], limit)
        limit = heights[i] - _LINE
    return heights
