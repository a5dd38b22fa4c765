"""`cir-vectorizer make-triplets`: a catalog's attributes become references, words and targets."""

import csv
import gzip
import json
import random
import re
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.errors import SourceError
from cir_vectorizer_trainer.compodiff.tables import Tables
from cir_vectorizer_trainer.compodiff.triplets import Catalog, TripletMaker
from examples.demo.catalog import SEEN

KEPT_FOR_EVALUATION = (
    r"\bis \w", r"\bcomes\b", r"\bhas the colour\b", r"\bhas a\b", r"\blooks\b", r"\btakes the form\b", r"\bshows\b",
)  # fmt: skip


def write(path: Path, header: list[str], rows: list[tuple]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def shop(tmp_path) -> Path:
    rng = random.Random(0)
    products = [rng.choice(SEEN) for _ in range(400)]
    rows = [(f"p/{i}.jpg", f"SKU {i}", p.category, p.colour, p.pattern) for i, p in enumerate(products)]
    return write(tmp_path / "shop.csv", ["image", "sku", "Category", "colour_name", "pattern"], rows)


def make(table, *arguments):
    out = table.parent / "triplets.csv"
    result = CliRunner().invoke(main, ["make-triplets", str(table), "--out", str(out), *map(str, arguments)])
    return result, out


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_products_differ_as_the_words_say_and_agree_in_the_rest(shop):
    result, out = make(shop, "--count", 1500)
    assert result.exit_code == 0, result.output
    products = {row["image"]: row for row in read(shop)}
    one = two = left_open = 0
    for row in (rows := read(out)):
        reference, target = products[row["reference"]], products[row["target"]]
        differing = [name for name in ("Category", "colour_name", "pattern") if reference[name] != target[name]]
        said = [name for name in differing if re.search(rf"\b{target[name]}\b", row["text"])]
        left_open += not said
        one, two = one + (len(differing) == 1), two + (len(differing) == 2)
        assert said == differing or (not said and re.search(r"other|different|change|not this", row["text"])), row
    assert one + two == len(rows) == 1500
    assert two > 100
    assert left_open > 50
    assert len({row["text"] for row in rows}) > 200


def test_a_gzipped_table_and_a_list_of_json_make_the_same_triplets(shop):
    _, out = make(shop, "--count", 20)
    expected = out.read_text()
    (zipped := shop.with_name("shop.csv.gz")).write_bytes(gzip.compress(shop.read_bytes()))
    (listed := shop.with_name("shop.json")).write_text(json.dumps(read(shop)))
    for table in (zipped, listed):
        result, out = make(table, "--count", 20)
        assert result.exit_code == 0, result.output
        assert out.read_text() == expected


def test_wordings_that_evaluation_asks_in_are_left_out(shop):
    _, out = make(shop, "--count", 3000)
    for row in read(out):
        assert not any(re.search(pattern, row["text"]) for pattern in KEPT_FOR_EVALUATION), row["text"]


def test_a_seed_makes_the_same_triplets_and_another_seed_others(shop):
    made = []
    for seed in (1, 1, 2):
        _, out = make(shop, "--count", 200, "--seed", seed)
        made.append(out.read_text())
    assert made[0] == made[1] != made[2]


def test_no_triplet_is_made_twice_and_a_small_catalog_gives_what_it_has(tmp_path):
    table = write(tmp_path / "t.csv", ["image", "colour"], [("a.jpg", "red"), ("b.jpg", "blue"), ("c.jpg", "")])
    result, out = make(table, "--columns", "colour", "--count", 5000)
    assert result.exit_code == 0, result.output
    rows = [tuple(row.values()) for row in read(out)]
    assert 20 < len(rows) == len(set(rows)) < 100
    assert {name for row in rows for name in (row[0], row[2])} == {"a.jpg", "b.jpg"}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_pictures_are_found_from_wherever_the_triplets_are_written(shop, tmp_path, suffix):
    out = tmp_path / "deep" / "er" / f"triplets{suffix}"
    result = CliRunner().invoke(main, ["make-triplets", str(shop), "--out", str(out), "--count", "20"])
    assert result.exit_code == 0, result.output
    tables = Tables()
    tables.read_triplets(out)
    assert len(tables.triplets[0]) == 20
    assert {Path(picture.location).resolve().parent for picture in tables.pictures} == {tmp_path / "p"}


def test_addresses_and_absolute_paths_stay_as_they_are(tmp_path):
    rows = [("https://shop.example/a.jpg", "red"), ("/pictures/b.jpg", "blue")]
    table = write(tmp_path / "t.csv", ["image", "colour"], rows)
    out = tmp_path / "sub" / "t.jsonl"
    arguments = ["make-triplets", str(table), "--out", str(out), "--columns", "colour", "--count", "5"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    named = {json.loads(line)["reference"] for line in out.read_text().splitlines()}
    assert named == {"https://shop.example/a.jpg", "/pictures/b.jpg"}


def test_attributes_are_the_columns_with_few_values_that_repeat(shop):
    assert Catalog.read(shop).columns == ["Category", "colour_name", "pattern"]


def test_named_numbers_and_truth_values_are_attributes(tmp_path):
    table = tmp_path / "t.jsonl"
    rows = [{"path": f"{i}.jpg", "size": 36 + i % 4, "new": i % 2 == 0, "tags": ["a", "b"]} for i in range(40)]
    table.write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n")
    catalog = Catalog.read(table, ["size", "new"])
    assert (catalog.columns, len(catalog.images), catalog.left_out) == (["size", "new"], 40, 1)
    with pytest.raises(SourceError, match="no column that is clearly an attribute; name them with --columns"):
        Catalog.read(table)
    assert {triplet.text for triplet in TripletMaker(catalog).draw(200)} >= {"size: 37"}


def test_a_value_that_a_product_lacks_is_never_spoken_of_and_agrees_with_lacking_it(tmp_path):
    colours, patterns = ["red", "blue", ""], ["striped", ""]
    rows = [(f"{c}-{p}-{i}.jpg", c, p) for c, p, i in product(colours, patterns, range(3))]
    _, out = make(write(tmp_path / "t.csv", ["image", "colour", "pattern"], rows), "--columns", "colour,pattern")
    assert read(out)
    for row in read(out):
        (old, old_pattern, _), (new, new_pattern, _) = row["reference"].split("-"), row["target"].split("-")
        assert {old, new} == {"red", "blue"}
        assert old_pattern == new_pattern


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--columns", "color"), "has no column 'color'; its columns are image, sku"),
        (("--columns", "sku,serial,title"), "no two products differ"),
        (("--columns", "image"), "holds the pictures"),
        (("--image-column", "photo"), "has no column 'photo'"),
    ],
)
def test_wrong_columns_are_one_sentence(shop, arguments, words):
    rows = [(row["image"], *(f"{row['sku']} {name}" for name in "abc")) for row in read(shop)]
    result, out = make(write(shop, ["image", "sku", "serial", "title"], rows), *arguments)
    assert result.exit_code == 1
    assert words in result.output
    assert not out.exists()


