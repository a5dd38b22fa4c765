"""Sync of csv, tsv and jsonl tables into an embedded Qdrant, with the packaged model."""

import gc
import gzip
import io
import json
import os
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cir_vectorizer.errors import SourceError
from cir_vectorizer.sources import Item, Web, open_source
from cir_vectorizer.sources.table import LocalTable, TableSource
from cir_vectorizer.sync import compare
from tests.support.indexing import counts, draw, indexed, only, payloads, run, table

pytest_plugins = ["tests.support.indexing"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_columns_become_the_payload(photos, shop, tiny, suffix):
    rows = [
        {"image": "a.jpg", "colour": "light, blue", "price": 10},
        {"image": "b.png", "colour": "réd", "price": 5},
    ]
    report = run(table(photos / f"catalog{suffix}", rows), shop, tiny)
    assert counts(report) == only(added=2, encoded=2)
    assert payloads(shop) == {
        "a.jpg": {"colour": "light, blue", "price": 10},
        "b.png": {"colour": "réd", "price": 5},
    }


@pytest.mark.parametrize("suffix", [".csv.gz", ".tsv.gz", ".jsonl.gz", ".json", ".json.gz", ".parquet.gz"])
def test_gzipped_tables_and_lists_of_json_are_tables_like_the_others(photos, shop, tiny, suffix):
    rows = [{"image": "a.jpg", "colour": "réd"}, {"image": "b.png", "colour": "blue"}]
    plain = photos / f"catalog{suffix.removesuffix('.gz')}"
    if plain.suffix == ".json":
        plain.write_text(json.dumps(rows))
    elif plain.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), plain)
    else:
        table(plain, rows)
    if suffix.endswith(".gz"):
        (photos / f"catalog{suffix}").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    assert counts(run(photos / f"catalog{suffix}", shop, tiny)) == only(added=2, encoded=2)
    assert payloads(shop) == {"a.jpg": {"colour": "réd"}, "b.png": {"colour": "blue"}}
    assert counts(run(photos / f"catalog{suffix}", shop, tiny)) == only(unchanged=2)


def test_rows_of_a_json_list_that_make_no_sense_fail_one_by_one(photos, shop, tiny):
    content = (
        '[{"image": "a.jpg"}, 3, {"image": "b.png", "weight": NaN}, {"image": "b.png", "ean": 123456789012345678901}]'
    )
    (photos / "catalog.json").write_text(content)
    report = run(photos / "catalog.json", shop, tiny)
    assert counts(report) == only(added=1, failed=3, encoded=1)
    assert [str(failure).partition("catalog.json, ")[2] for failure in report.failed] == [
        'row 2 is no JSON object; write {"image": …, …}',
        "row 3 is not valid JSON (NaN is not a number that databases hold); correct it",
        "row 4 is not valid JSON (123456789012345678901 is not a number that databases hold); correct it",
    ]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("catalog.json", b'{"image": "a.jpg"}', "holds an object; a list of objects is needed"),
        ("catalog.json", b'[{"image": "a.jpg"}', "line 1 is not valid JSON"),
        ("catalog.csv.gz", gzip.compress(b"image\na.jpg\n" * 1000, mtime=0)[:30], "is damaged or cut short"),
    ],
)
def test_a_damaged_file_names_its_cause(photos, name, content, problem):
    (photos / name).write_bytes(content)
    with pytest.raises(SourceError, match=problem):
        open_source(photos / name).count()


def test_a_table_with_the_line_ends_of_old_programs_is_read(photos, shop, tiny):
    (photos / "catalog.csv").write_bytes(b"image,colour\ra.jpg,red\rb.png,blue\r")
    run(photos / "catalog.csv", shop, tiny)
    assert payloads(shop) == {"a.jpg": {"colour": "red"}, "b.png": {"colour": "blue"}}


