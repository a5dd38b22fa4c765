"""Sources of pictures: chosen files, tables of every kind, URLs, data URIs, and remote folders and tables."""

import base64
import contextlib
import functools
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cir_vectorizer.errors import SourceError
from cir_vectorizer.sources import Web, open_source
from cir_vectorizer.sync import PruneRefused, sync
from tests.support.indexing import counts, draw, indexed, only, payloads, run, table

pytest_plugins = ["tests.support.indexing"]


@contextlib.contextmanager
def web_server(folder, tags=None, answers=None, login=None):
    """Serve a folder on loopback, with listings; yields its address and the list of requests.

    Args:
        tags: ETags by path; pictures then carry no Last-Modified.
        answers: (status, Location) by path, in place of the file.
        login: USER:PASSWORD that every request must carry.
    """
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append((self.command, self.path))

        def send_head(self):
            given = self.headers.get("Authorization", "")
            if login and given != f"Basic {base64.b64encode(login.encode()).decode()}":
                return self.send_error(401)
            if self.path not in (answers or {}):
                return super().send_head()
            status, location = answers[self.path]
            self.send_response(status)
            self.send_header("Location", location)
            self.end_headers()
            return None

        def send_header(self, name, value):
            if tags is not None and name == "Last-Modified":
                name, value = "ETag", tags.get(self.path, "none")
            super().send_header(name, value)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def bucket(photos):
    """The five pictures in a store that only fsspec can read."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.put(str(photos), "/bucket", recursive=True)
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


class TestChosenFiles:
    @pytest.mark.parametrize(
        ("include", "exclude", "expected"),
        [
            (["*.jpg", "*.png"], [], ["a.jpg", "b.png"]),
            ([], ["inner/"], ["a.jpg", "b.png", "c.webp"]),
            (["inner/*"], ["*.bmp"], ["d.gif"]),
            (["/*.jpg"], [], ["a.jpg"]),
            (["**/d.gif"], [], ["d.gif"]),
            ([], ["*", "!*.webp"], ["c.webp"]),
        ],
    )
    def test_include_and_exclude_are_patterns_as_in_a_gitignore(self, photos, include, exclude, expected):
        source = open_source(photos, include=include, exclude=exclude)
        names = [item.name.rpartition("/")[2] for item in source.items()]
        assert names == expected
        assert source.count() == len(names)

    def test_a_folder_that_is_left_out_is_not_listed(self, photos, monkeypatch):
        (photos / "inner").chmod(0)
        assert len(list(open_source(photos, exclude=["inner"]).items())) == 3
        (photos / "inner").chmod(0o755)

    def test_files_that_are_not_wanted_are_counted(self, photos, shop, tiny):
        assert sync(open_source(photos, exclude=["*.jpg"]), shop, tiny).skipped == 1

    @pytest.mark.parametrize(
        ("source", "options", "problem"),
        [
            ("photos", {"include": ["!"]}, "--include '!' is no pattern"),
            ("photos/catalog.csv", {"include": ["*"]}, "is a table, which has no files to choose from"),
            ("photos", {"id_column": "sku"}, "is a folder, which has no columns of ids"),
            ("nope://host/x", {}, "nope://host/x cannot be opened .*not known"),
            ("s3://bucket/photos", {}, "needs a package that is not installed; run: pip install s3fs"),
            ("gs://bucket/catalog.csv", {}, "needs a package that is not installed; run: pip install gcsfs"),
            ("s3://KEY:SECRET@bucket/photos", {}, "^s3://bucket/photos needs a package"),
        ],
    )
    def test_what_cannot_be_is_a_sentence(self, photos, source, options, problem, monkeypatch):
        monkeypatch.setitem(sys.modules, "s3fs", None)
        monkeypatch.setitem(sys.modules, "gcsfs", None)
        table(photos / "catalog.csv", [{"image": "a.jpg"}])
        source = source if "://" in source else photos.parent / source
        with pytest.raises(SourceError, match=problem):
            open_source(source, **options)


class TestParquet:
    def test_values_become_json(self, photos, shop, tiny):
        rows = [
            {"image": "a.jpg", "price": 10, "weight": 1.5, "tags": ["x", "y"], "maker": {"city": "Oslo"}, "sold": True},
            {"image": "b.png", "price": None, "weight": float("nan"), "tags": [], "maker": None, "sold": False},
        ]
        pq.write_table(pa.Table.from_pylist(rows), photos / "catalog.parquet")
        assert counts(run(photos / "catalog.parquet", shop, tiny)) == only(added=2, encoded=2)
        assert payloads(shop) == {
            "a.jpg": {"price": 10, "weight": 1.5, "tags": ["x", "y"], "maker": {"city": "Oslo"}, "sold": True},
            "b.png": {"tags": [], "sold": False},
        }
        assert counts(run(photos / "catalog.parquet", shop, tiny)) == only(unchanged=2)

    def test_times_and_decimals_become_text_and_numbers(self, photos, shop, tiny):
        columns = {
            "image": ["a.jpg"],
            "when": pa.array([1_700_000_000_000], pa.timestamp("ms")),
            "price": pa.array(["12.50"]).cast(pa.decimal128(6, 2)),
        }
        pq.write_table(pa.table(columns), photos / "catalog.parquet")
        run(photos / "catalog.parquet", shop, tiny)
        assert payloads(shop) == {"a.jpg": {"when": "2023-11-14T22:13:20", "price": 12.5}}

    def test_pictures_may_lie_in_the_table_itself(self, photos, shop, tiny):
        rows = [
            {"image": {"bytes": (photos / name).read_bytes(), "path": name}, "n": n}
            for n, name in enumerate(["a.jpg", "b.png"])
        ]
        pq.write_table(pa.Table.from_pylist(rows), photos / "catalog.parquet")
        assert counts(run(photos / "catalog.parquet", shop, tiny)) == only(added=2, encoded=2)
        assert counts(run(photos / "catalog.parquet", shop, tiny)) == only(unchanged=2)

    def test_bytes_beside_the_picture_are_refused(self, photos):
        pq.write_table(pa.Table.from_pylist([{"image": "a.jpg", "thumb": b"x"}]), photos / "catalog.parquet")
        with pytest.raises(SourceError, match="has bytes in column 'thumb'"):
            open_source(photos / "catalog.parquet")

    def test_a_value_that_python_cannot_hold_fails_with_its_row_alone(self, photos, shop, tiny):
        days = pa.array([0, 4_000_000, 1], pa.int32()).cast(pa.date32())
        columns = {"image": ["a.jpg", "b.png", "c.webp"], "sold": days}
        pq.write_table(pa.table(columns), photos / "catalog.parquet")
        report = run(photos / "catalog.parquet", shop, tiny)
        assert counts(report) == only(added=2, failed=1, encoded=2)
        assert str(report.failed[0]).partition("parquet, ")[2] == (
            "row 2 holds a value that cannot be read (date value out of range); write it as text, number, list or struct"
        )
        assert payloads(shop) == {"a.jpg": {"sold": "1970-01-01"}, "c.webp": {"sold": "1970-01-02"}}

    def test_a_damaged_page_is_a_sentence(self, photos, monkeypatch):
        pq.write_table(pa.Table.from_pylist([{"image": "a.jpg"}]), photos / "catalog.parquet")

        def damaged(*_, **__):
            raise pa.ArrowInvalid("Index not in dictionary bounds")

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", damaged)
        with pytest.raises(SourceError, match=r"damaged \(index not in dictionary bounds\); write it again"):
            open_source(photos / "catalog.parquet").count()

    @pytest.mark.parametrize("picture", [{"bytes": 5}, {"bytes": "data", "path": 5}])
    def test_a_picture_that_is_neither_bytes_nor_text_fails_alone(self, photos, shop, tiny, picture):
        report = run(table(photos / "catalog.jsonl", [{"image": picture}, {"image": "a.jpg"}]), shop, tiny)
        assert counts(report) == only(added=1, failed=1, encoded=1)
        assert report.failed[0].reason == "format"

    def test_what_is_no_parquet_is_a_sentence(self, photos):
        (photos / "catalog.parquet").write_text("image\na.jpg\n")
        with pytest.raises(SourceError, match="is no parquet file"):
            open_source(photos / "catalog.parquet")


class TestDataUris:
    def test_a_data_uri_is_a_picture_and_is_encoded_once(self, photos, shop, tiny):
        uri = "data:image/jpeg;base64," + base64.b64encode((photos / "a.jpg").read_bytes()).decode()
        rows = [
            {"sku": "1", "image": uri},
            {"sku": "2", "image": "data:image/png;base64,AAAA"},
            {"sku": "3", "image": "data:,x"},
        ]
        source = table(photos / "catalog.jsonl", rows)
        report = run(source, shop, tiny, id_column="sku")
        assert counts(report) == only(added=1, failed=2, encoded=1)
        assert [str(failure).partition("catalog.jsonl, ")[2] for failure in report.failed] == [
            "row 2 starts with the bytes 00 00 00, which no known picture does; give JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, "
            "JPEG 2000 or PPM",
            "row 3 is a data URI that is not base64; write data:image/png;base64,…",
        ]
        assert counts(run(source, shop, tiny, id_column="sku")) == only(unchanged=1, failed=2)

    def test_without_an_id_column_the_content_identifies_the_object(self, photos, shop, tiny):
        uri = "data:image/jpeg;base64," + base64.b64encode((photos / "a.jpg").read_bytes()).decode()
        run(table(photos / "catalog.jsonl", [{"image": uri, "n": 1}]), shop, tiny)
        assert counts(run(table(photos / "catalog.jsonl", [{"image": uri, "n": 2}]), shop, tiny)) == only(changed=1)


class TestUrlsInATable:
    def sync(self, shop, tiny, path, private=True, **options):
        return sync(open_source(path, web=Web(private), **options), shop, tiny)

    def test_pictures_are_fetched_once_while_the_server_says_they_are_the_same(self, photos, shop, tiny, tmp_path):
        with web_server(photos) as (address, requests):
            rows = [{"image": f"{address}/{name}"} for name in ("a.jpg", "b.png", "gone.png")]
            source = table(tmp_path / "catalog.csv", rows)
            report = self.sync(shop, tiny, source)
            assert counts(report) == only(added=2, failed=1, encoded=2)
            assert str(report.failed[0]) == f"{address}/gone.png answers with status 404; check the address"
            requests.clear()
            assert counts(self.sync(shop, tiny, source)) == only(unchanged=2, failed=1)
            assert [command for command, path in requests if path != "/gone.png"] == ["HEAD", "HEAD"]
        assert sorted(payloads(shop)) == ["a.jpg", "b.png"]

    def test_another_etag_has_the_picture_fetched_and_another_content_encoded(self, photos, shop, tiny, tmp_path):
        tags = {"/a.jpg": '"1"', "/b.png": '"1"'}
        with web_server(photos, tags) as (address, _):
            rows = [{"image": f"{address}/{name}"} for name in ("a.jpg", "b.png")]
            source = table(tmp_path / "catalog.csv", rows)
            self.sync(shop, tiny, source)
            assert counts(self.sync(shop, tiny, source)) == only(unchanged=2)
            tags["/a.jpg"] = tags["/b.png"] = '"2"'
            draw(photos / "b.png", 77)
            report = self.sync(shop, tiny, source)
            assert counts(report) == only(changed=1, unchanged=1, encoded=1)
            assert report.changes["record"] == 1

    def test_addresses_of_the_own_network_are_refused_unless_they_are_allowed(self, photos, shop, tiny, tmp_path):
        with web_server(photos) as (address, requests):
            port = address.rpartition(":")[2]
            source = table(
                tmp_path / "catalog.csv",
                [{"image": f"http://127.0.0.1:{port}/a.jpg"}, {"image": "http://127.0.0.1/a.jpg"}],
            )
            report = self.sync(shop, tiny, source, private=False)
            assert counts(report) == only(failed=2)
            assert requests == []
        assert all("give --private-urls" in str(failure) for failure in report.failed)

    def test_other_kinds_of_addresses_are_refused(self, photos, shop, tiny, tmp_path):
        rows = [{"image": "ftp://host/a.jpg"}, {"image": "memory://bucket/a.jpg"}, {"image": "zip://x::s3://bucket/y"}]
        report = self.sync(shop, tiny, table(tmp_path / "catalog.csv", rows))
        assert counts(report) == only(failed=3)
        assert "row 1 holds a picture that is a ftp:// address, which a table may not name" in str(report.failed[0])

    def test_user_and_password_in_an_address_are_refused_and_not_repeated(self, photos, shop, tiny, tmp_path):
        source = table(tmp_path / "catalog.csv", [{"sku": "1", "image": "http://me:secret@127.0.0.1/a.jpg"}])
        for private in (False, True):
            report = self.sync(shop, tiny, source, private)
            assert str(report.failed[0]).startswith("http://127.0.0.1/a.jpg is not a plain http or https address")

    @pytest.mark.parametrize("location", ["mailto:x", "?" + "y" * 65_530])
    def test_a_redirect_to_what_is_no_url_fails_alone(self, photos, shop, tiny, tmp_path, location):
        answers = {}
        with web_server(photos, answers=answers) as (address, _):
            rows = [{"image": f"{address}/{name}"} for name in ("a.jpg", "b.png")]
            source = table(tmp_path / "catalog.csv", rows)
            self.sync(shop, tiny, source)
            answers["/a.jpg"] = (302, location)
            assert Web(True).stamp(f"{address}/a.jpg") is None
            report = self.sync(shop, tiny, source)
        assert counts(report) == only(unchanged=1, failed=1)
        assert "redirects to an invalid URL; give the picture's own address" in str(report.failed[0])

    def test_a_port_that_there_cannot_be_fails_alone(self, photos, shop, tiny, tmp_path):
        report = self.sync(shop, tiny, table(tmp_path / "catalog.csv", [{"image": "http://127.0.0.1:99999/a.jpg"}]))
        assert "names port 99999, and ports end at 65535; check it" in str(report.failed[0])

    def test_a_file_url_is_a_path(self, photos, shop, tiny, tmp_path):
        source = table(tmp_path / "catalog.csv", [{"image": (photos / "a.jpg").as_uri()}])
        assert counts(self.sync(shop, tiny, source)) == only(added=1, encoded=1)
        assert indexed(shop) == ["a.jpg"]


class TestElsewhere:
    def test_a_folder_of_a_store_makes_the_same_objects_as_the_folder(self, photos, bucket, shop, tiny):
        run(photos, shop, tiny)
        report = run("memory://bucket", shop, tiny)
        assert counts(report) == only(unchanged=5)
        assert report.changes["source"] == 5
        assert all(record.path.startswith("memory://bucket/") for _, record in shop.scan())

    def test_only_what_changed_is_encoded(self, photos, bucket, shop, tiny, monkeypatch):
        run("memory://bucket", shop, tiny)
        reads = []
        reading = type(bucket).cat_file
        monkeypatch.setattr(type(bucket), "cat_file", lambda *a, **k: (reads.append(a[1]), reading(*a, **k))[1])
        assert counts(run("memory://bucket", shop, tiny)) == only(unchanged=5)
        assert reads == []
        draw(photos / "b.png", 70)
        bucket.put_file(str(photos / "b.png"), "/bucket/b.png")
        bucket.put_file(str(photos / "a.jpg"), "/bucket/a.jpg")
        bucket.rm("/bucket/c.webp")
        report = run("memory://bucket", shop, tiny, prune=True, yes=True)
        assert counts(report) == only(changed=1, unchanged=3, encoded=1)
        assert report.removed == 1

    def test_files_are_chosen_and_hidden_ones_passed_over(self, photos, bucket):
        bucket.pipe_file("/bucket/.hidden.png", b"x")
        bucket.pipe_file("/bucket/.git/x.png", b"x")
        bucket.pipe_file("/bucket/notes.txt", b"x")
        source = open_source("memory://bucket", exclude=["inner/d.*"])
        assert [item.name for item in source.items()] == ["a.jpg", "b.png", "c.webp", "inner/e.bmp"]
        assert source.skipped == 2

    def test_a_folder_inside_that_cannot_be_listed_keeps_its_objects(self, bucket, shop, tiny, monkeypatch):
        run("memory://bucket", shop, tiny)
        listing = type(bucket).ls

        def refusing(self, path, **options):
            if path.endswith("inner"):
                raise PermissionError("Access Denied")
            return listing(self, path, **options)

        monkeypatch.setattr(type(bucket), "ls", refusing)
        with pytest.raises(PruneRefused, match=r"inner cannot be listed \(access denied\)"):
            run("memory://bucket", shop, tiny, prune=True, yes=True)
        assert shop.count() == 5

    def test_a_folder_that_is_not_there_is_a_sentence(self, bucket, shop, tiny):
        with pytest.raises(SourceError, match="memory://nowhere cannot be listed"):
            run("memory://nowhere", shop, tiny)

    def test_a_picture_that_vanishes_after_the_listing_fails_alone(self, bucket, shop, tiny):
        source = open_source("memory://bucket")
        entries = list(source.items())
        bucket.rm("/bucket/a.jpg")
        source.items = lambda: iter(entries)
        report = sync(source, shop, tiny)
        assert counts(report) == only(added=4, failed=1, encoded=4)
        assert str(report.failed[0]).startswith("a.jpg does not exist")

    @pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
    def test_a_table_of_a_store_names_pictures_beside_it(self, photos, bucket, shop, tiny, tmp_path, suffix):
        rows = [
            {"image": "a.jpg", "n": 1},
            {"image": "./inner/d.gif", "n": 2},
            {"image": "memory://bucket/b.png", "n": 3},
        ]
        rows += [
            {"image": "../secret.png", "n": 4},
            {"image": "/etc/secret.png", "n": 5},
            {"image": "file:///etc/x.png", "n": 6},
        ]
        local = tmp_path / f"catalog{suffix}"
        if suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), local)
        else:
            table(local, rows)
        bucket.put_file(str(local), f"/bucket/catalog{suffix}")
        report = run(f"memory://bucket/catalog{suffix}", shop, tiny)
        assert counts(report) == only(added=3, failed=3, encoded=3)
        assert payloads(shop) == {"a.jpg": {"n": 1}, "d.gif": {"n": 2}, "b.png": {"n": 3}}
        assert "leads out of the table's folder" in str(report.failed[0])
        assert counts(run(f"memory://bucket/catalog{suffix}", shop, tiny)) == only(unchanged=3, failed=3)

    def test_a_web_servers_folder_is_followed_by_its_links(self, photos, shop, tiny):
        shutil.copy(photos / "a.jpg", photos / "é & b.jpg")
        (photos / "notes.txt").write_text("x")
        with web_server(photos) as (address, requests):
            report = run(f"{address}/", shop, tiny)
            assert counts(report) == only(added=6, encoded=6)
            requests.clear()
            assert counts(run(address, shop, tiny)) == only(unchanged=6)
            assert {path for command, path in requests if command == "GET"} == {"/", "/inner/"}
        assert counts(run(photos, shop, tiny)) == only(unchanged=6)

    def test_a_web_servers_table(self, photos, shop, tiny):
        table(photos / "catalog.csv", [{"image": "a.jpg", "n": 1}, {"image": "inner/d.gif", "n": 2}])
        with web_server(photos) as (address, _):
            source = f"{address}/catalog.csv?token=secret"
            report = run(source, shop, tiny)
            assert counts(report) == only(added=2, encoded=2)
            assert "secret" not in report.source
            assert counts(run(source, shop, tiny)) == only(unchanged=2)
            with pytest.raises(SourceError, match="cannot be read"):
                run(f"{address}/gone.csv", shop, tiny)

    def test_a_table_that_needs_a_login_has_it_for_the_pictures_beside_it_and_nothing_repeats_it(
        self, photos, shop, tiny
    ):
        rows = [{"image": "a.jpg"}, {"image": "inner/d.gif"}, {"image": "gone.png"}, {"image": "../secret.png"}]
        table(photos / "catalog.csv", rows)
        with web_server(photos, login="me:pa55") as (address, _):
            with_login = address.replace("//", "//me:pa55@")
            report = run(f"{with_login}/catalog.csv", shop, tiny)
            assert counts(report) == only(added=2, failed=2, encoded=2)
            assert {record.path for _, record in shop.scan()} == {f"{address}/a.jpg", f"{address}/inner/d.gif"}
            assert "pa55" not in f"{report.source} {report.failed}"
            with pytest.raises(SourceError, match="cannot be read") as problem:
                run(f"{with_login}/gone.csv?token=pa55", shop, tiny)
            assert "pa55" not in str(problem.value)
            with pytest.raises(SourceError, match="cannot be listed") as problem:
                run(f"{with_login}/nowhere", shop, tiny)
            assert "pa55" not in str(problem.value)

    def test_a_picture_of_which_the_store_cannot_say_whether_it_left_stays(self, bucket, shop, tiny, monkeypatch):
        run("memory://bucket", shop, tiny)
        bucket.rm("/bucket/a.jpg")

        def refusing(*_, **__):
            raise PermissionError("Access Denied")

        with monkeypatch.context() as patch:
            patch.setattr(type(bucket), "info", refusing)
            patch.setattr(type(bucket), "exists", refusing)
            assert run("memory://bucket", shop, tiny, prune=True, yes=True).removed == 0
        assert run("memory://bucket", shop, tiny, prune=True, yes=True).removed == 1

    def test_a_picture_of_a_web_server_leaves_only_if_it_answers_that_there_is_none(self, photos, shop, tiny):
        answers = {}
        with web_server(photos, answers=answers) as (address, _):
            run(address, shop, tiny)
            (photos / "a.jpg").unlink()
            answers["/a.jpg"] = (503, "")
            assert run(address, shop, tiny, prune=True, yes=True).removed == 0
            answers.clear()
            assert run(address, shop, tiny, prune=True, yes=True).removed == 1

    def test_a_file_url_is_a_folder_of_this_machine(self, photos, shop, tiny):
        run(photos, shop, tiny)
        report = run(photos.as_uri(), shop, tiny)
        assert (counts(report), report.changes["source"]) == (only(unchanged=5), 0)


def test_a_collection_in_a_directory_is_known_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = open_source("qdrant:./index/shop")
    assert (source.name, source.identity) == ("qdrant:index/shop", f"qdrant:{tmp_path}/index/shop")
    assert open_source("qdrant://localhost/shop").identity == "qdrant://localhost/shop"