def test_tables_that_cannot_serve_are_one_sentence(tmp_path):
    missing, _ = make(tmp_path / "none.csv")
    kind, _ = make(write(tmp_path / "t.txt", ["image"], []))
    empty, _ = make(write(tmp_path / "e.csv", ["image", "colour"], []))
    plain, _ = make(write(tmp_path / "p.csv", ["image", "title"], [("a.jpg", "one"), ("b.jpg", "two")]))
    table = write(tmp_path / "c.csv", ["image", "colour"], [("a.jpg", "red"), ("b.jpg", "blue")] * 3)
    out = CliRunner().invoke(main, ["make-triplets", str(table), "--out", str(tmp_path / "x.parquet")])
    found = [result.output for result in (missing, kind, empty, plain, out)]
    expected = ("does not exist", "must end in one of .csv", "names no picture", "--columns: image, title", ".jsonl")
    assert all(word in said and said.count("\n") <= 2 for word, said in zip(expected, found, strict=True)), found


def test_what_no_picture_shows_is_no_attribute_unless_it_is_named(tmp_path):
    rng = random.Random(0)
    header = [
        "image",
        "Type",
        "Color",
        "Price",
        "Money",
        "Stock",
        "Published",
        "Status",
        "Created",
        "Sold",
        "Unit",
        "Tax",
    ]
    rows = [
        (
            f"{i}.jpg", rng.choice(["dress", "hat"]), rng.choice(["red", "blue", "N/A"]), rng.choice(["9.99", "19.99", "ask"]),
            rng.choice(["9 USD", "$12.50"]), rng.choice("012"), rng.choice(["TRUE", "FALSE"]), rng.choice(["active", "draft"]),
            rng.choice(["2024-01-05", "2024-02-01T10:00:00Z"]), rng.choice(["12.1.2024", "3/4/24"]), "kg",
            rng.choice(["yes", "no", ""]),
        )
        for i in range(60)
    ]  # fmt: skip
    table = write(tmp_path / "shop.csv", header, rows)
    result, out = make(table, "--count", 40)
    assert result.exit_code == 0, result.output
    assert "60 products with Type, Color;" in result.stderr
    assert (
        "Not taken for attributes: Price (numbers), Money (numbers), Stock (numbers), Published (truth values or states), "
        "Status (truth values or states), Created (dates), Sold (dates), Tax (truth values or states); "
    ) in result.stderr
    assert not any(re.search(r"n/a|\d|true|draft", row["text"]) for row in read(out))
    result, _ = make(table, "--columns", "Color,Status")
    assert "60 products with Color, Status;" in result.stderr


def test_the_shared_catalog_of_a_shop_speaks_of_colour_and_type(shared, tmp_path):
    table = tmp_path / "shop.csv"
    table.write_bytes((shared / "cases" / "17-triplets-from-stock-and-dates" / "shop.csv").read_bytes())
    result, _ = make(table, "--image-column", "Image Src", "--count", 40)
    assert "48 products with Type, Color, Vendor;" in result.stderr
