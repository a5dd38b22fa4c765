"""`cir-vectorizer search` on an embedded Qdrant that sync filled, with the packaged model."""

import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from qdrant_client import QdrantClient, models

import cir_vectorizer
from cir_vectorizer.cli import main
from cir_vectorizer.collections import Ask, CreateOptions, ModelRecord, ensure, open_collection
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync

COLOURS = {"red": (208, 32, 38), "green": (48, 150, 62), "blue": (44, 96, 214), "white": (248, 248, 246)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A directory with four pictures, and the address of their collection."""
    folder = tmp_path_factory.mktemp("shop")
    rows = ["image,colour,price"]
    for i, (colour, rgb) in enumerate(COLOURS.items()):
        Image.new("RGB", (64, 48), rgb).save(folder / f"{colour}.png")
        rows.append(f"{colour}.png,{colour},{10 * (i + 1)}")
    (folder / "catalog.csv").write_text("\n".join(rows))
    collection = open_collection(f"qdrant:{folder}/index/shop")
    sync(open_source(folder / "catalog.csv"), collection, cir_vectorizer.load("tiny", "cpu"))
    collection.close()
    return folder


def search(shop, *arguments):
    return CliRunner().invoke(main, ["search", "--in", f"qdrant:{shop}/index/shop", *map(str, arguments)])


def objects(shop, *arguments):
    """Run `search --json` and return its objects."""
    result = search(shop, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_picture_alone_finds_itself_first(shop):
    found = objects(shop, "--image", shop / "green.png")
    assert len(found) == 4
    assert found[0]["payload"] == {"path": str(shop / "green.png"), "colour": "green", "price": 20}
    assert found[0]["score"] == pytest.approx(1, abs=1e-4)
    assert [hit["score"] for hit in found] == sorted((hit["score"] for hit in found), reverse=True)
    assert set(found[0]) == {"id", "id_text", "score", "signals", "payload"}
    assert found[0]["signals"] == {"picture": found[0]["score"]}


def test_a_text_alone_is_a_text_search(shop):
    vector = cir_vectorizer.load("tiny", "cpu").compose([{"text": "a red hat"}]).vectors[0]
    collection = open_collection(f"qdrant:{shop}/index/shop")
    expected = [hit.id for hit in collection.search(vector, Ask(4))]
    collection.close()
    assert [hit["id"] for hit in objects(shop, "--text", "a red hat")] == expected


def test_picture_and_text_are_composed_as_the_library_does(shop):
    query = {"image": [shop / "red.png", shop / "blue.png"], "text": "in white", "composer": "sum"}
    vector = cir_vectorizer.load("tiny", "cpu").compose([query]).vectors[0]
    found = objects(
        shop, "--image", shop / "red.png", "--image", shop / "blue.png", "--text", "in white", "--composer", "sum"
    )
    collection = open_collection(f"qdrant:{shop}/index/shop")
    expected = collection.search(vector, Ask(4))
    collection.close()
    assert [hit["id"] for hit in found] == [hit.id for hit in expected]
    assert [hit["score"] for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)


def test_a_filter_and_a_limit_narrow_the_results(shop):
    found = objects(shop, "--text", "a hat", "--filter", "price>=20 and colour!=green")
    assert sorted(hit["payload"]["colour"] for hit in found) == ["blue", "white"]
    assert len(objects(shop, "--text", "a hat", "--limit", 3)) == 3


def test_the_table_shows_rank_score_path_and_columns(shop):
    result = search(shop, "--image", shop / "blue.png", "--limit", 2)
    assert result.exit_code == 0, result.output
    header, first, *_ = result.stdout.splitlines()
    assert header.split() == ["score", "path", "colour", "price"]
    assert first.split() == ["1", "1.0000", str(shop / "blue.png"), "blue", "30"]


def test_nothing_found_is_said(shop):
    result = search(shop, "--text", "a hat", "--filter", "price>1000")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "Nothing found" in result.stderr


def test_a_column_named_path_is_the_users(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    (tmp_path / "catalog.jsonl").write_text('{"image": "a.png", "path": "/shop/aisle 3"}\n')
    collection = open_collection(f"qdrant:{tmp_path}/index/shop")
    sync(open_source(tmp_path / "catalog.jsonl"), collection, cir_vectorizer.load("tiny", "cpu"))
    collection.close()
    assert objects(tmp_path, "--text", "a hat")[0]["payload"] == {"path": "/shop/aisle 3"}


def test_a_catalog_that_another_program_filled_is_searched_as_it_is(tmp_path):
    dim = cir_vectorizer.load("tiny", "cpu").dim
    client = QdrantClient(path=str(tmp_path / "index"))
    client.create_collection("shop", models.VectorParams(size=dim, distance=models.Distance.COSINE))
    vectors = np.random.default_rng(0).standard_normal((3, dim)).tolist()
    client.upsert("shop", [models.PointStruct(id=i, vector=v, payload={"n": i}) for i, v in enumerate(vectors)])
    client.close()
    found = objects(tmp_path, "--text", "a hat", "--sheet", tmp_path / "sheet.png")
    assert sorted(hit["id"] for hit in found) == [0, 1, 2]
    assert all(set(hit["payload"]) == {"n"} for hit in found)


@pytest.fixture(scope="module")
def ids(shop):
    """The objects' ids by colour."""
    return {hit["payload"]["colour"]: hit["id"] for hit in objects(shop, "--text", "a hat")}


class TestObjectsAsReferences:
    def test_an_id_stands_for_its_picture(self, shop, ids):
        by_id = objects(shop, "--id", ids["green"], "--text", "is blue", "--include-reference")
        by_picture = objects(shop, "--image", shop / "green.png", "--text", "is blue")
        assert [hit["id"] for hit in by_id] == [hit["id"] for hit in by_picture]
        assert [hit["score"] for hit in by_id] == pytest.approx([hit["score"] for hit in by_picture], abs=1e-4)

    def test_they_are_left_out_of_the_results(self, shop, ids):
        named = ("--id", ids["green"], "--text", "is blue", "--like", ids["red"])
        assert {hit["id"] for hit in objects(shop, *named)} == {ids["blue"], ids["white"]}
        assert len(objects(shop, *named, "--limit", 2, "--group-by", "colour", "--filter", "price>0")) == 2
        assert len(objects(shop, *named, "--include-reference")) == 4
        away = objects(shop, "--text", "a hat", "--unlike", ids["white"].upper(), "--hybrid")
        assert sorted(hit["payload"]["colour"] for hit in away) == ["blue", "green", "red"]

    def test_ids_come_after_pictures(self, shop, ids):
        both = ("--template", "$1 in the colour of $2", "--include-reference")
        found = objects(shop, "--id", ids["red"], "--image", shop / "blue.png", *both)
        same = objects(shop, "--image", shop / "blue.png", "--image", shop / "red.png", *both)
        assert [hit["score"] for hit in found] == pytest.approx([hit["score"] for hit in same], abs=1e-4)

    def test_the_language_of_the_prompt_is_the_one_that_is_named(self, shop, ids):
        asked = ("--id", ids["red"], "--text", "in blau", "--composer", "lincir", "--include-reference")
        german, english = objects(shop, *asked, "--language", "de"), objects(shop, *asked)
        said = objects(shop, *asked, "--template", "ein Foto von $, {text}")
        scores = [[hit["score"] for hit in found] for found in (german, said, english)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-6)
        assert scores[0] != pytest.approx(scores[2], abs=1e-6)

    def test_like_and_unlike_take_ids_and_files(self, shop, ids):
        by_id = objects(shop, "--text", "a hat", "--like", ids["blue"], "--unlike", ids["red"], "--include-reference")
        by_file = objects(shop, "--text", "a hat", "--like", shop / "blue.png", "--unlike", shop / "red.png")
        assert [hit["score"] for hit in by_id] == pytest.approx([hit["score"] for hit in by_file], abs=1e-4)
        assert by_id != objects(shop, "--text", "a hat")
        assert objects(shop, "--like", ids["blue"], "--include-reference")[0]["id"] == ids["blue"]

    def test_the_sheet_shows_their_recorded_pictures(self, shop, ids, tmp_path):
        arguments = ("--id", ids["red"], "--like", ids["blue"], "--unlike", shop / "green.png")
        result = search(shop, *arguments, "--sheet", tmp_path / "sheet.html")
        assert result.exit_code == 0, result.output
        page = (tmp_path / "sheet.html").read_text()
        captions = [f'<figcaption title="{words}">' for words in ("red.png", "like blue.png", "unlike green.png")]
        assert all(caption in page for caption in captions)


class TestOptions:
    def test_pages_go_on_where_the_last_one_ended(self, shop):
        whole = [hit["id"] for hit in objects(shop, "--text", "a hat")]
        assert [hit["id"] for hit in objects(shop, "--text", "a hat", "--offset", 1, "--limit", 2)] == whole[1:3]
        assert [hit["id"] for hit in objects(shop, "--text", "a hat", "--page", 2, "--limit", 3)] == whole[3:]
        table = search(shop, "--text", "a hat", "--page", 2, "--limit", 3).stdout.splitlines()
        assert table[1].split()[0] == "4"

    def test_the_composers_numbers_are_set(self, shop):
        picture = ("--image", shop / "red.png", "--text", "is blue", "--composer", "sum")
        at_one = objects(shop, *picture, "--option", "keep=1")
        alone = objects(shop, "--image", shop / "red.png")
        assert [hit["score"] for hit in at_one] == pytest.approx([hit["score"] for hit in alone], abs=1e-4)
        weighted = objects(shop, *picture, "--option", "weights.image=1", "--option", "weights.text=0")
        assert [hit["score"] for hit in weighted] == pytest.approx([hit["score"] for hit in alone], abs=1e-4)
        fused = objects(shop, *picture, "--option", "fusion.a=0", "--option", "fusion.b=0")
        assert [hit["score"] for hit in fused] == pytest.approx([hit["score"] for hit in alone], abs=1e-4)

    def test_words_are_looked_for_in_the_columns_too(self, shop):
        assert objects(shop, "--text", "white", "--hybrid")[0]["payload"]["colour"] == "white"

    def test_one_object_for_each_value_of_a_column(self, shop):
        assert len(objects(shop, "--text", "a hat", "--group-by", "colour")) == 4
        assert objects(shop, "--text", "a hat", "--group-by", "nowhere") == []

    def test_a_named_vector_is_searched(self, tmp_path):
        dim = cir_vectorizer.load("tiny", "cpu").dim
        params = models.VectorParams(size=dim, distance=models.Distance.COSINE)
        client = QdrantClient(path=str(tmp_path / "index"))
        client.create_collection("shop", {"front": params, "back": params})
        vectors = np.eye(dim)[:2].tolist()
        client.upsert("shop", [models.PointStruct(id=1, vector={"front": vectors[0], "back": vectors[1]})])
        client.close()
        front, back = (objects(tmp_path, "--text", "a hat", "--using", name)[0]["score"] for name in ("front", "back"))
        assert front != back


@pytest.fixture(scope="module")
def told(shop, tmp_path_factory):
    """The same pictures in a collection with texts; the blue one has none."""
    folder = tmp_path_factory.mktemp("told")
    rows = [f"{shop / colour}.png,{'' if colour == 'blue' else f'a {colour} hat'}" for colour in COLOURS]
    (folder / "catalog.csv").write_text("\n".join(["image,title", *rows]))
    model = cir_vectorizer.load("tiny", "cpu")
    with closing(open_collection(f"qdrant:{folder}/index/shop")) as collection:
        sync(open_source(folder / "catalog.csv"), collection, model, create=CreateOptions(text_columns=("title",)))
    return folder


class TestSecondScore:
    def test_words_that_results_must_or_must_not_show_order_them(self, shop):
        white = ("--image", shop / "white.png", "--composer", "image")
        assert objects(shop, *white)[0]["payload"]["colour"] == "white"
        without = objects(shop, *white, "--negative-text", "white")
        assert without[0]["payload"]["colour"] != "white"
        assert set(without[0]["signals"]) == {"picture", "unwanted"}
        wanted = objects(shop, *white, "--must-text", "green")
        assert {hit["payload"]["colour"]: hit["signals"]["wanted"] for hit in wanted}["green"] == 1
        both = objects(shop, "--text", "a hat", "--must-text", "blue", "--must-text", "a hat", "--negative-text", "red")
        assert set(both[0]["signals"]) == {"picture", "unwanted", "wanted"}

    def test_strength_0_leaves_the_words_to_the_composer(self, shop):
        found = objects(shop, "--text", "a hat", "--negative-text", "red", "--strength", 0)
        assert [set(hit["signals"]) for hit in found] == [{"picture"}] * 4
        result = search(shop, "--text", "a hat", "--must-text", "red", "--strength", 0)
        assert "Note: with strength 0, must_text changes nothing" in result.stderr

    def test_the_table_has_a_column_for_each_signal(self, shop, told):
        table = search(shop, "--text", "a hat", "--negative-text", "red", "--must-text", "blue").stdout.splitlines()
        assert table[0].split()[:5] == ["score", "picture", "unwanted", "wanted", "path"]
        assert len(table[1].split()) == 8
        table = search(told, "--text", "a hat", "--limit", 4).stdout.splitlines()
        assert table[0].split() == ["score", "picture", "text", "path", "title"]
        blue = next(line for line in table if "blue.png" in line)
        assert len(blue.split()) == 4  # no signal of a text, and no title

    def test_texts_count_by_their_weight(self, told):
        plain, weighted = (objects(told, "--text", "a hat", "--text-weight", weight) for weight in (0, 0.5))
        assert {hit["payload"]["path"] for hit in plain} == {hit["payload"]["path"] for hit in weighted}
        pictures = {hit["id"]: hit["score"] for hit in plain}
        for hit in weighted:
            assert hit["signals"]["picture"] == pytest.approx(pictures[hit["id"]], abs=1e-4)
            if "text" in hit["signals"]:
                mean = (hit["signals"]["picture"] + hit["signals"]["text"]) / 2
                assert hit["score"] == pytest.approx(mean, abs=1e-4)
        assert [Path(hit["payload"]["path"]).name for hit in weighted if "text" not in hit["signals"]] == ["blue.png"]

    def test_results_may_differ_from_each_other(self, shop):
        alike, diverse = (objects(shop, "--text", "a hat", "--limit", 3, *more) for more in ((), ("--diversity", 1)))
        assert alike[0] == diverse[0]
        assert alike != diverse

    def test_a_least_score_that_leaves_nothing_is_told(self, shop):
        assert len(objects(shop, "--text", "a hat", "--min-score", -9)) == 4
        assert 0 < len(objects(shop, "--text", "a hat", "--min-score", 0)) < 4
        result = search(shop, "--text", "a hat", "--min-score", 50)
        assert (result.exit_code, result.stdout) == (0, "")
        assert "Nothing found: no object meets --min-score." in result.stderr
        assert "Note: min_score: the nearest object has " in result.stderr

    @pytest.mark.parametrize("suffix", ["png", "html"])
    def test_the_sheet_says_what_each_signal_gave(self, told, tmp_path, suffix):
        sheets = {}
        for name, words in (("plain", ()), ("second", ("--negative-text", "red", "--must-text", "blue"))):
            sheets[name] = tmp_path / f"{name}.{suffix}"
            result = search(
                told, "--text", "a hat", *words, "--text-weight", 0.3 if words else 0, "--sheet", sheets[name]
            )
            assert result.exit_code == 0, result.output
        if suffix == "png":
            heights = {name: Image.open(sheet).height for name, sheet in sheets.items()}
            assert heights["second"] == heights["plain"] + 2 * 22
        else:
            assert "<small>" not in sheets["plain"].read_text()
            page = sheets["second"].read_text()
            assert "<h1>a hat (not: red) (must show: blue)</h1>" in page
            assert (
                len(
                    re.findall(
                        r"<small>picture -?[\d.]+, text -?[\d.]+</small><small>unwanted [\d.]+, wanted [\d.]+</small>",
                        page,
                    )
                )
                == 3
            )
            assert (
                len(re.findall(r"<small>picture -?[\d.]+, unwanted [\d.]+</small><small>wanted [\d.]+</small>", page))
                == 1
            )


class TestSheets:
    def test_a_png_shows_query_and_results(self, shop, tmp_path):
        result = search(shop, "--image", shop / "red.png", "--text", "in blue", "--sheet", tmp_path / "sheet.png")
        assert result.exit_code == 0, result.output
        sheet = Image.open(tmp_path / "sheet.png")
        colours = {colour for _, colour in sheet.getcolors(2**20)}
        assert set(COLOURS.values()) <= colours

    def test_an_html_page_holds_its_pictures_and_escapes_words(self, shop, tmp_path):
        search(shop, "--image", shop / "red.png", "--text", "<b>blue</b>", "--sheet", tmp_path / "sheet.html")
        page = (tmp_path / "sheet.html").read_text()
        assert page.count("data:image/jpeg;base64,") == 5
        assert "&lt;b&gt;blue&lt;/b&gt;" in page
        assert "<b>blue" not in page

    def test_a_picture_that_is_gone_leaves_a_gray_square(self, tmp_path):
        Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
        collection = open_collection(f"qdrant:{tmp_path}/index/shop")
        sync(open_source(tmp_path), collection, cir_vectorizer.load("tiny", "cpu"))
        collection.close()
        (tmp_path / "a.png").unlink()
        assert search(tmp_path, "--text", "a hat", "--sheet", tmp_path / "sheet.png").exit_code == 0
        assert Image.open(tmp_path / "sheet.png").getpixel((300, 100)) == (0xDD, 0xDD, 0xDD)

    def test_another_suffix_is_wrong_use(self, shop):
        result = search(shop, "--text", "a hat", "--sheet", "sheet.pdf")
        assert result.exit_code == 2
        assert ".png, .webp or .html" in result.output

    def test_a_folder_that_does_not_exist_is_told_before_the_search(self, shop, tmp_path):
        result = search(shop, "--text", "a hat", "--sheet", tmp_path / "no" / "sheet.png")
        assert result.exit_code == 2
        assert f"the sheet's folder {tmp_path}/no does not exist" in result.stderr
        assert not result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the query is empty; give at least image or text"),
        (["--negative-text", "stripes"], "says only what to avoid"),
        (["--text", "x", "--filter", "price<<5"], "filter: at letter 7"),
        (["--text", "x", "--template", "a photo"], "template"),
        (["--text", "x", "--language", "German language"], "language: is 'German language', which is no language tag"),
        (["--image", "nowhere.png"], "does not exist"),
        (["--image", "nowhere.png", "--text", "x", "--composer", "magic"], "no composer 'magic'"),
        (["--text", "x", "--model", "no-such-model"], "no-such-model"),
        (["--id", "nine"], "image.0: names 'nine', which is no id"),
        (["--id", "9"], "image.0: names object 9, which is not in qdrant:"),
        (["--like", "nowhere.png"], "like: 'nowhere.png' is neither an existing file nor an id"),
        (["--unlike", "9"], "unlike: says only what to avoid"),
        (["--text", "x", "--option", "keep"], "option: 'keep' is not KEY=VALUE"),
        (["--text", "x", "--option", "keep=much"], "options.keep: is 'much', which is no number"),
        (["--text", "x", "--option", "keep=2"], "options.keep"),
        (["--text", "x", "--option", "pace=2"], "options.pace: is not a field"),
        (["--id", "9", "--hybrid"], "hybrid: looks for the words of the text"),
        (["--image", "nowhere.png", "--text", "x", "--mask", "0,0,0.5,0.5"], "mask: LinCIR reads no mask"),
        (["--id", "9", "--text", "x", "--mask", "0.5,0,0.1,0.5"], "mask: box is empty"),
        (["--text", "x", "--tenant", "me"], "has no tenants"),
        (["--text", "x", "--text-weight", "0.5"], "text_weight: is for collections with texts, and this one has none"),
        (["--text", "x", "--min-score", "nan"], "min_score: is no finite number"),
        (["--text", "x", "--diversity", "0.5", "--must-text", "y"], "diversity: is chosen by the database"),
        (["--text", "x", "--hybrid", "--must-text", "y"], "must_text: needs scores"),
        (["--must-text", "y"], "must_text: says only what results must show"),
        (["--text", "x", *["--negative-text", "y"] * 17], "negative_text: has 17 texts, more than 16"),
    ],
)
def test_a_query_that_makes_no_sense_gives_status_1_and_a_sentence(shop, arguments, sentence):
    result = search(shop, *arguments)
    assert result.exit_code == 1
    assert sentence in result.output


