"""The picture sheet of CompoDiff's knobs: one query of the drawn shop, each knob at several values.

python -m examples.demo.knobs [OUT.png]
"""

import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from cir_vectorizer.evaluate.metrics import top
from cir_vectorizer.models import load
from examples.demo.catalog import catalog, pictures
from examples.demo.evaluate import embed_drawn, unit

SIDE, GAP, LABEL, SHOWN = 76, 6, 250, 8
REFERENCE_PRODUCT = ("dress", "red", "striped")
TEXT = "is blue"
ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("the defaults", {}),
    ("keep 0", {"keep": 0.0}),
    ("keep 0.25", {"keep": 0.25}),
    ("keep 0.75", {"keep": 0.75}),
    ("keep 1", {"keep": 1.0}),
    ("steps 1", {"steps": 1}),
    ("steps 3", {"steps": 3}),
    ("steps 30", {"steps": 30}),
    ("guidance: text 1", {"guidance": [None, 1.0]}),
    ("guidance: text 7.5", {"guidance": [None, 7.5]}),
    ("guidance: picture 0.5", {"guidance": [0.5, None]}),
    ("guidance: picture 3", {"guidance": [3.0, None]}),
    ("source_weight 0", {"source_weight": 0.0}),
    ("source_weight 0.4", {"source_weight": 0.4}),
    ("seed 1", {"seed": 1}),
    ("seed 2", {"seed": 2}),
)


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/knobs.png")
    model = load("tiny", "cpu")
    products = catalog(1500)
    drawn = list(pictures(products, size=128))
    raw = embed_drawn(model, drawn)
    knobs = model.composers["compodiff"].knobs  # type: ignore[attr-defined]
    usual = (knobs.image_scale, knobs.text_scale)
    reference = next(i for i, p in enumerate(products) if (p.category, p.colour, p.pattern) == REFERENCE_PRODUCT)
    image = {"vector": raw[reference].tolist()}
    asked = []
    for _, options in ROWS:
        given = dict(options)
        if "guidance" in given:
            given["guidance"] = [
                own if own is not None else default for own, default in zip(given["guidance"], usual, strict=True)
            ]
        asked.append({"image": image, "text": TEXT, "composer": "compodiff", "options": given})
    found = top(model.compose(asked).vectors @ unit(raw).T, SHOWN)
    width = LABEL + SHOWN * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, (len(ROWS) + 1) * (SIDE + GAP) + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    pen.text((LABEL + SIDE + 2 * GAP, SIDE / 2), f"+ “{TEXT}”", "#222222", ImageFont.load_default(18))
    sheet.paste(drawn[reference].resize((SIDE, SIDE)), (LABEL, GAP))
    for row, ((label, _), hits) in enumerate(zip(ROWS, found, strict=True), start=1):
        y = GAP + row * (SIDE + GAP)
        pen.text((12, y + SIDE / 2 - 8), label, "#222222", font)
        for column, hit in enumerate(hits):
            sheet.paste(drawn[hit].resize((SIDE, SIDE)), (LABEL + column * (SIDE + GAP), y))
    sheet.quantize(192).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size:,} bytes; usual guidance {usual}")


if __name__ == "__main__":
    main()
