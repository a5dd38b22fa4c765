"""`evaluate circo|cirr|fashioniq|genecis` with the model `tiny` on drawn pictures, and the parts that it is made of."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cir_vectorizer.cli import main
from cir_vectorizer.evaluate.benchmarks import circo, cirr, fashioniq, genecis
from cir_vectorizer.evaluate.benchmarks.base import Benchmark
from cir_vectorizer.evaluate.benchmarks.embeddings import Embeddings, Pictures, embed
from cir_vectorizer.evaluate.benchmarks.ranking import rank
from cir_vectorizer.evaluate.benchmarks.running import overall_scores
from tests.support.benchmark_folders import (
    BENCHMARKS,
    link_official,
    random_circo,
    random_cirr,
    random_fashioniq,
    random_genecis,
    write,
)
from tests.support.drawn_pictures import NOTE, annotated, draw_all, others

READ: dict[str, Callable[..., Benchmark]] = {
    "circo": circo.read,
    "cirr": cirr.read,
    "fashioniq": fashioniq.read,
    "genecis": genecis.read,
}
WRITE = {"circo": random_circo, "cirr": random_cirr, "fashioniq": random_fashioniq, "genecis": random_genecis}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/cir-vectorizer/embeddings"


def drawn(benchmark: str, data: Path) -> Benchmark:
    """Write a small dataset with all its pictures."""
    WRITE[benchmark](data, random.Random(1))
    (data / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json").unlink(missing_ok=True)
    found = READ[benchmark](data)
    names = annotated(found)
    draw_all(found, [*names, *others(found, 60 if benchmark == "circo" else 300, names)])
    return READ[benchmark](data)


def run(benchmark: str, data: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["evaluate", benchmark, "--data", str(data), "--json", *more])


def reported(benchmark: str, data: Path, *more: str) -> Any:
    result = run(benchmark, data, *more)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


FIRST = {"circo": "mAP@5", "cirr": "R@1", "fashioniq": "R@10", "genecis": "R@1"}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_run_ends_in_a_report_that_says_what_its_figures_hang_on(benchmark, tmp_path):
    data = tmp_path / "data"
    found = drawn(benchmark, data)
    chosen = ["lincir", "compodiff", "image", "sum", "text"] if benchmark == "cirr" else ["lincir", "sum"]
    asked = [] if benchmark == "cirr" else ["--composer", "lincir", "--composer", "sum"]
    report = reported(benchmark, data, "--out", str(tmp_path / "out"), *asked)
    assert json.loads((tmp_path / "out/report.json").read_text()) == report
    assert NOTE in (tmp_path / "out/report.html").read_text()
    assert NOTE in (tmp_path / "out/report.md").read_text()
    assert [row["name"] for row in report["rows"]] == chosen
    assert next(iter(report["rows"][0]["figures"])) == FIRST[benchmark]
    assert len(report["comparisons"]) == len(chosen) - 1
    assert {each["other"] for each in report["comparisons"]} == {"lincir"}
    assert report["published"] == []  # the pictures are drawn
    assert (report["missing"], report["missing_count"]) == ([], 0)
    choices = dict(report["choices"])
    assert {"split", "captions", "reference", "gallery", "gallery size", "backbone"} <= choices.keys()
    assert choices["prompt of lincir"] == "a photo of $ that {text}"
    assert choices["pictures"] == NOTE
    tasks = found.tasks[:1] if benchmark == "cirr" else found.tasks
    assert report["queries"] == sum(len(task.queries) for task in tasks)
    assert report["examples"]


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_submission_scores_as_the_report_says(benchmark, tmp_path):
    data, path = tmp_path / "data", tmp_path / "submitted.json"
    drawn(benchmark, data)
    report = reported(benchmark, data, "--composer", "sum", "--submission", str(path))
    assert [row["name"] for row in report["rows"]] == ["sum"]
    figures = {name: each["value"] for name, each in report["rows"][0]["figures"].items()}
    scored: dict[str, float] = {}
    for file in sorted(tmp_path.glob("submitted*.json")):
        scored |= reported(benchmark, data, "--rankings", str(file))
    if benchmark == "circo":
        scored.pop("semantic")
    if benchmark == "fashioniq":
        scored = scored["mean"]  # type: ignore[assignment]
    if benchmark == "genecis":
        tasks: Any = scored.values()
        scored = {name: float(np.mean([each[name] for each in tasks])) for name in ("R@1", "R@2", "R@3")}
    assert figures == pytest.approx(scored, abs=1e-9)


def test_submissions_of_splits_without_answers_have_the_official_form(tmp_path):
    random_cirr(tmp_path / "cirr", random.Random(0))
    found = cirr.read(tmp_path / "cirr", "test1")
    draw_all(found, [*annotated(found), *found.tasks[0].gallery])
    path = tmp_path / "cirr.json"
    result = run("cirr", tmp_path / "cirr", "--split", "test1", "--composer", "lincir", "--submission", str(path))
    assert (result.exit_code, result.stdout) == (0, "")
    for metric, depth in (("recall", 50), ("recall_subset", 3)):
        content = json.loads((tmp_path / f"cirr.{metric}.json").read_text())
        assert (content.pop("version"), content.pop("metric")) == ("rc2", metric)
        for query in found.tasks[0].queries:
            names = content.pop(query.name)
            assert len(names) == len(set(names)) == depth
            assert query.references[0] not in names
        assert not content
    drawn("circo", tmp_path / "circo")
    path = tmp_path / "circo.json"
    result = run("circo", tmp_path / "circo", "--split", "test", "--composer", "text", "--submission", str(path))
    assert (result.exit_code, result.stdout) == (0, "")
    content = json.loads(path.read_text())
    assert list(content) == [str(i) for i in range(12)]
    assert all(len(set(ids)) == 50 and all(type(each) is int for each in ids) for ids in content.values())


def test_a_split_without_answers_needs_a_submission(tmp_path):
    drawn("circo", tmp_path)
    assert "--submission" in run("circo", tmp_path, "--split", "test").stderr
    result = run("circo", tmp_path, "--split", "test", "--submission", str(tmp_path / "s.json"))
    assert (result.exit_code, "one --composer" in result.stderr) == (2, True)


def test_rankings_equal_plain_numpy(tiny, tmp_path):
    """FashionIQ: both orders of the captions, unit vectors averaged; the reference stays in."""
    found = drawn("fashioniq", tmp_path)
    task = found.tasks[1]
    pictures = embed(Pictures(list(task.gallery), found.file, found.view), tiny)
    ranked = rank(replace(found, tasks=(task,)), tiny, "lincir", pictures)
    opened = [Image.open(found.file(name)).convert("RGB") for name in task.gallery]
    index = tiny.embed_images(opened)
    index /= np.linalg.norm(index, axis=1, keepdims=True)
    for query, names in zip(task.queries, ranked.rankings[task.name], strict=True):
        first, second = (text.split(" and ") for text in query.texts)
        assert first == second[::-1]
        reference = found.file(query.references[0])
        composed = tiny.compose([{"image": reference, "text": text, "composer": "lincir"} for text in query.texts])
        scores = index @ composed.vectors.mean(axis=0)
        assert names == [task.gallery[i] for i in np.argsort(-scores, kind="stable")[:50]]


def test_cirr_takes_the_reference_out(tiny, tmp_path):
    found = drawn("cirr", tmp_path)
    pictures = embed(Pictures(list(found.tasks[0].gallery), found.file, found.view), tiny)
    ranked = rank(found, tiny, "image", pictures)
    for task in found.tasks:
        for query, names in zip(task.queries, ranked.rankings[task.name], strict=True):
            assert query.references[0] not in names
            assert len(names) == (50 if task.name == "recall" else 5)


@pytest.mark.parametrize("benchmark", ["cirr", "genecis"])
def test_a_constant_score_does_not_look_perfect(benchmark, tiny, tmp_path):
    found = drawn(benchmark, tmp_path)
    names = [
        name for task in found.tasks for query in task.queries for name in (*query.references, *(query.gallery or ()))
    ]
    same = Embeddings(np.ones((len(names), tiny.dim), np.float32), {name: i for i, name in enumerate(names)}, ())
    ranked = rank(found, tiny, "sum", same)
    task = found.tasks[-1]
    figures = found.values(task, ranked.rankings[task.name], task.ks)
    assert not np.concatenate(list(figures.values())).any()


def test_missing_pictures_are_counted_and_named(tmp_path):
    data = tmp_path / "data"
    found = drawn("cirr", data)
    queries = found.tasks[0].queries
    reference, target = queries[0].references[0], queries[1].right[0]
    found.file(reference).unlink()
    found.file(target).write_bytes(b"no picture")
    report = reported("cirr", data, "--composer", "text")
    assert report["missing_count"] == 2
    assert sorted(report["missing"]) == sorted(f"dev/{name}.png" for name in (reference, target))
    assert report["gallery"] == len(found.tasks[0].gallery) - 2
    gone = {reference, target}
    failed = sum(query.references[0] in gone for query in queries)
    lost = sum(query.right[0] in gone for query in queries)
    said = next(sentence for sentence in report["summary"] if "missing" in sentence)
    assert f"2 of {len(found.tasks[0].gallery)} pictures" in said
    assert f"{failed} queries without their reference count as failed" in said
    assert f"{lost} queries lack a right answer" in said


def test_published_figures_are_shown_only_for_the_same_setting(tmp_path):
    data = tmp_path / "data"
    found = drawn("fashioniq", data)
    (data / "DRAWN").unlink()
    names = [name for task in found.tasks for name in task.gallery]
    draw_all(found, names)
    (data / "DRAWN").unlink()
    report = reported("fashioniq", data, "--composer", "text")
    assert report["published"][0]["method"] == "LinCIR, ViT-L/14"
    found.file(names[0]).unlink()
    report = reported("fashioniq", data, "--composer", "text")
    assert report["published"] == []
    assert "Published figures are of the whole gallery, so none is shown." in report["summary"]
    drawn("circo", tmp_path / "circo")
    assert any(
        "test split" in sentence for sentence in reported("circo", tmp_path / "circo", "--composer", "text")["summary"]
    )


# --- embeddings -----------------------------------------------------------------------------------


class Counting:
    """A vectorizer that counts the pictures that it embeds."""

    def __init__(self, vectorizer: Any) -> None:
        self._vectorizer = vectorizer
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vectorizer, name)

    def embed_pixels(self, pixels: Any) -> Any:
        self.count += len(pixels)
        return self._vectorizer.embed_pixels(pixels)


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pictures:
    """100 drawn pictures, of which the cache holds 30 in a file."""
    from tests.support.drawn_pictures import draw

    monkeypatch.setattr("cir_vectorizer.evaluate.benchmarks.embeddings.PART", 30)
    names = [f"p{i:03d}.png" for i in range(100)]
    for name in names:
        draw(tmp_path / "album" / name)
    return Pictures(names, lambda name: tmp_path / "album" / name, lambda _, picture: picture)


def embedded(album: Pictures, vectorizer: Any) -> tuple[Any, int]:
    counting = Counting(vectorizer)
    found = embed(album, counting)  # type: ignore[arg-type]
    return found, counting.count


def test_a_picture_is_embedded_once(album, tiny, cache):
    fresh, count = embedded(album, tiny)
    assert count == 100
    assert len(list(cache.iterdir())) == 4
    again, count = embedded(album, tiny)
    assert count == 0
    assert np.array_equal(fresh.vectors, again.vectors)
    assert fresh.rows == again.rows == {name: i for i, name in enumerate(album.names)}
    opened = [Image.open(album.file(name)).convert("RGB") for name in album.names[:3]]
    assert np.allclose(fresh.vectors[:3], tiny.embed_images(opened), atol=1e-5)


def test_a_changed_picture_and_a_damaged_cache_cost_their_part_alone(album, tiny, cache):
    embedded(album, tiny)
    Image.new("RGB", (70, 64), "red").save(album.file("p031.png"))
    changed, count = embedded(album, tiny)
    assert count == 30
    largest = max(cache.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    largest.write_bytes(largest.read_bytes()[:500])
    again, count = embedded(album, tiny)
    assert count == 30
    assert np.array_equal(changed.vectors, again.vectors)


def test_another_model_has_its_own_embeddings(album, tiny, cache, monkeypatch):
    embedded(album, tiny)
    monkeypatch.setattr(type(tiny), "fingerprint", "another")
    assert embedded(album, tiny)[1] == 100


def test_a_stopped_run_goes_on(album, tiny):
    class Stops(Counting):
        def embed_pixels(self, pixels: Any) -> Any:
            if self.count >= 60:
                raise KeyboardInterrupt
            return super().embed_pixels(pixels)

    with pytest.raises(KeyboardInterrupt):
        embed(album, Stops(tiny))  # type: ignore[arg-type]
    assert embedded(album, tiny)[1] == 40


def test_unreadable_pictures_are_tried_again(album, tiny):
    path = album.file("p005.png")
    content = path.read_bytes()
    path.write_bytes(content[:100])
    album.file("p050.png").unlink()
    found, count = embedded(album, tiny)
    assert (found.missing, count) == (("p005.png", "p050.png"), 98)
    assert np.isnan(found.vectors[[5, 50]]).all()
    path.write_bytes(content)
    found, count = embedded(album, tiny)
    assert (found.missing, count) == (("p050.png",), 30)


def test_no_picture_at_all_is_an_error(tmp_path):
    random_cirr(tmp_path, random.Random(0))
    said = run("cirr", tmp_path).stderr
    assert "none of 70 pictures exists" in said
    assert "dev/dev-0-0-img0.png" in said
    random_circo(tmp_path, random.Random(0))
    (tmp_path / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json").unlink()
    assert "has no list of CIRCO's gallery" in run("circo", tmp_path).stderr


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    drawn("cirr", tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    result = run("cirr", tmp_path, "--composer", "text")
    assert (result.exit_code, "set XDG_CACHE_HOME" in result.stderr) == (1, True)


# --- parts ----------------------------------------------------------------------------------------


def test_boxes_are_cropped_with_a_margin_on_a_black_square():
    picture = Image.new("RGB", (100, 80), "white")
    shown = genecis.around(picture, (40, 30, 20, 10))
    assert shown.size == (34, 34)  # 1.7 · 20 wide; 1.7 · 10 high, on black
    row = np.asarray(shown)[:, 17, 0]
    assert list(np.flatnonzero(row)) == list(range(8, 25))
    assert genecis.around(picture, (90, 70, 20, 20)).size == (24, 24)  # cut at the edges: from 76 to 100, from 56 to 80
    assert genecis.around(picture, (0, 0, 10, 10)).size == (17, 17)  # no margin to the left: 0 to 17
    assert genecis.around(picture, (200, 200, 5, 5)).size == (2, 2)


def test_the_mean_over_tasks_is_kept_in_values_over_queries():
    scores = {"dress": {"R@10": np.array([1.0, 0.0, 0.0])}, "shirt": {"R@10": np.array([1.0]), "R@50": np.array([1.0])}}
    found = overall_scores(scores)
    assert found["R@10"].mean() == pytest.approx((1 / 3 + 1) / 2)
    assert found["R@50"].mean() == 1


def test_captions_are_joined_in_both_orders():
    assert fashioniq.both_orders([" is darker.", "has no sleeves, "]) == (
        "is darker and has no sleeves",
        "has no sleeves and is darker",
    )


def test_unknown_composers_are_refused(tmp_path):
    drawn("cirr", tmp_path)
    said = run("cirr", tmp_path, "--composer", "lincirr").stderr
    assert "has no composer 'lincirr'; it has " in said


def test_options_that_do_not_go_together_are_refused(tmp_path):
    path = write(tmp_path / "r.json", {})
    result = run("cirr", tmp_path, "--rankings", str(path), "--composer", "sum")
    assert (result.exit_code, "--rankings scores a file" in result.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_drawn_stand_ins_for_real_annotations(benchmark, shared, tmp_path):
    """Stand-ins for the pictures of the first 300 real queries, and 300 others, under their real names."""
    data = link_official(shared, tmp_path) / benchmark
    found = READ[benchmark](data)
    few = replace(found, tasks=tuple(replace(task, queries=task.queries[:300]) for task in found.tasks))
    names = annotated(few)
    count = draw_all(found, [*names, *others(found, 60 if benchmark == "circo" else 300, names)])
    report = reported(benchmark, data, "--composer", "lincir", "--composer", "sum")
    every = annotated(found) + [name for task in found.tasks for name in task.gallery]
    if benchmark != "circo":  # its gallery is the folder here
        assert report["missing_count"] == len(set(every)) - count
    assert len(report["missing"]) == min(100, report["missing_count"])
    assert dict(report["choices"])["pictures"] == NOTE
    assert report["queries"] == {"circo": 220, "cirr": 4181, "fashioniq": 6016, "genecis": 3920}[benchmark]
    assert len(report["rows"]) == 2
