"""A report is written as json, Markdown and one HTML page that opens anywhere, and is shown in the terminal."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cir_vectorizer.cli.evaluate import showing
from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate import sentences
from cir_vectorizer.evaluate.markdown import markdown
from cir_vectorizer.evaluate.metrics import Estimate
from cir_vectorizer.evaluate.page import page
from cir_vectorizer.evaluate.page.pictures import MOST_PICTURES
from cir_vectorizer.evaluate.report import Comparison, Confusion, Example, Published, Report, Row, Shown, write
from tests.support.browser import Tab

HOSTILE = "</script><img src=x onerror=document.title='broken'>\"' | `*_"
OUTSIDE = re.compile(r"""(?:src|href|action)\s*=\s*["']?\s*(?:[a-z]+:)?//|url\(|@import|xmlns""", re.IGNORECASE)


def about(value: float) -> Estimate:
    return Estimate(value, max(value - 0.03, 0), min(value + 0.03, 1))


def row(name: str, value: float, milliseconds: float | None = 3.0, parts: int = 3) -> Row:
    return Row(
        name,
        {"composer": name, "options": {"keep": 0.7}},
        {"R@10": about(value), "R@1": about(value / 2), "NegRecall@10": about(0.5 - value / 2)},
        {"attribute": {f"part {i}": {"R@10": about(value * (i + 1) / parts)} for i in range(parts)}},
        {"R": [(1, value / 2), (10, value), (50, (1 + value) / 2)]},
        milliseconds,
    )


def small(**changes: Any) -> Report:
    """A report with something in each section, and no pictures."""
    made = Report(
        title="CIRCO, val",
        summary=["Use lincir: it is better.", "Two pictures are missing."],
        choices=[("split", "val"), ("reference", "left in")],
        rows=[row("sum", 0.4321), row("lincir", 0.6543, 5.0)],
        queries=220,
        gallery=123_403,
        comparisons=[Comparison("lincir", "sum", {"R@10": Estimate(0.2222, 0.1511, 0.2933, 0.0001)})],
        published=[Published("LinCIR, ViT-L", {"R@10": 0.2628, "R@50": 0.4649}, "Gu et al., CVPR 2024")],
        examples=[
            Example("is blue", [Shown("gone.png", "red hat")], {"lincir": [Shown("", "blue hat", True)]}, "best"),
            Example("is red", [Shown("gone.png", "red hat")], {"lincir": [Shown("\0", "a shoe", False)]}, "worst"),
        ],
        confusions=[Confusion("colour", "lincir", ["blue", "red"], ["navy", "blue", "red"], [[7, 31, 0], [0, 1, 12]])],
        missing=["000000000001.jpg"],
        missing_count=2,
        lower_is_better=["NegRecall@10"],
    )
    return replace(made, **changes)


BARE = Report("empty", (), (), (), 0, 0)


