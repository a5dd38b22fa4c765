"""The client of the service: the same answers as a local vectorizer, patience with a busy service, one bad picture alone."""

import asyncio
import base64
import json
import subprocess
import sys

import httpx
import numpy as np
import pytest
from PIL import Image

from cir_vectorizer.client import AsyncClient, Client, Patience, ServiceError
from cir_vectorizer.errors import ImageError, QueryError
from tests.support.servers import KEY, base64_of, drawn

AT_ONCE = Patience(retries=3, seconds=0.0)


@pytest.fixture
def client(service):
    with Client(service.url, api_key=KEY, batch_items=4) as opened:
        yield opened


def test_it_answers_as_a_local_vectorizer_does(client, tiny, tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(drawn(1))
    queries = [
        {"image": picture, "text": "is red"},
        {"image": [picture.read_bytes(), Image.open(picture)], "text": "together", "composer": "sum"},
        {"image": np.full(tiny.dim, 0.25, np.float32), "negative_text": "stripes", "text": "plain"},
        {"text": "a blue mug"},
        {"image": {"path": picture}},
    ]
    local = [{**query} for query in queries]
    local[1]["image"] = [picture, picture]
    local[2]["image"] = [0.25] * tiny.dim
    assert np.allclose(client.compose(queries).vectors, tiny.compose(local).vectors, atol=1e-4)
    assert np.allclose(client.embed_texts(["red", "blue"]), tiny.embed_texts(["red", "blue"]), atol=1e-4)
    opened = Image.open(picture).convert("RGB")
    assert np.allclose(client.embed_images([picture, opened]), tiny.embed_images([opened] * 2), atol=1e-3)


def test_notes_reach_the_caller(client):
    assert "left out" in client.compose([{"text": "word " * 500, "image": drawn(1)}]).notes[0][0]


def test_models_and_explanations(client):
    assert client.models()["data"][0]["id"] == "tiny"
    assert client.explain({"image": drawn(2), "text": "is red"}, words=3)["pictures"]


def test_one_bad_picture_fails_alone_in_many_requests(client, tmp_path):
    images = [drawn(i) for i in range(11)]
    images[2], images[9] = b"not a picture at all", images[9][:200]
    images[5] = tmp_path / "missing.jpg"
    vectors = client.embed_images(images, errors=(bad := {}))
    assert sorted(bad) == [2, 5, 9]
    assert isinstance(bad[5], ImageError)
    assert sorted(np.flatnonzero(np.isnan(vectors).any(axis=1))) == [2, 5, 9]
    good = [i for i in range(11) if i not in bad]
    assert np.allclose(vectors[good], client.embed_images([images[i] for i in good]), atol=1e-3)


def test_rows_stay_where_every_item_is_bad(client, tiny, tmp_path):
    missing, broken = tmp_path / "missing.jpg", b"not a picture"
    composed = client.compose([{"image": missing, "text": "red"}, {"image": broken}], errors=(bad := {}))
    assert sorted(bad) == [0, 1]
    assert composed.vectors.shape == (2, tiny.dim)
    assert np.isnan(composed.vectors).all()
    assert composed.notes == [[], []]
    assert client.embed_images([missing], errors={}).shape == (1, tiny.dim)


def test_embed_images_takes_every_picture_that_compose_takes(client, tiny, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(drawn(1))
    opened = Image.open(path).convert("RGB")
    given = [path, {"path": path}, path.read_bytes(), base64.b64encode(path.read_bytes()).decode(), opened]
    assert np.allclose(client.embed_images(given), tiny.embed_images([opened] * 5), atol=1e-3)
    assert np.allclose(tiny.embed_images(given), tiny.embed_images([opened] * 5), atol=1e-5)
    assert tiny.embed_images([]).shape == (0, tiny.dim)
    for model in (client, tiny):
        with pytest.raises(ImageError, match=r"^images\[1\]: .*(cannot be read|does not exist)") as caught:
            model.embed_images([path, tmp_path / "gone.png"])
        assert caught.value.index == 1
        with pytest.raises(ImageError, match=r"a file is given as pathlib\.Path"):
            model.embed_images([str(path)])


def test_without_errors_the_first_bad_item_is_raised_with_its_place(client):
    with pytest.raises(ServiceError, match=r"^images\[6\]: ") as caught:
        client.embed_images([drawn(i) for i in range(6)] + [b"not a picture"])
    assert caught.value.status == 400


def test_an_error_carries_the_services_data_at_the_callers_position(client):
    images = [drawn(i) for i in range(6)] + [b"not a picture"]
    with pytest.raises(ServiceError) as caught:
        client.embed_images(images)
    error = caught.value
    assert (error.status, error.code, error.field, error.index) == (400, "image", "images.6", 6)
    client.embed_images(images, errors=(bad := {}))
    assert (bad[6].code, bad[6].field, bad[6].index) == ("image", "images.6", 6)
    assert str(error) == f"images[6]: {bad[6]}"
    queries = [{"text": "red"}] * 5 + [{"text": "red", "image": drawn(1), "composer": "none"}]
    client.compose(queries, errors=(bad := {}))
    assert (bad[5].code, bad[5].field, bad[5].index) == ("query", "queries.5.composer", 5)
    assert str(bad[5]).startswith("composer: ")
    with pytest.raises(ServiceError) as caught:
        client.embed_texts(["a", "b"], model="huge")
    assert (caught.value.code, caught.value.field, caught.value.index) == ("model", "", None)


def test_what_is_refused_before_sending_carries_its_position():
    with Client("http://nobody.invalid", patience=AT_ONCE) as client:
        with pytest.raises(QueryError) as caught:
            client.compose([{"image": b"x", "colour": "red"}])
        client.compose([{"image": b"x", "colour": "red"}], errors=(bad := {}))
    assert (caught.value.field, caught.value.index) == ("queries.0.colour", 0)
    assert str(caught.value) == f"queries[0]: {bad[0]}"


@pytest.mark.parametrize("errors", [None, {}])
def test_a_service_of_the_last_release_gives_the_sentence_alone(errors):
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"error": "texts[1]: the text is too long; shorten it"})

    with Client("http://fake", transport=httpx.MockTransport(refuse)) as client, pytest.raises(ServiceError) as caught:
        client.embed_texts(["a", "b"], errors=errors)
    error = caught.value
    assert str(error) == "texts[1]: the text is too long; shorten it"
    assert (error.status, error.code, error.field, error.index) == (400, "service", "", None)


