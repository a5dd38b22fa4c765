"""`evaluate circo|cirr|fashioniq|genecis --rankings`: each figure against a count written here, and every refusal."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from cir_vectorizer.cli import main
from tests.support.benchmark_folders import (
    BENCHMARKS,
    genecis_id,
    link_official,
    random_circo,
    random_cirr,
    random_fashioniq,
    random_genecis,
    write,
)

SEEDS = st.integers(0, 2**32)
FEW = settings(max_examples=15, deadline=None)


def run(benchmark: str, data: Path, rankings: Path, *more: str) -> Result:
    return CliRunner().invoke(
        main, ["evaluate", benchmark, "--data", str(data), "--rankings", str(rankings), "--json", *more]
    )


def scored(benchmark: str, data: Path, content: Any, *more: str) -> Any:
    result = run(benchmark, data, write(data / "rankings.json", content), *more)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refusal(benchmark: str, data: Path, content: Any, *more: str) -> str:
    result = run(benchmark, data, write(data / "rankings.json", content), *more)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def average_precision(ranking: list[Any], right: list[Any], k: int) -> float:
    total, found = 0.0, 0
    for place in range(min(k, len(ranking))):
        if ranking[place] in right:
            found += 1
            total += found / (place + 1)
    return total / min(len(right), k)


# --- figures --------------------------------------------------------------------------------------


def count_circo(rows: list[Any], rankings: dict[str, list[int]]) -> dict[str, Any]:
    pairs = [(row, rankings[str(row["id"])]) for row in rows]
    figures: dict[str, Any] = {}
    for k in (5, 10, 25, 50):
        figures[f"mAP@{k}"] = mean([average_precision(ranking, row["gt_img_ids"], k) for row, ranking in pairs])
        figures[f"R@{k}"] = mean([float(row["target_img_id"] in ranking[:k]) for row, ranking in pairs])
    aspects = {aspect for row in rows for aspect in row["semantic_aspects"]}
    figures["semantic"] = {
        aspect: mean(
            [average_precision(r, row["gt_img_ids"], 10) for row, r in pairs if aspect in row["semantic_aspects"]]
        )
        for aspect in aspects
    }
    return figures


def same(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            same(found[name], value)
        else:
            assert found[name] == pytest.approx(value, abs=1e-12), name


@FEW
@given(SEEDS)
def test_circo_equals_a_count(tmp_path_factory, seed):
    rng, data = random.Random(seed), tmp_path_factory.mktemp("circo")
    rows = random_circo(data, rng)
    rankings = {}
    for row in rows:
        wrong = rng.sample(range(500_000, 600_000), 50)
        mixed = rng.sample(row["gt_img_ids"], rng.randint(0, len(row["gt_img_ids"]))) + wrong[: rng.randint(1, 50)]
        rankings[str(row["id"])] = rng.sample(mixed, len(mixed))
    (data / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json").unlink()  # it does not list the wrong ones
    same(scored("circo", data, rankings), count_circo(rows, rankings))


@FEW
@given(SEEDS)
def test_cirr_equals_a_count(tmp_path_factory, seed):
    rng, data = random.Random(seed), tmp_path_factory.mktemp("cirr")
    rows, names = random_cirr(data, rng)
    whole = {str(row["pairid"]): rng.sample(names, rng.choice((1, 7, 50, 70))) for row in rows}
    subset = {str(row["pairid"]): rng.sample(row["img_set"]["members"], rng.randint(1, 6)) for row in rows}

    def count(rankings: dict[str, list[str]], k: int) -> float:
        hits = []
        for row in rows:
            left = [name for name in rankings[str(row["pairid"])] if name != row["reference"]]
            hits.append(float(row["target_hard"] in left[:k]))
        return mean(hits)

    found = scored("cirr", data, {"version": "rc2", "metric": "recall", **whole})
    same(found, {f"R@{k}": count(whole, k) for k in (1, 5, 10, 50)})
    found = scored("cirr", data, {"version": "rc2", "metric": "recall_subset", **subset})
    same(found, {f"Rs@{k}": count(subset, k) for k in (1, 2, 3)})


@FEW
@given(SEEDS)
def test_fashioniq_equals_a_count(tmp_path_factory, seed):
    rng, data = random.Random(seed), tmp_path_factory.mktemp("fashioniq")
    content = random_fashioniq(data, rng)
    chosen = rng.sample(sorted(content), rng.randint(1, 3))
    rankings = {kind: [rng.sample(content[kind][1], 60) for _ in content[kind][0]] for kind in chosen}
    expected: dict[str, Any] = {}
    for kind in chosen:
        pairs = list(zip(content[kind][0], rankings[kind], strict=True))
        expected[kind] = {f"R@{k}": mean([float(row["target"] in r[:k]) for row, r in pairs]) for k in (10, 50)}
    expected["mean"] = {name: mean([expected[kind][name] for kind in chosen]) for name in ("R@10", "R@50")}
    same(scored("fashioniq", data, rankings), expected)


@FEW
@given(SEEDS)
def test_genecis_equals_a_count(tmp_path_factory, seed):
    rng, data = random.Random(seed), tmp_path_factory.mktemp("genecis")
    content = random_genecis(data, rng)
    chosen = rng.sample(sorted(content), rng.randint(1, 4))
    rankings: dict[str, list[list[int]]] = {kind: [] for kind in chosen}
    expected = {}
    for kind in chosen:
        for row in content[kind]:
            ids = [genecis_id(each) for each in (row["target"], *row["gallery"])]
            rankings[kind].append(rng.sample(ids, rng.randint(1, len(ids))))
        pairs = list(zip(content[kind], rankings[kind], strict=True))
        expected[kind] = {
            f"R@{k}": mean([float(genecis_id(row["target"]) in r[:k]) for row, r in pairs]) for k in (1, 2, 3)
        }
    same(scored("genecis", data, rankings), expected)


def test_a_box_of_the_same_picture_is_another_picture(tmp_path):
    boxes = [{"image_id": 7, "instance_bbox": [0, 0, side, side]} for side in (5, 6)]
    others = [{"image_id": 8, "instance_bbox": [0, 0, 5, 5]}, {"image_id": 9, "instance_bbox": [0, 0, 5, 5]}]
    row = {"condition": "red", "reference": others[1], "target": boxes[1], "gallery": [boxes[0], others[0]]}
    write(tmp_path / "genecis/focus_attribute.json", [row])
    assert scored("genecis", tmp_path, {"focus_attribute": [[8, 7, 7]]})["focus_attribute"] == {
        "R@1": 0.0,
        "R@2": 1.0,
        "R@3": 1.0,
    }
    assert "stands twice" in refusal("genecis", tmp_path, {"focus_attribute": [[7, 7, 7]]})


def test_people_get_a_table(tmp_path):
    rows = random_circo(tmp_path, random.Random(0))
    rankings = write(tmp_path / "r.json", {str(row["id"]): row["gt_img_ids"] for row in rows})
    result = CliRunner().invoke(main, ["evaluate", "circo", "--data", str(tmp_path), "--rankings", str(rankings)])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:2] == ["CIRCO, val", f"{'mAP@5':<30}100.00 %"]


# --- real annotations -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_official(shared, tmp_path_factory.mktemp("official"))


def test_circos_own_submission_scores_as_its_official_evaluation(shared, official):
    path = shared / "data/circo/submission_val.json"
    result = run("circo", official / "circo", path)
    rows = json.loads((shared / "data/circo/val.json").read_text())
    same(json.loads(result.stdout), count_circo(rows, json.loads(path.read_text())))


def test_the_real_annotations_are_read_whole(official):
    from cir_vectorizer.evaluate.benchmarks import circo, cirr, fashioniq, genecis

    val, test = circo.read(official / "circo"), circo.read(official / "circo", "test")
    assert ([len(each.tasks[0].queries) for each in (val, test)], val.answered, test.answered) == (
        [220, 800],
        True,
        False,
    )
    val, test = cirr.read(official / "cirr"), cirr.read(official / "cirr", "test1")
    assert [(len(task.queries), len(task.gallery)) for task in val.tasks] == [(4181, 2297), (4181, 0)]
    assert [(len(task.queries), len(task.gallery)) for task in test.tasks] == [(4148, 2315), (4148, 0)]
    assert {len(query.gallery or ()) for query in val.tasks[1].queries} == {5}
    sizes = {"dress": (2017, 3817), "shirt": (2038, 6346), "toptee": (1961, 5373)}
    tasks = fashioniq.read(official / "fashioniq").tasks
    assert {task.name: (len(task.queries), len(task.gallery)) for task in tasks} == sizes
    assert {len(query.texts) for task in tasks for query in task.queries} == {
        1,
        2,
    }  # 1 where both captions are the same
    tasks = genecis.read(official / "genecis").tasks
    assert {task.name: len(task.queries) for task in tasks} == {"focus_object": 1960, "change_object": 1960}
    assert {len(query.gallery or ()) for task in tasks for query in task.queries} == {15}


def test_a_genecis_gallery_that_holds_its_target_twice(official, shared):
    """Query 19 of change_object lists its target among the distractors too."""
    rows = json.loads((shared / "data/genecis/change_object.json").read_text())
    rankings = [[genecis_id(each) for each in (*row["gallery"], row["target"])] for row in rows]
    data = official / "genecis"
    found = scored("genecis", data, {"change_object": rankings})
    assert found == {"change_object": {"R@1": 0.0, "R@2": 0.0, "R@3": 0.0}}
    once = [list(dict.fromkeys(ids[::-1])) for ids in rankings]
    assert scored("genecis", data, {"change_object": once})["change_object"]["R@1"] == 1.0


# --- refusals -------------------------------------------------------------------------------------


def small(benchmark: str, data: Path) -> Any:
    """Write a small dataset and return right rankings for it."""
    rng = random.Random(0)
    if benchmark == "circo":
        return {str(row["id"]): row["gt_img_ids"] for row in random_circo(data, rng)}
    if benchmark == "cirr":
        rows, _ = random_cirr(data, rng)
        return {"version": "rc2", "metric": "recall", **{str(row["pairid"]): [row["target_hard"]] for row in rows}}
    if benchmark == "fashioniq":
        content = random_fashioniq(data, rng)
        return {kind: [[row["target"], row["candidate"]] for row in rows] for kind, (rows, _) in content.items()}
    tasks = random_genecis(data, rng)
    return {task: [[genecis_id(row["target"])] for row in rows] for task, rows in tasks.items()}


def lists_of(benchmark: str, rankings: Any) -> tuple[Any, Any]:
    """Return a container of rankings and a key in it."""
    return {
        "circo": (rankings, "3"),
        "cirr": (rankings, "103"),
        "fashioniq": (rankings.get("shirt"), 3),
        "genecis": (rankings.get("change_object"), 3),
    }[benchmark]


def change(benchmark: str, data: Path, edit: Callable[[list[Any]], Any]) -> str:
    rankings = small(benchmark, data)
    lists, key = lists_of(benchmark, rankings)
    lists[key] = edit(lists[key])
    return refusal(benchmark, data, rankings)


NAMED = {"circo": "query 3", "cirr": "query 103", "fashioniq": "shirt, query 3", "genecis": "change_object, query 3"}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_an_id_twice_is_refused_by_name(benchmark, tmp_path):
    said = change(benchmark, tmp_path, lambda names: [*names, names[0]])
    assert NAMED[benchmark] in said
    assert "stands twice" in said


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_an_unknown_id_is_refused_by_name(benchmark, tmp_path):
    unknown: Any = "dev-0-0-img7" if benchmark in ("cirr", "fashioniq") else 987654321
    said = change(benchmark, tmp_path, lambda names: [*names, unknown])
    assert NAMED[benchmark] in said
    assert f"picture {unknown} is not in the " in said


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("wrong", [True, None, 1.5, ["a"], ""])
def test_a_value_that_is_no_name_is_refused(benchmark, wrong, tmp_path):
    said = change(benchmark, tmp_path, lambda names: [*names, wrong])
    assert NAMED[benchmark] in said
    assert repr(wrong) in said


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("empty", [[], None, "abc", {}])
def test_a_query_without_ranking_is_refused_by_name(benchmark, empty, tmp_path):
    said = change(benchmark, tmp_path, lambda names: empty)
    assert NAMED[benchmark] in said
    assert "has no ranking" in said


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_query_left_out_is_refused_by_name(benchmark, tmp_path):
    rankings = small(benchmark, tmp_path)
    lists, key = lists_of(benchmark, rankings)
    del lists[key if benchmark in ("circo", "cirr") else -1]
    name = {"circo": "query 3", "cirr": "query 103", "fashioniq": "shirt leaves out query", "genecis": "query 9"}[
        benchmark
    ]
    said = refusal(benchmark, tmp_path, rankings)
    assert "leaves out" in said
    assert name in said


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_query_too_many_is_refused(benchmark, tmp_path):
    rankings = small(benchmark, tmp_path)
    if benchmark in ("circo", "cirr"):
        rankings["777"] = rankings[lists_of(benchmark, rankings)[1]]
        assert "query 777 is not in this split" in refusal(benchmark, tmp_path, rankings)
    else:
        lists, _ = lists_of(benchmark, rankings)
        lists.append(lists[0])
        assert "rankings, but this split has" in refusal(benchmark, tmp_path, rankings)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_damaged_files_are_refused(benchmark, tmp_path):
    path = write(tmp_path / "rankings.json", small(benchmark, tmp_path))
    path.write_bytes(path.read_bytes()[:-40])
    assert "rankings.json is no JSON, or was cut short" in run(benchmark, tmp_path, path).stderr
    path.write_text("[" * 100_000)
    assert "nested too deeply" in run(benchmark, tmp_path, path).stderr
    path.write_text('{"0": [1], "0": [2]}')
    assert "has '0' twice" in run(benchmark, tmp_path, path).stderr
    assert "rankings.json" in refusal(benchmark, tmp_path, [1, 2])
    assert "gone.json cannot be read" in run(benchmark, tmp_path, tmp_path / "gone.json").stderr
    for annotations in list(tmp_path.glob("**/*.json")):
        if annotations.name not in ("rankings.json", "image_info_unlabeled2017.json"):
            annotations.write_bytes(annotations.read_bytes()[:-1])
    assert "was cut short" in refusal(benchmark, tmp_path, {"0": [1]})


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_wrong_folder_is_refused(benchmark, tmp_path):
    others = [each for each in BENCHMARKS if each != benchmark]
    rankings = small(benchmark, tmp_path / "right")
    for other in others:
        small(other, tmp_path / other)
        assert "is missing; give --data" in refusal(benchmark, tmp_path / other, rankings)
    assert "is no folder" in run(benchmark, tmp_path / "nowhere", write(tmp_path / "r.json", rankings)).stderr


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_annotations_of_another_kind_are_refused(benchmark, tmp_path):
    rankings = small(benchmark, tmp_path)
    for path in list(tmp_path.glob("**/*.json")):
        if not path.name.startswith(("split.", "image_info", "rankings")):
            write(path, [{"image": "a.jpg"}])
    said = refusal(benchmark, tmp_path, rankings)
    assert "annotation 0" in said
    assert "get the dataset's own file again" in said


@pytest.mark.parametrize(("benchmark", "split"), [("circo", "test"), ("cirr", "test1")])
def test_a_split_without_answers_is_refused(benchmark, split, tmp_path):
    rankings = small(benchmark, tmp_path)
    said = refusal(benchmark, tmp_path, rankings, "--split", split)
    assert f"split {split} are not published" in said
    assert "--submission" in said


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_an_unknown_split_is_refused(benchmark, tmp_path):
    said = refusal(benchmark, tmp_path, small(benchmark, tmp_path), "--split", "dev")
    assert "--split" in said
    assert "dev" in said


def test_unknown_ids_are_misses_where_the_folder_does_not_list_the_gallery(tmp_path):
    rankings = small("circo", tmp_path / "circo")
    (tmp_path / "circo/COCO2017_unlabeled/annotations/image_info_unlabeled2017.json").unlink()
    assert (
        scored("circo", tmp_path / "circo", {name: [*ids, 987654321] for name, ids in rankings.items()})["mAP@50"] == 1
    )
    rankings = small("cirr", tmp_path / "cirr")
    (tmp_path / "cirr/cirr/image_splits/split.rc2.val.json").unlink()
    rankings["103"] = ["somewhere", *rankings["103"]]
    assert scored("cirr", tmp_path / "cirr", rankings)["R@1"] == pytest.approx(11 / 12)


def test_a_cirr_file_says_which_metric_it_is_for(tmp_path):
    rankings = small("cirr", tmp_path)
    for wrong in ("mAP", ["recall"]):
        assert '"recall_subset"' in refusal("cirr", tmp_path, {**rankings, "metric": wrong})
    assert "'rc1'" in refusal("cirr", tmp_path, {**rankings, "version": "rc1"})
    assert "the query's own gallery" in refusal(
        "cirr", tmp_path, {**rankings, "metric": "recall_subset", "103": ["dev-0-0-img0x"]}
    )


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("wrong", ["1" * 5000, ["a picture"] * 5000])
def test_a_sentence_stays_short_whatever_the_ranking_holds(benchmark, wrong, tmp_path):
    assert len(change(benchmark, tmp_path, lambda names: [*names, wrong]).replace(str(tmp_path), "")) < 300


def test_short_rankings_are_noted(tmp_path):
    rankings = small("circo", tmp_path)
    done = run("circo", tmp_path, write(tmp_path / "rankings.json", rankings))
    assert (done.exit_code, "have fewer than 50 pictures" in done.stderr) == (0, True)
    assert json.loads(done.stdout)


def test_scoring_loads_no_model(tmp_path):
    import subprocess
    import sys

    path = write(tmp_path / "r.json", small("circo", tmp_path))
    code = (
        "import sys\nfrom cir_vectorizer.cli import main\n"
        f"main(['evaluate', 'circo', '--data', {str(tmp_path)!r}, '--rankings', {str(path)!r}], standalone_mode=False)\n"
        "assert not {'torch', 'PIL'} & sys.modules.keys()"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
