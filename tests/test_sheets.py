"""Picture sheets: what they show as pictures and as a page, and the rule that chooses the demo's before/after sheet."""

from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from cir_vectorizer import extras
from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate.page.drawings import Curve, svg
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.sheets import Bars, Panel, Sheet, Strip, Tile, square, write_sheet
from cir_vectorizer.sheets.drawn import WIDTH
from examples.demo.catalog import HELD_OUT, SEEN, Query
from examples.demo.knobs import knobs
from examples.demo.sheet import chosen

DOCS = Path(__file__).parents[1] / "docs"
KINDS = {name: point.load() for name, point in extras.plugins("cir_vectorizer.composers").items()}
RED, BLUE = (250, 0, 0), (0, 0, 250)
FRAME = (0x1F, 0x9D, 0x61)


def tile(colour: tuple[int, int, int], *lines: str, right: bool = False) -> Tile:
    return Tile(square(Image.new("RGB", (60, 60), colour)), lines, right)


def sheet(*blocks: Strip | Bars, note: str = "") -> Sheet:
    return Sheet("A sheet", [Panel([tile(RED)], "is <b>blue</b>", blocks)], note)


def drawn(sheet: Sheet, tmp_path: Path, suffix: str = ".png") -> Image.Image:
    write_sheet(tmp_path / f"sheet{suffix}", sheet)
    return Image.open(BytesIO((tmp_path / f"sheet{suffix}").read_bytes())).convert("RGB")


def colours(picture: Image.Image) -> set[object]:
    return {colour for _, colour in picture.getcolors(2**20) or ()}


@pytest.mark.parametrize(("suffix", "kind"), [(".png", "PNG"), (".webp", "WEBP"), (".WEBP", "WEBP")])
def test_a_picture_has_the_format_that_its_name_says(tmp_path: Path, suffix: str, kind: str) -> None:
    write_sheet(tmp_path / f"sheet{suffix}", sheet(Strip("found", [tile(BLUE)])))
    with Image.open(tmp_path / f"sheet{suffix}") as found:
        assert (found.format, found.width) == (kind, WIDTH)


def test_wanted_results_are_framed_and_others_are_not(tmp_path: Path) -> None:
    assert FRAME not in colours(drawn(sheet(Strip("found", [tile(BLUE)])), tmp_path))
    assert FRAME in colours(drawn(sheet(Strip("found", [tile(BLUE, right=True)])), tmp_path))


def test_a_picture_grows_with_what_it_shows(tmp_path: Path) -> None:
    heights = [
        drawn(each, tmp_path).height
        for each in (
            sheet(Strip("found", [tile(BLUE)] * 5)),
            sheet(Strip("found", [tile(BLUE)] * 11)),
            sheet(Strip("found", [tile(BLUE)] * 11), Bars("words", [("dress", 0.5), ("gown", -0.2)])),
            sheet(
                Strip("found", [tile(BLUE)] * 11),
                Bars("words", [("dress", 0.5), ("gown", -0.2)]),
                note="Two lines. " * 8,
            ),
        )
    ]
    assert heights == sorted(set(heights))


def test_long_words_stay_on_the_sheet_and_several_pictures_share_a_row(tmp_path: Path) -> None:
    panel = Panel([tile(RED), tile(BLUE), tile(RED)], "x" * 500, [Strip("y" * 500, [tile(BLUE, "z" * 500)])])
    found = drawn(Sheet("", [panel]), tmp_path)
    edge = found.crop((WIDTH - 20, 4, WIDTH - 4, found.height - 4))
    assert colours(edge) == {(255, 255, 255)}


def test_pictures_are_shown_whole_on_white() -> None:
    wide = square(Image.new("RGB", (100, 10), RED))
    assert wide.size == (200, 200)
    assert wide.getpixel((100, 100)) == RED
    assert wide.getpixel((100, 5)) == (255, 255, 255)
    assert square(None).getpixel((0, 0)) == (0xDD, 0xDD, 0xDD)


def test_a_page_loads_nothing_and_escapes_words(tmp_path: Path) -> None:
    strip = Strip("found & shown", [tile(BLUE, "<i>a", "b & c", right=True)], marked=True)
    write_sheet(tmp_path / "sheet.html", sheet(strip, Bars("words", [("dress", 0.5), ("gown", 0.25)]), note="a < b"))
    page = (tmp_path / "sheet.html").read_text()
    assert "<h2 class=mark>found &amp; shown</h2>" in page
    assert "<p>is &lt;b&gt;blue&lt;/b&gt;</p>" in page
    assert '<figure class=right><img width="200" height="200" alt="a wanted result"' in page
    assert '<figcaption title="&lt;i&gt;a">&lt;i&gt;a</figcaption><small>b &amp; c</small>' in page
    assert '<span>gown</span><i style="width:50.0%"></i><small>0.25</small>' in page
    assert "<footer>a &lt; b</footer>" in page
    assert "http" not in page


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"sheet\.png cannot be written .*; give another place"):
        write_sheet(tmp_path / "no" / "sheet.png", sheet())


def test_the_demos_queries_are_typical_ones_with_products_that_no_training_saw() -> None:
    unseen, seen = next(iter(HELD_OUT)), SEEN[0]
    asked = [
        Query(0, "", target, kind, "")
        for kind in ("colour", "pattern", "category")
        for target in (seen, unseen, unseen, unseen)
    ]
    plain, ours = np.array([1, 0, 1, 2] * 3), np.array([5, 5, 5, 4] * 3)
    assert chosen(asked, {"plain": plain, "ours": ours}) == [2, 6, 10]


def test_pictures_of_the_documents_are_small_enough_for_a_phone() -> None:
    pictures = sorted((DOCS / "images").iterdir())
    assert DOCS / "images" / "before-after.webp" in pictures
    assert {each.name: each.stat().st_size for each in pictures if each.stat().st_size > 300_000} == {}


def test_every_value_on_the_sheets_of_options_is_one_that_its_composer_takes() -> None:
    for name, knob in knobs((1.5, 5.0)).items():
        takes = KINDS[knob.composer].takes.with_fusion()
        for title, given in knob.rows.items():
            query = ComposedQuery.parse(
                {"image": b"x", "text": "is blue", **{k: v for k, v in given.items() if k != "strength"}}
            )
            assert query.options.names() - {"fusion.a", "fusion.b", "fusion.c"} <= set(takes.options), (name, title)
            assert takes.refused(query) is None
        assert (DOCS / "images" / f"knob-{name}.webp").is_file()


def test_curves_of_the_documents_are_a_picture_with_its_own_paper() -> None:
    drawn = svg(
        "R <at> k in %", [Curve("plain & simple", 0, [(1, 0.2), (10, 0.5)]), Curve("ours", 1, [(1, 0.5), (10, 0.9)])]
    )
    root = ElementTree.fromstring(drawn)
    assert root.attrib["aria-label"] == "R <at> k in\N{NO-BREAK SPACE}%"
    rect = next(each for each in root if each.tag.endswith("rect"))
    assert (rect.attrib["width"], rect.attrib["fill"]) == (root.attrib["viewBox"].split()[2], "#fff")
    assert [each.text for each in root.iter() if each.tag.endswith("title")] == ["plain & simple", "ours"]
    assert "plain &amp; simple</text>" in drawn  # no letter of a name is cut