def test_what_is_wrong_with_a_query_is_said_before_it_is_sent():
    with Client("http://nobody.invalid", patience=AT_ONCE) as client:
        with pytest.raises(QueryError, match="colour: is not a field"):
            client.compose([{"image": b"x", "colour": "red"}])
        with pytest.raises(ImageError, match="pathlib"):
            client.compose([{"image": "dress.jpg", "text": "is red"}])


def test_a_wrong_key_an_unknown_model_and_a_dead_address_are_sentences(service, client):
    with Client(service.with_key("wrong")) as stranger, pytest.raises(ServiceError, match="key") as caught:
        stranger.embed_texts(["red"], errors={})
    assert caught.value.status == 401
    with Client(service.with_key(KEY)) as known:
        assert known.embed_texts(["red"]).shape == (1, 128)
    with pytest.raises(ServiceError, match="no model 'huge'"):
        client.embed_texts(["a", "b"], model="huge", errors={})
    with Client("http://127.0.0.1:9", patience=AT_ONCE) as nobody, pytest.raises(ServiceError, match=r"127\.0\.0\.1:9"):
        nobody.models()
    with pytest.raises(ServiceError, match="write http"):
        Client("localhost:8000")


def test_the_async_client_says_the_same(service, client):
    images = [drawn(1), b"not a picture", drawn(2)]

    async def ask():
        async with AsyncClient(service.url, api_key=KEY, model="tiny/sum") as other:
            composed = await other.compose([{"image": drawn(3), "text": "is red"}])
            return composed.vectors, await other.embed_images(images, errors=(bad := {})), bad, await other.models()

    vectors, embedded, bad, models = asyncio.run(ask())
    assert np.allclose(vectors, client.compose([{"image": drawn(3), "text": "is red", "composer": "sum"}]).vectors)
    assert list(bad) == [1]
    assert embedded.shape == (3, 128)
    assert models["data"][0]["id"] == "tiny"


