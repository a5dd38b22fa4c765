"""Busy servers of pictures: answers 429 and 5xx are asked again, on a real server of this machine."""

import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cir_vectorizer.errors import ImageError, SourceError
from cir_vectorizer.pictures.busy import Waits, is_busy
from cir_vectorizer.retry_after import retry_after
from cir_vectorizer.sources import Web, open_source
from cir_vectorizer.sources import waiting as patience
from cir_vectorizer.sync import sync
from tests.support.indexing import counts, only, table

pytest_plugins = ["tests.support.indexing"]


class BusyServer:
    """A server of a folder that first refuses each path: `refusals` times with `status` and `headers`."""

    def __init__(self, folder, status=503, refusals=1, headers=None):
        self.asked: list[str] = []
        refused: dict[str, int] = {}

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.do_GET()

            def do_GET(handler):  # noqa: N805
                self.asked.append(handler.path)
                refused[handler.path] = refused.get(handler.path, 0) + (handler.command == "GET")
                busy = refused[handler.path] <= refusals
                content = b"" if busy else (folder / handler.path[1:]).read_bytes()
                handler.send_response(status if busy else 200)
                for name, value in (headers or {}).items() if busy else ():
                    handler.send_header(name, value)
                handler.send_header("Content-Length", str(len(content)))
                handler.end_headers()
                if handler.command == "GET":
                    handler.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "1"}), (503, {}), (500, {}), (502, None)])
def test_pictures_of_a_busy_server_are_asked_for_again(photos, shop, tiny, tmp_path, status, headers):
    with BusyServer(photos, status, headers=headers) as server:
        rows = [{"image": f"{server.address}/{name}"} for name in ("a.jpg", "b.png", "c.webp")]
        started = time.monotonic()
        report = sync(open_source(table(tmp_path / "t.csv", rows), web=Web(private=True)), shop, tiny)
    assert counts(report) == only(added=3, encoded=3)
    assert time.monotonic() - started >= (1 if headers else 0.3)


def test_a_server_that_stays_busy_is_called_busy(photos, shop, tiny, tmp_path):
    with BusyServer(photos, 429, refusals=10**6) as server:
        rows = [{"image": f"{server.address}/{name}"} for name in ("a.jpg", "b.png", "c.webp")]
        source = open_source(table(tmp_path / "t.csv", rows), web=Web(private=True, patience=1))
        report = sync(source, shop, tiny, workers=1)
        last = [path for path in server.asked if path == "/c.webp"]
    assert counts(report) == only(failed=3)
    assert str(report.failed[0]).endswith("a.jpg is at a server that is busy for 2 tries (status 429); try again later")
    assert len(last) == 2, "once per HEAD and GET: the patience for this host was used up by the first picture"


def test_a_wait_longer_than_the_patience_is_named_and_not_waited_for(photos):
    with BusyServer(photos, 503, headers={"Retry-After": "3600"}) as server, pytest.raises(ImageError) as refused:
        Web(private=True, patience=5).fetch(f"{server.address}/a.jpg", 10**6)
    assert str(refused.value) == ("is at a server that is busy (status 503) and asks to wait 3,600 s; try again later")


def test_a_table_and_its_pictures_at_a_busy_address(photos, shop, tiny):
    table(photos / "t.csv", [{"image": "a.jpg"}, {"image": "b.png"}])
    with BusyServer(photos, 503, refusals=2) as server:
        assert counts(sync(open_source(f"{server.address}/t.csv"), shop, tiny)) == only(added=2, encoded=2)


def test_a_folder_at_an_address_that_stays_busy(photos, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE", 0.1)
    with BusyServer(photos, 503, refusals=10**6) as server, pytest.raises(SourceError) as refused:
        list(open_source(f"{server.address}/photos/").items())
    assert "is at a server that is busy (status 503); try again later" in str(refused.value)


def test_no_sentence_of_a_sync_advises_what_only_the_service_can_do(photos):
    web = Web()
    addresses = [
        "http://[",
        "ftp://x/a.jpg",
        "http://127.0.0.1/a.jpg",
        "http://a.jpg:99999/",
        "http://nowhere.invalid/a.jpg",
    ]
    with BusyServer(photos, 404, refusals=10**6) as server:
        for address, fetcher in [*((each, web) for each in addresses), (f"{server.address}/a.jpg", Web(private=True))]:
            with pytest.raises(ImageError) as refused:
                fetcher.fetch(address, 10**6)
            assert "base64" not in str(refused.value)
            assert "send" not in str(refused.value)


def test_the_waits_grow_and_end():
    waits = Waits(10)
    taken = [waits.next(503, None) for _ in range(4)]
    assert taken == sorted(taken)
    with pytest.raises(ImageError, match="busy for 5 tries"):
        waits.next(503, None)
    assert Waits(10).next(503, 7.0) == 7.0


def test_the_header_is_seconds_or_a_date():
    assert retry_after({"Retry-After": "12"}) == 12
    assert 8 < retry_after({"retry-after": formatdate(time.time() + 10, usegmt=True)}) <= 10
    assert retry_after({"Retry-After": "soon"}) is retry_after({}) is None
    assert [status for status in (404, 429, 500, 501, 503, 505, 529) if is_busy(status)] == [429, 500, 503, 529]
