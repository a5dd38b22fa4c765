"""`cir-vectorizer evaluate pinpoint` on a small folder in PinPoint's form."""

import json
import random
import statistics

import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.evaluate.benchmarks import pinpoint
from tests.support.indexing import draw

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

GALLERY = [f"{i:032x}" for i in range(40)]
KS = (1, 5, 10, 50)


def queries(seed=0):
    """Fifteen queries: four groups of the same pictures, one of them of a single query, with odd lists of answers."""
    picked = random.Random(seed)
    rows = []
    for group, size in enumerate((6, 5, 3, 1)):
        for _ in range(size):
            right = picked.choices(GALLERY, k=picked.randint(1, 14))  # some stand twice
            wrong = [name for name in picked.choices(GALLERY, k=picked.randint(0, 14)) if name not in right]
            rows.append(
                {
                    "query_id": f"query_{len(rows) + 1:05d}",
                    "query_image_signature": GALLERY[group],
                    "query_image_signature2": GALLERY[30] if group == 1 else "None",
                    "instruction": picked.choice(["in red", "as a drawing", "without sleeves"]),
                    "positive_candidates": right,
                    "negative_candidates": [*wrong, None],
                    "query_category": picked.choice(["Swap", "Negation"]),
                    "length_category": "short",
                }
            )
    return rows


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path / "pinpoint", queries())


def written(folder, rows):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "pinpoint_licensed.parquet")
    (folder / "index_signatures.txt").write_text("\n".join(GALLERY) + "\n")
    return folder


def rankings(rows, seed=1):
    picked = random.Random(seed)
    return {row["query_id"][6:]: picked.sample(GALLERY, picked.randint(1, len(GALLERY))) for row in rows}


def evaluate(folder, *arguments):
    return CliRunner().invoke(main, ["evaluate", "pinpoint", "--data", str(folder), *map(str, arguments)])


def scored(folder, content):
    path = folder / "rankings.json"
    path.write_text(json.dumps(content))
    return evaluate(folder, "--rankings", path, "--json")


def counted(rows, found):
    """Return the official figures, counted from their definitions."""
    figures, tens = {}, {}
    for row in rows:
        ranking = found[row["query_id"][6:]]
        right, wrong = row["positive_candidates"], row["negative_candidates"]
        cleaned = [name for name in ranking if name not in wrong]
        for k in KS:
            values = {
                f"mAP@{k}": counted_average_precision(ranking, right, k),
                f"mAP@{k}_noNeg": counted_average_precision(cleaned, right, k),
                f"precision@{k}": len([name for name in ranking[:k] if name in right]) / k,
                f"recall@{k}": len([name for name in ranking[:k] if name in right]) / len(right),
                f"NegRecall@{k}": len([name for name in ranking[:k] if name in wrong]) / min(len(wrong), k),
            }
            for name, value in values.items():
                figures.setdefault(name, []).append(value)
        key = (row["query_image_signature"], row["query_image_signature2"])
        tens.setdefault(key, []).append(figures["precision@10"][-1])
    means = {name: statistics.fmean(values) for name, values in figures.items()}
    wordings = [values for values in tens.values() if len(values) > 1]
    gain = means["mAP@10_noNeg"] - means["mAP@10"]
    return means | {
        "ling_sens_range": statistics.fmean(max(values) - min(values) for values in wordings),
        "ling_sens_std": statistics.fmean(statistics.pstdev(values) for values in wordings),
        "delta_mAP@10_noNeg": gain,
        "pct_increase_mAP@10_noNeg": gain / means["mAP@10"],
    }


def counted_average_precision(ranking, right, k):
    hits, total = 0, 0.0
    for rank, name in enumerate(ranking[:k], start=1):
        if name in right:
            hits += 1
            total += hits / rank
    return total / min(len(right), k)


@pytest.mark.parametrize("seed", range(4))
def test_figures_equal_a_count(tmp_path, seed):
    rows = queries(seed)
    found = rankings(rows, seed)
    result = scored(written(tmp_path / "pinpoint", rows), found)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == pytest.approx(counted(rows, found), abs=1e-12)


