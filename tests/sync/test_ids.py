"""A whole number is the same id however it is written or typed, and objects under another spelling are moved."""

import json
import re
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from cir_vectorizer.collections import ModelRecord, Point, SyncRecord
from cir_vectorizer.errors import CollectionError, PartialWriteError
from cir_vectorizer.identity import id_text, json_id, lost_digits, whole_number
from cir_vectorizer.sources import CollectionSource, Web, open_source, stable_id
from cir_vectorizer.sync import dry_run, reembed, sync
from cir_vectorizer.sync.compare import columns_digest
from tests.support.databases import ONE_OF_EACH, database_of
from tests.support.indexing import counts, only, payloads, run, table

BIG = 9007199254740993


@pytest.mark.parametrize(
    "value",
    [101, 101.0, "101", "101.0", "101.00", " 101 ", "\t101.0\n", "\u00a0101\u3000", np.int64(101), np.float32(101)],
)
def test_a_whole_number_is_one_id_in_every_spelling(value):
    assert (whole_number(value), id_text(value)) == (101, "101")


@pytest.mark.parametrize(
    "code", ["007", "12.10", "12.1", "1e3", "+7", "1,000", "0x1F", "١٠١", "12.", ".5", "A7", "", "- 7"]
)
def test_codes_stay_as_they_are_spelled(code):
    assert (whole_number(code), id_text(code)) == (None, code)


@pytest.mark.parametrize("value", [True, None, 12.5, float("inf"), float("nan")])
def test_other_values_are_no_whole_numbers(value):
    assert whole_number(value) is None


@pytest.mark.parametrize(
    ("value", "lost"),
    [
        (BIG, False),
        (float(BIG), True),
        (str(BIG), False),
        (f"{BIG - 1}.0", True),
        ("2.15251E+17", True),
        ("1e+16", True),
        ("1e3", False),
        (2.0**52, False),
        (12.5, False),
        ("A.1", False),
    ],
)
def test_numbers_that_may_have_lost_digits_are_told(value, lost):
    assert lost_digits(value) is lost


def test_ids_that_javascript_would_round_are_text_in_answers():
    assert json_id(17) == {"id": 17, "id_text": "17"}
    assert json_id(BIG) == {"id": str(BIG), "id_text": str(BIG)}
    assert json_id("a-b") == {"id": "a-b", "id_text": "a-b"}


def write(path, spelled):
    """Write a table of two products whose ids are spelled like this."""
    rows = [{"image": name, "sku": sku} for name, sku in zip(("a.jpg", "b.png"), spelled, strict=True)]
    if path.suffix == ".parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table({key: [row[key] for row in rows] for key in rows[0]}), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        table(path, rows)
    return path


SPELLINGS = [
    *[(f"t.{kind}", spelled) for kind in ("csv", "tsv") for spelled in (["101.0", "102.0"], [" 101 ", "102"])],
    *[(f"t.{kind}", spelled) for kind in ("jsonl", "json") for spelled in ([101, 102], [101.0, 102.0], ["101", " 102.0"])],
    *[("t.parquet", spelled) for spelled in ([101, 102], [101.0, 102.0], ["101.0", "102"], [Decimal("101.00"), Decimal("102.00")])],
]  # fmt: skip


@pytest.mark.parametrize(("name", "spelled"), SPELLINGS)
def test_another_spelling_adds_nothing(photos, shop, tiny, name, spelled):
    run(
        table(photos / "first.csv", [{"image": "a.jpg", "sku": 101}, {"image": "b.png", "sku": 102}]),
        shop,
        tiny,
        id_column="sku",
    )
    report = run(write(photos / name, spelled), shop, tiny, id_column="sku", prune=True)
    assert (report.added, report.encoded, report.moved, shop.count()) == (0, 0, 0, 2)
    assert {id_text(row["sku"]) for row in payloads(shop).values()} == {"101", "102"}


def test_a_column_with_a_gap_names_its_row_and_keeps_the_ids(photos, shop, tiny):
    run(write(photos / "catalog.csv", ["101", "102"]), shop, tiny, id_column="sku")
    report = run(write(photos / "catalog.csv", ["101.0", ""]), shop, tiny, id_column="sku")
    assert counts(report) == only(unchanged=1, failed=1)
    assert "row 2 has no id in column 'sku'" in str(report.failed[0])


