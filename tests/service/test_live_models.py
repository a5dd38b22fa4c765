"""Models are loaded and unloaded while requests run: who may, from where, and that nobody else notices."""

import gc
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cir_vectorizer.models import Vectorizer, load
from cir_vectorizer.models.published import TINY_FOLDER
from cir_vectorizer.service.http.problems import RefusedError
from cir_vectorizer.service.places import permitted
from tests.service.test_stop import Process
from tests.support.serving import RED, Running, drawn, serving, tiny, wait_for

ADMIN, ORDINARY = {"cir-api-key": "boss-secret"}, {"cir-api-key": "shop-secret"}
QUERY = {"image": RED, "text": "is blue"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Path:
    """A folder with the models `shoes` (a copy of tiny), `other` (another backbone) and `broken`."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(TINY_FOLDER, folder / "shoes")
    shutil.copytree(clip_folder, folder / "other")
    shutil.copytree(TINY_FOLDER, folder / "broken")
    (phi,) = (folder / "broken").glob("lincir-*.safetensors")
    phi.write_bytes(b"nothing")
    return folder


class Gate:
    """A loader of models that waits until it is let on; `loaded` holds the models that it returned."""

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        self.loaded: list[weakref.ref[Vectorizer]] = []

    def __call__(self, model: str) -> Vectorizer:
        self.entered.set()
        assert self.open.wait(30)
        found = load(model, "cpu")
        self.loaded.append(weakref.ref(found))
        return found


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def running(models: Path, gate: Gate) -> Iterator[Running]:
    keys = {"api_keys": "shop:shop-secret", "admin_keys": "boss:boss-secret"}
    with serving(load_one=gate, model_folders=(str(models),), **keys) as service:
        service.client.headers.update(ADMIN)
        yield service
        gate.open.set()


@pytest.fixture
def service(running: Running, gate: Gate) -> Running:
    """A service whose loader does not wait."""
    gate.open.set()
    return running


def bring(service: Running, model: str, name: str | None = None, **more: Any) -> httpx.Response:
    return service.post("/v1/models", {"model": model} if name is None else {"model": model, "name": name}, **more)


def drop(service: Running, name: str, **more: Any) -> httpx.Response:
    return service.client.delete(f"/v1/models/{name}", **more)


def listed(service: Running) -> dict[str, Any]:
    return service.client.get("/v1/models").json()


def names(service: Running) -> list[str]:
    return [each["id"] for each in listed(service)["data"]]


def changes(service: Running) -> dict[str, str]:
    return {each["id"]: each["state"] for each in listed(service)["changes"]}


def refused(answer: httpx.Response, status: int, code: str, *said: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] == code
    for each in said:
        assert each in answer.json()["error"]


def test_every_door_sees_a_new_model_at_once_and_misses_one_that_is_gone(service, clip_folder):
    answer = bring(service, "other")
    assert answer.status_code == 201, answer.text
    other = load(str(clip_folder), "cpu")
    assert answer.json()["fingerprint"] == other.fingerprint
    assert answer.json()["id"] == "other"
    assert not answer.json()["default"]
    expected = other.embed_texts(["red"])[0]
    one = {"data": "red", "data_type": "text", "model": "other", "options": None}
    asked = {
        "/m/other/vectorize": ({"texts": ["red"]}, lambda body: body["textVectors"][0]),
        "/qdrant": ({"inputs": [one], "inference": "search"}, lambda body: body["embeddings"][0]),
        "/v1/embed": ({"model": f"other@{other.fingerprint[:12]}", "texts": ["red"]}, lambda b: b["text_vectors"][0]),
    }
    for path, (body, vector) in asked.items():
        found = service.post(path, body)
        assert found.status_code == 200, found.text
        np.testing.assert_allclose(vector(found.json()), expected, atol=1e-5)
    assert service.client.get("/m/other/.well-known/ready").status_code == 204
    assert service.client.get("/m/other/meta").json()["fingerprint"] == other.fingerprint
    described = service.client.get("/openapi.json").json()["paths"]
    assert "other" in described["/m/{name}/vectorize"]["parameters"][0]["schema"]["enum"]
    assert {"post", "get"} <= described["/v1/models"].keys()
    figures = service.client.get("/metrics").text
    assert 'cir_weights_bytes{device="cpu",model="other"}' in figures
    assert 'queue="other/text"' in figures

    gone = drop(service, "other").json()
    assert gone["state"] == "unloaded"
    assert any("door weaviate last used it" in said for said in gone["notes"])
    assert any("door qdrant" in said for said in gone["notes"])
    for path, (body, _) in asked.items():
        refused(service.post(path, body), 400, "model", "there is tiny")
    assert service.client.get("/m/other/.well-known/ready").status_code == 400
    assert names(service) == ["tiny"]
    figures = service.client.get("/metrics").text
    assert "other" not in figures
    assert 'cir_weights_bytes{device="cpu",model="tiny"}' in figures
    assert service.post("/v1/embed", {"texts": ["red"]}).status_code == 200
    assert bring(service, "other", "again").status_code == 201
    assert names(service) == ["tiny", "again"]


def test_a_model_keeps_its_composers(service):
    assert bring(service, "shoes").status_code == 201
    vector = service.post("/m/shoes/lincir/vectorize", {"texts": [f'{{"image": "{RED}", "text": "is blue"}}']}).json()
    np.testing.assert_allclose(vector["textVectors"][0], tiny().compose([QUERY]).vectors[0], atol=1e-5)
    listed_now = {each["id"]: each for each in listed(service)["data"]}
    assert listed_now["shoes"]["composers"] == [
        {**each, "seconds": pytest.approx(each["seconds"], abs=10)} for each in listed_now["tiny"]["composers"]
    ]
    assert 'cir_composer_info{composer="lincir"' in service.client.get("/metrics").text


@pytest.mark.parametrize(
    ("headers", "status", "code", "said"),
    [
        (ORDINARY, 403, "admin", "an ordinary one"),
        ({"cir-api-key": "wrong"}, 401, "key", "key"),
        ({"cir-api-key": ""}, 401, "key", "key"),
    ],
)
def test_only_an_admin_key_loads_and_unloads(service, headers, status, code, said):
    refused(bring(service, "shoes", headers=headers), status, code, said)
    refused(drop(service, "tiny", headers=headers), status, code, said)
    assert names(service) == ["tiny"]


def test_an_admin_key_opens_the_other_addresses_too(service):
    assert service.post("/v1/embed", {"texts": ["red"]}).status_code == 200
    assert service.post("/v1/embed", {"texts": ["red"]}, headers=ORDINARY).status_code == 200


def test_without_an_admin_key_nobody_does(models):
    with serving(model_folders=(str(models),), api_keys="shop:shop-secret") as service:
        for answer in (bring(service, "shoes", headers=ORDINARY), drop(service, "tiny", headers=ORDINARY)):
            refused(answer, 403, "admin", "no admin key is configured", "CIR_ADMIN_KEYS")
        assert "post" not in service.client.get("/openapi.json", headers=ORDINARY).json()["paths"]["/v1/models"]


def test_a_service_without_ordinary_keys_still_asks_for_the_admin_key(models, tmp_path):
    file = tmp_path / "admins"
    file.write_text("old-secret\n")
    with serving(model_folders=(str(models),), admin_keys_file=str(file)) as service:
        refused(bring(service, "shoes"), 401, "key", "no admin key")
        assert service.post("/v1/embed", {"texts": ["red"]}).status_code == 200
        old, new = {"Authorization": "Bearer old-secret"}, {"Authorization": "Bearer new-secret"}
        assert bring(service, "shoes", headers=old).status_code == 201
        file.write_text("boss:new-secret\nanother\n")
        wait_for(lambda: drop(service, "nothing", headers=new).status_code == 404, 10)
        refused(drop(service, "shoes", headers=old), 401, "key")
        assert drop(service, "shoes", headers=new).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        ({"model": "nothing"}, 400, "model", "no such folder"),
        ({"model": "broken"}, 400, "model", "broken"),
        ({"model": "/etc"}, 403, "model-place", "--model-folders"),
        ({"model": "../../etc"}, 403, "model-place", "may not be loaded"),
        ({"model": "open_clip:ViT-B-32,pretrained=laion2b_s34b_b79k"}, 403, "model-place", "--allow-hub"),
        ({"model": "lincir-vit-l"}, 403, "model-place", "--allow-hub"),
        ({"model": "shoes", "name": "a/b"}, 400, "query", "name"),
        ({"model": "shoes", "name": "plain"}, 400, "query", "name"),
        ({"model": "shoes", "name": ""}, 400, "query", "name"),
        ({"model": "shoes", "name": "tiny"}, 409, "model-exists", "DELETE /v1/models/tiny"),
        ({"model": "shoes", "name": "lincir"}, 409, "model-exists", "short name of tiny/lincir"),
        ({"name": "shoes"}, 400, "query", "model"),
        ({"model": "shoes", "path": "x"}, 400, "query", "path"),
        ({"model": ["shoes"]}, 400, "query", "model"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_a_sentence_and_disturbs_nothing(service, body, status, code, said):
    before = listed(service)
    answer = service.post("/v1/models", body)
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] in (code, "checkpoint")
    assert said in answer.json()["error"]
    now = listed(service)
    assert now["aliases"] == before["aliases"]
    assert [each["id"] for each in now["data"]] == ["tiny"]
    assert service.post("/v1/compose", {"queries": [QUERY]}).status_code == 200
    assert service.service.alive


def test_a_failed_load_is_listed_until_it_is_tried_again_or_dropped(service, models):
    assert bring(service, "broken").status_code == 400
    (change,) = listed(service)["changes"]
    assert (change["id"], change["state"]) == ("broken", "failed")
    assert "broken" in change["error"]
    assert bring(service, "shoes", "broken").status_code == 201
    assert changes(service) == {}
    assert bring(service, "broken", "other").status_code == 400
    assert drop(service, "other").json()["state"] == "unloaded"
    assert changes(service) == {}


def test_a_model_without_memory_is_refused_and_the_others_go_on(models):
    def full(model: str) -> Vectorizer:
        raise MemoryError

    with serving(load_one=full, model_folders=(str(models),), admin_keys="boss-secret") as service:
        refused(bring(service, "shoes", headers=ADMIN), 503, "device-memory", "unload another first")
        assert service.post("/v1/embed", {"texts": ["red"]}).status_code == 200


def test_the_default_model_and_unknown_ones_stay(service):
    refused(drop(service, "tiny"), 409, "default-model", "another --model")
    refused(drop(service, "nothing"), 404, "model", "there is tiny")
    assert service.post("/v1/embed", {"texts": ["red"]}).status_code == 200


def in_thread(call: Any, *arguments: Any, **more: Any) -> "Future[httpx.Response]":
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call, *arguments, **more)
    pool.shutdown(wait=False)
    return future


def test_two_loads_of_one_name_are_one(running, gate):
    first = in_thread(bring, running, "shoes")
    assert gate.entered.wait(10)
    refused(bring(running, "shoes"), 409, "model-busy", "is loading")
    refused(bring(running, "other", "shoes"), 409, "model-busy", "is loading")
    assert changes(running) == {"shoes": "loading"}
    assert names(running) == ["tiny"]
    refused(running.post("/m/shoes/vectorize", {"texts": ["red"]}), 400, "model", "there is tiny")
    gate.open.set()
    assert first.result(30).status_code == 201
    refused(bring(running, "shoes"), 409, "model-exists")
    assert len(gate.loaded) == 1


def test_a_load_that_takes_longer_than_the_request_goes_on(running, gate):
    answer = bring(running, "shoes", headers={"x-request-timeout": "0.2"})
    assert (answer.status_code, answer.json()) == (202, {"id": "shoes", "state": "loading"})
    gate.open.set()
    wait_for(lambda: names(running) == ["tiny", "shoes"], 30)
    assert changes(running) == {}


def test_a_model_that_is_unloaded_while_it_loads_never_answers(running, gate):
    loading = in_thread(bring, running, "shoes")
    assert gate.entered.wait(10)
    answer = drop(running, "shoes", headers={"x-request-timeout": "0.2"})
    assert (answer.status_code, answer.json()["state"]) == (202, "unloading")
    assert changes(running) == {"shoes": "unloading"}
    second = in_thread(drop, running, "shoes")
    gate.open.set()
    refused(loading.result(30), 409, "model-busy", "unloaded by another request")
    assert second.result(30).json()["state"] == "unloaded"
    assert names(running) == ["tiny"]
    assert "shoes" not in running.client.get("/metrics").text
    assert bring(running, "shoes").status_code == 201


def test_a_model_that_is_unloaded_while_it_fails_to_load_leaves_nothing(running, gate):
    loading = in_thread(bring, running, "broken")
    assert gate.entered.wait(10)
    gone = in_thread(drop, running, "broken")
    wait_for(lambda: changes(running) == {"broken": "unloading"}, 10)
    gate.open.set()
    assert gone.result(30).json()["state"] == "unloaded"
    assert loading.result(30).status_code == 409
    assert changes(running) == {}


def test_a_service_stops_while_a_model_loads(models, gate):
    with serving(load_one=gate, model_folders=(str(models),), admin_keys="boss-secret", drain_seconds=0) as service:
        loading = in_thread(bring, service, "shoes", headers=ADMIN)
        assert gate.entered.wait(10)
        service.service.draining = True  # as SIGTERM does
        assert loading.result(10).status_code == 202
        began = time.monotonic()
    assert time.monotonic() - began < 10
    gate.open.set()


def test_a_real_process_serves_what_it_loaded_and_ends_while_it_loads_more(models):
    """SIGTERM comes while a model is being loaded: the process ends with 0, and the next one starts as the settings say."""
    options = ("--model", "tiny", "--device", "cpu,cpu", "--model-folders", str(models), "--drain-seconds", "0")
    process = Process(*options, CIR_ADMIN_KEYS="boss:boss-secret")
    try:
        process.wait_until_ready()
        with httpx.Client(base_url=f"http://127.0.0.1:{process.port}", headers=ADMIN, timeout=60) as client:
            assert client.post("/v1/models", json={"model": "shoes"}).status_code == 201
            assert client.post("/v1/embed", json={"model": "shoes", "texts": ["red"]}).status_code == 200
            brief = {"x-request-timeout": "0.01"}
            answer = client.post("/v1/models", json={"model": "shoes", "name": "late"}, headers=brief)
            assert answer.status_code == 202
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(30) == 0, process.raw
        assert process.logged("loaded model shoes@")
    finally:
        process.process.kill()


def test_requests_under_way_are_answered_before_a_model_goes(service, gate):
    assert bring(service, "shoes").status_code == 201
    (queue,) = [queue for queue in service.service.engine.device.queues if queue.name == "shoes/picture"]
    kept, held, begun = [queue.run], threading.Event(), threading.Event()

    def run(payloads: Any) -> Any:
        begun.set()
        assert held.wait(20)
        return kept[0](payloads)

    queue.run = run
    asked = in_thread(service.post, "/v1/embed", {"model": "shoes", "images": [drawn(12345)]})
    composed = in_thread(
        service.post, "/v1/compose", {"model": "shoes", "queries": [{"image": drawn(12345), "text": "is red"}]}
    )
    assert begun.wait(10)
    gone = in_thread(drop, service, "shoes")
    wait_for(lambda: service.service.live.changes, 10)
    refused(drop(service, "shoes", headers={"x-request-timeout": "nothing"}), 400, "timeout")
    assert not gone.done()
    held.set()
    answer = asked.result(20)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == f"shoes@{tiny().fingerprint[:12]}"
    assert composed.result(20).status_code == 200
    assert gone.result(20).json()["state"] == "unloaded"
    kept.clear()
    del queue
    gc.collect()
    (model,) = gate.loaded
    assert model() is None
    assert not [queue for queue in service.service.engine.device.queues if queue.name.startswith("shoes")]
    assert service.service.engine.queue_names("shoes") == []


def test_nobody_notices_while_models_come_and_go(service):
    stop = threading.Event()
    expected = tiny().compose([{**QUERY, "composer": "lincir"}]).vectors[0]

    def ask(number: int) -> int:
        count = 0
        with httpx.Client(base_url=service.url, headers=ORDINARY, timeout=60) as client:
            while not stop.is_set():
                count += 1
                query = {**QUERY, "composer": "lincir"}
                answer = client.post("/v1/compose", json={"queries": [query]})
                assert answer.status_code == 200, answer.text
                np.testing.assert_allclose(answer.json()["vectors"][0], expected, atol=1e-5)
                picture = {"model": "shoes", "images": [drawn(1000 * number + count)]}
                answer = client.post("/v1/embed", json=picture)  # of the model that comes and goes
                assert answer.status_code in (200, 400), answer.text
                assert answer.status_code == 200 or answer.json()["code"] == "model"
        return count

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, number) for number in range(3)]
        for _ in range(4):
            assert bring(service, "shoes").status_code == 201
            time.sleep(0.3)
            assert drop(service, "shoes").json()["state"] == "unloaded"
        stop.set()
        assert all(each.result(60) > 3 for each in asking)
    assert names(service) == ["tiny"]


def test_a_cached_embedding_does_not_outlive_its_model(service, clip_folder):
    picture = drawn(77)
    assert bring(service, "shoes", "changing").status_code == 201
    first = service.post("/v1/embed", {"model": "changing", "images": [picture]}).json()
    assert drop(service, "changing").status_code == 200
    assert bring(service, "other", "changing").status_code == 201
    second = service.post("/v1/embed", {"model": "changing", "images": [picture]}).json()
    assert len(first["image_vectors"][0]) != len(second["image_vectors"][0])
    assert second["model"].startswith(f"changing@{load(str(clip_folder), 'cpu').fingerprint[:12]}")


def test_the_key_of_an_admin_is_never_logged(service, caplog):
    caplog.set_level("DEBUG")
    refused(drop(service, "boss-secret"), 404, "model")
    fields = [getattr(record, "cir_fields", {}) for record in caplog.records]
    assert any("***" in str(each.get("error")) for each in fields)
    assert not any("boss-secret" in str(each) for each in fields)
    assert any(each.get("key") == "boss" for each in fields)


class TestPlaces:
    """Places that models may be loaded from."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        (tmp_path / "allowed" / "shop").mkdir(parents=True)
        (tmp_path / "secret").mkdir()
        (tmp_path / "allowed" / "link").symlink_to(tmp_path / "secret")
        (tmp_path / "allowed" / "inner").symlink_to(tmp_path / "allowed" / "shop")
        return tmp_path / "allowed"

    @pytest.mark.parametrize("model", ["shop", "./shop", "{0}/shop", "{0}/../allowed/shop", "inner"])
    def test_a_folder_below_is_found(self, place, model):
        assert permitted(model.format(place), [str(place)], hub=False) == str(place / "shop")

    @pytest.mark.parametrize("loader", ["open_clip:local-dir:", "transformers:"])
    def test_a_backbone_below_is_found(self, place, loader):
        assert permitted(f"{loader}{place}/inner", [str(place)], hub=False) == f"{loader}{place}/shop"

    @pytest.mark.parametrize(
        "model",
        [
            "link", "{0}/link", "..", "../secret", "{0}", "{0}/../secret", "/", "~", "~root", ".", "/etc/passwd", "",
            "transformers:{0}/link", "transformers:/etc", "transformers:../secret", "open_clip:local-dir:/etc",
            "open_clip:ViT-B-32,pretrained={0}/link", "open_clip:ViT-B-32,pretrained=/etc/passwd",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("hub", [False, True])
    def test_everything_else_is_refused(self, place, model, hub):
        with pytest.raises(RefusedError) as error:
            permitted(model.format(place), [str(place)], hub)
        assert (error.value.status, error.value.code) == (403, "model-place")
        assert str(place) in str(error.value)

    @pytest.mark.parametrize(
        "model", ["lincir-vit-l", "open_clip:ViT-B-32,pretrained=openai", "transformers:openai/clip"]
    )
    def test_names_of_the_hub_need_the_operators_leave(self, place, model, monkeypatch):
        monkeypatch.setenv("CIR_MODELS", str(place))
        with pytest.raises(RefusedError, match="--allow-hub"):
            permitted(model, [], hub=False)
        assert permitted(model, [], hub=True) == model

    def test_the_store_is_the_folder_if_none_is_named(self, place, monkeypatch):
        monkeypatch.setenv("CIR_MODELS", str(place))
        assert permitted("shop", [], hub=False) == str(place / "shop")
        (place / "lincir-vit-l").mkdir()
        (place / "lincir-vit-l" / "model.json").write_text("{}")
        assert permitted("lincir-vit-l", [], hub=False) == "lincir-vit-l"
        assert permitted("tiny", [], hub=False) == "tiny"

    def test_the_first_of_several_folders_that_has_it_is_taken(self, place, tmp_path):
        (tmp_path / "first").mkdir()
        folders = [str(tmp_path / "first"), str(place)]
        assert permitted("shop", folders, hub=False) == str(place / "shop")
        with pytest.raises(RefusedError, match=r"not a model below .*first or .*allowed"):
            permitted("nothing", folders, hub=False)
