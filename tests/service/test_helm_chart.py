"""The Helm chart: its values, the manifests made of them, and their agreement with the service.

`make helm` builds helm with Go; without it, the tests that render the chart are skipped.
"""

import ast
import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cir_vectorizer import __version__
from cir_vectorizer.errors import OverloadError
from cir_vectorizer.service.http.problems import refusal
from cir_vectorizer.service.settings import Settings
from tests.support.servers import KEY

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "cir-vectorizer"
VALUES = {"defaults": None} | {file.name.removesuffix("-values.yaml"): file for file in sorted(CHART.glob("ci/*.yaml"))}
OWN_SETTINGS = {
    *("model", "host", "port", "api_keys", "api_keys_file", "admin_keys", "admin_keys_file", "tls_cert", "tls_key"),
    "preload_only",
}
"""Settings that the chart itself sets."""
KUBERNETES = ("1.30", "1.34")
SELECTOR = {"app.kubernetes.io/name": "cir-vectorizer", "app.kubernetes.io/instance": "shop"}

every_values = pytest.mark.parametrize("name", VALUES)


def read(name):
    return yaml.safe_load((CHART / name).read_text())


def schema():
    return json.loads((CHART / "values.schema.json").read_text())


def helm(*words):
    beside = Path(sys.executable).with_name("helm")
    binary = str(beside) if beside.is_file() else shutil.which("helm")
    if binary is None:
        pytest.skip("no helm on PATH; `make helm` builds it if Go is installed")
    return subprocess.run([binary, *map(str, words)], capture_output=True, text=True, cwd=ROOT, timeout=60)


def options(name):
    return ["--values", VALUES[name]] if VALUES[name] else []


@functools.cache
def render(name, *more):
    """Return the manifests of a set of values, by kind."""
    done = helm("template", "shop", CHART, "--kube-version", "1.30", *options(name), *more)
    assert done.returncode == 0, done.stderr
    found = list(filter(None, yaml.safe_load_all(done.stdout)))
    assert len({each["kind"] for each in found}) == len(found)
    return {each["kind"]: each for each in found}


def container(found):
    (only,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    return only


def refused(*words):
    done = helm("template", "shop", CHART, "--kube-version", "1.30", *words)
    assert done.returncode != 0
    return done.stderr


# Without helm


def test_the_chart_has_the_version_of_the_package():
    chart = read("Chart.yaml")
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_there_are_five_sets_of_values():
    assert sorted(VALUES) == ["defaults", "gpu", "ingress", "monitoring", "offline"]


@every_values
def test_values_follow_the_schema(name):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    jsonschema.validate(yaml.safe_load((VALUES[name] or CHART / "values.yaml").read_text()), schema())


@pytest.mark.parametrize(
    "wrong",
    [
        {"gpu": {"enable": True}},
        {"models": []},
        {"models": ["two words"]},
        {"settings": {"port": 80}},
        {"settings": {"cache_mb": 1}},
        {"auth": {"keys": {"an id": "secret"}}},
        {"auth": {"keys": {"shop": "white space"}}},
        {"ingress": {"enabled": True, "hosts": []}},
        {"modelVolume": {"accessModes": ["ReadWrite"]}},
        {"image": {"digest": "latest"}},
    ],
    ids=json.dumps,
)
def test_wrong_values_are_refused_by_the_schema(wrong):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema())


def test_settings_are_those_of_the_service():
    assert set(schema()["properties"]["settings"]["properties"]) == set(Settings.model_fields) - OWN_SETTINGS