class _Tags(HTMLParser):
    """Checks that each element is closed where it should be."""

    VOID = ("meta", "link", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(html: str) -> _Tags:
    """Parse a page, which is well-formed and names no address outside."""
    assert not OUTSIDE.search(html)
    tags = _Tags()
    tags.feed(html)
    assert tags.open == []
    return tags


class TestFiles:
    def test_json_holds_the_report_unrounded(self, tmp_path):
        write(small(), tmp_path / "new" / "folder")
        folder = tmp_path / "new" / "folder"
        assert sorted(file.name for file in folder.iterdir()) == ["report.html", "report.json", "report.md"]
        read = json.loads((folder / "report.json").read_text())
        assert read == small().to_json()
        assert read["rows"][1]["figures"]["R@10"] == {"value": 0.6543, "low": 0.6243, "high": 0.6843, "p": None}
        assert read["comparisons"][0]["differences"]["R@10"]["p"] == 0.0001
        assert read["rows"][0]["curves"] == {"R": [[1, 0.21605], [10, 0.4321], [50, 0.71605]]}

    def test_settings_of_any_kind_become_plain_json(self):
        settings = {
            "path": Path("a/b"),
            "weight": np.float32(0.5),
            "weights": np.arange(2),
            "none": float("nan"),
            3: {1},
        }
        made = small(rows=[Row("x", settings, {"R@1": about(0.5)})]).to_json()
        assert made["rows"][0]["settings"] == {
            "path": "a/b", "weight": 0.5, "weights": [0, 1], "none": None, "3": "{1}",
        }  # fmt: skip
        json.dumps(made, allow_nan=False)

    def test_a_report_is_written_again_over_the_old_one(self, tmp_path):
        write(small(), tmp_path)
        write(BARE, tmp_path)
        assert json.loads((tmp_path / "report.json").read_text())["title"] == "empty"
        assert len(list(tmp_path.iterdir())) == 3

    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(SourceError, match=r"file/report\.json cannot be written \(.+\); give another folder"):
            write(small(), tmp_path / "file")

    def test_the_light_install_writes_gray_squares(self, tmp_path):
        code = f"""
import sys
sys.modules["PIL"] = None  # as where Pillow is not installed
from pathlib import Path
from cir_vectorizer.evaluate.report import Example, Report, Shown, write
example = Example("is blue", [Shown("a.png", "a")], {{}}, "best")
write(Report("light", [], [], [], 1, 1, examples=[example]), Path({str(tmp_path)!r}))
assert "torch" not in sys.modules
"""
        subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
        html = (tmp_path / "report.html").read_text()
        assert "Pillow is not installed" in html
        assert 'class="tile gone"' in html


class TestMarkdown:
    def test_it_holds_every_figure_with_its_interval(self):
        text = markdown(small())
        for each in small().rows:
            for found in [*each.figures.values(), *(part["R@10"] for part in each.parts["attribute"].values())]:
                cell = f"{100 * found.value:.2f} ({100 * found.low:.2f}–{100 * found.high:.2f})"
                assert cell in text
            assert all(f" {100 * value:.2f} " in text for _, value in each.curves["R"])
        assert "| lincir − sum | R@10 | +22.22 | +15.11 to +29.33 | < 0.001 |" in text
        assert "| LinCIR, ViT-L | 26.28 | 46.49 | Gu et al., CVPR 2024 |" in text
        assert "| lincir | 65.43 | – | this report |" in text
        assert "Asked for blue, found navy: 7 of 38 queries (18 %)." in text
        assert "2 could not be read: 000000000001.jpg and 1 more." in text
        assert "- split: val" in text

    def test_texts_cannot_break_a_table(self):
        lines = markdown(small(rows=[row("a | b\n# c", 0.5)])).splitlines()
        found = [i for i, line in enumerate(lines) if line.startswith(r"| a \| b \# c |")]
        assert len(found) == 3
        for i in found:
            assert len(re.findall(r"(?<!\\)\|", lines[i])) == lines[i - 1].count("|")
        assert not any(line.startswith("# c") for line in lines)

    def test_an_empty_report_has_a_title(self):
        assert markdown(BARE) == "# empty\n\n0 queries · 0 pictures searched\n\n"


class TestWording:
    def test_a_comparison_says_which_is_better_and_by_how_much(self):
        (comparison,) = small().comparisons
        said = sentences.verdict(comparison, small().lower_is_better)
        assert said == "lincir is better than sum by 22.2 points of R@10 (95 % interval +15.1 to +29.3, p < 0.001)."

    def test_a_difference_around_zero_is_none(self):
        comparison = Comparison("a", "b", {"R@10": Estimate(-0.004, -0.02, 0.01, 0.31)})
        said = sentences.verdict(comparison, small().lower_is_better)
        assert said == "On R@10, a and b cannot be told apart: −0.4 points (95 % interval −2.0 to +1.0, p = 0.31)."

    def test_less_can_be_better(self):
        comparison = Comparison("a", "b", {"NegRecall@10": Estimate(-0.1, -0.2, -0.05)})
        assert sentences.verdict(comparison, small().lower_is_better).startswith(
            "a is better than b by 10.0 points of NegRecall@10"
        )
        assert small().best("NegRecall@10") == pytest.approx(0.173)
        assert small().best("R@10") == pytest.approx(0.654)
        assert small().best("R@5") is None

    def test_numbers_have_no_false_digits(self):
        assert [sentences.percent(value) for value in (0.12345, -0.00001, None, float("nan"))] == [
            "12.3",
            "0.0",
            "–",
            "–",
        ]
        assert [sentences.percent(value, sign=True) for value in (0.01, 0.0, -0.01)] == ["+1.0", "0.0", "−1.0"]
        assert [sentences.milliseconds(time) for time in (0.123, 4.56, 1234.5, None)] == ["0.12", "4.6", "1,234", "–"]
        assert [sentences.chance(p) for p in (0.0001, 0.0123, 0.5, None)] == ["p < 0.001", "p = 0.012", "p = 0.50", ""]


class TestPage:
    def test_it_names_no_address_outside_and_has_all_sections(self):
        html = page(small())
        checked(html)
        titles = re.findall(r"<h2>(.*?)</h2>", html)
        assert titles == [
            "Figures", "Time of a query", "Differences", "Curves over k", "By part", "Queries as pictures",
            "Confused values", "Published figures", "Choices", "Missing pictures",
        ]  # fmt: skip
        assert re.findall(r"<nav.*?</nav>", html)[0].count("<a ") == len(titles)
        assert html.index("Use lincir: it is better.") < html.index("<h2>")

    def test_texts_are_shown_and_never_run(self):
        shown = Shown(HOSTILE, HOSTILE, True)
        html = page(
            Report(
                HOSTILE, [HOSTILE, HOSTILE], [(HOSTILE, HOSTILE)],
                [replace(row(HOSTILE, 0.5), settings={HOSTILE: HOSTILE}, parts={HOSTILE: {HOSTILE: {HOSTILE: about(0.1)}}},
                         figures={HOSTILE: about(0.3)}, curves={HOSTILE: [(1, 0.1)]})],
                1, 1, [Comparison(HOSTILE, HOSTILE, {HOSTILE: about(0.1)})], [Published(HOSTILE, {HOSTILE: 0.1}, HOSTILE)],
                [Example(HOSTILE, [shown], {HOSTILE: [shown]}, HOSTILE)],
                [Confusion(HOSTILE, HOSTILE, [HOSTILE, "a"], ["a"], [[1], [2]])], [HOSTILE], 1,
            )
        )  # fmt: skip
        assert "img" not in checked(html).seen
        assert html.count("<script>") == html.count("</script>") == 1

    def test_pictures_are_held_once_and_right_ones_are_marked(self, tmp_path):
        for name in ("reference", "other"):
            Image.new("RGB", (600, 300), "red").save(tmp_path / f"{name}.png")
        reference, other = (str(tmp_path / f"{name}.png") for name in ("reference", "other"))
        results = {f"row {i}": [Shown(other, "found", True), Shown(other, "found", False)] for i in range(3)}
        html = page(small(examples=[Example("is blue", [Shown(reference, "asked")], results, "best")]))
        assert html.count("data:image/jpeg;base64,") == 2
        assert html.count("<use ") == 7
        assert html.count('class="check"') == html.count('aria-label="right result: found"') == 3
        assert "Pillow" not in html

    def test_pictures_that_cannot_be_read_leave_gray_squares(self, tmp_path):
        (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
        addresses = ["", "gone.png", "\0", str(tmp_path), str(tmp_path / "broken.jpg"), "https://shop.example/a.jpg"]
        html = page(small(examples=[Example("", [Shown(each, "") for each in addresses], {"a": []}, "best")]))
        checked(html)
        assert html.count('class="tile gone"') == len(addresses)
        assert "nothing found" in html
        assert "(no words)" in html

    def test_it_stays_small_with_many_examples(self, tmp_path):
        random = np.random.default_rng(0)
        Image.fromarray(random.integers(0, 256, (300, 300, 3), np.uint8)).save(tmp_path / "0.jpg")
        paths = [tmp_path / f"{i}.jpg" for i in range(400)]
        for path in paths[1:]:
            path.symlink_to(paths[0])
        each = iter(map(str, paths))
        examples = [
            Example(f"query {i}", [Shown(next(each), "")], {"a": [Shown(next(each), "") for _ in range(9)]}, verdict)
            for verdict in ("best", "worst")
            for i in range(20)
        ]
        html = page(small(examples=examples))
        assert MOST_PICTURES - 6 < html.count("data:image/jpeg") <= MOST_PICTURES
        assert html.count("<article>") == 10
        assert html.index("Best queries") < html.index("query 4<") < html.index("Worst queries")
        assert "30 more in report.md." in html
        assert len(html) < 3_000_000

    @pytest.mark.parametrize(
        "report",
        [
            BARE,
            small(rows=[row("alone", 0.5, None)], comparisons=(), published=(), examples=(), confusions=()),
            small(rows=[row(f"row {i}", i / 50) for i in range(50)]),
            small(rows=[row("a", 0.3, parts=500), row("b", 0.4, parts=500)]),
            small(rows=[row("a", 0.0), row("b", 0.0)]),
            small(rows=[Row("a", {}, {"R@1": about(0.1)}), Row("b", {}, {"R@5": about(1.0)}), Row("c", {}, {})]),
            small(rows=[Row("a", {}, {"R@1": Estimate(float("nan"), float("nan"), float("nan"))}, milliseconds=0.0)]),
            small(confusions=[Confusion("a", "b", [], [], []), Confusion("a", "b", ["x"], ["x"], [[0]])]),
            small(confusions=[Confusion("a", "b", list(map(str, range(90))), ["x"] * 90, np.eye(90, dtype=int).tolist())]),
            small(rows=[replace(row("a", 0.5), curves={"R": [(k, k / 100) for k in range(1, 101)], "mAP": [], "P": [(1, 0.1)]})]),
            small(comparisons=[Comparison("a", "b", {}), Comparison("a", "c", {"R@10": Estimate(0, 0, 0)})]),
        ],
        ids="bare one-row fifty-rows five-hundred-parts zeros ragged nan confusions wide-confusion curves differences".split(),
    )  # fmt: skip
    def test_it_survives_reports_of_all_shapes(self, report, tmp_path):
        write(report, tmp_path)
        checked((tmp_path / "report.html").read_text())

    def test_long_tables_say_what_they_leave_out(self):
        html = page(small(rows=[row(f"row {i}", i / 50, parts=500) for i in range(50)]))
        assert "The first 40 of 500; report.md has all." in html
        assert "The 8 of 50 that do best on R@10; report.md has all." in html
        assert "row 49" in html[html.index('id="curves-over-k"') : html.index('id="by-part"')]
        assert len(html) < 1_000_000


class TestTerminal:
    def test_eighty_columns_hold_the_first_figures(self):
        from rich.console import Console

        named = {f"figure {i}": about(0.5) for i in range(12)}
        report = small(rows=[Row("a composer with a name that is far too long for it", {}, named, milliseconds=12.3)])
        console = Console(width=80, record=True)
        with console.capture() as captured:
            console.print(showing.table(report, 80))
        lines = captured.get().splitlines()
        assert max(map(len, lines)) <= 80
        assert "50.0 ±3.0" in captured.get()
        assert "12.3" in captured.get()
        assert "more in report.md" in captured.get()

    def test_a_pipe_gets_all_of_it(self, capsys, tmp_path):
        showing.show(small(), tmp_path)
        printed = capsys.readouterr()
        assert "Use lincir: it is better." in printed.out
        assert re.search(r"lincir +65\.4 ±3\.0 +32\.7 ±3\.0 +17\.3 ±3\.0 +5\.0", printed.out)
        assert printed.err == f"Report: {tmp_path / 'report.html'}\n"

    def test_a_report_without_rows_has_no_table(self, capsys):
        showing.show(BARE)
        assert capsys.readouterr().out == "empty\n0 queries · 0 pictures searched\n"


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((each) => each / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = rgba(getComputedStyle(each).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const low = [];
  for (const element of document.body.querySelectorAll("*")) {
    const text = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!text || !element.getClientRects().length || element.closest("script")) continue;
    const style = getComputedStyle(element);
    const ink = light(rgba(element.closest("svg") ? style.fill : style.color));
    const paper = light(behind(element));
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (contrast < 4.5) low.push(`${element.tagName} ${element.textContent.slice(0, 40)} ${contrast.toFixed(2)}`);
  }
  return low;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    for colour in ("red", "blue"):
        Image.new("RGB", (300, 200), colour).save(folder / f"{colour}.png")
    red, blue = (str(folder / f"{colour}.png") for colour in ("red", "blue"))
    found = [
        Shown(blue, "a blue hat with a very long name", True),
        Shown(red, "a red hat", False),
        Shown("", "gone"),
    ]
    rows = [row(f"composer {i}, with a long name and many settings", 0.1 + 0.08 * i, 2.0 + i) for i in range(10)]
    write(
        small(
            title="catalog qdrant://a-server-with-a-long-name.example:6333/products",
            rows=rows,
            examples=[Example("is blue", [Shown(red, "red hat")], {each.name: found * 2 for each in rows}, "best")],
            confusions=[
                Confusion("colour", each.name, ["blue", "red"], ["navy", "blue"], [[7, 31], [9, 0]]) for each in rows
            ],
        ),
        folder,
    )
    return (folder / "report.html").as_uri()


@pytest.mark.browser
class TestInABrowser:
    @pytest.mark.parametrize("width", [390, 1280])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_fits_reads_well_and_asks_nobody(self, browser, address, width, scheme):
        tab = Tab(browser, viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab.page.goto(address)
        tab.page.get_by_role("heading", name="Missing pictures").wait_for()
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.page.evaluate(CONTRAST) == []
        assert tab.errors == []
        assert [request.url for request in tab.asked if not request.url.startswith("data:")] == [address]
        assert tab.page.locator("svg.chart:visible").count() == 1
        tab.context.close()

    def test_a_reader_chooses_what_to_see_and_paper_shows_all(self, browser, address):
        tab = Tab(browser)
        page = tab.page
        page.goto(address)
        matrices = page.locator("#confused-values .matrix")
        assert [matrices.nth(i).is_visible() for i in range(3)] == [True, False, False]
        page.get_by_label("Attribute and row").select_option(index=1)
        assert [matrices.nth(i).is_visible() for i in range(3)] == [False, True, False]
        page.emulate_media(media="print")
        assert all(matrices.nth(i).is_visible() for i in range(3))
        assert not page.get_by_label("Attribute and row").is_visible()
        tab.context.close()

    def test_it_is_whole_without_scripts(self, browser, address):
        tab = Tab(browser, java_script_enabled=False)
        tab.page.goto(address)
        matrices = tab.page.locator("#confused-values .matrix")
        assert [matrices.nth(i).is_visible() for i in range(3)] == [True] * 3
        tab.context.close()
