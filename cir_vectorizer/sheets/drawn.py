"""A sheet drawn as one picture, for documents and chats: it has its own background, and its words stay readable on a phone."""

from collections.abc import Iterator, Sequence
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from cir_vectorizer.sheets.parts import COLUMNS, INK, LINE, MARK, PAPER, RIGHT, SOFT, Bars, Panel, Sheet, Strip, Tile

WIDTH = 1000
_EDGE, _GAP, _ASK = 24, 8, 214
_TILE = (WIDTH - 2 * _EDGE - _ASK - 2 * _GAP - (COLUMNS - 1) * _GAP) // COLUMNS
_LEFT = _EDGE + _ASK + 2 * _GAP
_SMALL, _LINE_HEIGHT = 17, 22
_FRAME, _CHECK = 6, 34
_BAR = 26
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def picture(sheet: Sheet, suffix: str = ".png") -> bytes:
    """Return a sheet as a PNG or WebP file, WIDTH pixels wide."""
    return _Pen().draw(sheet, suffix.lower())


class _Pen:
    """Draws a sheet from top to bottom on paper that grows with it."""

    def __init__(self) -> None:
        self.large, self.middle, self.small = (ImageFont.load_default(size) for size in (34, 30, _SMALL))
        self.bar = ImageFont.load_default(22)
        self.paper = Image.new("RGB", (WIDTH, 1), PAPER)
        self.ink = ImageDraw.Draw(self.paper)

    def draw(self, sheet: Sheet, suffix: str) -> bytes:
        y = _EDGE
        for number, panel in enumerate(sheet.panels):
            if number:
                y += _EDGE
                self._room(y + 1)
                self.ink.line([(_EDGE, y), (WIDTH - _EDGE, y)], LINE, 2)
                y += _EDGE
            y = self._panel(panel, y)
        if sheet.note:
            y = self._text(_EDGE, y + _EDGE, sheet.note, self.middle, SOFT, WIDTH - 2 * _EDGE)
        y += _EDGE
        self._room(y)
        self.ink.rectangle((0, 0, WIDTH - 1, y - 1), outline=LINE, width=2)
        paper = self.paper.crop((0, 0, WIDTH, y))
        stream = BytesIO()
        if suffix == ".webp":
            paper.save(stream, "WEBP", quality=88, method=6)
        else:
            paper.save(stream, "PNG", optimize=True)
        return stream.getvalue()

    def _room(self, height: int) -> None:
        """Make the paper at least as high as this."""
        if height > self.paper.height:
            larger = Image.new("RGB", (WIDTH, 2 * height), PAPER)
            larger.paste(self.paper, (0, 0))
            self.paper, self.ink = larger, ImageDraw.Draw(larger)

    def _panel(self, panel: Panel, top: int) -> int:
        """Draw a panel and return the y below it, as all of these methods do."""
        asked = self._query(panel, top)
        y = top
        for number, block in enumerate(panel.blocks):
            y += 2 * _GAP * bool(number)
            y = self._strip(block, y) if isinstance(block, Strip) else self._bars(block, y)
        return max(asked, y)

    def _query(self, panel: Panel, top: int) -> int:
        across = 1 if len(panel.pictures) == 1 else 2
        side, y = (_ASK - (across - 1) * _GAP) // across, top
        for row in _rows(panel.pictures, across):
            y = self._tiles(row, _EDGE, y, side)
        words = panel.words or "(no words)"
        return self._text(_EDGE, y + _GAP * bool(panel.pictures), words, self.large, INK, _ASK, bold=True)

    def _strip(self, strip: Strip, top: int) -> int:
        y = top
        if strip.title:
            colour = MARK if strip.marked else INK
            y = self._text(_LEFT, y, strip.title, self.middle, colour, WIDTH - _EDGE - _LEFT, bold=strip.marked) + _GAP
        for row in _rows(strip.tiles, COLUMNS):
            y = self._tiles(row, _LEFT, y, _TILE)
        return y

    def _bars(self, bars: Bars, top: int) -> int:
        y = self._text(_LEFT, top, bars.title, self.middle, INK, WIDTH - _EDGE - _LEFT) + _GAP
        most = max((value for _, value in bars.values), default=1.0)
        start, room = _LEFT + 2 * _TILE, WIDTH - _EDGE - _LEFT - 2 * _TILE - 90
        for name, value in bars.values:
            self._room(y + 2 * _BAR)
            self.ink.text((_LEFT, y), fitting(name, self.bar, 2 * _TILE - _GAP), INK, self.bar)
            length = round(room * max(value, 0) / most) if most > 0 else 0
            self.ink.rounded_rectangle((start, y + 4, start + max(length, 2), y + _BAR - 4), 4, MARK)
            self.ink.text((start + length + _GAP, y), f"{value:.2f}", SOFT, self.bar)
            y += _BAR + 3
        return y

    def _tiles(self, tiles: Sequence[Tile], left: int, top: int, side: int) -> int:
        """Draw a row of tiles with the lines below them."""
        lines = max(len(tile.lines) for tile in tiles)
        bottom = top + side + lines * _LINE_HEIGHT
        self._room(bottom + _GAP)
        for number, tile in enumerate(tiles):
            x = left + number * (side + _GAP)
            self.paper.paste(tile.picture.resize((side, side), Image.Resampling.LANCZOS), (x, top))
            if tile.right:
                self._mark(x, top, side)
            for row, line in enumerate(tile.lines):
                y = top + side + 3 + row * _LINE_HEIGHT
                self.ink.text((x, y), fitting(line, self.small, side), SOFT if row else INK, self.small)
        return bottom + _GAP * bool(lines)

    def _mark(self, x: int, y: int, side: int) -> None:
        """Frame a wanted result and check it, so that colour does not tell alone."""
        self.ink.rectangle((x, y, x + side - 1, y + side - 1), outline=RIGHT, width=_FRAME)
        self.paper.paste(RIGHT, (x + side - _CHECK - 2, y + 2), _disc())
        self.paper.paste(PAPER, (x + side - _CHECK - 2, y + 2), _tick())

    def _text(self, x: int, y: int, text: str, font: _Font, colour: str, width: int, bold: bool = False) -> int:
        """Draw a text in lines that are no wider than `width`."""
        for line in wrapped(text, font, width):
            self._room(y + 44)
            self.ink.text((x, y), line, colour, font, stroke_width=0.6 if bold else 0)
            y += round(font.getbbox("Äg")[3] * 1.18)
        return y


def _disc() -> Image.Image:
    mask = Image.new("L", (4 * _CHECK, 4 * _CHECK))
    ImageDraw.Draw(mask).ellipse((0, 0, 4 * _CHECK - 1, 4 * _CHECK - 1), 255)
    return mask.resize((_CHECK, _CHECK), Image.Resampling.BOX)


def _tick() -> Image.Image:
    mask = Image.new("L", (4 * _CHECK, 4 * _CHECK))
    points = [(x * _CHECK * 4, y * _CHECK * 4) for x, y in ((0.26, 0.52), (0.43, 0.7), (0.74, 0.32))]
    ImageDraw.Draw(mask).line(points, 255, _CHECK // 2, joint="curve")
    return mask.resize((_CHECK, _CHECK), Image.Resampling.BOX)


def _rows(tiles: Sequence[Tile], across: int) -> Iterator[Sequence[Tile]]:
    yield from (tiles[at : at + across] for at in range(0, len(tiles), across))


def wrapped(text: str, font: _Font, width: int) -> list[str]:
    """Return a text in lines that are no wider than `width` pixels; a longer word is cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(fitting(word, font, width))
    return lines


def fitting(text: str, font: _Font, width: int) -> str:
    """Return a text on one line, cut so that it is no wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
