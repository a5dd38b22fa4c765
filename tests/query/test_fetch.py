"""Pictures by URL come from the public internet only; no redirect or name leads elsewhere.

The internet is a fake: a table of host names, and a transport that answers from a table of addresses.
"""

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import chain, repeat

import httpx
import pytest

from cir_vectorizer.errors import ImageError
from cir_vectorizer.pictures.fetch import Fetcher, NotPublicError, is_public
from tests.support.serving import RED, serving

PICTURE = b"\x89PNG\r\n\x1a\n" + b"x" * 100
PUBLIC = "93.184.215.14"


class FakeInternet:
    """Host names with their addresses at each look-up, and the answer at each URL."""

    def __init__(self, hosts: dict[str, list[list[str]]], answers: dict[str, Callable[[], httpx.Response]]) -> None:
        self._hosts: dict[str, Iterator[list[str]]] = {
            name: chain(turns, repeat(turns[-1])) for name, turns in hosts.items()
        }
        self._answers = answers
        self.requests: list[httpx.Request] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        if host not in self._hosts:
            raise OSError("no such host")
        return next(self._hosts[host])

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answers[request.headers["host"] + request.url.raw_path.decode()]()

    def fetcher(self, **options: object) -> Fetcher:
        return Fetcher(resolve=self.resolve, transport=httpx.MockTransport(self.answer), **options)


def picture(content: bytes = PICTURE, **headers: str) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(200, stream=httpx.ByteStream(content), headers=headers)


def redirect(to: str) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(302, headers={"location": to})


def fetch(fetcher: Fetcher, *urls: str) -> bytes:
    async def main() -> bytes:
        try:
            content = b""
            for url in urls:
                content = await fetcher.fetch(url)
            return content
        finally:
            await fetcher.close()

    return asyncio.run(main())


def test_a_public_picture_is_fetched_from_the_checked_address():
    internet = FakeInternet({"shop.example": [[PUBLIC]]}, {"shop.example/a.png?b=1": picture()})
    assert fetch(internet.fetcher(), "https://shop.example/a.png?b=1") == PICTURE
    (request,) = internet.requests
    assert request.url.host == PUBLIC
    assert request.headers["host"] == "shop.example"
    assert request.extensions["sni_hostname"] == "shop.example"
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "169.254.0.1",
        "0.0.0.0", "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
        "255.255.255.255", "168.63.129.16", "192.0.2.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
        "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1", "not an address", "",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_never_reached(address):
    assert not is_public(address)
    internet = FakeInternet({"evil.example": [[address]], "half.example": [[PUBLIC, address]]}, {})
    for url in ("http://evil.example/a", "https://half.example/a"):
        with pytest.raises(ImageError, match="not on the public internet") as refused:
            fetch(internet.fetcher(), url)
        assert refused.value.reason == "url"
        assert not address or address not in str(refused.value)
    assert internet.requests == []


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::808:808"])
def test_public_addresses_are(address):
    assert is_public(address)


def test_a_name_that_changes_its_address_gains_nothing():
    internet = FakeInternet({"rebind.example": [[PUBLIC], ["127.0.0.1"]]}, {"rebind.example/a": picture()})
    fetcher = internet.fetcher()
    with pytest.raises(ImageError, match="not on the public internet"):
        fetch(fetcher, "http://rebind.example/a", "http://rebind.example/a")
    assert [request.url.host for request in internet.requests] == [PUBLIC]


