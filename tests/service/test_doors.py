"""The doors answer recorded requests of real servers, and every door gives the same vector for the same query."""

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from cir_vectorizer.client import Client
from cir_vectorizer.pictures.fetch import Fetcher
from cir_vectorizer.service.settings import Settings
from tests.support.serving import RED, Running, at_every_door, drawn, encoded, serving, tiny

TRANSCRIPTS = Path(__file__).parents[1] / "data" / "transcripts"
RECORDED_DIM = 8
BLUE = drawn(0x0000FF)
QUERY = {"image": RED, "text": "is blue"}


def fake_internet(fetched: list[str] | None = None) -> Fetcher:
    """A fetcher whose network is a fake: one public address, one picture; each requested URL is added to `fetched`."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "green").save(stream, "JPEG")

    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.215.14"]

    def answer(request: httpx.Request) -> httpx.Response:
        if fetched is not None:
            fetched.append(request.url.path)
        return httpx.Response(200, stream=httpx.ByteStream(stream.getvalue()))

    return Fetcher(resolve=resolve, transport=httpx.MockTransport(answer))


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with serving(fake_internet(), allow_urls=True) as running:
        yield running


def recorded(file: str) -> list:
    lines = [json.loads(line) for line in (TRANSCRIPTS / file).read_text().splitlines()]
    return [line for line in lines if line["status"] < 300]


def as_we_take_it(line: dict) -> tuple[str, object]:
    """Path and body of a recorded request, with our model's name and without the field that we do not know."""
    path = line["path"]
    for prefix in ("/clip-secret", "/per-collection"):
        path = path.replace(prefix, "/m/tiny")
    path = path.replace("/qdrant/infer", "/qdrant").replace("/auth/infer", "/qdrant").replace("/auth/", "/m/tiny/")
    text = json.dumps(line["body"]).replace(r", \"weight\": 0.7", "").replace('"vitl', '"tiny')
    body = json.loads(text)
    if "note" in line:
        body = {"texts": ["warm " * 800_000]}
    return path, body


def same_shape(ours, theirs) -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == {key.replace("vitl", "tiny") for key in theirs}
        for key, value in theirs.items():
            same_shape(ours[key.replace("vitl", "tiny")], value)
    elif isinstance(theirs, list) and theirs and isinstance(theirs[0], float):
        assert len(theirs) == RECORDED_DIM
        assert len(ours) == tiny().dim
        assert np.linalg.norm(ours) == pytest.approx(1, abs=1e-5)
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            same_shape(mine, other)
    else:
        assert type(ours) is type(theirs)


@pytest.mark.parametrize("file", ["weaviate.jsonl", "qdrant.jsonl"])
def test_recorded_requests_get_answers_of_the_recorded_shape(service, file):
    lines = recorded(file)
    assert len(lines) > 15
    for line in lines:
        path, body = as_we_take_it(line)
        headers = {name: value for name, value in line["headers"].items() if name not in ("content-length",)}
        answer = service.client.request(line["method"], service.url + path, headers=headers, json=body)
        assert answer.status_code == line["status"], (line["path"], answer.text)
        if line["method"] == "POST":
            same_shape(answer.json(), line["answer"])
        elif line["status"] == 200:
            assert answer.json()["model"] == "tiny"


