"""`cir-vectorizer evaluate catalog` where objects have texts: their weight is a contender, and `--apply` notes it."""

import csv
import json
import random
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.collections import CreateOptions, open_collection
from cir_vectorizer.collections.rescoring import TEXT_WEIGHT
from cir_vectorizer.collections.searching import Search, find
from cir_vectorizer.evaluate import metrics
from cir_vectorizer.evaluate.catalog import Asking, judge
from cir_vectorizer.evaluate.catalog.contenders import TEXT_WEIGHTS, TEXTS, Bench, Contender, weighed
from cir_vectorizer.evaluate.catalog.objects import Objects, read_objects
from cir_vectorizer.evaluate.catalog.queries import Answers
from cir_vectorizer.models.published import TINY_FOLDER
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from examples.demo.catalog import caption, catalog, draw

PICTURES = 360


@pytest.fixture(scope="module")
def shop(tmp_path_factory, tiny):
    """Address of a drawn shop with titles as texts; a sixth of the objects have none."""
    folder = tmp_path_factory.mktemp("texts")
    titles = random.Random(5)
    with (folder / "shop.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "category", "colour", "pattern", "title"])
        for i, product in enumerate(catalog(PICTURES)):
            path = folder / f"{i}.jpg"
            draw(product, random.Random(f"7/{i}"), 96).save(path)
            title = caption(product, titles) if i % 6 else ""
            writer.writerow([i, path, product.category, product.colour, product.pattern, title])
    address = f"qdrant:{folder}/index/shop"
    collection = open_collection(address)
    source = open_source(folder / "shop.csv", id_column="id")
    sync(source, collection, tiny, create=CreateOptions(text_columns=("title",)))
    collection.close()
    return address


@pytest.fixture
def collection(shop):
    collection = open_collection(shop)
    yield collection
    collection.close()


@pytest.fixture(scope="module")
def judged(shop, tiny):
    collection = open_collection(shop)
    found = judge(collection, {"tiny": tiny}, Asking(queries=160))
    collection.close()
    return found


class TestTheWeightOfTexts:
    def test_served_contenders_are_there_with_and_without_texts(self, judged):
        rows = {row.name: row for row in judged.report.rows}
        with_texts = {name: row for name, row in rows.items() if TEXTS in name}
        assert any(name.startswith(f"lincir{TEXTS}") for name in with_texts)
        for name, row in with_texts.items():
            plain, _, weight = name.rpartition(TEXTS)
            assert row.settings == {**rows[plain].settings, "text_weight": float(weight)}
            assert rows[plain].settings["text_weight"] == 0
            assert 0 < float(weight) <= 1
        assert "text_weight" not in rows["slerp"].settings  # a baseline, which nothing serves
        assert judged.text_weight == judged.choice.text_weight
        compared = {(each.row, each.other) for each in judged.report.comparisons}
        assert {(name, name.rpartition(TEXTS)[0]) for name in with_texts} <= compared

    def test_todays_weight_is_a_contender(self, judged):
        assert f"lincir{TEXTS}{TEXT_WEIGHT:g}" in {row.name for row in judged.report.rows}
        (said,) = [sentence for sentence in judged.report.summary if "default" in sentence]
        assert f"lincir{TEXTS}{TEXT_WEIGHT:g}" in said or said == "This is the default already."

    def test_the_report_says_how_the_weight_was_chosen_and_what_the_texts_name(self, judged):
        assert "title; 300 objects have one" in dict(judged.report.choices)["texts"]
        if judged.text_weight:
            assert f"texts weighing {judged.text_weight:g}" in judged.report.summary[0]
            (share,) = re.findall(r"name the values asked for in (\d+)% of the cases", " ".join(judged.report.summary))
            assert 75 < int(share) <= 100  # titles say "stripy" for "striped" now and then

    def test_scores_are_those_of_the_search_that_is_served(self, collection, tiny):
        objects = read_objects(collection, 10_000)
        lacking = np.flatnonzero(~objects.having_text)
        assert len(lacking) == PICTURES / 6
        vector = tiny.compose([{"text": "a red boot"}]).vectors
        for weight in (0.0, 0.3, 1.0):
            scores = objects.scores(vector, weight)[0]
            search = Search.read({"text": "a red boot"}, limit=PICTURES, text_weight=weight)
            served = {hit.id: hit.score for hit in find(search, collection, tiny)}
            ours = np.array([served[id_] for id_ in objects.ids])
            has = objects.having_text
            assert scores[has] == pytest.approx(ours[has], abs=1e-5)
            # the two are told what stands for a missing text by different samples of the objects
            assert scores[~has] == pytest.approx(ours[~has], abs=0.02)


class TestChoosing:
    def bench(self, texts):
        """Objects whose pictures say nothing about the one right answer of each query, and these texts."""
        pictures = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
        objects = Objects(range(60), pictures, [None] * 60, [{}] * 60, [""] * 60, 60, texts)
        wanted = np.eye(60, dtype=np.bool_)[:40]
        answers = Answers(wanted, np.arange(40) + 20, np.arange(60), np.arange(40) + 20)
        return Bench(objects, answers)

    def weights(self, bench, vectors, **today):
        plain = Contender("lincir", {"model": "m"}, vectors, 0.0, served=True)
        return {each.text_weight: each for each in weighed(plain, vectors, bench, today)}

    def test_without_evidence_the_usual_weight_stays(self):
        bench = self.bench(None)
        same = Bench(replace(bench.objects, texts=bench.objects.vectors), bench.answers)
        asked = np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)
        assert set(self.weights(same, asked)) == {0.0, TEXT_WEIGHT}

    def test_texts_that_tell_all_get_the_nearest_weight_that_is_not_surely_worse(self):
        texts = np.concatenate([np.eye(40), np.full((20, 40), 0.1)]).astype(np.float32)
        asked = texts[:40]
        bench = self.bench(None)
        pictures = np.pad(bench.objects.vectors, ((0, 0), (0, 32)))
        bench = Bench(replace(bench.objects, vectors=pictures, texts=texts), bench.answers)
        found = self.weights(bench, asked)
        assert len(found) == 2
        (weight,) = set(found) - {0.0}
        mixes = [lambda p, t, weight=weight: (1 - weight) * p + weight * t for weight in TEXT_WEIGHTS]
        values = bench.sweep([asked], mixes, with_texts=True)
        best = values[values.mean(axis=1).argmax()]
        surely = {each: metrics.estimate(best - own).low > 0 for each, own in zip(TEXT_WEIGHTS, values, strict=True)}
        nearer = [each for each in TEXT_WEIGHTS if abs(each - TEXT_WEIGHT) < abs(weight - TEXT_WEIGHT) - 1e-9]
        assert nearer
        assert all(surely[each] for each in nearer)
        assert not surely[weight]
        assert found[weight].score == pytest.approx(values[TEXT_WEIGHTS.index(weight)].mean())

    def test_todays_weight_is_kept_beside_it(self):
        bench = self.bench(np.zeros((60, 8), np.float32))
        vectors = np.ones((40, 8), np.float32)
        assert 0.35 in self.weights(bench, vectors, model="m", text_weight=0.35)
        assert 0.35 not in self.weights(bench, vectors, model="another", text_weight=0.35)