def test_redirects_are_checked_like_the_first_address():
    hosts = {"shop.example": [[PUBLIC]], "cdn.example": [["8.8.8.8"]], "inside.example": [["10.0.0.7"]]}
    answers = {
        "shop.example/far": redirect("//cdn.example/b.png"),
        "shop.example/near": redirect("../c.png"),
        "shop.example/c.png": picture(),
        "cdn.example/b.png": picture(),
        "shop.example/inside": redirect("http://inside.example/"),
        "shop.example/metadata": redirect("http://169.254.169.254/latest/meta-data"),
        "shop.example/file": redirect("file:///etc/passwd"),
        "shop.example/loop": redirect("/loop"),
        "shop.example/none": redirect("http://[bad/"),
    }
    internet = FakeInternet({**hosts, "169.254.169.254": [["169.254.169.254"]]}, answers)
    assert fetch(internet.fetcher(), "http://shop.example/far", "http://shop.example/near") == PICTURE
    assert [request.url.host for request in internet.requests] == [PUBLIC, "8.8.8.8", PUBLIC, PUBLIC]
    for path, problem in (
        ("inside", "not on the public internet"),
        ("metadata", "not on the public internet"),
        ("file", "not a plain http or https address"),
        ("loop", "redirects more than 3 times"),
        ("none", "not known"),
    ):
        with pytest.raises(ImageError, match=problem):
            fetch(internet.fetcher(), f"http://shop.example/{path}")
    assert all(request.url.host in (PUBLIC, "8.8.8.8") for request in internet.requests)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://shop.example/a", "plain http or https"),
        ("file:///etc/passwd", "plain http or https"),
        ("http://user:pass@shop.example/a", "remove user and password"),
        ("http:///a", "plain http or https"),
        ("http://shop.example:22/a", "host or port"),
        ("http://shop.example:8080/a", "host or port"),
        ("https://shop.example:80/a", "host or port"),
        ("http://[::1", "not a valid URL"),
        ("http://nowhere.example/a", "not known"),
        ("http://shop.example:99999/", "host or port"),
        ("http://" + "a" * 70 + ".example/", "URL|not known"),
    ],
)
def test_odd_addresses_are_refused(url, problem):
    internet = FakeInternet({"shop.example": [[PUBLIC]]}, {})
    with pytest.raises(ImageError, match=problem):
        fetch(internet.fetcher(), url)
    assert internet.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://localhost/",
        "http://[::1]/",
        "http://127.1/",
        "http://①②⑦.0.0.1/",
    ],
)
def test_other_ways_to_write_this_machine_are_refused_by_the_real_resolver(url):
    with pytest.raises(ImageError) as refused:
        fetch(Fetcher(), url)
    assert refused.value.reason == "url"


def test_only_listed_hosts_are_asked_where_there_is_a_list():
    hosts = {
        name: [[PUBLIC]] for name in ("images.shop.example", "a.cdn.example", "cdn.example", "evil-images.shop.example")
    }
    answers = {f"{name}/a": picture() for name in ["images.shop.example", "a.cdn.example", "a.cdn.example:8443"]}
    internet = FakeInternet(hosts, answers)
    options = {"hosts": ["Images.Shop.example", "*.cdn.example", "a.cdn.example:8443"]}
    for url in (
        "http://images.shop.example/a",
        "https://A.cdn.example/a",
        "https://images.shop.example./a",
        "https://a.cdn.example:8443/a",
    ):
        assert fetch(internet.fetcher(**options), url) == PICTURE
    for url in (
        "http://cdn.example/a",
        "http://evil-images.shop.example/a",
        "http://images.shop.example.evil.example/a",
        "http://images.shop.example:8443/a",
    ):
        with pytest.raises(ImageError, match="host or port"):
            fetch(internet.fetcher(**options), url)
    inside = FakeInternet({"images.shop.example": [["10.0.0.1"]]}, {})
    with pytest.raises(ImageError, match="public internet"):
        fetch(inside.fetcher(**options), "http://images.shop.example/a")


def test_a_fetcher_for_private_addresses_goes_anywhere_but_to_other_schemes():
    internet = FakeInternet({}, {"10.0.0.7:8080/a": picture(), "shop.local/far": redirect("http://10.0.0.7:8080/a")})
    urls = "http://10.0.0.7:8080/a", "http://shop.local/far"
    assert fetch(internet.fetcher(private=True), *urls) == PICTURE
    assert [request.url.host for request in internet.requests] == ["10.0.0.7", "shop.local", "10.0.0.7"]
    for url in ("ftp://10.0.0.7/a", "http://me:secret@10.0.0.7/a", "http://10.0.0.7:99999/a"):
        with pytest.raises(ImageError) as refused:
            fetch(internet.fetcher(private=True), url)
        assert not isinstance(refused.value, NotPublicError)
    with pytest.raises(NotPublicError):
        fetch(internet.fetcher(), urls[0])


