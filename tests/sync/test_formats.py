"""Addresses without an ending, answers with a wrong type, and sources in which nothing is found."""

import contextlib
import gzip
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.cli.sync import sync as command
from cir_vectorizer.errors import SourceError
from cir_vectorizer.sources import FORMATS, Item, open_source
from cir_vectorizer.sync import PruneRefused
from tests.support.indexing import counts, draw, only, payloads, run

pytest_plugins = ["tests.support.indexing"]


@contextlib.contextmanager
def answering(answers):
    """Serve (content, headers) or the status of a refusal by path, whatever the query; yields the server's address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            answer = answers.get(urlsplit(self.path).path, 404)
            content, headers = (b"", {}) if isinstance(answer, int) else answer
            status = answer if isinstance(answer, int) else 302 if "Location" in headers else 200
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def listed(source, **options):
    """Return the columns of a source's entries by name."""
    opened = open_source(source, **options)
    opened.count()
    found = {each.name: each.columns for each in opened.items() if isinstance(each, Item)}
    opened.close()
    return found


CSV = b"image,price\na.jpg,10\nb.png,12\n"
ROWS = {"a.jpg": {"price": 10}, "b.png": {"price": 12}}
LINES = "".join(json.dumps({"image": name, **row}) + "\n" for name, row in ROWS.items()).encode()
LIST = json.dumps([{"image": name, **row} for name, row in ROWS.items()]).encode()
PAGE = b'<html><body><a href="/photos/a.jpg">a</a> <a href="/photos/b.png">b</a> <a href="x.txt">c</a></body></html>'
_written = io.BytesIO()
pq.write_table(pa.Table.from_pylist([{"image": name, **row} for name, row in ROWS.items()]), _written)
PARQUET = _written.getvalue()


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (CSV, {"Content-Type": "text/csv; charset=utf-8"}),
        (CSV, {"Content-Type": "text/plain"}),
        (CSV, {"Content-Type": "text/html"}),
        (CSV, {"Content-Type": "application/octet-stream"}),
        (CSV, {}),
        (CSV, {"Content-Disposition": 'attachment; filename="products 2024.csv"'}),
        (CSV, {"Content-Disposition": "attachment; filename=products 2024.csv"}),
        (CSV, {"Content-Disposition": "attachment; filename*=UTF-8''pr%C3%B6ducts.csv"}),
        (
            CSV,
            {"Content-Disposition": "attachment; filename=\"x\"; filename*=UTF-8''x.csv", "Content-Type": "text/plain"},
        ),
        (CSV, {"Content-Disposition": 'ATTACHMENT; FILENAME="X.CSV"'}),
        (CSV, {"Content-Disposition": "inline"}),
        (CSV.replace(b",", b";"), {"Content-Type": "application/vnd.ms-excel"}),
        (CSV.replace(b",", b"\t"), {"Content-Type": "text/tab-separated-values"}),
        (CSV.decode().encode("utf-16"), {"Content-Type": "text/plain"}),
        (b"\xef\xbb\xbf" + CSV, {"Content-Type": "application/octet-stream"}),
        (gzip.compress(CSV, mtime=0), {"Content-Type": "application/gzip"}),
        (gzip.compress(CSV, mtime=0), {"Content-Type": "text/csv", "Content-Encoding": "gzip"}),
        (gzip.compress(LINES, mtime=0), {"Content-Disposition": "attachment; filename=feed.jsonl.gz"}),
        (LINES, {"Content-Type": "application/x-ndjson"}),
        (LINES, {"Content-Type": "application/json"}),
        (LIST, {"Content-Type": "application/json"}),
        (LIST, {"Content-Type": "text/html; charset=UTF-8"}),
        (PARQUET, {"Content-Type": "application/octet-stream"}),
        (PARQUET, {"Content-Disposition": "attachment; filename=shop.parquet"}),
    ],
)
def test_an_address_without_an_ending_is_what_its_answer_says(content, headers):
    with answering({"/export": (content, headers), "/feed/": (content, headers)}) as address:
        assert listed(f"{address}/export") == ROWS
        assert listed(f"{address}/export?token=x&lang=de") == ROWS
        assert listed(f"{address}/feed/") == ROWS