class TestTextsThatHoldTheAnswers:
    @pytest.mark.parametrize(
        ("asking", "held"), [(Asking(captions="title", queries=100), "title"), (Asking(queries=100), "colour")]
    )
    def test_they_are_not_judged_and_the_report_says_so(self, collection, tiny, asking, held):
        if held == "colour":
            collection.add_texts(["title", "colour"])
        try:
            found = judge(collection, {"tiny": tiny}, asking)
        finally:
            collection.add_texts(["title"])
        assert found.text_weight is None
        assert not any(TEXTS in row.name for row in found.report.rows)
        notes = [value for name, value in found.report.choices if name == "left out"]
        assert any(note.startswith(f"the objects' texts: right answers are made of '{held}'") for note in notes)

    def test_a_few_texts_are_not_judged(self, shop, tiny, tmp_path):
        shutil.copytree(shop.removeprefix("qdrant:").rsplit("/", 1)[0], tmp_path / "index")
        collection = open_collection(f"qdrant:{tmp_path}/index/shop")
        ids = [id_ for id_, _ in collection.scan()]
        points = [point for point in collection.get(ids) if point.text_vector is not None]
        collection.replace_payload(
            {point.id: point.payload for point in points[7:]}, {point.id: None for point in points[7:]}
        )
        found = judge(collection, {"tiny": tiny}, Asking(queries=100))
        collection.close()
        assert found.text_weight is None
        assert (
            "left out",
            "the objects' texts: 7 of these objects have one, and 20 are needed",
        ) in found.report.choices


def test_the_command_applies_the_weight_to_the_collection(shop, tmp_path):
    shutil.copytree(TINY_FOLDER, tmp_path / "mine")
    shutil.copytree(shop.removeprefix("qdrant:").rsplit("/", 1)[0], tmp_path / "index")
    address = f"qdrant:{tmp_path}/index/shop"
    result = CliRunner().invoke(main, [
        "evaluate", "catalog", "--in", address, "--model", str(tmp_path / "mine"), "--out", str(tmp_path / "report"),
        "--queries", "100", "--apply", "--json",
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    weight = json.loads(result.stdout)["rows"][0]["settings"]["text_weight"]
    collection = open_collection(address)
    assert collection.info().text_weight == weight
    collection.close()
    assert f"now weigh texts {weight:g} by default" in result.stderr
    assert "lincir, texts " in (tmp_path / "report" / "report.html").read_text()