def test_head_tells_what_a_server_says_and_nothing_where_it_says_nothing():
    answers = {
        "shop.example/far": redirect("/a"),
        "shop.example/a": picture(etag='"1"'),
        "shop.example/gone": lambda: httpx.Response(404, headers={"etag": '"2"'}),
        "shop.example/inside": redirect("http://inside.example/"),
    }
    internet = FakeInternet({"shop.example": [[PUBLIC]], "inside.example": [["10.0.0.7"]]}, answers)

    async def etags(*paths: str) -> list[str | None]:
        fetcher = internet.fetcher()
        try:
            return [(await fetcher.head(f"http://shop.example/{path}")).get("etag") for path in paths]
        finally:
            await fetcher.close()

    assert asyncio.run(etags("far", "gone")) == ['"1"', None]
    assert {request.method for request in internet.requests} == {"HEAD"}
    with pytest.raises(NotPublicError, match="not on the public internet"):
        asyncio.run(etags("inside"))


def test_one_fetch_may_have_a_limit_of_its_own():
    internet = FakeInternet({"shop.example": [[PUBLIC]]}, {"shop.example/a": picture()})

    async def main() -> bytes:
        fetcher = internet.fetcher()
        try:
            with pytest.raises(ImageError, match="over the limit"):
                await fetcher.fetch("http://shop.example/a", 10)
            return await fetcher.fetch("http://shop.example/a")
        finally:
            await fetcher.close()

    assert asyncio.run(main()) == PICTURE


def test_large_slow_and_broken_answers_are_given_up():
    def endless() -> httpx.Response:
        async def parts():
            while True:
                yield b"x" * 65536

        return httpx.Response(200, content=parts())

    def slow() -> httpx.Response:
        async def parts():
            await asyncio.sleep(30)
            yield b"x"

        return httpx.Response(200, content=parts())

    def broken() -> httpx.Response:
        raise httpx.ConnectError("refused")

    answers: dict[str, Callable[[], httpx.Response]] = {
        "shop.example/declared": picture(**{"content-length": "999999999"}),
        "shop.example/endless": endless,
        "shop.example/slow": slow,
        "shop.example/broken": broken,
        "shop.example/missing": lambda: httpx.Response(404),
        "shop.example/zipped": picture(**{"content-encoding": "gzip"}),
    }
    for path, problem in (
        ("declared", "over the limit of 1 MiB"),
        ("endless", "over the limit of 1 MiB"),
        ("slow", "did not arrive within 0.2 s"),
        ("broken", "could not be fetched"),
        ("missing", "answers with status 404"),
        ("zipped", "comes compressed"),
    ):
        internet = FakeInternet({"shop.example": [[PUBLIC]]}, answers)
        with pytest.raises(ImageError, match=problem):
            fetch(internet.fetcher(most_bytes=2**20, timeout=0.2), f"http://shop.example/{path}")


def test_the_real_network_client_connects_to_the_checked_address(monkeypatch):
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.headers["host"], self.path))
            self.send_response(200)
            self.send_header("content-length", str(len(PICTURE)))
            self.end_headers()
            self.wfile.write(PICTURE)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"shop.example:{server.server_port}"

    async def resolve(name: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr("cir_vectorizer.pictures.fetch.is_public", lambda address: True)
    assert fetch(Fetcher([host], resolve=resolve), f"http://{host}/a.png") == PICTURE
    assert seen == [(host, "/a.png")]
    server.shutdown()


def test_the_service_fetches_only_where_it_is_told_to():
    internet = FakeInternet(
        {"shop.example": [[PUBLIC]], "inside.example": [["10.0.0.1"]]},
        {"shop.example/a.png": picture(base64.b64decode(RED))},
    )
    with serving(internet.fetcher()) as running:
        asked = [{"image": "http://shop.example/a.png", "text": "is blue"}, {"image": RED, "text": "is blue"}]
        vectors = running.post("/v1/compose", {"queries": asked}).json()["vectors"]
        assert vectors[0] == pytest.approx(vectors[1], abs=1e-5)
        refused = running.post("/v1/compose", {"queries": [{"image": "http://inside.example/a.png"}]})
        assert refused.status_code == 400
        assert refused.json()["error"].startswith("queries[0]: image.0 is at a host that is not on the public internet")
    with serving() as running:
        refused = running.post("/v1/compose", {"queries": asked})
        assert refused.status_code == 400
        assert "URLs are not fetched here" in refused.json()["error"]