def leaves(values, known, prefix=""):
    """Yield each value and its default; objects that the schema does not spell out are one value."""
    for key, value in values.items():
        properties = known["properties"][key].get("properties")
        if properties and key != "settings":
            yield from leaves(value, known["properties"][key], f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_the_readme_lists_every_value_with_its_default():
    rows = re.findall(r"^\| `([\w.]+)` \| `(.+?)` \| \S.* \|$", (CHART / "README.md").read_text(), re.MULTILINE)
    documented = {name: json.loads(default) for name, default in rows}
    assert documented == dict(leaves(read("values.yaml"), schema()))


def yaml_of_the_docs():
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    return [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


def test_the_values_that_the_docs_show_follow_the_schema():
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    (shown,) = (each for each in yaml_of_the_docs() if "models" in each)
    jsonschema.validate(shown, schema())


def test_the_docs_show_both_ways_into_weaviates_own_chart():
    ours, slot = (each["modules"]["multi2vec-clip"] for each in yaml_of_the_docs() if "modules" in each)
    assert (ours["enabled"], slot["enabled"]) == (False, True)
    assert ours["inferenceUrl"].startswith("http://cir:SECRET-2@cir-vectorizer.default.svc:8000/m/")
    assert slot["securityContext"]["runAsUser"] == read("values.yaml")["podSecurityContext"]["runAsUser"]


def test_the_docs_explain_every_alert():
    written = re.findall(r"alert: (\w+)", (CHART / "templates" / "prometheusrule.yaml").read_text())
    documented = re.findall(r"^\| `(Cir\w+)` \|", (ROOT / "docs" / "kubernetes.md").read_text(), re.MULTILINE)
    assert documented == written


def test_the_pod_of_helm_test_asks_a_running_service(service, tmp_path):
    keys = tmp_path / "keys"
    script = [sys.executable, str(CHART / "files" / "ready.py")]

    def run(line):
        keys.write_text(f"# keys of the shop\n\n{line}\n")
        environment = {"ADDRESS": service.url, "KEYS_FILE": str(keys)}
        return subprocess.run(script, env=environment, capture_output=True, text=True)

    right = run(f"shop:{KEY}")
    assert right.returncode == 0, right.stderr
    assert re.fullmatch(r"ready: tiny@\w+ makes vectors of \d+ numbers\n", right.stdout)
    assert run(KEY).returncode == 0
    assert "401" in run("shop:wrong").stderr


# With helm


@every_values
def test_helm_finds_nothing_to_complain_of(name):
    done = helm("lint", "--strict", "--kube-version", "1.30", CHART, *options(name))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


@every_values
def test_every_manifest_follows_its_schema(name):
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for manifest in render(name).values():
        if not manifest["apiVersion"].startswith("monitoring.coreos.com/"):
            for version in KUBERNETES:
                validator.validate(manifest, version, strict=True)


def test_the_sets_of_values_render_every_template():
    kinds = {kind for name in VALUES for kind in render(name)}
    written = {
        re.search(r"^kind: (\w+)$", each.read_text(), re.MULTILINE)[1] for each in CHART.glob("templates/**/*.yaml")
    }
    assert kinds == written


@every_values
def test_an_upgrade_finds_the_same_selectors(name):
    found = render(name, "--set", "image.tag=another,podLabels.team=search")
    deployment = found["Deployment"]["spec"]
    assert deployment["selector"]["matchLabels"] == found["Service"]["spec"]["selector"] == SELECTOR
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == SELECTOR
    assert SELECTOR.items() <= deployment["template"]["metadata"]["labels"].items()
    assert not SELECTOR.items() <= found["Pod"]["metadata"]["labels"].items(), "the Service would ask the test's pod"


@every_values
def test_pods_are_unprivileged_and_write_to_their_volumes_alone(name):
    found = render(name)
    for pod in (found["Deployment"]["spec"]["template"]["spec"], found["Pod"]["spec"]):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        mounted = {volume["name"] for volume in pod["volumes"]}
        for each in [*pod["containers"], *pod.get("initContainers", [])]:
            assert each["securityContext"]["readOnlyRootFilesystem"]
            assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {mount["name"] for mount in each["volumeMounts"]} <= mounted


@every_values
def test_the_service_reads_what_the_chart_sets(name, monkeypatch):
    found = render(name)
    for each in container(found)["env"]:
        if "value" in each:
            monkeypatch.setenv(each["name"], each["value"])
    settings = Settings()
    values = read("values.yaml") | (yaml.safe_load(VALUES[name].read_text()) if VALUES[name] else {})
    assert settings.model == tuple(values["models"])
    for setting, value in values["settings"].items():
        assert getattr(settings, setting) == (tuple(value) if isinstance(value, list) else value)
    grace = found["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= settings.drain_seconds + settings.request_timeout


@every_values
def test_probes_use_the_scheme_and_the_addresses_of_the_service(name, service):
    found = render(name)
    scheme = "HTTPS" if "CIR_TLS_CERT" in {each["name"] for each in container(found)["env"]} else "HTTP"
    assert (scheme == "HTTPS") == (name == "monitoring")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container(found)[probe]["httpGet"]
        assert asked["scheme"] == scheme
        assert httpx.get(service.url + asked["path"]).status_code == 204
    assert found["Pod"]["spec"]["containers"][0]["env"][0]["value"].startswith(
        f"{scheme.lower()}://shop-cir-vectorizer:"
    )


def test_a_gpu_takes_the_image_with_cuda_and_a_limit():
    plain, gpu = container(render("defaults")), container(render("defaults", "--set", "gpu.enabled=true,gpu.count=2"))
    assert (plain["image"], gpu["image"]) == (f"cir-vectorizer:{__version__}-cpu", f"cir-vectorizer:{__version__}-cuda")
    assert gpu["resources"]["limits"] == plain["resources"]["limits"] | {"nvidia.com/gpu": 2}
    digest = "sha256:" + 64 * "0"
    assert container(render("gpu", "--set", f"image.digest={digest}"))["image"] == f"cir-vectorizer@{digest}"


def test_keys_are_mounted_as_a_file_so_that_they_change_without_a_restart():
    for name, secret, entry in (
        ("ingress", "cir-keys", "keys.txt"),
        ("monitoring", "shop-cir-vectorizer-keys", "api-keys"),
    ):
        pod = render(name)["Deployment"]["spec"]["template"]["spec"]
        (volume,) = (each for each in pod["volumes"] if each["name"] == "keys")
        (mount,) = (each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "keys")
        (file,) = (each["value"] for each in pod["containers"][0]["env"] if each["name"] == "CIR_API_KEYS_FILE")
        assert volume["secret"]["secretName"] == secret
        assert "subPath" not in mount, "such a mount is never updated"
        assert file == f"{mount['mountPath']}/{entry}"
        assert volume["secret"]["items"] == [{"key": entry, "path": entry}]


def test_keys_that_may_load_models_are_an_entry_of_the_same_secret():
    found = render("ingress", "--set", "auth.adminKeysEntry=admins.txt")
    (volume,) = (each for each in found["Deployment"]["spec"]["template"]["spec"]["volumes"] if each["name"] == "keys")
    assert {"name": "CIR_ADMIN_KEYS_FILE", "value": "/etc/cir-vectorizer/keys/admins.txt"} in container(found)["env"]
    assert [each["key"] for each in volume["secret"]["items"]] == ["keys.txt", "admins.txt"]


def test_keys_in_the_values_are_those_that_the_service_accepts(tmp_path):
    from cir_vectorizer.service.http.auth import Keys

    written = render("monitoring")["Secret"]["stringData"]
    file = tmp_path / "api-keys"
    file.write_text(written["api-keys"])
    keys = Keys(file=file)
    assert (keys.who([written["prometheus"]]), keys.who(["s3cret:with-colon"])) == ("prometheus", "qdrant")


def test_weights_are_preloaded_by_an_init_container_and_then_read_only():
    spec = render("defaults", "--set", "preload.enabled=true,gpu.enabled=true")["Deployment"]["spec"]["template"][
        "spec"
    ]
    (preload,) = spec["initContainers"]
    serving = spec["containers"][0]
    models = {"name": "models", "mountPath": "/models"}
    assert preload["args"] == ["--preload-only"]
    assert models in preload["volumeMounts"]
    assert models | {"readOnly": True} in serving["volumeMounts"]
    offline = {"name": "HF_HUB_OFFLINE", "value": "1"}
    assert [each for each in serving["env"] if each not in preload["env"]] == [offline]
    assert "nvidia.com/gpu" not in preload["resources"]["limits"], "weights are loaded on the CPU"


def test_a_claim_of_ones_own_is_mounted_read_only_and_nothing_is_fetched():
    found = render("offline")
    spec = found["Deployment"]["spec"]["template"]["spec"]
    assert {"name": "models", "persistentVolumeClaim": {"claimName": "models"}} in spec["volumes"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in container(found)["volumeMounts"]
    assert {"name": "HF_HUB_OFFLINE", "value": "1"} in container(found)["env"]
    assert "PersistentVolumeClaim" not in found


def test_a_volume_of_one_node_is_never_wanted_by_two_pods():
    def strategy(*more):
        return render("defaults", "--set", "modelVolume.create=true", *more)["Deployment"]["spec"]["strategy"]

    assert strategy() == {"type": "Recreate"}
    assert strategy("--set", "modelVolume.accessModes={ReadWriteMany}") == {
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}
    }
    assert strategy("--set", "strategy.type=RollingUpdate") == {"type": "RollingUpdate"}


def test_the_autoscaler_owns_the_number_of_replicas():
    assert render("offline")["Deployment"]["spec"]["replicas"] == 2
    for name, kind in (("gpu", "Pods"), ("monitoring", "Resource")):
        found = render(name)
        autoscaler = found["HorizontalPodAutoscaler"]["spec"]
        assert "replicas" not in found["Deployment"]["spec"]
        assert autoscaler["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
        assert [metric["type"] for metric in autoscaler["metrics"]] == [kind]


def test_the_ingress_leads_to_the_service():
    found = render("ingress")
    (rule,) = found["Ingress"]["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": found["Service"]["metadata"]["name"], "port": {"name": "http"}}
    assert found["Service"]["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    assert found["Ingress"]["spec"]["tls"][0]["hosts"] == [rule["host"]]


def test_prometheus_finds_the_pods_and_has_a_key():
    found = render("monitoring")
    monitor = found["ServiceMonitor"]["spec"]
    assert set(monitor) == {"selector", "endpoints"}
    assert monitor["selector"]["matchLabels"].items() <= found["Service"]["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in [port["name"] for port in found["Service"]["spec"]["ports"]]
    assert (endpoint["path"], endpoint["scheme"]) == ("/metrics", "https")
    key = endpoint["authorization"]["credentials"]
    assert key["name"] == found["Secret"]["metadata"]["name"]
    assert found["Secret"]["stringData"][key["key"]] == "watcher"
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert found[kind]["metadata"]["labels"]["release"] == "prometheus"


def alerts():
    (group,) = render("monitoring")["PrometheusRule"]["spec"]["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def test_alerts_are_whole_and_their_expressions_can_be_read():
    parser = pytest.importorskip("promql_parser", reason="promql-parser is not installed")
    for rule in alerts().values():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "action"}
        assert re.fullmatch(r"\d+m", rule["for"])
        parser.parse(rule["expr"])


def test_alerts_are_about_metrics_and_labels_that_the_service_exports(service):
    assert httpx.get(f"{service.url}/v1/models").status_code == 401  # so that something is refused
    exported = httpx.get(f"{service.url}/metrics", headers={"authorization": f"Bearer {KEY}"}).text
    labels = {}
    for name, inner in re.findall(r"^(\w+)(?:\{(.*)\})? ", exported, re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', inner))
    for rule in alerts().values():
        asked = re.findall(r"(\w+)\{(.*?)\}", rule["expr"])
        assert asked
        for name, inner in asked:
            if name != "up":  # Prometheus's own
                used = set(re.findall(r"(\w+)[!=]", inner)) - {"namespace", "job"}
                assert used <= labels[name], rule["alert"]
        kept = {word for by in re.findall(r"by \((.*?)\)", rule["expr"]) for word in by.split(", ")}
        assert kept <= set().union(*(labels.get(name, set()) for name, _ in asked))
    assert refusal(OverloadError(1)).reason == "overload"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("ingress.enabled=true,ingress.hosts={shop.example}", "set auth.existingSecret or auth.keys"),
        ("autoscaling.enabled=true,autoscaling.queueDepth=0", "set autoscaling.queueDepth or autoscaling.cpuPercent"),
        ("metrics.serviceMonitor.enabled=true,auth.keys.shop=a", "add auth.keys.prometheus"),
        ("auth.adminKeysEntry=admins", "set auth.existingSecret"),
        ("settings.cache_mb=512", "cache_mb"),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_a_remedy(given, says):
    assert says in refused("--set", given)


@pytest.fixture
def notes(tmp_path):
    """Render NOTES.txt as the data of a ConfigMap, because helm prints notes only where a cluster is reachable."""
    folder = shutil.copytree(CHART, tmp_path / "chart")
    text = (folder / "templates" / "NOTES.txt").read_text()
    (folder / "templates" / "notes.yaml").write_text(
        f'{{{{- define "notes" }}}}{text}{{{{ end -}}}}\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: notes}}\n'
        'data: {notes: {{ include "notes" . | toJson }}}\n'
    )

    def render(*more):
        words = ("--kube-version", "1.30", "--show-only", "templates/notes.yaml", *more)
        done = helm("template", "shop", folder, *words)
        assert done.returncode == 0, done.stderr
        return yaml.safe_load(done.stdout)["data"]["notes"]

    return render


def test_the_notes_name_the_addresses_and_warn_of_what_is_open(notes):
    plain = notes("--namespace", "search")
    assert "QDRANT__INFERENCE__ADDRESS=http://shop-cir-vectorizer.search.svc:8000/qdrant" in plain
    assert "WARNING: no key is set" in plain
    assert "Weights are fetched again" in plain
    guarded = notes(*options("monitoring"))
    assert "CLIP_INFERENCE_API=https://cir:KEY@shop-cir-vectorizer.default.svc:8000" in guarded
    assert "WARNING" not in guarded
    assert "must run there" in notes("--set", "modelVolume.create=true,replicas=2")


def test_the_manifest_for_clusters_without_helm_is_made_from_the_chart():
    helm("version")
    done = subprocess.run(["sh", "docker/kubernetes.sh"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == (ROOT / "docker" / "kubernetes.yaml").read_text(), "run docker/kubernetes.sh again"


def test_the_script_of_helm_test_is_rendered_whole():
    (only,) = render("defaults")["Pod"]["spec"]["containers"]
    assert ast.dump(ast.parse(only["args"][0])) == ast.dump(ast.parse((CHART / "files" / "ready.py").read_text()))