def test_json_values_stay_as_they_are(photos, shop, tiny):
    row = {
        "n": 1,
        "x": 1.5,
        "code": "007",
        "tags": ["a", "b"],
        "maker": {"city": "Oslo"},
        "sold": True,
        "none": None,
    }
    run(table(photos / "catalog.jsonl", [{"image": "a.jpg", **row}]), shop, tiny)
    assert payloads(shop) == {"a.jpg": row}
    assert counts(run(photos / "catalog.jsonl", shop, tiny)) == only(unchanged=1)


def test_a_csv_column_is_numbers_if_most_of_it_is(photos, shop, tiny):
    rows = [
        {
            "image": "a.jpg",
            "ean": "4006381333931",
            "price": "10",
            "size": "38",
            "code": "007",
            "version": "1e5",
            "": "0",
        },
        {"image": "b.png", "ean": "", "price": "9.90", "size": "M", "code": "12", "version": "2", "": "1"},
    ]
    run(table(photos / "catalog.csv", rows), shop, tiny)
    assert payloads(shop) == {
        "a.jpg": {"ean": 4006381333931, "price": 10.0, "size": "38", "code": "007", "version": "1e5"},
        "b.png": {"price": 9.9, "size": "M", "code": "12", "version": "2"},
    }


def test_a_changed_payload_alone_is_written_alone(photos, shop, tiny):
    rows = [{"image": "a.jpg", "colour": "red", "old": "x"}, {"image": "b.png", "colour": "blue", "old": "y"}]
    run(table(photos / "catalog.jsonl", rows), shop, tiny)
    rows[0] = {"image": "a.jpg", "colour": "green"}
    report = run(table(photos / "catalog.jsonl", rows), shop, tiny)
    assert counts(report) == only(changed=1, unchanged=1)
    assert payloads(shop) == {"a.jpg": {"colour": "green"}, "b.png": {"colour": "blue", "old": "y"}}


def test_a_picture_and_its_payload_may_change_together(photos, shop, tiny):
    run(table(photos / "catalog.csv", [{"image": "a.jpg", "colour": "red"}]), shop, tiny)
    draw(photos / "a.jpg", 77)
    report = run(table(photos / "catalog.csv", [{"image": "a.jpg", "colour": "blue"}]), shop, tiny)
    assert counts(report) == only(changed=1, encoded=1)
    assert payloads(shop) == {"a.jpg": {"colour": "blue"}}


def test_an_id_column_keeps_an_object_while_its_picture_changes(photos, shop, tiny):
    run(table(photos / "catalog.csv", [{"image": "a.jpg", "sku": "S1"}]), shop, tiny, id_column="sku")
    report = run(table(photos / "catalog.csv", [{"image": "b.png", "sku": "S1"}]), shop, tiny, id_column="sku")
    assert counts(report) == only(changed=1, encoded=1)
    assert indexed(shop) == ["b.png"]


def test_another_picture_of_the_same_size_and_time_is_encoded(photos, shop, tiny):
    for seed, name in enumerate(("front.bmp", "back.bmp")):
        draw(photos / name, seed)
        os.utime(photos / name, (1, 1))
    run(table(photos / "catalog.csv", [{"image": "front.bmp", "sku": "S1"}]), shop, tiny, id_column="sku")
    report = run(table(photos / "catalog.csv", [{"image": "back.bmp", "sku": "S1"}]), shop, tiny, id_column="sku")
    assert counts(report) == only(changed=1, encoded=1)
    assert indexed(shop) == ["back.bmp"]


def test_one_picture_may_show_several_objects_with_ids(photos, shop, tiny):
    rows = [{"image": "a.jpg", "sku": 1}, {"image": "a.jpg", "sku": 2}]
    assert counts(run(table(photos / "catalog.jsonl", rows), shop, tiny, id_column="sku"))["added"] == 2


def test_a_table_and_its_folder_make_the_same_objects(photos, shop, tiny):
    run(photos, shop, tiny)
    report = run(table(photos / "catalog.csv", [{"image": "./inner/d.gif", "colour": "red"}]), shop, tiny)
    assert counts(report) == only(changed=1)
    assert shop.count() == 5


