"""The MCP server answers FastMCP's own client, in memory and over standard input and output, and guards files and URLs."""

import base64
import io
import json
import os
import shutil
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from fastmcp.exceptions import ToolError
from PIL import Image

import cir_vectorizer
from cir_vectorizer.cli import main
from cir_vectorizer.errors import ImageError
from cir_vectorizer.pictures.fetch import Fetcher
from cir_vectorizer.searcher import Searcher
from cir_vectorizer_mcp.pictures import SIDE, Pictures
from cir_vectorizer_mcp.server import make_server
from tests.support.servers import KEY

TOOL = "composed_search"
URL = "https://shop.example/dress.png"


def internet(content: bytes) -> Fetcher:
    """A fetcher whose network is a fake: one public host with one picture."""

    async def resolve(host: str, port: int) -> list[str]:
        return ["10.0.0.7" if host == "inside.example" else "93.184.215.14"]

    answer = httpx.MockTransport(lambda request: httpx.Response(200, stream=httpx.ByteStream(content)))
    return Fetcher(resolve=resolve, transport=answer)


@pytest.fixture
def dress(drawn_shop):
    return drawn_shop.photo("red", "dress")


@pytest.fixture
def server(drawn_shop, dress, tiny):
    return make_server(
        Searcher(drawn_shop.collection, tiny), Pictures([drawn_shop.photos], internet(dress.read_bytes()))
    )


def titles(answer) -> list[str]:
    return [each["columns"]["title"] for each in answer.structured_content["results"]]


async def test_the_tool_is_described(server):
    async with Client(server) as client:
        (tool,) = await client.list_tools()
    assert tool.name == TOOL
    assert tool.annotations.read_only_hint
    properties = tool.input_schema["properties"]
    assert set(properties) == {
        "text", "image", "image_id", "negative_text", "must_text", "filter", "limit", "offset", "thumbnails",
    }  # fmt: skip
    assert all(each["description"] for each in properties.values())
    assert set(tool.output_schema["properties"]) == {"results", "notes"}


async def test_a_picture_and_words_find_what_the_core_finds(server, drawn_shop, dress, tiny):
    expected = cir_vectorizer.search(drawn_shop.collection, {"image": dress, "text": "is blue"}, model=tiny, limit=3)
    encoded = base64.b64encode(dress.read_bytes()).decode()
    async with Client(server) as client:
        for image in (str(dress), "red-dress.png", [str(dress)], encoded, f"data:image/png;base64,{encoded}", URL):
            answer = await client.call_tool(TOOL, {"image": image, "text": "is blue", "limit": 3})
            assert [each["id"] for each in answer.structured_content["results"]] == [str(hit.id) for hit in expected]
            assert answer.structured_content["notes"] == []
        assert titles(answer)[0] == "blue dress"
        assert json.loads(answer.content[0].text) == answer.structured_content
        (first, *_) = answer.structured_content["results"]
        assert first == {
            "id": str(expected[0].id), "score": pytest.approx(expected[0].score, abs=1e-5), "picture": "blue-dress.png",
            "columns": {"id": 2, "title": "blue dress", "colour": "blue", "price": 11},
        }  # fmt: skip


async def test_a_result_is_refined_by_its_id(server):
    async with Client(server) as client:
        found = await client.call_tool(TOOL, {"text": "a red dress", "limit": 1})
        (red,) = found.structured_content["results"]
        answer = await client.call_tool(TOOL, {"image_id": red["id"], "text": "is blue", "limit": 2})
        assert titles(answer)[0] == "blue dress"
        both = await client.call_tool(TOOL, {"image_id": [red["id"]], "image": "blue-mug.png", "text": "is green"})
        assert len(titles(both)) == 10


async def test_words_filter_and_paging(server):
    async with Client(server) as client:
        answer = await client.call_tool(TOOL, {"text": "a dress", "filter": "colour=green", "negative_text": ["mug"]})
        assert set(titles(answer)) == {"green dress", "green mug", "green chair"}
        every = await client.call_tool(TOOL, {"text": "a dress", "must_text": "red", "limit": 3})
        later = await client.call_tool(TOOL, {"text": "a dress", "must_text": ["red"], "limit": 2, "offset": 1})
        assert titles(every)[1:] == titles(later)
        cut = await client.call_tool(TOOL, {"text": "a hat " * 200})
        assert "left out" in cut.structured_content["notes"][0]


async def test_thumbnails_come_as_pictures(server):
    async with Client(server) as client:
        answer = await client.call_tool(TOOL, {"text": "a red dress", "limit": 2, "thumbnails": True})
    (text, *shown) = answer.content
    ids = [each["id"] for each in answer.structured_content["results"]]
    assert [each.text for each in shown[::2]] == [f"{id_}:" for id_ in ids]
    for each in shown[1::2]:
        assert each.mime_type == "image/jpeg"
        assert max(Image.open(io.BytesIO(base64.b64decode(each.data))).size) <= SIDE
    assert json.loads(text.text)["notes"] == []


async def test_a_picture_outside_the_folders_gives_no_thumbnail(drawn_shop, tiny, tmp_path):
    server = make_server(Searcher(drawn_shop.collection, tiny), Pictures([tmp_path]))
    async with Client(server) as client:
        answer = await client.call_tool(TOOL, {"text": "a red dress", "limit": 1, "thumbnails": True})
    assert len(answer.content) == 1
    assert "no thumbnail of " in answer.structured_content["notes"][0]
    assert "is neither such a file nor base64" in answer.structured_content["notes"][0]