def test_codes_with_and_without_a_last_zero_stay_two(photos, shop, tiny):
    source = write(photos / "catalog.csv", ["12.10", "12.1"])
    assert run(source, shop, tiny, id_column="sku").added == 2
    assert {row["sku"] for row in payloads(shop).values()} == {"12.10", "12.1"}
    assert run(source, shop, tiny, id_column="sku").unchanged == 2


def test_two_spellings_of_one_id_in_a_table_are_named(photos, shop, tiny):
    source = write(photos / "catalog.csv", ["101", "101.0"])
    with pytest.raises(Exception, match="rows 1 and 2 would be the same object: both have the 'sku' '101'"):
        run(source, shop, tiny, id_column="sku")


@pytest.mark.parametrize(
    ("name", "spelled"),
    [("t.csv", ["2.15251E+17", "7"]), ("t.jsonl", [float(BIG), 7]), ("t.parquet", [float(BIG), 7.0])],
)
def test_an_id_without_its_last_digits_is_a_failure_of_its_row(photos, shop, tiny, name, spelled):
    report = run(write(photos / name, spelled), shop, tiny, id_column="sku")
    assert counts(report) == only(added=1, encoded=1, failed=1)
    assert re.search("row 1 has the id .* may have lost its last digits", str(report.failed[0]))


def test_a_long_decimal_of_parquet_keeps_its_digits(photos, shop, tiny):
    source = open_source(write(photos / "t.parquet", [Decimal(f"{BIG}.00"), Decimal("7.00")]), None, "sku")
    assert [item.id for item in source.items()] == [stable_id(str(BIG)), stable_id("7")]