def test_ids_and_lists_may_have_the_official_form(folder):
    found = rankings(queries())
    expected = scored(folder, found).stdout
    assert scored(folder, {name: {"retrieved_items": names} for name, names in found.items()}).stdout == expected
    assert scored(folder, {f"query_{name}": names for name, names in found.items()}).stdout == expected
    assert scored(folder, {str(int(name)): names for name, names in found.items()}).stdout == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.pop("00003"), "leaves out query 00003"),
        (lambda found: found.update({"00099": GALLERY}), "query 00099 is not in this split"),
        (lambda found: found.update({"query_00003": GALLERY}), "query 00003 stands twice"),
        (lambda found: found.update({"00003": []}), "query 00003 has no ranking"),
        (lambda found: found.update({"00003": {"items": GALLERY}}), "query 00003 has no ranking"),
        (lambda found: found.update({"00003": [GALLERY[0], GALLERY[0]]}), f"picture {GALLERY[0]} stands twice"),
        (lambda found: found.update({"00003": ["abc"]}), "picture abc is not in the gallery"),
        (lambda found: found.update({"00003": [7]}), "7 is no picture name"),
    ],
)
def test_a_wrong_ranking_is_refused_by_name(folder, change, said):
    found = rankings(queries())
    change(found)
    result = scored(folder, found)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr


def test_without_the_list_of_the_gallery_any_picture_may_be_ranked(folder):
    (folder / "index_signatures.txt").unlink()
    assert scored(folder, rankings(queries()) | {"00003": ["abc"]}).exit_code == 0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"query_id": "1", "instruction": "x"}], "row 1: query_image_signature is missing"),
        ([], "holds no query"),
        ([*queries()[:2], queries()[0]], "query 00001 stands twice"),
        ([queries()[0] | {"positive_candidates": None}], "positive_candidates is no list"),
        ([queries()[0] | {"query_id": "first"}], "'first' is no number"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, rows, said):
    result = scored(written(tmp_path / "pinpoint", rows), {"00001": GALLERY})
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr


def test_a_wrong_folder_and_a_truncated_file_are_refused(tmp_path, folder):
    result = scored(tmp_path, {})
    assert result.exit_code == 1
    assert "pinpoint_licensed.parquet is missing" in result.stderr
    path = folder / "pinpoint_licensed.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    result = scored(folder, {})
    assert result.exit_code == 1
    assert "is no parquet file or damaged" in result.stderr


def test_a_model_runs_to_a_report(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for seed, name in enumerate(GALLERY[:-2]):
        draw(folder / "images" / f"{name}.jpg", seed)
    out = tmp_path / "out"
    result = evaluate(folder, "--composer", "sum", "--composer", "image", "--device", "cpu", "--out", out)
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    assert (report["title"], report["queries"], report["gallery"]) == ("PinPoint, all queries", 15, 38)
    assert [row["name"] for row in report["rows"]] == ["sum", "image"]
    first, second = (row["figures"] for row in report["rows"])
    assert next(iter(first)) == "mAP@10"
    assert {"NegRecall@10", "mAP@10_noNeg", "ling_sens_range", "ling_sens_std"} <= set(first)
    difference = report["comparisons"][0]["differences"]["ling_sens_range"]
    assert difference["value"] == pytest.approx(second["ling_sens_range"]["value"] - first["ling_sens_range"]["value"])
    assert set(report["rows"][0]["parts"]) == {"category", "length of the words", "pictures in the query"}
    assert set(report["rows"][0]["curves"]) == {"mAP", "precision", "recall", "NegRecall"}
    assert "NegRecall@10" in report["lower_is_better"]
    assert report["published"] == []
    assert report["missing_count"] == 2
    assert any("labels are not those" in sentence or "missing" in sentence for sentence in report["summary"])

    submission = tmp_path / "submission.json"
    result = evaluate(
        folder, "--composer", "sum", "--device", "cpu", "--submission", submission, "--out", tmp_path / "again"
    )
    assert result.exit_code == 0, result.output
    figures = json.loads(evaluate(folder, "--rankings", submission, "--json").stdout)
    assert figures["mAP@10"] == pytest.approx(first["mAP@10"]["value"], abs=1e-12)
    assert figures["ling_sens_range"] == pytest.approx(first["ling_sens_range"]["value"], abs=1e-12)


def test_two_pictures_are_both_references(folder):
    (task,) = pinpoint.read(folder).tasks
    assert {query.references for query in task.queries} == {
        (GALLERY[0],), (GALLERY[1], GALLERY[30]), (GALLERY[2],), (GALLERY[3],)
    }  # fmt: skip