@pytest.mark.parametrize("query", ["format=jsonl", "output=jsonl&gid=0", "file=catalog%2Fshop.jsonl.gz"])
def test_a_query_names_the_format_too(query):
    with answering({"/export": (LINES, {"Content-Type": "application/octet-stream"})}) as address:
        assert listed(f"{address}/export?{query}") == ROWS


def test_redirects_lead_to_the_table(photos, shop, tiny):
    answers = {
        "/shop/latest": (b"", {"Location": "/files/2024.jsonl"}),
        "/files/2024.jsonl": (LINES, {"Content-Type": "text/plain"}),
        "/shop/a.jpg": ((photos / "a.jpg").read_bytes(), {}),
        "/shop/b.png": ((photos / "b.png").read_bytes(), {}),
    }
    with answering(answers) as address:
        assert counts(run(f"{address}/shop/latest", shop, tiny)) == only(added=2, encoded=2)
    assert payloads(shop) == ROWS


def test_a_page_is_a_folder_whatever_its_type_and_a_table_behind_a_login_is_named(photos):
    answers = {
        "/photos": (PAGE, {"Content-Type": "text/html"}),
        "/shop.csv": (b"<!DOCTYPE html><html><body>Sign in</body></html>", {"Content-Type": "text/html"}),
    }
    with answering(answers) as address:
        assert listed(f"{address}/photos") == {"a.jpg": {}, "b.png": {}}
        with pytest.raises(
            SourceError, match=r"shop.csv is a web page \(HTML\), not a table; open its address in a browser"
        ):
            listed(f"{address}/shop.csv")


@pytest.mark.parametrize(
    ("content", "headers", "problem"),
    [
        (
            b"\xff\xd8\xff\xe0\0\x10JFIF",
            {"Content-Type": "image/jpeg"},
            "is one picture; give the folder that it is in",
        ),
        (
            b"%PDF-1.7\0\1\2",
            {"Content-Type": "application/pdf"},
            "answers with application/pdf, which is neither a table",
        ),
        (
            b"\x7fELF\1\2\0",
            {},
            "answers with bytes, which is neither a table .* or give --format csv, tsv, .* or folder",
        ),
        (b"<?xml version='1.0'?><rss></rss>", {"Content-Type": "text/xml"}, "is XML, which is not read here"),
        (
            b"hello",
            {"Content-Type": "text/plain"},
            "has one column, 'hello', which does not name pictures",
        ),
        (b"[]", {"Content-Type": "application/json"}, "was read as json, which is empty; check that its export"),
        (b"PK\x03\x04", {"Content-Disposition": "attachment; filename=x.csv"}, "is an Excel file or an archive"),
    ],
)
def test_an_answer_that_is_no_source_is_a_sentence(content, headers, problem):
    with answering({"/export": (content, headers)}) as address, pytest.raises(SourceError, match=problem):
        listed(f"{address}/export")


def test_format_overrides_name_type_and_content(tmp_path):
    with answering(
        {"/x.json": (CSV, {}), "/photos": (PAGE, {"Content-Type": "text/html"}), "/shop.csv": (PAGE, {})}
    ) as address:
        assert listed(f"{address}/x.json", format="csv") == ROWS
        assert listed(f"{address}/photos", format="folder").keys() == {"a.jpg", "b.png"}
        with pytest.raises(SourceError, match="is a web page"):
            listed(f"{address}/photos", format="csv")
        with pytest.raises(SourceError, match="cannot be listed"):
            listed(f"{address}/gone", format="folder")
    for name, format_, content in (("export", "csv", CSV), ("x.txt", "jsonl", LINES), ("x.dat", "parquet", PARQUET)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match="rename it, or say with --format how to read it"):
            open_source(tmp_path / name)
        assert listed(tmp_path / name, format=format_) == ROWS
    with pytest.raises(SourceError, match="is a folder; give the table in it, or leave out --format csv"):
        open_source(tmp_path, format="csv")
    with pytest.raises(SourceError, match="is a collection, which has no format"):
        open_source("qdrant:./index/shop", format="csv")
    assert next(each for each in command.params if each.name == "format").type.choices == FORMATS