def test_offset_and_page_together_are_wrong_use(shop):
    assert search(shop, "--text", "x", "--offset", 1, "--page", 2).exit_code == 2


def test_a_collection_that_is_not_there_is_not_made(tmp_path):
    result = search(tmp_path, "--text", "x")
    assert result.exit_code == 1
    assert "there is no collection qdrant:" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_collection_of_another_backbone_is_refused_with_both_names(tmp_path):
    collection = open_collection(f"qdrant:{tmp_path}/index/shop")
    ensure(collection, ModelRecord("clip-l", "ff" * 32, cir_vectorizer.load("tiny", "cpu").dim))
    collection.close()
    result = search(tmp_path, "--text", "x")
    assert result.exit_code == 1
    assert "clip-l@ffffffffffff" in result.output
    assert "tiny@" in result.output


def test_help_loads_nothing_heavy():
    script = (
        "import sys; from click.testing import CliRunner; from cir_vectorizer.cli import main\n"
        "for command in ('sync', 'search'): assert CliRunner().invoke(main, [command, '--help']).exit_code == 0\n"
        "print(sorted({'torch', 'numpy', 'PIL', 'qdrant_client', 'rich'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_nothing_found_is_said_with_its_cause(shop):
    text = ("--model", "tiny", "--text", "a hat")
    column = "Note: group_by: none of the 4 objects looked at has a value in column 'brand'; check the column's name\n"
    for more, said in (
        (("--filter", "price<5"), "Nothing found: no object meets the filter.\n"),
        (("--page", 3), "Nothing found after the first 20 results.\n"),
        (("--group-by", "brand"), f"{column}Nothing found.\n"),
    ):
        assert search(shop, *text, *more).stderr == said


def test_a_url_is_no_file(shop):
    result = search(shop, "--model", "tiny", "--image", "https://shop.example/hat.jpg")
    assert result.exit_code == 2
    assert "is a URL; download the picture, and give its file" in result.stderr