def test_every_door_gives_the_vector_of_the_library(service):
    expected = tiny().compose([{**QUERY, "composer": "lincir"}]).vectors[0]
    weaviate = service.post("/vectorize", {"texts": [json.dumps(QUERY)]}).json()["textVectors"][0]
    named = service.post("/m/tiny/lincir/vectorize", {"texts": [json.dumps(QUERY)]}).json()["textVectors"][0]
    one = {"data": QUERY, "data_type": "object", "model": "tiny", "options": None}
    qdrant = service.post("/qdrant", {"inputs": [one], "inference": "search"}).json()["embeddings"][0]
    rest = service.post("/v1/compose", {"queries": [QUERY]}).json()["vectors"][0]
    for vector in (weaviate, named, qdrant, rest):
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_several_unwanted_texts_are_taken_at_every_door(service):
    query = {**QUERY, "composer": "lincir"}
    expected = tiny().compose([{**query, "negative_text": "stripes, dots"}]).vectors[0]
    for vector in at_every_door(service, {**query, "negative_text": ["stripes", "dots"]}):
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_a_language_of_the_prompt_is_taken_at_every_door(service):
    query = {**QUERY, "text": "in blau", "composer": "lincir"}
    expected = tiny().compose([{**query, "template": "ein Foto von $, {text}"}]).vectors[0]
    for vector in at_every_door(service, {**query, "language": "de-AT"}):
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    with Client(service.url) as client:
        found = client.compose([{**query, "language": "de"}]).vectors[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    answer = service.post("/v1/compose", {"queries": [{**query, "language": "sw"}]})
    assert (answer.status_code, answer.json()["field"]) == (400, "queries.0.language")
    assert "the model has no prompt in 'sw'; choose one of en, ar, " in answer.json()["error"]


def test_words_that_results_must_show_are_refused_where_there_are_no_results(service):
    query = {**QUERY, "must_text": "long sleeves"}
    inference = {"inputs": [{"data": query, "data_type": "object", "model": "tiny"}], "inference": "search"}
    for path, body in (
        ("/v1/compose", {"queries": [query]}),
        ("/vectorize", {"texts": [json.dumps(query)]}),
        ("/vectorize", {"texts": [json.dumps({"text": "a dress", "must_text": ["long sleeves"]})]}),
        ("/qdrant", inference),
    ):
        answer = service.post(path, body)
        assert answer.status_code == 400
        assert "must_text: compares the results of a search, and a vector has none" in answer.json()["error"]
        assert "POST /v1/search" in answer.json()["error"]
        assert answer.json()["field"].endswith("must_text")


def test_a_slash_at_the_end_of_an_address_changes_nothing(service):
    body = {"inputs": [{"data": "red", "data_type": "text", "model": "tiny"}], "inference": "search"}
    for path in ("/qdrant", "/qdrant/", "/m/tiny/qdrant//"):
        assert service.post(path, body).status_code == 200
    assert service.client.get(f"{service.url}/v1/models/").status_code == 200


def test_pages_of_the_named_origins_may_ask():
    asks = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    with serving(api_keys="me:secret", cors=("https://shop.example",)) as running:
        allowed = running.client.options(f"{running.url}/v1/search", headers=asks)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        refused = running.post("/v1/compose", {}, headers={"origin": "https://shop.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://shop.example"
        other = running.post("/v1/compose", {}, headers={"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


def test_without_the_option_no_page_of_another_origin_may_ask(service):
    answer = service.client.get(f"{service.url}/v1/models", headers={"origin": "https://shop.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_an_origin_is_scheme_and_host():
    for wrong in ("shop.example", "https://shop.example/", "https://shop.example/page"):
        with pytest.raises(ValueError, match="is no origin; write scheme and host"):
            Settings(cors=(wrong,))
    assert Settings(cors=("*", "http://localhost:3000")).cors == ("*", "http://localhost:3000")


def test_plain_texts_and_pictures_are_the_librarys_too(service):
    text = tiny().embed_texts(["a red dress"])[0]
    pixels = tiny().embed_images([Image.open(io.BytesIO(base64.b64decode(RED))).convert("RGB")])[0]
    embedded = service.post("/v1/embed", {"texts": ["a red dress"], "images": [RED, {"base64": RED}]}).json()
    np.testing.assert_allclose(embedded["text_vectors"][0], text, atol=1e-5)
    np.testing.assert_allclose(embedded["image_vectors"][1], pixels / np.linalg.norm(pixels), atol=1e-5)
    assert embedded["image_norms"] == pytest.approx([np.linalg.norm(pixels)] * 2, rel=1e-4)
    openai = service.post("/v1/embeddings", {"input": ["a red dress", f"data:image/png;base64,{RED}"]}).json()
    assert [item["index"] for item in openai["data"]] == [0, 1]
    np.testing.assert_allclose(openai["data"][0]["embedding"], text, atol=1e-5)
    np.testing.assert_allclose(openai["data"][1]["embedding"], pixels / np.linalg.norm(pixels), atol=1e-5)
    packed = service.post("/v1/embeddings", {"input": "a red dress", "encoding_format": "base64"}).json()
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4"), text, atol=1e-5)


def test_vectors_are_not_shortened(service):
    body = {"model": "tiny", "input": ["a red dress"], "encoding_format": "float", "user": "me"}
    whole = service.post("/v1/embeddings", {**body, "dimensions": tiny().dim}).json()["data"][0]["embedding"]
    np.testing.assert_allclose(whole, tiny().embed_texts(["a red dress"])[0], atol=1e-5)
    for dimensions in (64, 1536):
        answer = service.post("/v1/embeddings", {**body, "dimensions": dimensions})
        assert (answer.status_code, answer.json()["field"]) == (400, "dimensions")
        assert (
            f"dimensions: is {dimensions}, but vectors of 'tiny' have 128 numbers and no other length"
            in answer.json()["error"]
        )
        assert (
            "only of a model that was trained in nested sizes (Matryoshka), and it would not match"
            in answer.json()["error"]
        )


def test_a_text_is_composed_only_without_images_and_off_the_plain_path(service):
    text = json.dumps(QUERY)
    composed = service.post("/vectorize", {"texts": [text]}).json()["textVectors"][0]
    plain = tiny().embed_texts([text])[0]
    for path, body in (
        ("/plain/vectorize", {"texts": [text]}),
        ("/m/tiny/plain/vectorize", {"texts": [text]}),
        ("/m/tiny/lincir/plain/vectorize", {"texts": [text]}),
        ("/vectorize", {"texts": [text], "images": [RED]}),
    ):
        vector = service.post(path, body).json()["textVectors"][0]
        np.testing.assert_allclose(vector, plain, atol=1e-5)
        assert not np.allclose(vector, composed, atol=1e-2)
    for other in ('{"text": "is blue"}', '["image"]', "{not json", "$5 {off}"):
        vector = service.post("/vectorize", {"texts": [other]}).json()["textVectors"][0]
        np.testing.assert_allclose(vector, tiny().embed_texts([other])[0], atol=1e-5)


def test_answers_keep_the_order_of_a_large_mixed_request(service):
    inputs = []
    for i in range(40):
        kind = ("text", "image", "object")[i % 3]
        data = {"text": f"thing {i}", "image": drawn(i), "object": {"image": drawn(i), "text": f"is {i}"}}[kind]
        inputs.append({"data": data, "data_type": kind, "model": "tiny", "options": {}})
    together = service.post("/qdrant", {"inputs": inputs, "inference": "update"}).json()
    alone = [
        service.post("/qdrant", {"inputs": [each], "inference": "search"}).json()["embeddings"][0] for each in inputs
    ]
    np.testing.assert_allclose(together["embeddings"], alone, atol=1e-4)


def test_usage_counts_the_tokens_of_each_model_name(service):
    inputs = [
        {"data": "red", "data_type": "text", "model": "tiny"},
        {"data": "red dress", "data_type": "text", "model": "lincir"},
        {"data": "red", "data_type": "text", "model": "tiny"},
    ]
    usage = service.post("/qdrant", {"inputs": inputs, "inference": "search"}).json()["usage"]
    assert usage == {"models": {"tiny": {"tokens": 6}, "lincir": {"tokens": 4}}}


def test_options_beside_a_qdrant_object_fill_in_what_it_leaves_out(service):
    def vector(data, options):
        one = {
            "data": {**QUERY, "negative_text": "logo", **data},
            "data_type": "object",
            "model": "lincir",
            "options": options,
        }
        return service.post("/qdrant", {"inputs": [one], "inference": "search"}).json()["embeddings"][0]

    beside = vector({}, {"weights": {"negative": 0.0}})
    np.testing.assert_allclose(beside, vector({"options": {"weights": {"negative": 0.0}}}, None), atol=1e-6)
    np.testing.assert_allclose(
        beside, vector({"options": {"weights": {"negative": 0.0}}}, {"weights": {"negative": 1}}), atol=1e-6
    )
    assert not np.allclose(beside, vector({}, None), atol=1e-3)


def test_models_are_found_by_all_their_names(service):
    listed = service.client.get("/v1/models").json()
    (model,) = listed["data"]
    assert model["full_name"] == f"tiny@{tiny().fingerprint[:12]}"
    assert listed["aliases"]["lincir"] == "tiny/lincir"
    assert all(0 < composer["seconds"] < 10 for composer in model["composers"])
    expected = service.post("/v1/compose", {"queries": [QUERY]}).json()["vectors"]
    for name in (
        "tiny",
        "tiny/lincir",
        "lincir",
        model["full_name"],
        f"{model['full_name']}/lincir",
        f"lincir@{model['fingerprint'][:6]}",
    ):
        answer = service.post("/v1/compose", {"model": name, "queries": [QUERY]})
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(answer.json()["vectors"], expected, atol=1e-5)


def test_another_fingerprint_is_refused_with_both_names(service):
    one = {"data": "red", "data_type": "text", "model": "tiny@0123456789ab"}
    for answer in (
        service.post("/v1/embed", {"model": "tiny@0123456789ab", "texts": ["red"]}),
        service.post("/m/tiny@0123456789ab/vectorize", {"texts": ["red"]}),
        service.post("/qdrant", {"inputs": [one], "inference": "search"}),
    ):
        assert answer.status_code == 400
        assert "tiny@0123456789ab" in answer.json()["error"]
        assert f"tiny@{tiny().fingerprint[:12]}" in answer.json()["error"]


def test_a_foreign_vector_is_a_reference_with_its_norm(service):
    embedding = tiny().embed_images([Image.new("RGB", (8, 8), "red")])[0]
    norm = float(np.linalg.norm(embedding))
    given = {"image": {"vector": (embedding / norm).tolist(), "norm": norm}, "text": "is blue"}
    pictured = {"image": encoded(Image.new("RGB", (8, 8), "red")), "text": "is blue"}
    vectors = service.post("/v1/compose", {"queries": [given, pictured]}).json()["vectors"]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-4)


def test_explain_names_words_and_moves(service):
    answer = service.post("/v1/explain", {"query": {**QUERY, "text": "is blue with a logo"}, "words": 3}).json()
    assert answer["composer"] == "lincir"
    assert [len(words) for words in answer["pictures"]] == [3]
    assert [(part["part"], part["word"]) for part in answer["parts"]] == [
        ("image.0", None), ("text", "is"), ("text", "blue"), ("text", "with"), ("text", "a"), ("text", "logo"),
    ]  # fmt: skip
    moves = {part["word"]: part["moves"] for part in answer["parts"]}
    assert moves["blue"] > moves["a"] >= 0
    plain = service.post("/v1/explain", {"query": {"text": "red dress"}}).json()
    assert plain["pictures"] == []
    assert [part["word"] for part in plain["parts"]] == ["red", "dress"]


def test_explain_takes_each_unwanted_text_and_passes_over_words_that_move_no_vector(service):
    query = {**QUERY, "negative_text": ["stripes", "dots"], "must_text": "a logo"}
    parts = service.post("/v1/explain", {"query": query}).json()["parts"]
    unwanted = [(part["part"], part["word"]) for part in parts if part["part"] != "text"]
    assert unwanted == [("image.0", None), ("negative_text", "stripes"), ("negative_text", "dots")]
    one = service.post("/v1/explain", {"query": {**QUERY, "negative_text": ["stripes"]}}).json()["parts"][-1]
    assert (one["part"], one["word"]) == ("negative_text", None)


def test_explain_fetches_a_picture_once():
    fetched: list[str] = []
    with serving(fake_internet(fetched), allow_urls=True) as running:
        query = {"image": ["http://shop.example/a.jpg", "http://shop.example/b.jpg"], "text": "is blue with a logo"}
        answer = running.post("/v1/explain", {"query": query})
        assert len(answer.json()["parts"]) == 7
        assert sorted(fetched) == ["/a.jpg", "/b.jpg"]
    with serving() as running:
        refused = running.post("/v1/explain", {"query": query})
        assert refused.status_code == 400
        assert refused.json()["error"].startswith("query: image.0 is a URL, and URLs are not fetched here")


def test_pictures_of_a_query_are_items(service):
    several = {"image": ["http://shop.example/a.jpg"] * 16, "text": "is blue"}
    inputs = [{"data": several, "data_type": "object", "model": "tiny"}]
    for path, body in (
        ("/v1/compose", {"queries": [several] * 129}),
        ("/qdrant", {"inputs": inputs * 129, "inference": "search"}),
        ("/vectorize", {"texts": [json.dumps(several)] * 129}),
    ):
        answer = service.post(path, body)
        assert answer.status_code == 413
        assert "2,064 items are over the limit of 2,048" in answer.json()["error"]


def test_what_models_can_do_is_found_out_once(service, monkeypatch):
    before = service.client.get("/v1/models").json(), service.client.get("/openapi.json").json()
    for composer in tiny().composers.values():
        monkeypatch.setattr(composer, "prepare", lambda *_: pytest.fail("asked again"), raising=False)
    assert (service.client.get("/v1/models").json(), service.client.get("/openapi.json").json()) == before


def test_two_models_answer_by_their_own_names():
    with serving(vectorizers={"one": tiny(), "two": tiny()}) as running:
        assert running.client.get("/meta").json()["model"] == "one"
        assert running.post("/m/two/vectorize", {"texts": ["red"]}).status_code == 200
        one = [{"data": QUERY, "data_type": "object", "model": "lincir"}]
        assert running.post("/m/two/qdrant", {"inputs": one, "inference": "search"}).status_code == 200
        assert "there is one, two" in running.post("/m/three/vectorize", {"texts": ["red"]}).json()["error"]
        assert running.client.get("/m/three/.well-known/ready").status_code == 400


def test_metrics_tell_what_happened(service):
    service.post("/vectorize", {"texts": ["red"]})
    text = service.client.get("/metrics").text
    for line in (
        'cir_requests_total{door="weaviate",key="none",status="200"}',
        'cir_batch_size_count{queue="tiny/text"}',
        'cir_device_seconds_total{device="cpu",lane="search",queue="tiny/text"}',
        'cir_queue_wait_seconds_count{lane="search"}',
        'cir_cache_total{result="hit"}',
        "cir_ready 1.0",
    ):
        assert line in text, text


def test_the_reference_names_each_metric_with_its_kind_and_labels(service):
    text = service.client.get("/metrics").text
    kinds = dict(re.findall(r"^# TYPE (cir_\w+) (\w+)$", text, re.MULTILINE))
    document = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(cir_\w+)` \| (\w+) \| ([^|]*) \|", document, re.MULTILINE)
    assert {name: kind for name, kind, _ in rows} == kinds
    for name, _, labels in rows:
        lines = re.findall(rf"^{name}(?:_bucket)?{{(.*)}} ", text, re.MULTILINE)
        for line in lines:
            assert set(re.findall(r"(\w+)=\"", line)) - {"le"} == set(re.findall(r"`(\w+)`", labels)), name
    alerts = set(re.findall(r"\bcir_\w+", document[document.index("## Alerts") :]))
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in alerts} <= set(kinds)


def test_the_dashboard_draws_only_what_is_measured(service):
    service.post("/v1/compose", {"queries": [QUERY]})
    dashboard = json.loads((Path(__file__).parents[2] / "docs" / "grafana-dashboard.json").read_text())
    text = service.client.get("/metrics").text
    names = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"cir_\w+", target["expr"])
    }
    assert len(names) > 10
    for name in names:
        assert re.search(
            rf"^# TYPE {name.removesuffix('_bucket').removesuffix('_sum').removesuffix('_count')} ", text, re.MULTILINE
        ), name
