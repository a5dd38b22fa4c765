"""The demo's page: queries, pictures and results side by side, in one HTML file without links."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cir_vectorizer.evaluate.metrics import top
from cir_vectorizer.models import Vectorizer
from examples.demo.catalog import Product, Query
from examples.demo.evaluate import BestSum, Hits, composed_vectors, rank, sum_vectors, text_vectors, unit
from examples.demo.harder import mask_queries, unwanted_queries

SHOWN_QUERIES = 18
SHOWN_RESULTS = 6
SHOWN_NEGATIVES = 6
SHOWN_MASKS = 6
_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d26; --soft: #61616e; --line: #e4e3ea; --paper: #faf9fc; --card: #fff; --tint: #f3f0ff; --good: #1f9d61; --accent: #5b3df5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf4; --soft: #a2a2b8; --line: #343446; --paper: #12121a; --card: #1c1c27; --tint: #2a2950; --good: #3fd48d; --accent: #8b85ff; }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 48px 24px 80px }
h1 { font-size: 34px; line-height: 1.2; margin: 0 0 8px } h2 { font-size: 22px; margin: 48px 0 16px }
p { max-width: 70ch; color: var(--soft); margin: 0 0 16px }
table { border-collapse: collapse; background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden }
th, td { padding: 10px 18px; text-align: left; border-bottom: 1px solid var(--line) } td.number { font-variant-numeric: tabular-nums }
tr:last-child td { border-bottom: 0 } tr.ours td { font-weight: 650; background: var(--tint) }
.bar { display: inline-block; height: 8px; border-radius: 4px; background: var(--accent); vertical-align: middle; margin-left: 10px }
article { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 18px; margin: 0 0 18px;
  display: grid; grid-template-columns: 170px 1fr; gap: 8px 22px; align-items: start }
.ask img { width: 150px; height: 150px } .ask b { display: block; margin-top: 6px } .ask span { color: var(--soft); font-size: 14px }
.row { display: grid; grid-template-columns: 92px repeat(6, 1fr); gap: 8px; align-items: center; margin-bottom: 8px; font-size: 13px; color: var(--soft) }
img { border-radius: 10px; display: block; width: 100% } .row img { border: 3px solid transparent } .row img.hit { border-color: var(--good) }
@media (max-width: 760px) { main { padding: 28px 14px 60px } th, td { padding: 9px 10px } .bar { display: block; max-width: 22vw; margin: 4px 0 0 }
  article { grid-template-columns: 1fr } .row { grid-template-columns: repeat(3, 1fr) } .row > div { grid-column: 1 / -1 } }
"""


def write(
    folder: Path,
    vectorizer: Vectorizer,
    raw: np.ndarray,
    products: Sequence[Product],
    queries: Sequence[Query],
    hits: Mapping[str, Hits],
    best: BestSum,
    triplets: int,
) -> None:
    """Write `folder`/index.html.

    Args:
        raw: (products, dim) unnormalised embeddings of the index.
        triplets: number of triplets that CompoDiff was trained on.
    """
    shown = list(queries[:SHOWN_QUERIES])
    index = unit(raw)
    references = [query.reference for query in shown]
    ranked = {
        "LinCIR": composed_vectors(vectorizer, raw, shown, "lincir"),
        "CompoDiff": composed_vectors(vectorizer, raw, shown, "compodiff"),
        "best sum": sum_vectors(raw[references], text_vectors(vectorizer, shown, best.prompted), best),
        "text only": text_vectors(vectorizer, shown, prompted=False),
    }
    rankings = {name: rank(vectors, references, index, SHOWN_RESULTS) for name, vectors in ranked.items()}
    cards = "\n".join(_card(folder, i, query, products, rankings) for i, query in enumerate(shown))
    content = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Composed image retrieval: a picture and words</title><style>{_STYLE}</style></head><body><main>