@pytest.fixture
def guarded(drawn_shop, tmp_path):
    """Pictures of one folder, beside a secret one, with a link that leads out."""
    inside = tmp_path / "inside"
    inside.mkdir()
    shutil.copy(drawn_shop.photo("red", "dress"), inside / "dress.png")
    shutil.copy(drawn_shop.photo("red", "dress"), tmp_path / "secret.png")
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(inside / "pipe.png")
    return inside, Pictures([inside])


async def test_files_of_the_folders_are_read_and_no_others(guarded):
    inside, pictures = guarded
    for name in ("dress.png", str(inside / "dress.png"), "../inside/dress.png"):
        assert await pictures.read(name) == (inside / "dress.png").read_bytes()
    sentences = set()
    for name in (
        "link.png", "../secret.png", str(inside.parent / "secret.png"), "pipe.png", "missing.png", "/etc/passwd.", ".",
        "~/.ssh/id.rsa", "file:///etc/passwd", "a.png\0", "x." * 5000,
    ):  # fmt: skip
        with pytest.raises(ImageError) as caught:
            await pictures.read(name)
        sentences.add(str(caught.value))
    assert sentences == {f"is neither such a file nor base64; give a file in {inside}, a URL, or base64"}


async def test_without_a_folder_no_file_is_read(drawn_shop):
    with pytest.raises(ImageError, match="files only if the operator names a folder by --folder"):
        await Pictures().read(str(drawn_shop.photo("red", "dress")))
    with pytest.raises(ImageError, match="over the limit of 32 MiB"):
        await Pictures().read("A" * (50 * 2**20))


async def test_urls_are_fetched_only_if_allowed_and_public(server, drawn_shop, tiny):
    closed = make_server(Searcher(drawn_shop.collection, tiny), Pictures([drawn_shop.photos]))
    async with Client(closed) as client:
        with pytest.raises(ToolError, match="is a URL, and URLs are not fetched here"):
            await client.call_tool(TOOL, {"image": URL, "text": "is blue"})
    async with Client(server) as client:
        for url in ("http://inside.example/a.png", "http://shop.example:8080/a.png"):
            with pytest.raises(ToolError, match=r"not on the public internet|not allowed here"):
                await client.call_tool(TOOL, {"image": url, "text": "is blue"})


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "the query is empty; give at least image or text"),
        ({"image": "missing.png"}, "image.0"),
        ({"text": "a", "filter": "price<<3"}, "filter: at letter"),
        ({"image_id": "nothing"}, "image.0: names 'nothing', which is no id"),
        ({"negative_text": "a"}, "negative_text: says only what to avoid"),
        ({"text": "a", "limit": 0}, "limit"),
        ({"text": "a", "limit": 1000}, "limit"),
        ({"text": "a" * 20_000}, "text"),
        ({"image": ["a"] * 17}, "image"),
    ],
)
async def test_errors_are_sentences(server, asked, says):
    async with Client(server) as client:
        with pytest.raises(ToolError) as caught:
            await client.call_tool(TOOL, asked)
    assert says in str(caught.value)


async def test_other_errors_say_nothing_of_the_machine(drawn_shop, tiny, monkeypatch):
    searcher = Searcher(drawn_shop.collection, tiny)
    monkeypatch.setattr(searcher, "search", lambda *_, **__: Path("/home/secret/file").read_text())
    async with Client(make_server(searcher, Pictures())) as client:
        with pytest.raises(ToolError) as caught:
            await client.call_tool(TOOL, {"text": "a"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("served", [False, True])
async def test_a_round_trip_over_standard_input_and_output(drawn_shop, tmp_path, service, served):
    shutil.copytree(drawn_shop.photos / "index", tmp_path / "index", ignore=shutil.ignore_patterns(".lock"))
    model = ["--service", service.url] if served else ["--model", "tiny"]
    command = [
        "-m",
        "cir_vectorizer_mcp",
        "--in",
        f"qdrant:{tmp_path}/index/shop",
        "--folder",
        str(drawn_shop.photos),
        *model,
    ]
    transport = StdioTransport(sys.executable, command, env={**os.environ, "CIR_API_KEY": KEY}, keep_alive=False)
    async with Client(transport, timeout=120) as client:
        answer = await client.call_tool(
            TOOL, {"image": "red-dress.png", "text": "is blue", "limit": 2, "thumbnails": True}
        )
    assert titles(answer)[0] == "blue dress"
    assert [each.type for each in answer.content] == ["text", "text", "image", "text", "image"]


def test_the_command_checks_what_it_is_given(tmp_path, monkeypatch):
    run = CliRunner().invoke
    assert "composed_search" in run(main, ["mcp", "--help"]).output
    assert run(main, ["mcp", "--in", "nothing"]).exit_code == 1
    assert "does not exist" in run(main, ["mcp", "--in", "qdrant:a/b", "--folder", str(tmp_path / "none")]).output
    monkeypatch.setitem(sys.modules, "fastmcp", None)
    result = run(main, ["mcp", "--in", "qdrant:a/b"])
    assert "pip install 'cir-vectorizer[mcp]'" in result.output
