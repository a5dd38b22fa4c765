"""`cir-vectorizer doctor` has the database itself ask its container, compares the vectors, and says how to mend what is wrong."""

import json
import os
from contextlib import contextmanager

import httpx
import pytest
import weaviate
from click.testing import CliRunner
from weaviate.classes.config import Configure, DataType, Property

from cir_vectorizer.cli import main
from tests.support import servers
from tests.support.serving import serving

NAME = f"CirWiring{os.getpid()}"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("CIR_API_KEY", servers.KEY)


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """A container that serves the same CLIP with other preprocessing: texts have the same vectors, pictures do not."""
    with servers.our_service(
        tmp_path_factory.mktemp("padded"), "--model", "padded=tiny:,target_pad=1.25", key=f"test:{servers.KEY}"
    ) as server:
        yield server


def doctor(address, *more):
    """Return the exit status of doctor and its findings by check."""
    result = CliRunner().invoke(main, ["doctor", "--to", address, "--model", "tiny", "--json", *map(str, more)])
    return result.exit_code, {each["check"]: each for each in json.loads(result.stdout)["findings"]}


@contextmanager
def readme_shop(server, pictures=0, **options):
    """Make the collection of the Weaviate plugin's README, and yield doctor's arguments for it."""
    with weaviate.connect_to_local(server.host, server.port, server.grpc_port) as client:
        shop = client.collections.create(
            NAME,
            properties=[Property(name="photo", data_type=DataType.BLOB)],
            vector_config=Configure.Vectors.multi2vec_clip(image_fields=["photo"], **options),
        )
        try:
            for number in range(pictures):
                shop.data.insert({"photo": servers.base64_of(servers.drawn(number))})
            yield weaviate_shop(server)
        finally:
            client.collections.delete(NAME)


def weaviate_shop(server):
    return f"weaviate://{server.host}:{server.port}/{NAME}", "--grpc-port", server.grpc_port


@pytest.mark.live
@pytest.mark.parametrize("pictures", [0, 3], ids=["empty", "filled"])
def test_the_readmes_weaviate_recipe_is_all_well(weaviate_server, service, pictures):
    with readme_shop(weaviate_server, pictures) as shop:
        for more, source in (((), "--model tiny"), (("--service", service.url), "--service")):
            status, found = doctor(*shop, *more)
            assert status == 0, found
            assert f"gets the vectors that {source} gives" in found["wiring"]["sentence"]


@pytest.mark.live
def test_an_address_whose_texts_are_never_queries_is_compared_by_a_text_alone(weaviate_server, service):
    with readme_shop(weaviate_server, 3, inference_url=f"{service.with_key(servers.KEY)}/m/tiny/plain") as shop:
        status, found = doctor(*shop)
    assert status == 0, found


@pytest.mark.live
def test_another_model_behind_a_collections_own_address_is_a_problem(weaviate_server, padded):
    url = f"{padded.with_key(servers.KEY)}/m/padded"
    with readme_shop(weaviate_server, 3, inference_url=url) as shop:
        status, found = doctor(*shop)
    assert (status, found["wiring"]["level"]) == (1, "problem")
    assert "gives other vectors than --model tiny" in found["wiring"]["sentence"]
    assert f"correct the collection's address {padded.url}/m/padded" in found["wiring"]["sentence"]


@pytest.mark.live
@pytest.mark.parametrize("pictures", [0, 3], ids=["empty", "filled"])
def test_another_model_behind_weaviates_address_is_a_problem(padded, service, tmp_path, pictures):
    with (
        servers.weaviate(tmp_path, f"{padded.with_key(servers.KEY)}/m/padded") as server,
        readme_shop(server, pictures) as shop,
    ):
        for more, source in (((), "--model tiny"), (("--service", service.url), "--service")):
            status, found = doctor(*shop, *more)
            assert status == 1
            wanted = f"gives other vectors than {source}; correct CLIP_INFERENCE_API, or {source}"
            assert wanted in found["wiring"]["sentence"]


