"""The Dockerfile's CPU target: built, started as its own user on a read-only root, health-checked, queried and stopped.

Needs root, buildah, and a base image that `CIR_BASE_IMAGE` names (`docker/make_base.sh` makes one). Further options of the
build go into `CIR_BUILD_OPTIONS`, for example `--build-arg TORCH_INDEX=`. Takes minutes and some 15 GB of disk. The
sizes of the image are printed (`pytest -s`).
"""

import base64
import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from cir_vectorizer import __version__
from cir_vectorizer.client import Client
from tests.support.servers import base64_of, drawn, free_port

ROOT = Path(__file__).parents[2]
BASE = os.environ.get("CIR_BASE_IMAGE")
KEY = "container-key"
LARGEST = 1.8e9
"""Largest image whose torch comes from PyTorch's CPU index, in bytes without compression."""
LARGEST_WITH_CUDA = 5.5e9
"""The same if torch comes from pip's own index, which has no torch without CUDA."""

pytestmark = [
    pytest.mark.container,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="no buildah on PATH"),
    pytest.mark.skipif(not BASE, reason="CIR_BASE_IMAGE names no base image; docker/make_base.sh makes one"),
    pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="buildah's chroot isolation needs root"),
]

# Does what a container engine does for --read-only --tmpfs /tmp --user: $1 is the root, $2 the user, the rest a command.
ENTER = """
set -e
root=$1 user=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot --userspec="$user" "$root" "$@"
"""


def buildah(*arguments):
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


class Container:
    """A working container of the built image: its configuration, and commands in it as its user on a read-only root."""

    def __init__(self, name):
        self.name = name
        self.config = json.loads(buildah("inspect", name))["Docker"]["config"]
        self.root = buildah("mount", name)

    def command(self, *words, **environment):
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in environment.items())]
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "enter"]
        return [*enter, self.root, self.config["User"], "env", "-i", *variables, *words]

    def run(self, *words, **environment):
        return subprocess.run(self.command(*words, **environment), capture_output=True, text=True)


@pytest.fixture(scope="module")
def container():
    buildah(
        "build", "--isolation", "chroot", "--network", "host", "--format", "docker", "--layers",
        "--file", "docker/Dockerfile", "--target", "cpu", "--build-arg", f"BASE_IMAGE={BASE}",
        *shlex.split(os.environ.get("CIR_BUILD_OPTIONS", "")), "--tag", "localhost/cir-vectorizer:cpu", ".",
    )  # fmt: skip
    name = buildah("from", "--pull-never", "localhost/cir-vectorizer:cpu")
    yield Container(name)
    buildah("umount", name)
    buildah("rm", name)


@pytest.fixture(scope="module")
def port():
    return free_port()


@pytest.fixture(scope="module")
def process(container, port, tmp_path_factory):
    """The image's own entrypoint as a running, ready process."""
    log = tmp_path_factory.mktemp("container") / "log"
    settings = {"CIR_HOST": "127.0.0.1", "CIR_PORT": port, "CIR_API_KEYS": f"test:{KEY}", "CIR_DRAIN_SECONDS": 1}
    with log.open("wb") as output:
        started = subprocess.Popen(container.command(*container.config["Entrypoint"], **settings), stderr=output)
    for _ in range(1200):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/.well-known/ready", trust_env=False).is_success:
                break
        assert started.poll() is None, log.read_text()
        time.sleep(0.2)
    yield started
    started.kill()
    started.wait()


def test_the_image_says_who_it_is_and_how_it_is_checked(container):
    assert container.config["User"] == "10001:10001"
    assert container.config["Healthcheck"]["Test"][0] == "CMD"
    assert list(container.config["ExposedPorts"]) == ["8000/tcp"]
    assert container.run("id", "-u").stdout.strip() == "10001"


def test_its_labels_say_what_it_is(container):
    labels = container.config["Labels"]
    assert labels["org.opencontainers.image.title"] == "cir-vectorizer"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert {"description", "revision"} <= {name.rpartition(".")[2] for name in labels}


def test_it_is_lean(container):
    (packages,) = Path(container.root).glob("opt/cir/lib/python3*/site-packages")
    print(
        subprocess.run(
            ["python3", ROOT / "docker" / "slim.py", "--sizes", packages], capture_output=True, text=True
        ).stdout
    )
    size = int(subprocess.run(["du", "-sxb", container.root], capture_output=True, text=True).stdout.split()[0])
    print(f"{size / 1e6:,.0f} MB in the image")
    for name in ("pip", "triton", "pytest", "torch/include"):
        assert not (packages / name).exists()
    assert not list(packages.rglob("tests"))
    assert size < (LARGEST_WITH_CUDA if (packages / "nvidia").exists() else LARGEST)


def test_weights_are_prepared_by_the_image_itself(container):
    done = container.run(*container.config["Entrypoint"], "--preload-only")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny@")


def test_nothing_but_tmp_can_be_written(container):
    for path in ("/opt/cir/x", "/models/x", "/x"):
        assert container.run("touch", path).returncode != 0
    assert container.run("touch", "/tmp/x").returncode == 0


def test_the_health_check_fails_where_nothing_runs(container):
    assert container.run(*container.config["Healthcheck"]["Test"][1:], CIR_PORT=9).returncode == 1


def test_it_is_healthy_and_runs_as_its_user(container, process, port):
    assert container.run(*container.config["Healthcheck"]["Test"][1:], CIR_PORT=port).returncode == 0
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert "Uid:\t10001\t10001\t10001\t10001" in status


def test_a_composed_query_gives_the_vector_of_this_checkout(process, port, tiny):
    query = {"image": base64_of(drawn(3)), "text": "is red"}
    with Client(f"http://cir:{KEY}@127.0.0.1:{port}") as client:
        assert client.models()["data"][0]["fingerprint"] == tiny.fingerprint
        assert np.allclose(client.compose([query]).vectors, tiny.compose([query]).vectors, atol=1e-4)


def test_pictures_of_phones_are_read(process, port, tiny):
    heif = pytest.importorskip(
        "pillow_heif", reason="pillow-heif is not installed (pip install 'cir-vectorizer[heif]')"
    )
    photo = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (96, 64), "red")).save(photo, quality=90)
    query = {"image": base64.b64encode(photo.getvalue()).decode(), "text": "is blue"}
    with Client(f"http://cir:{KEY}@127.0.0.1:{port}") as client:
        assert np.allclose(client.compose([query]).vectors, tiny.compose([query]).vectors, atol=1e-3)


def test_sigterm_ends_it_with_status_0(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
