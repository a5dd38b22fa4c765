"""Paths in a table that are written in another way than the folder has them."""

import unicodedata
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import quote

import fsspec
import pytest

from cir_vectorizer.errors import ImageError
from cir_vectorizer.sources import open_source
from tests.support.indexing import counts, draw, only, run, table

pytest_plugins = ["tests.support.indexing"]


@pytest.fixture
def folder(tmp_path):
    names = [unicodedata.normalize("NFD", "Grüner Rock.jpg"), "a.jpg", "sub/b.jpg", "sub/Été.jpg"]
    for i, name in enumerate(names):
        draw(tmp_path / "photos" / name, i)
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("cell", "file"),
    [
        (unicodedata.normalize("NFC", "Grüner Rock.jpg"), unicodedata.normalize("NFD", "Grüner Rock.jpg")),
        (unicodedata.normalize("NFD", "sub/Été.jpg"), "sub/Été.jpg"),
        ("sub\\b.jpg", "sub/b.jpg"),
        (".\\sub\\b.jpg", "sub/b.jpg"),
        ("/sub/b.jpg", "sub/b.jpg"),
        ("\\sub\\b.jpg", "sub/b.jpg"),
        ("a.jpg ", "a.jpg"),
        ('"sub/b.jpg"', "sub/b.jpg"),
        ("\u00a0sub/ b.jpg\t", "sub/b.jpg"),
    ],
)
def test_a_file_is_found_under_another_spelling_of_its_name(folder, shop, tiny, cell, file):
    path = table(folder / "shop.csv", [{"image": cell, "sku": 1}])
    assert counts(run(path, shop, tiny)) == only(added=1, encoded=1)
    [(_, record)] = shop.scan()
    assert record.path == str(folder / file)
    assert counts(run(path, shop, tiny)) == only(unchanged=1)


def test_the_cell_as_it_stands_comes_first(folder, shop, tiny):
    for seed, name in enumerate(("a.jpg ", "sub\\b.jpg")):
        draw(folder / "other.jpg", seed)
        (folder / "other.jpg").rename(folder / name)
    path = table(folder / "shop.csv", [{"image": "a.jpg "}, {"image": "sub\\b.jpg"}, {"image": str(folder / "a.jpg")}])
    run(path, shop, tiny)
    assert sorted(record.path for _, record in shop.scan()) == [
        str(folder / "a.jpg"),
        str(folder / "a.jpg "),
        str(folder / "sub\\b.jpg"),
    ]


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("A.JPG", "is not in {}, which has the name in another spelling, 'a.jpg'; write it so"),
        ("sub/Ete.jpg", "is not in {}/sub, which has the name in another spelling, 'Été.jpg'; write it so"),
        ("sub%2Fx.jpg", "is not in {}; correct the path, or put the file there"),
        ("a%2Ejpg", "is not in {}, which has the name in another spelling, 'a.jpg'; write it so"),
        ("C:\\shop\\a.jpg", "does not exist, and neither does its folder {}/C:/shop; correct the path"),
    ],
)
def test_a_missing_file_is_named_with_the_folder_and_a_like_name_there(folder, cell, sentence):
    [item] = open_source(table(folder / "shop.csv", [{"image": cell}])).items()
    with pytest.raises(ImageError) as refused:
        item.picture.stamp()
    assert str(refused.value) == sentence.format(folder)


def test_blanks_around_a_url_are_cut_off(folder):
    [item] = open_source(table(folder / "shop.csv", [{"image": " https://shop.example/a.jpg "}])).items()
    assert item.picture.location == "https://shop.example/a.jpg"


class TestElsewhere:
    """Tables at a URL: on a web server, and in a store that only fsspec reads."""

    @pytest.fixture(params=["web", "store"])
    def address(self, request, folder):
        if request.param == "web":
            handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            server.server_close()
        else:
            memory = fsspec.filesystem("memory")
            memory.store.clear()
            memory.put(str(folder), "/shop", recursive=True)
            yield "memory://shop"
            memory.store.clear()
            memory.pseudo_dirs[:] = [""]

    def sync(self, address, folder, shop, tiny, *cells):
        table(folder / "shop.csv", [{"image": cell, "sku": number} for number, cell in enumerate(cells)])
        if address.startswith("memory"):
            fsspec.filesystem("memory").put_file(str(folder / "shop.csv"), "/shop/shop.csv")
        return run(f"{address}/shop.csv", shop, tiny)

    @pytest.mark.parametrize(
        ("cell", "file"),
        [
            (unicodedata.normalize("NFC", "Grüner Rock.jpg"), unicodedata.normalize("NFD", "Grüner Rock.jpg")),
            (unicodedata.normalize("NFD", "sub/Été.jpg"), "sub/Été.jpg"),
            (".\\sub\\b.jpg", "sub/b.jpg"),
            ("\\sub\\b.jpg", "sub/b.jpg"),
            ("/sub/b.jpg", "sub/b.jpg"),
            ("sub/ b.jpg ", "sub/b.jpg"),
            ("a.jpg ", "a.jpg"),
        ],
    )
    def test_a_file_is_found_under_another_spelling_of_its_name(self, address, folder, shop, tiny, cell, file):
        assert counts(self.sync(address, folder, shop, tiny, cell)) == only(added=1, encoded=1)
        [(_, record)] = shop.scan()
        assert record.path == f"{address}/{quote(file) if address.startswith('http') else file}"
        assert counts(self.sync(address, folder, shop, tiny, cell)) == only(unchanged=1)

    @pytest.mark.parametrize("address", ["web"], indirect=True)
    def test_a_web_servers_file_may_be_named_as_in_its_url(self, address, folder, shop, tiny):
        draw(folder / "100%25.jpg", 9)
        cells = ["sub/%C3%89t%C3%A9.jpg", quote(unicodedata.normalize("NFC", "Grüner Rock.jpg")), "100%25.jpg"]
        assert counts(self.sync(address, folder, shop, tiny, *cells)) == only(added=3, encoded=3)
        paths = {record.path.removeprefix(address) for _, record in shop.scan()}
        rock = quote(unicodedata.normalize("NFD", "/Grüner Rock.jpg"))
        assert paths == {"/sub/%C3%89t%C3%A9.jpg", rock, "/100%2525.jpg"}

    @pytest.mark.parametrize("address", ["web"], indirect=True)
    def test_no_spelling_leads_out_of_the_tables_folder(self, address, folder, shop, tiny):
        cells = "..\\a.jpg", "x/%2e%2e/%2e%2e/a.jpg", "gone.jpg"
        report = self.sync(f"{address}/sub", folder / "sub", shop, tiny, *cells)
        assert counts(report) == only(failed=3)
        assert all("leads out of the table's folder" in str(failure) for failure in report.failed[:2])
        assert str(report.failed[2]).startswith("gone.jpg does not exist")
