"""The figures of docs/how-it-works.md: their script draws them, and the committed files are what it draws."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from examples import figures

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"


def without_pictures(svg: str) -> str:
    """Return an SVG without the bytes of its pictures, which depend on the version of the JPEG encoder."""
    return re.sub(r'href="data:[^"]*"', "", svg)


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_committed_diagrams_are_what_the_script_draws():
    for name, drawing in (("pseudo-word", figures.pseudo_word()), ("edits", figures.edits())):
        assert without_pictures((IMAGES / f"{name}.svg").read_text(encoding="utf-8")) == without_pictures(drawing.svg())


def test_the_recall_of_each_method_is_a_bar_with_its_number():
    results = {key: {"R@1": (at + 1) / 10} for at, key in enumerate(figures.METHODS)}
    drawn = figures.recall(results).svg()
    assert [words for words in texts(drawn) if re.fullmatch(r"0\.\d{3}", words)] == [f"0.{at}00" for at in range(1, 8)]
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="26"', drawn)]
    assert np.allclose(widths, 40 * np.arange(1, 8))


def test_the_committed_recall_agrees_with_the_readme():
    """Runs of the demo on other processors differ by a few of the 600 queries."""
    shown = texts((IMAGES / "recall.svg").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("*", "")
    rows = {"best_sum": "best weighted sum", "lincir_published": "LinCIR as published", "lincir": "LinCIR, edit-aware"}
    for name, row in rows.items():
        number = float(shown[shown.index(figures.METHODS[name]) + 1])
        stated = re.search(rf"^\| {row}[^|]*\| ([\d.]+) \|", readme, re.MULTILINE)
        assert stated is not None, row
        assert abs(number - float(stated[1])) <= 0.01, row


def test_a_composed_vector_lies_nearer_to_the_wanted_pictures_than_the_sum(tiny):
    groups, queries = figures.composed_vectors(tiny)
    nearness = {name: float((groups["dress", "red"] @ vector).mean()) for name, vector in queries.items()}
    assert nearness["LinCIR"] > nearness["sum"]
    assert nearness["CompoDiff"] > nearness["sum"]
    drawn = figures.space(tiny).svg()
    assert {"LinCIR", "CompoDiff", "the picture", "the words", "half picture, half words"} <= set(texts(drawn))


def test_how_it_works_shows_each_figure_with_a_description():
    page = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    for name in ("pseudo-word", "edits", "space", "recall"):
        assert re.search(rf"!\[[^\]]{{30,}}\]\(images/{name}\.svg\)", page), name
        assert (IMAGES / f"{name}.svg").stat().st_size < 300_000