@pytest.mark.live
def test_a_model_of_another_width_behind_weaviates_address_is_a_problem(clip_folder, tmp_path):
    with (
        servers.our_service(tmp_path, "--model", f"narrow={clip_folder}", key=f"test:{servers.KEY}") as narrow,
        servers.weaviate(tmp_path, f"{narrow.with_key(servers.KEY)}/m/narrow") as server,
    ):
        with readme_shop(server) as shop:
            assert "makes vectors of another width than this collection" in doctor(*shop)[1]["wiring"]["sentence"]
        with readme_shop(server, 2) as shop:
            status, found = doctor(*shop)
    assert (status, found["vector size"]["level"]) == (1, "problem")
    assert "gives other vectors than --model tiny" in found["wiring"]["sentence"]


@pytest.mark.live
@pytest.mark.parametrize("case", ["dead", "wrong key"])
def test_weaviate_starts_without_its_container_and_doctor_says_what_to_mend(case, service, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIP_WAIT_FOR_STARTUP", "false")
    dead = f"http://127.0.0.1:{servers.free_port()}"
    with servers.weaviate(tmp_path, dead if case == "dead" else service.with_key("wrong")) as server:
        with readme_shop(server) as shop:
            status, found = doctor(*shop)
        assert httpx.get(f"{server.url}/v1/.well-known/ready").status_code == 200, "green whatever the container does"
    sentence = found["wiring"]["sentence"]
    assert (status, found["wiring"]["level"]) == (1, "problem")
    assert "explorer" not in sentence, "the server's own chain of errors"
    if case == "dead":
        assert f"no container answers at {dead}" in sentence
        assert "start it, or correct CLIP_INFERENCE_API" in sentence
        assert "readiness stays green meanwhile, so watch the container's /.well-known/ready" in sentence
    else:
        assert "the container refuses the key" in sentence
        assert "set it in CLIP_INFERENCE_API=http://cir:KEY@CONTAINER:8000" in sentence


@pytest.mark.live
@pytest.mark.parametrize("more", [(), ("--grpc",)], ids=["rest", "grpc"])
@pytest.mark.parametrize("case", ["dead", "wrong key"])
def test_qdrants_container_that_is_dead_or_refuses_the_key_is_a_sentence(case, more, service, tmp_path):
    dead = f"http://127.0.0.1:{servers.free_port()}"
    with servers.qdrant(tmp_path, f"{dead if case == 'dead' else service.with_key('wrong')}/qdrant") as server:
        address = f"qdrant://{server.host}:{server.port}/shop"
        status, found = doctor(address, "--service", service.url, "--grpc-port", server.grpc_port, *more)
    sentence = found["wiring"]["sentence"]
    assert (status, found["wiring"]["level"]) == (1, "problem")
    assert "Service internal error" not in sentence, "the server's own chain of errors"
    if case == "dead":
        assert f"no container answers at {dead}/qdrant" in sentence
        assert "start it, or correct QDRANT__INFERENCE__ADDRESS" in sentence
    else:
        assert "the container refuses the key" in sentence
        assert "set it in QDRANT__INFERENCE__ADDRESS=http://cir:KEY@CONTAINER:8000/qdrant" in sentence


@pytest.mark.parametrize("path", ["/qdrant", "/m/tiny", "/v1", "/nonsense/"])
def test_a_service_with_a_path_is_said_once(tmp_path, path):
    with serving() as running:
        url = running.url.replace("http://", "http://cir:secret@")
        _, found = doctor(f"qdrant:{tmp_path}/none/shop", "--service", url + path)
        _, plain = doctor(f"qdrant:{tmp_path}/none/shop", "--service", f"{url}/")
    assert [name for name in found if name.startswith("service")] == ["service"]
    assert (
        f"{path} has a path, and the container's address has none; give {running.url}" in found["service"]["sentence"]
    )
    assert "secret" not in found["service"]["sentence"]
    assert plain["service"]["level"] == "ok"
