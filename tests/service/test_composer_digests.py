"""Composers have digests: replicas whose weights or settings differ are told apart, and a name may pin one."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from cir_vectorizer.client import Client, Patience, ServedModel
from cir_vectorizer.errors import ServiceError
from cir_vectorizer.models import load, set_defaults
from cir_vectorizer.models.published import TINY_FOLDER
from cir_vectorizer.models.record import sha256
from tests.support.serving import RED, Running, serving, tiny

QUERY = {"image": RED, "text": "is blue"}


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(TINY_FOLDER, folder))


def with_other_phi(folder: Path) -> Path:
    """A copy of the packaged model whose Φ has one other number."""
    record = json.loads((copied(folder) / "model.json").read_text())
    entry = record["composers"]["lincir"]
    weights = load_file(folder / entry["file"])
    weights["layers.6.bias"][0] += 1
    save_file(weights, folder / entry["file"])
    entry["sha256"] = sha256(folder / entry["file"])
    (folder / "model.json").write_text(json.dumps(record))
    return folder


def edited(folder: Path, **changes: object) -> Path:
    record = json.loads((copied(folder) / "model.json").read_text())
    record["composers"]["lincir"] |= changes
    (folder / "model.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def replicas(tmp_path_factory) -> Iterator[tuple[Running, Running]]:
    """Two services of one backbone and one name, with different Φ."""
    other = load(str(with_other_phi(tmp_path_factory.mktemp("model") / "other")), "cpu")
    with serving() as one, serving(vectorizers={"tiny": other}) as two:
        yield one, two


def test_a_digest_covers_weights_prompt_and_defaults_but_not_the_record_of_the_training(tmp_path):
    usual = tiny().digests
    assert set(usual) == set(tiny().composers)
    assert load(str(copied(tmp_path / "same")), "cpu").digests == usual
    assert load(str(edited(tmp_path / "trained", training={"steps": 1})), "cpu").digests == usual
    for folder in (with_other_phi(tmp_path / "phi"), edited(tmp_path / "prompt", prompt="$ and {text}")):
        changed = load(str(folder), "cpu").digests
        assert {name for name in usual if changed[name] != usual[name]} == {"lincir"}
    set_defaults(copied(tmp_path / "defaults"), "sum", {"keep": 0.3})
    changed = load(str(tmp_path / "defaults"), "cpu").digests
    assert {name for name in usual if changed[name] != usual[name]} == {"sum"}


def test_models_meta_and_metrics_tell_two_replicas_apart(replicas):
    lists, metas, metrics = [], [], []
    for service in replicas:
        (model,) = service.client.get("/v1/models").json()["data"]
        lists.append({each["name"]: each["digest"] for each in model["composers"]})
        metas.append(service.client.get("/meta").json())
        metrics.append(service.client.get("/metrics").text)
    for listed, meta, text in zip(lists, metas, metrics, strict=True):
        assert meta["digests"] == listed
        for name, digest in listed.items():
            assert f'composer="{name}",digest="{digest}"' in text
    assert metas[0]["fingerprint"] == metas[1]["fingerprint"]
    assert {name for name in lists[0] if lists[0][name] != lists[1][name]} == {"lincir"}


def test_a_pinned_composer_is_refused_by_the_other_replica_with_both_names(replicas):
    digest, fingerprint = tiny().digests["lincir"], tiny().fingerprint
    pinned = [
        f"tiny@{fingerprint[:12]}/lincir@{digest[:12]}",
        f"tiny/lincir@{digest[:8].upper()}",
        f"lincir@{digest}",
    ]
    first, second = replicas
    theirs = second.service.names.composer_names("tiny")[0]
    for name in pinned:
        inputs = [{"data": QUERY, "data_type": "object", "model": name}]
        for path, body in (
            ("/v1/compose", {"model": name, "queries": [QUERY]}),
            (f"/m/{name}/vectorize", {"texts": [json.dumps(QUERY)]}),
            ("/qdrant", {"inputs": inputs, "inference": "search"}),
        ):
            assert first.post(path, body).status_code == 200, first.post(path, body).text
            refused = second.post(path, body)
            assert (refused.status_code, refused.json()["code"]) == (400, "composer-mismatch")
            assert f"'tiny/lincir@{name.rpartition('@')[2]}' was asked for" in refused.json()["error"]
            assert f"'tiny@{fingerprint[:12]}/{theirs}'" in refused.json()["error"]
        assert second.client.get(f"/m/{name}/.well-known/ready").status_code == 400


def test_a_fingerprint_behind_a_composer_stays_a_name(replicas):
    for name in (f"lincir@{tiny().fingerprint[:8]}", f"tiny/lincir@{tiny().fingerprint[:8]}"):
        assert replicas[1].post("/v1/compose", {"model": name, "queries": [QUERY]}).status_code == 200


def test_a_served_model_keeps_the_pinned_composer_and_pins_the_backbone_too(replicas):
    name = f"tiny/lincir@{tiny().digests['lincir'][:12]}"
    one, two = (Client(str(each.client.base_url), patience=Patience(retries=0)) for each in replicas)
    with one, two:
        assert ServedModel(one, name).compose([QUERY]).vectors.shape == (1, tiny().dim)
        with pytest.raises(ServiceError, match="was asked for, but what is served here is 'tiny@"):
            ServedModel(two, name).compose([QUERY])
