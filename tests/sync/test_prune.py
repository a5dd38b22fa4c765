"""`--prune`: objects that left the source leave the collection, and no others."""

import os
import shutil
import sys

import fsspec
import pytest

from cir_vectorizer.sources import open_source, places
from cir_vectorizer.sync import PruneRefused, Report, sync
from tests.support.indexing import counts, draw, indexed, only, payloads, run, table

pytest_plugins = ["tests.support.indexing"]


@pytest.fixture
def ten(tmp_path):
    """A folder of ten pictures."""
    for i in range(10):
        draw(tmp_path / "ten" / f"{i}.png", i)
    return tmp_path / "ten"


def after_listing(source, action):
    """Return the source, changed to run `action` after its last entry was listed."""
    listing = source.items

    def items():
        yield from listing()
        action()

    source.items = items
    return source


class TestAFolder:
    def test_a_deleted_picture_leaves_only_with_prune(self, ten, shop, tiny):
        run(ten, shop, tiny)
        (ten / "3.png").unlink()
        assert counts(run(ten, shop, tiny)) == only(unchanged=9)
        assert shop.count() == 10
        report = run(ten, shop, tiny, prune=True)
        assert (counts(report), report.removed) == (only(unchanged=9), 1)
        assert "3.png" not in indexed(shop)
        assert run(ten, shop, tiny, prune=True).removed == 0

    def test_a_renamed_picture_is_added_under_its_new_name_and_the_old_one_leaves(self, ten, shop, tiny):
        run(ten, shop, tiny)
        (ten / "3.png").rename(ten / "three.png")
        report = run(ten, shop, tiny, prune=True)
        assert (counts(report), report.removed) == (only(added=1, unchanged=9, encoded=1), 1)
        assert shop.count() == 10

    def test_a_picture_replaced_by_a_damaged_one_stays(self, ten, shop, tiny):
        run(ten, shop, tiny)
        (ten / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
        report = run(ten, shop, tiny, prune=True)
        assert (len(report.failed), report.removed, shop.count()) == (1, 0, 10)

    def test_more_than_a_fifth_is_refused_until_it_is_confirmed(self, ten, shop, tiny):
        run(ten, shop, tiny)
        draw(ten / "new.png", 99)
        for i in range(3):
            (ten / f"{i}.png").unlink()
        report = Report()
        with pytest.raises(
            PruneRefused, match=r"nothing was removed: 3 of the 10 objects .* have left it, more than 20%.*--yes"
        ):
            run(ten, shop, tiny, prune=True, report=report)
        assert (report.complete, report.added, report.removed, shop.count()) == (True, 1, 0, 11)
        assert run(ten, shop, tiny, prune=True, yes=True).removed == 3
        assert shop.count() == 8

    def test_an_empty_folder_is_taken_for_one_that_is_not_mounted(self, ten, shop, tiny):
        run(ten, shop, tiny)
        shutil.rmtree(ten)
        ten.mkdir()
        with pytest.raises(PruneRefused, match="a folder that is not mounted is empty"):
            run(ten, shop, tiny, prune=True)
        assert shop.count() == 10

    def test_nothing_is_removed_while_a_folder_inside_cannot_be_listed(self, ten, shop, tiny, monkeypatch):
        draw(ten / "inner" / "x.png", 50)
        run(ten, shop, tiny)
        (ten / "3.png").unlink()
        listing = os.scandir

        def refusing(path):
            if os.fspath(path).endswith("inner"):
                raise PermissionError(13, "Permission denied")
            return listing(path)

        monkeypatch.setattr(os, "scandir", refusing)
        with pytest.raises(
            PruneRefused, match=r"part of .* could not be listed \(inner cannot be listed \(permission denied\)"
        ):
            run(ten, shop, tiny, prune=True, yes=True)
        monkeypatch.undo()
        assert shop.count() == 11
        assert run(ten, shop, tiny, prune=True).removed == 1

    def test_rows_without_a_picture_hide_what_left_unless_rows_have_ids(self, ten, shop, tiny):
        def table(numbers):
            rows = [f"{n}.png,{n}" for n in numbers]
            (ten / "shop.csv").write_text("\n".join(["image,sku", *rows, ",77"]))
            return ten / "shop.csv"

        sync(open_source(table(range(10))), shop, tiny)
        with pytest.raises(PruneRefused, match=r"row 10 has no picture .* give --id-column COLUMN"):
            sync(open_source(table(range(9))), shop, tiny, prune=True)
        by_id = open_source(table(range(9)), id_column="sku")
        assert sync(by_id, shop, tiny, prune=True, yes=True).removed == 10
        assert sync(open_source(table(range(8)), id_column="sku"), shop, tiny, prune=True).removed == 1

    def test_what_exclude_leaves_out_has_left(self, ten, shop, tiny):
        run(ten, shop, tiny)
        source = open_source(ten, exclude=["3.png"])
        assert sync(source, shop, tiny, prune=True).removed == 1

    def test_a_picture_that_comes_back_after_the_listing_stays(self, ten, shop, tiny):
        run(ten, shop, tiny)
        content = (ten / "3.png").read_bytes()
        (ten / "3.png").unlink()
        source = after_listing(open_source(ten), lambda: (ten / "3.png").write_bytes(content))
        assert sync(source, shop, tiny, prune=True).removed == 0
        assert shop.count() == 10

    def test_what_another_run_writes_meanwhile_stays(self, ten, shop, tiny):
        run(ten, shop, tiny)

        def meanwhile():
            draw(ten / "late.png", 71)
            assert run(ten, shop, tiny).added == 1
            (ten / "late.png").unlink()

        assert sync(after_listing(open_source(ten), meanwhile), shop, tiny, prune=True).removed == 0
        assert "late.png" in indexed(shop)


class TestWhoseObjectItIs:
    def test_objects_of_another_folder_stay(self, ten, photos, shop, tiny):
        run(photos, shop, tiny)
        run(ten, shop, tiny)
        (ten / "3.png").unlink()
        assert run(ten, shop, tiny, prune=True).removed == 1
        assert shop.count() == 14

    def test_objects_of_a_table_in_the_same_folder_stay(self, ten, shop, tiny):
        rows = [{"image": f"{i}.png", "sku": f"S{i}"} for i in range(10)]
        run(table(ten / "catalog.csv", rows), shop, tiny, id_column="sku")
        run(ten, shop, tiny)
        assert shop.count() == 20
        run(table(ten / "catalog.csv", rows[1:]), shop, tiny, id_column="sku", prune=True)
        assert shop.count() == 19
        assert len(indexed(shop)) == 19

    def test_a_row_that_left_a_table_leaves(self, ten, shop, tiny):
        rows = [{"image": f"{i}.png", "colour": "red"} for i in range(10)]
        run(table(ten / "catalog.csv", rows), shop, tiny)
        assert run(table(ten / "catalog.csv", rows[1:]), shop, tiny, prune=True).removed == 1
        assert "0.png" not in payloads(shop)

    def test_a_row_that_cannot_be_read_keeps_all(self, ten, shop, tiny):
        lines = [f'{{"image": "{i}.png"}}' for i in range(10)]
        (ten / "catalog.jsonl").write_text("\n".join(lines))
        run(ten / "catalog.jsonl", shop, tiny)
        (ten / "catalog.jsonl").write_text("\n".join([*lines[1:], "{not json"]))
        with pytest.raises(PruneRefused, match="row 10 is not valid JSON"):
            run(ten / "catalog.jsonl", shop, tiny, prune=True)

    def test_a_row_whose_cell_is_empty_keeps_the_object_of_its_id(self, ten, shop, tiny):
        rows = [{"image": f"{i}.png", "sku": f"S{i}"} for i in range(10)]
        run(table(ten / "catalog.csv", rows), shop, tiny, id_column="sku")
        rows[0]["image"] = ""
        report = run(table(ten / "catalog.csv", rows), shop, tiny, id_column="sku", prune=True)
        assert (len(report.failed), report.removed, shop.count()) == (1, 0, 10)

    def test_rows_whose_store_cannot_be_opened_keep_their_objects(self, ten, shop, tiny, tmp_path, monkeypatch):
        memory = fsspec.filesystem("memory")
        for i in range(2):
            memory.put_file(str(ten / f"{i}.png"), f"/bucket/{i}.png")
        rows = [{"image": f"s3://bucket/{i}.png" if i < 2 else f"{i}.png"} for i in range(10)]
        with monkeypatch.context() as patch:
            patch.setattr(places, "file_system", lambda url: (memory, url.removeprefix("s3:/")))
            assert run(table(ten / "catalog.csv", rows), shop, tiny).added == 10
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]
        monkeypatch.setitem(sys.modules, "s3fs", None)
        report = run(table(ten / "catalog.csv", rows[:-1]), shop, tiny, prune=True)
        assert [failure.reason for failure in report.failed] == ["url", "url"]
        assert (report.removed, shop.count(), "9.png" in indexed(shop)) == (1, 9, False)

    @pytest.mark.parametrize(
        "emptied", ["", None, {"bytes": None, "path": None}, {"bytes": None, "path": ""}, {"bytes": 5}]
    )
    def test_a_row_without_an_id_that_names_no_picture_any_more_keeps_all(self, ten, shop, tiny, emptied):
        rows = [{"image": f"{i}.png"} for i in range(10)]
        run(table(ten / "catalog.jsonl", rows), shop, tiny)
        rows[0]["image"] = emptied
        with pytest.raises(PruneRefused, match=r"part of .* could not be listed \(.*row 1 "):
            run(table(ten / "catalog.jsonl", rows), shop, tiny, prune=True, yes=True)
        assert shop.count() == 10

    def test_a_source_with_a_name_is_known_by_it_wherever_it_lies(self, ten, shop, tiny, tmp_path):
        run(ten, shop, tiny, source_name="shop photos")
        moved = ten.rename(tmp_path / "2025")
        (moved / "3.png").unlink()
        report = run(moved, shop, tiny, source_name="shop photos", prune=True)
        assert (report.unchanged, report.changes["record"], report.removed) == (9, 9, 1)

    def test_objects_that_another_source_names_change_hands_and_are_counted(self, ten, shop, tiny, tmp_path):
        run(ten, shop, tiny)
        copy = shutil.copytree(ten, tmp_path / "copy")
        report = run(copy, shop, tiny)
        assert (report.unchanged, report.changes["source"]) == (10, 10)
        shutil.rmtree(ten)
        ten.mkdir()
        assert run(ten, shop, tiny, prune=True).removed == 0
        assert shop.count() == 10

    def test_objects_of_a_version_that_kept_no_source_are_never_removed(self, ten, shop, tiny):
        run(ten, shop, tiny)
        points = shop.get([id_ for id_, _ in shop.scan()])
        for point in points:
            record = point.payload["_cir"]
            del record["owner"]
        shop.replace_payload({point.id: point.payload for point in points})
        (ten / "3.png").unlink()
        report = run(ten, shop, tiny, prune=True)
        assert (report.unchanged, report.changes["record"], report.removed) == (9, 9, 0)
        (ten / "4.png").unlink()
        assert run(ten, shop, tiny, prune=True).removed == 1

    def test_records_that_hold_their_source_behind_a_dot_are_understood_and_written_anew(self, ten, shop, tiny):
        run(ten, shop, tiny)
        points = shop.get([id_ for id_, _ in shop.scan()])
        for point in points:
            record = point.payload["_cir"]
            record["columns"] += "." + record.pop("owner")
        shop.replace_payload({point.id: point.payload for point in points})
        assert run(ten, shop, tiny, prune=True).changes["record"] == 0
        draw(ten / "3.png", 99)
        (ten / "4.png").unlink()
        report = run(ten, shop, tiny, prune=True)
        assert (report.changed, report.unchanged, report.removed) == (1, 8, 1)
        records = [point.payload["_cir"] for point in shop.get([id_ for id_, _ in shop.scan()])]
        assert sorted("owner" in record for record in records) == [False] * 8 + [True]
        assert len({record["columns"].partition(".")[0] for record in records}) == 1