class _Fake:
    """A fake service that answers with the given statuses in order; real ones are busy only under load."""

    def __init__(self, *statuses: int, headers: dict[str, str] | None = None) -> None:
        self.statuses = list(statuses)
        self.headers = headers or {}
        self.bodies: list[dict] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.bodies.append(body)
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 0:
            raise httpx.ConnectError("refused", request=request)
        if status != 200:
            return httpx.Response(status, json={"error": "busy"}, headers=self.headers)
        return httpx.Response(200, json={"text_vectors": [[1.0, 0.0]] * len(body["texts"])})


@pytest.mark.parametrize("status", [429, 503, 0])
def test_a_busy_or_broken_service_is_tried_again(status):
    fake = _Fake(status, status)
    with Client("http://fake", transport=httpx.MockTransport(fake)) as client:
        assert client.embed_texts(["red"]).shape == (1, 2)
    assert len(fake.bodies) == 3


def test_the_service_is_given_the_time_it_asks_for_but_not_more_than_patience():
    assert 7 <= Patience().wait(1, 0.0, asked=7) <= 7 * 1.25
    assert Patience().wait(1, 0.0, asked=300) is None
    assert Patience(retries=2).wait(3, 0.0, None) is None
    fake = _Fake(429, headers={"retry-after": "7"})
    with (
        Client("http://fake", transport=httpx.MockTransport(fake), patience=Patience(seconds=5)) as client,
        pytest.raises(ServiceError, match="busy") as caught,
    ):
        client.embed_texts(["red"])
    assert (caught.value.status, len(fake.bodies)) == (429, 1)


def test_too_large_a_request_is_halved_until_it_fits():
    fake = _Fake(413, 413)
    with Client("http://fake", transport=httpx.MockTransport(fake)) as client:
        assert client.embed_texts(list("abcd")).shape == (4, 2)
    assert [body["texts"] for body in fake.bodies] == [list("abcd"), list("ab"), ["a"], ["b"], list("cd")]


def test_one_item_that_crashes_the_service_fails_alone():
    def crash(request: httpx.Request) -> httpx.Response:
        texts = json.loads(request.content)["texts"]
        if "poison" in texts:
            return httpx.Response(500, json={"error": "something went wrong"})
        return httpx.Response(200, json={"text_vectors": [[1.0]] * len(texts)})

    with Client("http://fake", transport=httpx.MockTransport(crash)) as client:
        vectors = client.embed_texts(["a", "b", "poison", "c", "d"], errors=(bad := {}))
    assert (list(bad), int(np.isnan(vectors).sum())) == ([2], 1)


def test_requests_are_bounded_by_bytes_and_items():
    fake = _Fake()
    with Client("http://fake", transport=httpx.MockTransport(fake), batch_items=3, batch_bytes=100) as client:
        assert client.embed_texts(["x" * 60] * 2 + ["y"] * 4).shape == (6, 2)
    assert [len(body["texts"]) for body in fake.bodies] == [1, 3, 2]


def test_importing_the_client_loads_no_torch():
    code = "import cir_vectorizer.client, sys; print([n for n in ('torch', 'PIL', 'transformers') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_base64_is_sent_as_it_came(client):
    bare = base64_of(drawn(4))
    one, other = client.embed_images([bare, f"data:image/png;base64,{bare}"])
    assert np.array_equal(one, other)