class TestMoving:
    """Objects that release 0.1.0 wrote under the spelling of the cell."""

    @pytest.fixture
    def source(self, photos):
        return write(photos / "catalog.csv", ["101.0", "102.0"])

    @pytest.fixture
    def old(self, source, shop, tiny):
        """The collection as release 0.1.0 filled it from a column of 101.0 and 102.0."""
        run(source, shop, tiny, id_column="sku")
        respell(shop, "{}.0", float)
        return shop

    @pytest.mark.parametrize("written", ["{}.0", "{}.00", " {}", " {} ", "{} "])
    def test_they_are_moved_and_nothing_is_encoded(self, source, shop, tiny, written):
        run(source, shop, tiny, id_column="sku")
        respell(shop, written)
        before = vectors(shop)
        report = run(source, shop, tiny, id_column="sku", prune=True)
        assert (report.added, report.encoded, report.removed, report.moved) == (0, 0, 0, 2)
        assert sorted(id_ for id_, _ in shop.scan()) == sorted([stable_id("101"), stable_id("102")])
        assert np.abs(vectors(shop) - before).max() < 1e-6
        again = run(source, shop, tiny, id_column="sku", prune=True)
        assert (counts(again), again.moved) == (only(unchanged=2), 0)

    def test_a_changed_picture_is_encoded_once(self, old, source, photos, tiny):
        report = run(
            table(source, [{"image": "inner/e.bmp", "sku": 101}, {"image": "b.png", "sku": 102}]),
            old,
            tiny,
            id_column="sku",
        )
        assert (report.added, report.changed, report.encoded, report.moved, old.count()) == (0, 2, 1, 2, 2)

    def test_doubles_are_removed(self, old, source, tiny):
        """Release 0.1.0 doubled each product when its table was written another way."""
        respelled = [replace(point, id=stable_id(id_text(point.payload["sku"]))) for point in every(old)]
        old.upsert(respelled)
        assert old.count() == 4
        report = run(source, old, tiny, id_column="sku")
        assert (report.added, report.encoded, report.moved, old.count()) == (0, 0, 2, 2)

    def test_doubles_are_removed_if_all_else_is_unchanged(self, source, shop, tiny):
        run(source, shop, tiny, id_column="sku")
        shop.upsert([replace(point, id=stable_id(f"{point.payload['sku']}.0")) for point in every(shop)])
        report = run(source, shop, tiny, id_column="sku")
        assert (counts(report), report.moved, shop.count()) == (only(unchanged=2), 2, 2)

    def test_a_large_collection_is_looked_up_by_id(self, old, source, tiny, monkeypatch):
        monkeypatch.setattr("cir_vectorizer.sync.run.ALWAYS_SCANNED", -1)
        monkeypatch.setattr("cir_vectorizer.sync.run.Known", None)
        monkeypatch.setattr(type(old), "count", lambda self: 10**6)
        assert run(source, old, tiny, id_column="sku").moved == 2
        assert sorted(id_ for id_, _ in old.scan()) == sorted([stable_id("101"), stable_id("102")])

    def test_a_run_that_ends_before_the_removal_is_finished_by_the_next(self, old, source, tiny, monkeypatch):
        def broken(self, ids):
            raise CollectionError("the database is gone; start it")

        with monkeypatch.context() as patched:
            patched.setattr(type(old), "delete", broken)
            with pytest.raises(CollectionError):
                run(source, old, tiny, id_column="sku")
        assert old.count() == 4
        assert run(source, old, tiny, id_column="sku").moved == 2
        assert sorted(id_ for id_, _ in old.scan()) == sorted([stable_id("101"), stable_id("102")])

    def test_an_object_that_the_database_refuses_stays_under_its_old_id(self, old, source, tiny, monkeypatch):
        upsert = type(old).upsert

        def picky(self, points):
            upsert(self, [point for point in points if point.id != stable_id("101")])
            raise PartialWriteError({stable_id("101"): "is too large"}, 2)

        with monkeypatch.context() as patched:
            patched.setattr(type(old), "upsert", picky)
            report = run(source, old, tiny, id_column="sku")
        assert (report.moved, [str(each) for each in report.failed]) == (
            1,
            ["a.jpg was refused by the database: is too large"],
        )
        assert {id_ for id_, _ in old.scan()} == {stable_id("101.0"), stable_id("102")}

    def test_prune_keeps_the_object_of_a_row_whose_picture_fails(self, old, source, photos, tiny):
        (photos / "a.jpg").unlink()
        report = run(source, old, tiny, id_column="sku", prune=True)
        assert (report.removed, report.moved, old.count()) == (0, 1, 2)

    def test_a_dry_run_moves_nothing(self, old, source, tiny):
        made = dry_run(open_source(source, None, "sku"), old, ModelRecord.of(tiny))
        assert (made.report.added, made.report.moved) == (0, 2)
        assert made.lines[:2] == ["move     a.jpg", "move     b.png"]
        assert {id_ for id_, _ in old.scan()} == {stable_id("101.0"), stable_id("102.0")}

    def test_a_copy_has_the_present_ids(self, old, tiny, tmp_path):
        copy = old.beside("copy")
        source = CollectionSource(old, Web(), lent=True)
        assert counts(sync(source, copy, tiny)) == only(added=2, encoded=2)
        assert sorted(id_ for id_, _ in copy.scan()) == sorted([stable_id("101"), stable_id("102")])

    def test_another_model_embeds_each_product_once(self, old, source, tiny):
        old.remember(replace(ModelRecord.of(tiny), fingerprint="b" * 64, former_fingerprint=""))
        old.replace_payload({point.id: _of_another_model(point) for point in every(old)})
        report = reembed(open_source(source, None, "sku"), old, tiny, lambda _: pytest.fail("nothing is missing"))
        assert (report.added, report.moved, report.switched, old.count()) == (2, 2, True, 2)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_every_database_moves_them(kind, request, photos, tmp_path, tiny):
    database = database_of(kind, request, tmp_path)
    shop, source = database.open("Respelled"), write(photos / "catalog.csv", [101, 102])
    run(source, shop, tiny, id_column="sku")
    respell(shop, "{}.0", float)
    assert run(source, shop, tiny, id_column="sku", prune=True).moved == 2
    report = run(write(photos / "catalog.csv", ["101.0", " 102 "]), shop, tiny, id_column="sku", prune=True)
    assert (counts(report), report.moved, report.removed, shop.count()) == (only(unchanged=2), 0, 0, 2)
    database.close()


def _of_another_model(point):
    record = SyncRecord.read(point.payload)
    return replace(record, fingerprint="b" * 64).join({"sku": point.payload["sku"]})


def every(shop):
    return shop.get([id_ for id_, _ in shop.scan()])


def vectors(shop):
    return np.stack([point.vector for point in sorted(every(shop), key=lambda point: point.payload["_cir"]["path"])])


def respell(shop, written, value=lambda sku: sku):
    """Give each object the id, and the payload, that release 0.1.0 derived from this spelling."""
    points = every(shop)
    shop.delete([point.id for point in points])
    shop.upsert([_respelled(point, written, value) for point in points])


def _respelled(point: Point, written, value) -> Point:
    sku = point.payload["sku"]
    record = replace(SyncRecord.read(point.payload), columns=columns_digest({"sku": value(sku)}))
    return replace(point, id=stable_id(written.format(sku)), payload=record.join({"sku": value(sku)}))
