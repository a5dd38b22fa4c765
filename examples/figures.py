"""The figures of docs/how-it-works.md, as SVG: two diagrams, and two figures of what the demo measured.

make demo
python -m examples.figures [DEMO_FOLDER] [OUT_FOLDER]
"""

import base64
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cir_vectorizer.models import Vectorizer, load
from examples.demo.catalog import Product, draw
from examples.demo.evaluate import embed_drawn, unit

INK, GREY, PAPER, LINE = "#1f2430", "#667085", "#ffffff", "#c9cfda"
FROZEN, LEARNS, BLUE, RED, GREEN = "#e8edf5", "#ffe9c7", "#2c60d6", "#d02026", "#1f8a4c"
METHODS = {
    "image_only": "picture alone",
    "text_only": "words alone",
    "best_sum": "best weighted sum",
    "lincir_published": "LinCIR as published",
    "compodiff": "CompoDiff",
    "lincir": "LinCIR, edit-aware",
    "true_caption": "the target in words (ceiling)",
}
GROUPS = (("dress", "blue"), ("dress", "red"), ("mug", "blue"), ("mug", "red"))
SEED, SHOWN = "figure", 25
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Drawing:
    """An SVG drawing of a size in pixels, and its parts."""

    width: int
    height: int
    title: str
    parts: list[str]

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int = 14,
        colour: str = INK,
        anchor: str = "middle",
        over_dots: bool = False,
    ) -> None:
        place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"'
        halo = f'stroke="{PAPER}" stroke-width="4" stroke-linejoin="round" paint-order="stroke"' if over_dots else ""
        self.parts.append(f"<text {place} {halo}>{escape(words)}</text>")

    def box(self, x: float, y: float, width: float, lines: Sequence[str], fill: str, height: float = 58) -> None:
        """Draw a box with its lines of text centred; the first line is its name."""
        size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self.parts.append(f'<rect {size} rx="8" fill="{fill}" stroke="{LINE}"/>')
        top = y + height / 2 - 9 * (len(lines) - 1) + 5
        for at, words in enumerate(lines):
            self.text(x + width / 2, top + 18 * at, words, size=14 if at == 0 else 12, colour=GREY if at else INK)

    def arrow(self, x1: float, y1: float, x2: float, y2: float, colour: str = GREY) -> None:
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self.parts.append(f'<line {ends} stroke="{colour}" stroke-width="2" marker-end="url(#end)"/>')

    def dot(self, x: float, y: float, colour: str, radius: float = 4, opacity: float = 0.55) -> None:
        place = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius}"'
        self.parts.append(f'<circle {place} fill="{colour}" fill-opacity="{opacity}"/>')

    def picture(self, x: float, y: float, side: float, image: Image.Image) -> None:
        file = BytesIO()
        image.resize((96, 96)).save(file, "JPEG", quality=80)
        data = base64.b64encode(file.getvalue()).decode("ascii")
        place = f'x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}"'
        self.parts.append(f'<image {place} href="data:image/jpeg;base64,{data}"/>')

    def svg(self) -> str:
        """Return the whole document, on white, so that it can be read on a dark page too."""
        head = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img"'
        marker = (
            '<marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{GREY}"/></marker>'
        )
        return "\n".join(
            [
                f'<svg {head} font-family="system-ui, sans-serif">',
                f"<title>{escape(self.title)}</title><defs>{marker}</defs>",
                f'<rect width="{self.width}" height="{self.height}" rx="10" fill="{PAPER}"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


def drawn(category: str, colour: str, seed: int = 0) -> Image.Image:
    return draw(Product(category, colour, "striped"), random.Random(f"{SEED}/{category}/{colour}/{seed}"), 128)


def pseudo_word() -> Drawing:
    """Draw the way of a query through LinCIR."""
    made = Drawing(640, 330, "LinCIR turns the picture into a word of the prompt", [])
    made.picture(20, 24, 84, drawn("dress", "blue"))
    made.arrow(108, 66, 138, 66)
    made.box(142, 36, 150, ["image encoder", "CLIP, frozen"], FROZEN, 60)
    made.arrow(294, 66, 334, 66)
    made.box(338, 36, 110, ["Φ", "learnt"], LEARNS, 60)
    made.arrow(393, 98, 393, 144)
    made.text(404, 126, "the picture as a word: $", size=13, colour=GREY, anchor="start")
    made.text(62, 180, "“is red”", size=16)
    made.arrow(100, 175, 138, 175)
    made.box(142, 148, 370, ["a photo of $ that is red", "the prompt"], PAPER, 54)
    made.arrow(227, 204, 227, 244)
    made.box(142, 248, 170, ["text encoder", "CLIP, with adapter"], LEARNS, 60)
    made.arrow(314, 278, 354, 278)
    made.box(358, 248, 140, ["query vector", "to the database"], FROZEN, 60)
    made.arrow(500, 278, 530, 278)
    made.picture(534, 236, 84, drawn("dress", "red", 1))
    return made


def edits() -> Drawing:
    """Draw what edit-aware training asks of one example: texts stand for pictures."""
    made = Drawing(640, 320, "Edit-aware training reads captions alone", [])
    for y, name, words in (
        (36, "reference caption", "a red dress with stripes"),
        (128, "words of the change", "in blue instead of red"),
        (220, "target caption", "a blue dress with stripes"),
    ):
        made.text(20, y - 8, name, size=12, colour=GREY, anchor="start")
        made.box(20, y, 224, [words], PAPER, 44)
        made.arrow(246, y + 22, 284, y + 22)
    made.box(288, 30, 180, ["text encoder + noise", "stands for a picture"], FROZEN, 56)
    made.arrow(470, 58, 500, 58)
    made.box(504, 30, 110, ["Φ", "learns"], LEARNS, 56)
    made.arrow(559, 88, 559, 118)
    made.box(288, 122, 326, ["the prompt → text encoder", "with an adapter that learns"], LEARNS, 56)
    made.arrow(451, 180, 451, 210)
    made.box(
        288, 214, 326, ["must be near to the target", "and far from other captions, the reference too"], FROZEN, 56
    )
    made.text(320, 302, "No picture: the shop's own captions give reference, change and target.", size=13)
    return made


def composed_vectors(model: Vectorizer) -> tuple[dict[tuple[str, str], Vectors], dict[str, Vectors]]:
    """Return the pictures' unit vectors by group, (pictures, dim) each, and the query vectors by name, (dim,)."""
    raw = {group: embed_drawn(model, [drawn(*group, seed) for seed in range(SHOWN)]) for group in GROUPS}
    picture: dict[str, Any] = {"image": {"vector": raw["dress", "blue"][0].tolist()}}
    asked = {
        "picture": picture,
        "words": {"text": "is red"},
        "sum": {**picture, "text": "is red", "composer": "sum"},
        "LinCIR": {**picture, "text": "is red", "composer": "lincir"},
        "CompoDiff": {**picture, "text": "is red", "composer": "compodiff"},
    }
    vectors = model.compose(list(asked.values())).vectors
    return {group: unit(each) for group, each in raw.items()}, dict(zip(asked, vectors, strict=True))


def space(model: Vectorizer) -> Drawing:
    """Draw pictures and query vectors on the plane of two directions: blue to red, and mug to dress."""
    groups, queries = composed_vectors(model)
    mean = {group: vectors.mean(axis=0) for group, vectors in groups.items()}
    across = mean["dress", "red"] + mean["mug", "red"] - mean["dress", "blue"] - mean["mug", "blue"]
    across /= np.linalg.norm(across)
    up = mean["dress", "blue"] + mean["dress", "red"] - mean["mug", "blue"] - mean["mug", "red"]
    up -= across * (across @ up)
    up /= np.linalg.norm(up)
    made = Drawing(720, 440, "Query vectors among the pictures of the drawn shop", [])

    def at(vector: Vectors) -> tuple[float, float]:
        return 350 + 420 * float(across @ vector), 215 - 230 * float(up @ vector)

    for group, vectors in groups.items():
        for vector in vectors:
            made.dot(*at(vector), BLUE if group[1] == "blue" else RED)
    for (category, colour), middle in mean.items():
        x, y = at(middle)
        side = -1 if colour == "blue" else 1
        made.picture(x + side * 105 - 27, y - 27, 54, drawn(category, colour, 2))
    start = at(queries["picture"])
    names = {"picture": "the picture", "words": "the words", "sum": "half picture, half words"}
    for name, vector in queries.items():
        x, y = at(vector)
        if name in ("sum", "LinCIR", "CompoDiff"):
            made.arrow(*start, x, y)
        made.dot(x, y, INK, 6, 1)
        below = 24 if name in ("sum", "words", "LinCIR") else -12
        made.text(x, y + below, names.get(name, name), over_dots=True)
    made.text(360, 424, "direction from blue to red →", size=12, colour=GREY)
    made.text(16, 30, "↑ direction from mug to dress", size=12, colour=GREY, anchor="start")
    return made


def recall(results: dict[str, Any]) -> Drawing:
    """Draw R@1 of each method, all queries, as bars."""
    made = Drawing(720, 60 + 40 * len(METHODS), "R@1 by method on the drawn shop", [])
    made.text(24, 34, "R@1 of 600 queries over 3,000 pictures of the drawn shop (make demo)", size=14, anchor="start")
    for row, (key, name) in enumerate(METHODS.items()):
        y, value = 56 + 40 * row, results[key]["R@1"]
        colour = {"lincir": GREEN, "compodiff": GREEN, "lincir_published": GREEN}.get(key, LINE)
        made.text(230, y + 19, name, anchor="end")
        made.parts.append(f'<rect x="242" y="{y}" width="{400 * value:.1f}" height="26" rx="4" fill="{colour}"/>')
        made.text(250 + 400 * value, y + 19, f"{value:.3f}", anchor="start")
    return made


def main() -> None:
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    out = Path(sys.argv[2] if len(sys.argv) > 2 else "docs/images")
    results = json.loads((demo / "results.json").read_text(encoding="utf-8"))
    made = {
        "pseudo-word": pseudo_word(),
        "edits": edits(),
        "space": space(load(str(demo / "model"), "cpu")),
        "recall": recall(results),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, drawing in made.items():
        file = out / f"{name}.svg"
        file.write_text(drawing.svg(), encoding="utf-8")
        print(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
