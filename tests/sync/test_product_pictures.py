"""Tables of products with several pictures: lists in a cell, the columns of shops' exports, `--pictures`."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.collections import open_collection
from cir_vectorizer.errors import SourceError
from cir_vectorizer.sources import Failure, open_source
from cir_vectorizer.sources.cells import pictures_of
from tests.support.indexing import draw


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(["a.jpg", "b.jpg", "c.jpg"]):
        draw(tmp_path / "photos" / name, i)
    return tmp_path / "photos"


def written(path: Path, *rows: list[str]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(rows)
    return path


def listed(path: Path, **options) -> list:
    """Return the name of each picture with its columns; for a failure, its sentence."""
    source = open_source(path, **options)
    count, entries = source.count(), list(source.items())
    assert count == len(entries)
    assert len({entry.id for entry in entries}) == len(entries)
    return [str(entry) if isinstance(entry, Failure) else (entry.name, entry.columns) for entry in entries]


def names(path: Path, **options) -> list[str]:
    return [entry[0] for entry in listed(path, **options)]


@pytest.mark.parametrize(
    "cell",
    [
        "a.jpg, b.jpg",
        "a.jpg,b.jpg,",
        "a.jpg|b.jpg",
        "a.jpg;b.jpg",
        "a.jpg\nb.jpg",
        '["a.jpg", "b.jpg"]',
        "['a.jpg', 'b.jpg']",
        "[a.jpg, b.jpg]",
        '{a.jpg,"b.jpg"}',
        '[{"src": "a.jpg"}, {"src": "b.jpg"}]',
    ],
)
def test_a_cell_lists_its_pictures_in_any_notation(folder, cell):
    path = written(folder / "t.csv", ["image", "sku"], [cell, "1"], ["c.jpg", "2"])
    assert names(path) == ["a.jpg", "c.jpg"]
    assert names(path, pictures="each", id_column="sku") == ["a.jpg", "b.jpg", "c.jpg"]


def test_lists_of_parquet_and_of_json(folder):
    rows = [{"image": ["a.jpg", "b.jpg"], "product_id": 1}, {"image": ["c.jpg"], "product_id": 2}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "t.parquet")
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = [(folder / name).read_bytes() for name in ("a.jpg", "b.jpg")]
    pq.write_table(pa.table({"image": [content]}), folder / "bytes.parquet")
    for name in ("t.parquet", "t.jsonl"):
        assert names(folder / name, id_column="product_id") == ["a.jpg", "c.jpg"]
        assert listed(folder / name, id_column="product_id", pictures="each") == [
            ("a.jpg", {"product_id": 1}),
            ("b.jpg", {"product_id": 1}),
            ("c.jpg", {"product_id": 2}),
        ]
    assert len(names(folder / "bytes.parquet", pictures="each")) == 2


@pytest.mark.parametrize(
    ("cell", "pictures"),
    [
        ("https://x.example/w_200,h_300/a.jpg", None),
        ("https://x.example/a.jpg,b.jpg", None),
        ("https://x.example/fetch/w_1,h_2/https://y.example/a.jpg", None),
        (r"https://x.example/w_2\,h_3/a.jpg", ["https://x.example/w_2,h_3/a.jpg"]),
        (
            "https://x.example/w_2,h_3/a.jpg, https://x.example/w_2,h_3/b.jpg",
            ["https://x.example/w_2,h_3/a.jpg", "https://x.example/w_2,h_3/b.jpg"],
        ),
        ("https://x.example/1|https://x.example/2", ["https://x.example/1", "https://x.example/2"]),
        ("https://x.example/1 https://x.example/2", ["https://x.example/1", "https://x.example/2"]),
        ("red, front.jpg", None),
        ("data:image/png;base64,AAAA", None),
    ],
)
def test_a_comma_inside_a_url_or_a_name_separates_nothing(cell, pictures):
    assert pictures_of(cell) == (pictures or [cell])


def test_a_file_that_has_the_cell_as_its_name_is_one_picture(folder):
    (folder / "a.jpg").rename(folder / "b.jpg, c.jpg")
    assert names(written(folder / "t.csv", ["image"], ["b.jpg, c.jpg"])) == ["b.jpg, c.jpg"]


@pytest.mark.parametrize(
    ("cell", "pictures"),
    [
        ("a.jpg,", ["a.jpg"]),
        ("a.jpg,,b.jpg, ", ["a.jpg", "b.jpg"]),
        ("a.jpg, a.jpg", ["a.jpg"]),
        ('["a.jpg", "a.jpg", null]', ["a.jpg"]),
        ("('a.jpg', 'b.jpg')", ["a.jpg", "b.jpg"]),
        ("https://x.example/1 https://x.example/1", ["https://x.example/1"]),
    ],
)
def test_a_picture_that_a_cell_names_twice_is_one(cell, pictures):
    assert pictures_of(cell) == pictures


def test_a_url_without_its_scheme_is_read_over_https_unless_it_is_a_file(folder):
    [item] = open_source(written(folder / "t.csv", ["image"], ["//cdn.example/shop/a.jpg"])).items()
    assert item.picture.location == "https://cdn.example/shop/a.jpg"


@pytest.mark.parametrize("cell", ["[]", "[None]", "[nan]", '[""]', "  ", "no_selection", "N/A"])
def test_empty_lists_and_words_for_nothing_are_rows_without_a_picture(folder, cell):
    path = written(folder / "t.csv", ["image"], [cell], ["c.jpg"])
    assert listed(path)[0].endswith("t.csv, row 1 has no picture in column 'image'; fill it, or drop the row")


SHOPIFY = [
    ["Handle", "Title", "Option1 Value", "Image Src", "Published"],
    ["red-dress", "Red dress", "S", "a.jpg", "TRUE"],
    ["red-dress", "", "M", "b.jpg", ""],
    ["red-dress", "", "L", "", ""],
    ["green-hat", "Green hat", "", "c.jpg", "TRUE"],
]


def test_an_export_with_a_row_for_each_picture_gives_products_their_columns(folder):
    path = written(folder / "shopify.csv", *SHOPIFY)
    red = {"Handle": "red-dress", "Title": "Red dress", "Published": True}
    green = ("c.jpg", {"Handle": "green-hat", "Title": "Green hat", "Published": True})
    for id_column in ("Handle", None):
        assert listed(path, id_column=id_column) == [("a.jpg", {**red, "Option1 Value": "S"}), green]
        assert listed(path, id_column=id_column, pictures="each") == [
            ("a.jpg", {**red, "Option1 Value": "S"}),
            ("b.jpg", {**red, "Option1 Value": "M"}),
            green,
        ]


def test_a_product_without_any_picture_fails_once(folder):
    path = written(folder / "shopify.csv", SHOPIFY[0], ["hat", "Hat", "S", "", ""], ["hat", "", "M", "", ""])
    assert len(listed(path, pictures="each")) == len(listed(path)) == 1


@pytest.mark.parametrize(
    ("header", "row", "each"),
    [
        (["ID", "SKU", "Images"], ["1", "S1", "a.jpg, b.jpg"], ["a.jpg", "b.jpg"]),
        (["id", "image link", "additional image link"], ["1", "a.jpg", "b.jpg,c.jpg"], ["a.jpg", "b.jpg", "c.jpg"]),
        (["id", "image_link", "additional_image_link"], ["1", "a.jpg", "b.jpg"], ["a.jpg", "b.jpg"]),
        (["sku", "base_image", "additional_images"], ["1", "/a.jpg", "/a.jpg,/b.jpg"], ["/a.jpg", "/b.jpg"]),
        (["URL handle", "Product image URL", "Image position"], ["x", "a.jpg", "1"], ["a.jpg"]),
        (["sku", "Image_URL", "images"], ["1", "a.jpg", "b.jpg"], ["a.jpg"]),
    ],
)
def test_the_columns_of_shops_exports_are_known(folder, header, row, each):
    path = written(folder / "feed.tsv", header, row)
    assert names(path, pictures="each") == each
    assert names(path) == each[:1]


def test_ids_of_each_picture_stay_when_pictures_are_reordered(folder):
    def ids(cell: str, sku: str = "1") -> dict:
        path = written(folder / "t.csv", ["image", "sku"], [cell, sku])
        return {item.name: item.id for item in open_source(path, id_column="sku", pictures="each").items()}

    before = ids("a.jpg, b.jpg")
    assert ids("b.jpg|c.jpg|a.jpg|b.jpg") == {**before, **ids("c.jpg")}
    assert not set(ids("a.jpg, b.jpg", "2").values()) & set(before.values())


def test_equal_ids_are_refused_with_the_option_that_allows_them(folder):
    path = written(folder / "t.csv", ["sku", "image"], ["1", "a.jpg"], ["1", "b.jpg"], ["2", "c.jpg"])
    with pytest.raises(SourceError, match="make the ids unique, or give --pictures each if they hold several pictures"):
        open_source(path, id_column="sku").count()
    assert names(path, id_column="sku", pictures="each") == ["a.jpg", "b.jpg", "c.jpg"]


def test_who_chose_the_first_picture_is_not_told_of_the_others(folder):
    path = written(folder / "t.csv", ["sku", "image"], ["1", "a.jpg, b.jpg"])
    for chosen, notes in ((None, 1), ("first", 0), ("each", 0)):
        source = open_source(path, id_column="sku", pictures=chosen)
        assert source.count() == (2 if chosen == "each" else 1)
        assert len(source.notes) == notes


def test_the_option_is_for_tables_only(folder):
    with pytest.raises(SourceError, match="is a folder, which has no rows with several pictures; leave out --pictures"):
        open_source(folder, pictures="each")


def test_the_command_and_a_search_that_gives_each_product_once(folder, monkeypatch):
    monkeypatch.chdir(folder)
    written(folder / "woo.csv", ["ID", "SKU", "Images"], ["1", "S1", "a.jpg, b.jpg"], ["2", "S2", "c.jpg"])
    call = CliRunner().invoke
    to = ["--to", "qdrant:index/woo", "--model", "tiny", "--id-column", "SKU", "--report", "r.json"]
    first = call(main, ["sync", "woo.csv", *to])
    assert first.exit_code == 0, first.output
    assert "added 2, changed 0, unchanged 0, failed 0" in first.output
    assert "Note: in 1 row of woo.csv several pictures are named, and only the first is indexed" in first.output
    assert json.loads(Path("r.json").read_text())["notes"] == [
        "in 1 row of woo.csv several pictures are named, and only the first is indexed; give --pictures each for an "
        "object of each"
    ]
    each = call(main, ["sync", "woo.csv", *to, "--pictures", "each", "--prune", "--yes"])
    assert "added 3, changed 0, unchanged 0, removed 2, failed 0" in each.output
    assert "added 0, changed 0, unchanged 3" in call(main, ["sync", "woo.csv", *to, "--pictures", "each"]).output

    query = ["search", "--in", "qdrant:index/woo", "--model", "tiny", "--image", "b.jpg", "--json"]
    hits = [json.loads(line) for line in call(main, [*query, "--group-by", "SKU"]).output.splitlines()]
    assert [(hit["payload"]["SKU"], Path(hit["payload"]["path"]).name) for hit in hits] == [
        ("S1", "b.jpg"),
        ("S2", "c.jpg"),
    ]
    shop = open_collection("qdrant:index/woo")
    assert shop.count() == 3
    shop.close()