<h1>A picture and words, one search</h1>
<p>Each query below is a picture and what should be different. LinCIR writes the picture as a word inside a prompt, reads the
prompt with CLIP's text tower, and searches the unchanged CLIP index with the resulting vector. It was trained on captions
alone and never saw a picture: as published, to rebuild captions; edit-aware, to change them, with an adapter of the tower
that reads prompts. Below the table LinCIR is the edit-aware one. CompoDiff draws the wanted picture's embedding with a diffusion model that was
trained on {triplets:,} triplets of picture, words and wanted picture. Right answers have a green frame.</p>
<h2>{len(queries)} queries over {len(products):,} pictures</h2>
{_table(hits, best, triplets)}
<h2>The first {len(shown)} of them</h2>
{cards}
<h2>What should not be there</h2>
<p>Words for what is unwanted: the same query without and with them.</p>
{_negative_cards(folder, vectorizer, raw, products)}
<h2>What part of the picture to ignore</h2>
<p>A mask hides part of the picture. Here it hides the distraction beside the product; the words change the product.</p>
{_mask_cards(folder, vectorizer, raw, products)}
</main></body></html>
"""
    (folder / "index.html").write_text(content, encoding="utf-8")


def _negative_cards(folder: Path, vectorizer: Vectorizer, raw: np.ndarray, products: Sequence[Product]) -> str:
    cards, index = [], unit(raw)
    for query in unwanted_queries(products, SHOWN_NEGATIVES, seed=41):
        at, text = query.edit.reference, query.edit.text
        rows = []
        for name, composer in (("LinCIR", "lincir"), ("CompoDiff", "compodiff")):
            asked = {"image": {"vector": raw[at].tolist()}, "text": text, "composer": composer}
            vectors = vectorizer.compose([asked, {**asked, "negative_text": query.unwanted}]).vectors
            found = rank(vectors, [at, at], index, SHOWN_RESULTS)
            for label, row in zip((name, f"{name}, not “{query.unwanted}”"), found, strict=True):
                rows.append((label, [(int(i), query.wanted(products[i])) for i in row]))
        cards.append(_asked(_picture(folder, at, 150), text, f"but not “{query.unwanted}”", rows, folder, products))
    return "\n".join(cards)


def _mask_cards(folder: Path, vectorizer: Vectorizer, raw: np.ndarray, products: Sequence[Product]) -> str:
    cards, index = [], unit(raw)
    for query in mask_queries(products, SHOWN_MASKS, seed=42):
        buffer = io.BytesIO()
        query.picture.save(buffer, "PNG")
        asked = {"image": buffer.getvalue(), "text": query.text, "composer": "compodiff"}
        rows = []
        for name, given in (("no mask", asked), ("with mask", {**asked, "mask": {"box": query.box}})):
            (found,) = top(vectorizer.compose([given]).vectors @ index.T, SHOWN_RESULTS)
            rows.append((name, [(int(i), products[i] == query.target) for i in found]))
        shown = query.picture.resize((150, 150)).convert("RGBA")
        veil = Image.new("RGBA", shown.size)
        ImageDraw.Draw(veil).rectangle([round(150 * side) for side in query.box], fill=(91, 61, 245, 150))
        picture = _encoded(Image.alpha_composite(shown, veil).convert("RGB"))
        cards.append(_asked(picture, query.text, "the violet part is masked", rows, folder, products))
    return "\n".join(cards)


def _asked(
    picture: str,
    text: str,
    note: str,
    rows: Sequence[tuple[str, Sequence[tuple[int, bool]]]],
    folder: Path,
    products: Sequence[Product],
) -> str:
    """Return a card with the query and rows of results, the right ones framed."""
    lines = []
    for name, found in rows:
        pictures = "".join(
            f'<img src="{_picture(folder, i, 110)}" alt="{_alt(products[i])}{", right" if right else ""}" '
            f'title="{_alt(products[i])}"{" class=hit" if right else ""}>'
            for i, right in found
        )
        lines.append(f'<div class="row"><div>{html.escape(name)}</div>{pictures}</div>')
    return (
        f'<article><div class="ask"><img src="{picture}" alt="the picture that was sent"><b>“{html.escape(text)}”</b><span>{html.escape(note)}</span></div>'
        f"<div>{''.join(lines)}</div></article>"
    )


def _table(hits: Mapping[str, Hits], best: BestSum, triplets: int) -> str:
    titles = {
        "image_only": "image only",
        "text_only": "text only",
        "best_sum": f"best swept sum ({best.image_weight:g} image + {best.text_weight:g} text)",
        "lincir_published": "LinCIR as published",
        "lincir": "LinCIR, edit-aware (captions alone)",
        "compodiff": f"CompoDiff ({triplets:,} triplets)",
        "true_caption": "the target in words (ceiling)",
    }
    rows = []
    for name, title in titles.items():
        recall = hits[name].recall()
        bar = f'<span class="bar" style="width:{recall["R@1"] * 160:.0f}px"></span>'
        cells = f'<td>{title}</td><td class="number">{recall["R@1"]:.3f}{bar}</td><td class="number">{recall["R@10"]:.3f}</td>'
        rows.append(f"<tr{' class=ours' if name in ('lincir', 'compodiff') else ''}>{cells}</tr>")
    return f"<table><tr><th>query vector</th><th>R@1</th><th>R@10</th></tr>{''.join(rows)}</table>"


def _card(folder: Path, at: int, query: Query, products: Sequence[Product], rankings: Mapping[str, np.ndarray]) -> str:
    rows = [(name, [(int(i), products[i] == query.target) for i in found[at]]) for name, found in rankings.items()]
    note = f"this picture, but with another {query.change}"
    return _asked(_picture(folder, query.reference, 150), query.text, note, rows, folder, products)


def _alt(product: Product) -> str:
    return html.escape(f"{product.colour} {product.pattern} {product.category}")


def _picture(folder: Path, index: int, side: int) -> str:
    with Image.open(folder / "pictures" / f"{index:05}.jpg") as picture:
        return _encoded(picture.resize((side, side), Image.Resampling.LANCZOS))


def _encoded(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
