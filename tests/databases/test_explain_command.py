"""`cir-vectorizer explain`: a search of a collection, taken apart; what it prints, and its sheet."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import cir_vectorizer
from cir_vectorizer.cli import main
from cir_vectorizer.cli.explained import BOTH, PICTURE, WORDS, explain
from cir_vectorizer.collections import open_collection
from cir_vectorizer.collections.searching import Search, find
from cir_vectorizer.models import Vectorizer
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from tests.support.databases import ONE_OF_EACH, Database, database_of

COLOURS = {"red": (208, 32, 38), "green": (48, 150, 62), "blue": (44, 96, 214), "white": (248, 248, 246)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, tiny: Vectorizer) -> Path:
    """A folder with eight pictures, and the embedded collection of it."""
    folder = tmp_path_factory.mktemp("shop")
    for colour, rgb in COLOURS.items():
        for height in (48, 64):
            Image.new("RGB", (64, height), rgb).save(folder / f"{colour}{height}.png")
    collection = open_collection(f"qdrant:{folder}/index/shop")
    sync(open_source(folder), collection, tiny)
    collection.close()
    return folder


def run(shop: Path, *arguments: object) -> Result:
    given = ["explain", "--in", f"qdrant:{shop}/index/shop", "--model", "tiny", "--device", "cpu", *map(str, arguments)]
    return CliRunner().invoke(main, given)


def explained(shop: Path, *arguments: object) -> dict[str, Any]:
    result = run(shop, *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def names(hits: list[dict[str, Any]]) -> list[str]:
    return [Path(hit["payload"]["path"]).stem for hit in hits]


def test_its_results_are_those_of_search_and_say_their_places_by_picture_and_by_words(shop: Path) -> None:
    asked = ("--image", shop / "red48.png", "--text", "in blue")
    found = explained(shop, *asked)
    assert found["composer"] == "lincir"
    where = ["--in", f"qdrant:{shop}/index/shop", "--device", "cpu", "--json", "--limit", "8"]

    def searched(*arguments: object) -> list[dict[str, Any]]:
        lines = CliRunner().invoke(main, ["search", *where, *map(str, arguments)]).stdout.splitlines()
        return [json.loads(line) for line in lines]

    assert names(found["rankings"][BOTH]) == names(searched(*asked))[:5]
    for name, alone in ((PICTURE, asked[:2]), (WORDS, asked[2:])):
        order = [hit["id"] for hit in searched(*alone)]
        assert [hit["id"] for hit in found["rankings"][name]] == order[:5]
        assert [hit["ranks"][name] for hit in found["rankings"][BOTH]] == [
            order.index(hit["id"]) + 1 for hit in found["rankings"][BOTH]
        ]


def test_pictures_become_words_and_parts_move_the_query(shop: Path, tiny: Vectorizer) -> None:
    asked = {"image": shop / "red48.png", "text": "in blue"}
    found = explained(shop, "--image", asked["image"], "--text", asked["text"], "--words", 3)
    (words,) = found["pictures"]
    assert len(words) == 3
    assert words[0]["similarity"] >= words[1]["similarity"] > 0
    assert [part["part"] for part in found["parts"]] == ["the picture", "“in”", "“blue”"]
    whole, without = tiny.compose([asked, {**asked, "text": "in"}]).vectors
    assert found["parts"][2]["moves"] == pytest.approx(1 - float(np.dot(whole, without)), abs=1e-4)


def test_a_composer_that_makes_no_words_has_none(shop: Path) -> None:
    found = explained(
        shop, "--image", shop / "red48.png", "--text", "in blue", "--composer", "sum", "--option", "keep=0.7"
    )
    assert found["pictures"] == []
    assert found["composer"] == "sum"


@pytest.mark.parametrize("asked", [("--text", "a hat"), ("--image", "red48.png")])
def test_a_picture_or_words_alone_have_one_ranking(shop: Path, asked: tuple[str, str]) -> None:
    value = shop / asked[1] if asked[0] == "--image" else asked[1]
    assert list(explained(shop, asked[0], value)["rankings"]) == [BOTH]


def test_objects_are_references_and_are_left_out_of_every_ranking(shop: Path) -> None:
    (own,) = (hit for hit in explained(shop, "--image", shop / "red48.png", "--limit", 1)["rankings"][BOTH])
    found = explained(shop, "--id", own["id"], "--text", "in blue", "--limit", 8)
    assert all(own["id"] not in [hit["id"] for hit in hits] for hits in found["rankings"].values())
    assert {len(hits) for hits in found["rankings"].values()} == {7}


def test_unwanted_words_are_a_signal_of_each_hit(shop: Path) -> None:
    found = explained(shop, "--image", shop / "red48.png", "--text", "a hat", "--negative-text", "blue")
    assert all(set(hit["signals"]) == {"picture", "unwanted"} for hit in found["rankings"][BOTH])
    assert found["parts"][-1]["part"] == "not “blue”"


def test_the_terminal_shows_words_parts_and_places(shop: Path) -> None:
    two = ("--image", shop / "red48.png", "--image", shop / "blue48.png")
    result = run(shop, *two, "--text", "a hat", "--negative-text", "green", "--limit", 2)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Words nearest to picture 1: ")
    assert lines[1].startswith("Words nearest to picture 2: ")
    assert lines[2].startswith("What moves the query: picture 1 0.")
    assert lines[3].split() == ["score", "picture", "alone", "words", "alone", "picture", "unwanted", "path"]
    assert len(lines) == 6


def test_a_page_shows_words_as_bars_and_three_rankings(shop: Path, tmp_path: Path) -> None:
    result = run(shop, "--image", shop / "red48.png", "--text", "in <blue>", "--sheet", tmp_path / "why.html")
    assert result.exit_code == 0, result.output
    assert f"Sheet: {tmp_path / 'why.html'}" in result.stderr
    page = (tmp_path / "why.html").read_text()
    headings = ["Words nearest to the picture", "What moves the query", "Picture alone", "Words alone"]
    assert [heading for heading in headings if f"<h2>{heading}</h2>" not in page] == []
    assert "<h2 class=mark>Both (lincir)</h2>" in page
    assert page.count("<figure") == 1 + 3 * 5
    assert page.count("<small>picture no. ") == page.count("<small>words no. ") == 5
    assert page.count("<small>both no. ") == 10
    assert "in &lt;blue&gt;" in page


def test_places_beyond_the_results_are_said_to_be_so(shop: Path, tmp_path: Path) -> None:
    asked = ("--image", shop / "red48.png", "--text", "in blue", "--negative-text", "red", "--limit", 1)
    assert run(shop, *asked, "--sheet", tmp_path / "why.html").exit_code == 0
    page = (tmp_path / "why.html").read_text()
    assert "<small>both no. &gt; 1</small>" in page
    assert "<small>unwanted " in page


def test_it_draws_a_picture_too(shop: Path, tmp_path: Path) -> None:
    assert (
        run(shop, "--image", shop / "red48.png", "--text", "in blue", "--sheet", tmp_path / "why.webp").exit_code == 0
    )
    with Image.open(tmp_path / "why.webp") as sheet:
        assert sheet.format == "WEBP"


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        ((), 1, "the query is empty; give at least image or text"),
        (("--text", "a hat", "--sheet", "why.pdf"), 2, "--sheet why.pdf should end in .png, .webp or .html"),
        (("--image", "https://a.example/b.jpg"), 2, "is a URL; download the picture, and give its file"),
        (("--image", "gone.png"), 1, "gone.png"),
        (("--text", "a hat", "--composer", "nope"), 1, "nope"),
        (("--text", "a hat", "--filter", "price<"), 1, "error: filter: ends too early"),
    ],
)
def test_wrong_use_is_told_in_one_sentence(shop: Path, arguments: tuple[str, ...], status: int, sentence: str) -> None:
    result = run(shop, *arguments)
    assert result.exit_code == status
    assert sentence in result.output
    assert "Traceback" not in result.output


@pytest.fixture(params=ONE_OF_EACH)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    found = database_of(request.param, request, tmp_path)
    yield found
    found.close()


def test_every_database_is_explained_alike(shop: Path, tiny: Vectorizer, database: Database) -> None:
    collection = database.open("Explained")
    sync(open_source(shop), collection, tiny)
    search = Search.read({"image": shop / "red48.png", "text": "in blue"}, limit=3)
    found = explain(search, collection, tiny, words=4)
    assert [hit.id for hit in found.rankings[BOTH]] == [hit.id for hit in find(search, collection, tiny)]
    assert set(found.ranks[PICTURE].values()) == set(found.ranks[WORDS].values()) == set(range(1, 9))
    assert "red" in found.rankings[PICTURE][0].payload["_cir"]["path"].rpartition("/")[2]


def test_the_python_package_names_the_same_words(shop: Path) -> None:
    model = cir_vectorizer.load("tiny", "cpu")
    work = model.plan({"image": shop / "red48.png", "text": "in blue"}, allow_paths=True)
    (words,) = model.nearest_words(work, 4)
    assert [word for word, _ in words] == [
        each["word"]
        for each in explained(shop, "--image", shop / "red48.png", "--text", "in blue", "--words", 4)["pictures"][0]
    ]