@pytest.mark.parametrize("name", ["Image", "image_path", "path", "file", "filename"])
def test_the_image_column_is_guessed_by_its_name(photos, shop, tiny, name):
    rows = [{"title": "x", name: "a.jpg", "note": "y"}]
    assert counts(run(table(photos / "catalog.csv", rows), shop, tiny))["added"] == 1
    assert payloads(shop) == {"a.jpg": {"title": "x", "note": "y"}}


def test_the_image_column_may_be_said(photos, shop, tiny):
    rows = [{"image": "front", "bild": "a.jpg"}]
    run(table(photos / "catalog.csv", rows), shop, tiny, image_column="bild")
    assert payloads(shop) == {"a.jpg": {"image": "front"}}


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        ("title,colour\nx,red\n", {}, "no column that is clearly the picture's.*: title, colour"),
        (
            "image,colour\na.jpg,red\n",
            {"image_column": "bild"},
            "no column 'bild'; --image-column is one of: image, colour",
        ),
        (
            "image,colour\na.jpg,red\n",
            {"id_column": "sku"},
            "no column 'sku'; --id-column is one of: image, colour",
        ),
        (
            "image,colour\na.jpg,red\nb.png,blue\n./a.jpg,x\n",
            {},
            "rows 1 and 3 would be the same.*--id-column",
        ),
        (
            "image,sku\na.jpg,1\nb.png,1\n",
            {"id_column": "sku"},
            "rows 1 and 2 would be the same.*ids unique",
        ),
        ("image,_cir\na.jpg,red\n", {}, "column '_cir'"),
        ("", {}, "was read as csv, which is empty; check that its export came to an end"),
        (
            b"image\n\xd0\xcf\xd0\xcf.jpg\n",
            {},
            "no row of .* can be read: the first one is neither UTF-8 nor Windows-1252",
        ),
        (b"image\xd0\xcf\xd0\xcf\na.jpg\n", {}, "line 1, which names the columns, is neither UTF-8 nor Windows-1252"),
        ('image\n"a.jpg\n', {}, "no row of .* can be read: the first one has a quote"),
    ],
)
def test_a_table_that_cannot_be_indexed_is_a_sentence(photos, shop, tiny, content, options, problem):
    path = photos / "catalog.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError, match=problem):
        run(path, shop, tiny, **options)
    assert shop.info() is None


def test_rows_that_make_no_sense_fail_one_by_one(photos, shop, tiny):
    lines = [
        '{"image": "a.jpg", "sku": 1}',
        "{not json",
        "[1]",
        '{"image": null, "sku": 2}',
        '{"image": 5, "sku": 3}',
        '{"image": "b.png", "sku": null}',
        '{"image": "http://127.0.0.1/b.png", "sku": 4}',
        '{"image": "b.png", "sku": 5, "weight": NaN}',
        '{"image": "b.png", "sku": 6, "ean": 123456789012345678901234567890}',
        '{"image": "b.png", "sku": 7, "name": "\\ud800"}',
        '{"image": "gone.png", "sku": 8}',
        "",
        '{"image": "c.webp", "sku": 9}',
    ]
    (photos / "catalog.jsonl").write_text("\n".join(lines))
    report = run(photos / "catalog.jsonl", shop, tiny, id_column="sku")
    assert counts(report) == only(added=2, failed=10, encoded=2)
    reasons = {failure.path.rpartition("row ")[2]: failure.reason for failure in report.failed}
    assert reasons == {
        **dict.fromkeys(["2", "3", "5", "8", "9", "10"], "row"),
        "4": "missing",
        "6": "id",
        "http://127.0.0.1/b.png": "url",
        "gone.png": "path",
    }


