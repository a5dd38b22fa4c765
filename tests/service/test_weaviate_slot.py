"""Weaviate's Helm chart and compose files start the image in the place of their own inference image.

They set ENABLE_CUDA (and CUDA_CORE, NVIDIA_…), give no arguments, and ask port 8080.
"""

import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.service.settings import Settings
from tests.support.servers import base64_of, drawn, running, weaviate

ROOT = Path(__file__).parents[2]
OF_THE_CHART = {"ENABLE_CUDA": "0"}


@pytest.mark.parametrize(
    ("variables", "port", "device"),
    [
        ({}, 8000, None),
        ({"ENABLE_CUDA": "0"}, 8080, "cpu"),
        ({"ENABLE_CUDA": "false"}, 8080, "cpu"),
        ({"ENABLE_CUDA": "1"}, 8080, "cuda"),
        ({"ENABLE_CUDA": "true", "CUDA_CORE": "cuda:1"}, 8080, "cuda:1"),
        ({"ENABLE_CUDA": "1", "CUDA_CORE": ""}, 8080, "cuda"),
        # the device that an image sets gives way, but not the choice of a GPU
        ({"ENABLE_CUDA": "0", "CIR_DEVICE": "cuda"}, 8080, "cpu"),
        ({"ENABLE_CUDA": "1", "CIR_DEVICE": "cpu"}, 8080, "cuda"),
        ({"ENABLE_CUDA": "1", "CIR_DEVICE": "cuda:2"}, 8080, "cuda:2"),
        ({"ENABLE_CUDA": "0", "CIR_PORT": "9000"}, 9000, "cpu"),
        ({"ENABLE_CUDA": "0", "CIR_PORT": "tcp://10.96.0.12:8000"}, 8080, "cpu"),
    ],
)
def test_variables_of_weaviates_images_choose_port_and_device(variables, port, device, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.port, settings.device) == (port, (device,) if device else ())
    given = Settings(port=1, device="mps")
    assert (given.port, given.device) == (1, ("mps",))


def test_the_health_check_asks_the_same_port():
    code = "import runpy, urllib.request as r; r.OpenerDirector.open = lambda *a, **k: exit(a[1]); runpy.run_path('{}')"
    command = [sys.executable, "-c", code.format(ROOT / "docker" / "healthcheck.py")]
    done = subprocess.run(command, env=OF_THE_CHART, capture_output=True, text=True)
    assert done.stderr.strip() == "http://127.0.0.1:8080/.well-known/ready"


@pytest.fixture(scope="module")
def slot(tmp_path_factory):
    """The image's entrypoint with the variables of the image and of Weaviate's chart, and no argument."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.8", 8080))
        except OSError:
            pytest.skip("port 8080 is taken here, which Weaviate's chart asks")
    folder = tmp_path_factory.mktemp("slot")
    of_the_image = {"CIR_HOST": "127.0.0.8", "CIR_DEVICE": "cuda", "CIR_MODEL": "tiny", "CIR_DRAIN_SECONDS": "0"}
    command = [sys.executable, "-m", "cir_vectorizer.cli", "serve"]
    environment = {**of_the_image, **OF_THE_CHART, "OMP_NUM_THREADS": "1"}
    with running(command, "http://127.0.0.8:8080/.well-known/ready", folder / "log", environment, folder):
        yield folder / "log"


def test_it_answers_where_weaviates_chart_probes_and_asks(slot, tiny):
    with httpx.Client(base_url="http://127.0.0.8:8080", trust_env=False) as client:
        assert client.get("/.well-known/live").status_code == client.get("/.well-known/ready").status_code == 204
        assert client.get("/meta").is_success
        answer = client.post("/vectorize", json={"texts": ["a red dress"], "images": []}).json()
    (expected,) = tiny.embed_texts(["a red dress"])
    assert np.allclose(answer["textVectors"][0], expected, atol=1e-4)
    assert "ENABLE_CUDA is set" in slot.read_text()


def test_preload_only_loads_the_models_and_ends(tiny, tmp_path):
    result = CliRunner().invoke(
        main, ["serve", "--preload-only", "--model", "tiny", "--model", "b=tiny", "--device", "cuda:7"]
    )
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [f"{name}@{tiny.fingerprint[:12]} is here" for name in ("tiny", "b")]
    missing = CliRunner().invoke(main, ["serve", "--preload-only", "--model", str(tmp_path / "absent")])
    assert missing.exit_code == 1
    assert "absent" in missing.output


def test_preload_only_in_half_precision_runs_on_the_cpu():
    result = CliRunner().invoke(main, ["serve", "--preload-only", "--half"])
    assert (result.exit_code, result.output[:5]) == (0, "tiny@"), result.output


def test_offline_a_missing_model_ends_the_start_with_a_sentence(tmp_path):
    environment = {"HF_HUB_OFFLINE": "1", "CIR_MODELS": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "cir_vectorizer.cli", "serve", "--preload-only", "--model", "lincir-vit-l"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"put it at {tmp_path}/lincir-vit-l/lincir_large.pt" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_compile_without_a_compiler_is_refused_at_the_start(monkeypatch):
    monkeypatch.setenv("PATH", "")
    result = CliRunner().invoke(main, ["serve", "--compile"])
    assert (result.exit_code, "install gcc" in result.output) == (1, True)


@pytest.mark.live
def test_a_stock_weaviate_searches_through_it_without_a_key(slot, tiny, tmp_path):
    weaviate_client = pytest.importorskip("weaviate", reason="weaviate-client is not installed")
    configure = weaviate_client.classes.config
    with weaviate(tmp_path, "http://127.0.0.8:8080") as server:
        options = {"port": server.port, "grpc_port": server.grpc_port}
        with weaviate_client.connect_to_local("127.0.0.1", **options) as client:
            shop = client.collections.create(
                "Shop",
                vector_config=configure.Configure.Vectors.multi2vec_clip(image_fields=["photo"]),
                properties=[configure.Property(name="photo", data_type=configure.DataType.BLOB)],
            )
            ids = [shop.data.insert({"photo": base64_of(drawn(number))}) for number in range(3)]
            query = json.dumps({"image": base64_of(drawn(1)), "composer": "image"})
            assert shop.query.near_text(query, limit=1).objects[0].uuid == ids[1]