def test_a_file_of_a_store_without_an_ending_is_read_by_its_content():
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pipe_file("/bucket/export", LINES)
    memory.pipe_file("/bucket/photos/a.jpg", b"x")
    try:
        assert listed("memory://bucket/export") == ROWS
        assert listed("memory://bucket/photos").keys() == {"a.jpg"}
        with pytest.raises(SourceError, match=r"a\.jpg is one picture"):
            open_source("memory://bucket/photos/a.jpg")
    finally:
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]


class TestNothingFound:
    def run(self, source, shop, *options):
        result = CliRunner().invoke(main, ["sync", str(source), "--to", str(shop.address), "--model", "tiny", *options])
        return result.exit_code, result.output.replace(str(source), "SOURCE")

    @pytest.mark.parametrize(
        ("files", "name", "sentence"),
        [
            ({}, "", "SOURCE was read as a folder, in which no picture was found: it holds no files; check the path"),
            ({"x.txt": ""}, "", "found: its only file does not end like a picture's (.jpg, .png, …); check the path"),
            (
                {"x.txt": "", "y.csv": ""},
                "",
                "none of its 2 files ends like a picture's (.jpg, .png, …); check the path",
            ),
            (
                {"x.csv": "image,price\n"},
                "x.csv",
                "which has no rows below the names of its columns (image, price); check",
            ),
            ({"x.csv": "image;price\n;\n"}, "x.csv", "SOURCE was read as csv, which has no rows"),
        ],
    )
    def test_a_source_without_pictures_gives_a_sentence_and_status_3(self, tmp_path, shop, files, name, sentence):
        (tmp_path / "source").mkdir()
        for file, content in files.items():
            (tmp_path / "source" / file).write_text(content)
        status, output = self.run(tmp_path / "source" / name, shop)
        assert (status, sentence in output) == (3, True), output
        assert (
            f"Note: {output.partition('Note: ')[2]}"
            in self.run(tmp_path / "source" / name, shop, "--dry-run")[1] + output
        )

    def test_files_that_include_leaves_out_are_told(self, photos, shop):
        status, output = self.run(photos, shop, "--include", "*.tif")
        assert (status, "none of its 5 files ends like a picture's (.jpg, .png, …), or --include and" in output) == (
            3,
            True,
        )

    def test_a_web_page_that_lists_no_pictures_is_told(self, shop):
        pages = {"/": (b'<html><a href="about">About</a></html>', {}), "/none": (b"<html></html>", {})}
        with answering(pages) as address:
            status, output = self.run(f"{address}/", shop)
            assert (status, "and not the one link to a place below it ends like a picture's file" in output) == (
                3,
                True,
            )
            status, output = self.run(f"{address}/none", shop)
            assert (status, "was read as a web page that lists files, and no link to a place" in output) == (3, True)

    @pytest.mark.parametrize("dry", [(), ("--dry-run",)])
    def test_an_empty_source_never_empties_a_collection(self, photos, shop, tiny, dry):
        run(photos, shop, tiny)
        for path in sorted(photos.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        shop.close()
        status, output = self.run(photos, shop, "--prune", "--yes", *dry)
        assert (status, "an empty source never removes its objects" in output) == (0 if dry else 1, True), output
        assert "removed 0" in output

    def test_nor_does_an_empty_table(self, photos, shop, tiny):
        (photos / "shop.csv").write_text("image,sku\na.jpg,1\nb.png,2\n")
        run(photos / "shop.csv", shop, tiny, id_column="sku")
        (photos / "shop.csv").write_text("image,sku\n")
        with pytest.raises(PruneRefused, match=r"nothing was removed: .* has no rows below .* delete the collection"):
            run(photos / "shop.csv", shop, tiny, id_column="sku", prune=True, yes=True)
        assert shop.count() == 2


def test_watching_an_empty_folder_goes_on_until_it_has_a_picture(tmp_path, shop, tiny):
    (tmp_path / "new").mkdir()
    assert run(tmp_path / "new", shop, tiny).notes[0].startswith(f"{tmp_path / 'new'} was read as a folder")
    draw(tmp_path / "new" / "a.png", 1)
    report = run(tmp_path / "new", shop, tiny)
    assert (counts(report), report.notes) == (only(added=1, encoded=1), [])