def test_a_csv_row_with_too_many_cells_fails_alone(photos, shop, tiny):
    (photos / "catalog.csv").write_text("image,colour\na.jpg,red, dark\nb.png,blue\nc.webp\n")
    report = run(photos / "catalog.csv", shop, tiny)
    assert counts(report) == only(added=2, failed=1, encoded=2)
    assert "has 3 cells for 2 columns" in str(report.failed[0])
    assert payloads(shop) == {"b.png": {"colour": "blue"}, "c.webp": {}}


def test_a_source_that_is_none_is_a_sentence(photos, tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="neither a folder nor a table"):
        open_source(photos / "a.jpg")
    with pytest.raises(SourceError, match="is a folder, which has no columns"):
        open_source(photos, image_column="image")


def test_rows_that_name_the_same_picture_where_none_may_be_fail_one_by_one(photos, shop, tiny):
    report = run(table(photos / "catalog.csv", [{"image": "ftp://host/a.jpg"}] * 2 + [{"image": "a.jpg"}]), shop, tiny)
    assert counts(report) == only(added=1, failed=2, encoded=1)


def test_cells_that_were_edited_after_the_table_was_counted_stay_text(photos):
    rows = [{"image": f"{i}.jpg", "price": 10, "weight": 1.5} for i in range(3)]
    source = open_source(table(photos / "catalog.csv", rows))
    source.count()
    rows[1] |= {"price": "1.5", "weight": "nan"}
    rows[2] |= {"price": "ten", "weight": "heavy"}
    table(photos / "catalog.csv", rows)
    assert [item.columns for item in source.items() if isinstance(item, Item)] == [
        {"price": 10, "weight": 1.5},
        {"price": "1.5"},
        {"price": "ten", "weight": "heavy"},
    ]


@pytest.mark.parametrize("left", [[], [{"image": "a.jpg"}], [{"image": ""}] * 2])
def test_rows_that_leave_while_the_table_is_counted_are_no_matter(photos, left):
    class Edited(LocalTable):
        times = 0

        def open(self):
            self.times += 1
            if self.times == 3:  # after the columns and the count: the reading that looks for rows of the same id
                (photos / "catalog.jsonl").write_text("".join(f'{{"image": "{row["image"]}"}}\n' for row in left))
            return super().open()

    file = Edited(table(photos / "catalog.jsonl", [{"image": "a.jpg"}] * 2))
    assert TableSource(file, ".jsonl", Web()).count() == 2
    assert file.times == 3


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".parquet", ".csv.gz", ".parquet.gz"])
def test_no_file_of_a_table_stays_open(tmp_path, suffix):
    rows = [{"image": f"{i}.jpg", "n": i} for i in range(5)]
    content = io.BytesIO()
    if "parquet" in suffix:
        pq.write_table(pa.Table.from_pylist(rows), content)
    elif "csv" in suffix:
        content.write("\n".join(["image,n", *(f"{row['image']},{row['n']}" for row in rows)]).encode())
    else:
        content.write((json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows))).encode())
    path = tmp_path / f"shop{suffix}"
    path.write_bytes(gzip.compress(content.getvalue()) if suffix.endswith(".gz") else content.getvalue())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        source = open_source(path)
        next(iter(source.items()))  # a reader that stops early
        assert len(list(source.items())) == 5
        del source
        gc.collect()
    assert [str(each.message) for each in said if issubclass(each.category, ResourceWarning)] == []


def test_words_without_spaces_are_written_again_for_collections_of_release_0_1_0(photos, shop, tiny, monkeypatch):
    rows = [{"image": "a.jpg", "title": "赤い帽子"}, {"image": "b.png", "title": "red hat"}]
    catalog = table(photos / "catalog.jsonl", rows)
    with monkeypatch.context() as former:
        former.setattr(compare, "unspaced", lambda _: False)
        run(catalog, shop, tiny)
        assert counts(run(catalog, shop, tiny)) == only(unchanged=2)
    assert counts(run(catalog, shop, tiny)) == only(changed=1, unchanged=1)
    assert counts(run(catalog, shop, tiny)) == only(unchanged=2)
