"""A sheet as one HTML file, with its pictures inside."""

import html

from cir_vectorizer.pictures.thumbnails import data_uri
from cir_vectorizer.sheets.parts import (
    COLUMNS,
    INK,
    LINE,
    MARK,
    PAPER,
    RIGHT,
    SIDE,
    SOFT,
    Bars,
    Panel,
    Sheet,
    Strip,
    Tile,
)

_STYLE = f"""
body {{ font: 16px/1.4 system-ui, sans-serif; color: {INK}; background: {PAPER}; margin: 1.5em auto; max-width: 1180px; padding: 0 1em; }}
article {{ display: grid; grid-template-columns: minmax(120px, 200px) 1fr; gap: 20px; padding: 20px 0; border-top: 1px solid {LINE}; }}
h1 {{ font-size: 1.5em; }} h2 {{ font-size: 1.1em; margin: 0 0 8px; }} h2.mark {{ color: {MARK}; }}
section {{ margin-bottom: 20px; }} .strip {{ display: grid; grid-template-columns: repeat({COLUMNS}, 1fr); gap: 10px; }}
.asked {{ display: grid; gap: 10px; align-content: start; }} .asked p {{ font-weight: 650; margin: 0; overflow-wrap: anywhere; }}
figure {{ margin: 0; min-width: 0; position: relative; }} img {{ width: 100%; height: auto; display: block; box-sizing: border-box; }}
figure.right img {{ border: 4px solid {RIGHT}; }} figure.right::after {{ content: "✓"; position: absolute; top: 2px; right: 2px;
  width: 1.5em; line-height: 1.5em; text-align: center; border-radius: 50%; background: {RIGHT}; color: {PAPER}; font-weight: 700; }}
figcaption {{ overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: 14px; }}
small {{ display: block; color: {SOFT}; }} footer {{ color: {SOFT}; border-top: 1px solid {LINE}; padding: 16px 0; }}
.bars {{ display: grid; grid-template-columns: max-content 1fr max-content; gap: 4px 10px; align-items: center; }}
.bars i {{ display: block; height: 14px; border-radius: 4px; background: {MARK}; }}
@media (max-width: 640px) {{ article {{ grid-template-columns: 1fr; }} .asked {{ grid-template-columns: 96px 1fr; }} }}
"""


def page(sheet: Sheet) -> bytes:
    """Return a sheet as an HTML page that loads nothing."""
    footer = f"<footer>{html.escape(sheet.note)}</footer>" if sheet.note else ""
    text = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(sheet.title)}</title>
<style>{_STYLE}</style>
<h1>{html.escape(sheet.title)}</h1>
{"".join(map(_panel, sheet.panels))}{footer}
</html>
"""
    return text.encode()


def _panel(panel: Panel) -> str:
    asked = "".join(map(_figure, panel.pictures)) + (f"<p>{html.escape(panel.words)}</p>" if panel.words else "")
    blocks = "".join(_strip(each) if isinstance(each, Strip) else _bars(each) for each in panel.blocks)
    return f'<article><div class="asked">{asked}</div><div>{blocks}</div></article>\n'


def _strip(strip: Strip) -> str:
    return f'<section>{_heading(strip.title, strip.marked)}<div class="strip">{"".join(map(_figure, strip.tiles))}</div></section>\n'


def _bars(bars: Bars) -> str:
    most = max((value for _, value in bars.values), default=1.0)
    rows = "".join(
        f'<span>{html.escape(name)}</span><i style="width:{100 * max(value, 0) / most if most > 0 else 0:.1f}%"></i><small>{value:.2f}</small>'
        for name, value in bars.values
    )
    return f'<section>{_heading(bars.title)}<div class="bars">{rows}</div></section>\n'


def _heading(title: str, marked: bool = False) -> str:
    return f"<h2{' class=mark' if marked else ''}>{html.escape(title)}</h2>" if title else ""


def _figure(tile: Tile) -> str:
    caption = html.escape(tile.lines[0]) if tile.lines else ""
    alt = "a wanted result" if tile.right else ""
    said = f'<figcaption title="{caption}">{caption}</figcaption>' if caption else ""
    return (
        f'<figure{" class=right" if tile.right else ""}><img width="{SIDE}" height="{SIDE}" alt="{alt}" src="{data_uri(tile.picture)}">'
        f"{said}{''.join(f'<small>{html.escape(line)}</small>' for line in tile.lines[1:])}</figure>"
    )
