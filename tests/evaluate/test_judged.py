"""`cir-vectorizer evaluate queries`: judged queries on embedded collections, with the packaged model."""

import base64
import json
import math
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from qdrant_client import QdrantClient, models

import cir_vectorizer
from cir_vectorizer.cli import main
from cir_vectorizer.collections import Ask, CreateOptions, open_collection
from cir_vectorizer.errors import SourceError
from cir_vectorizer.evaluate.judged.judging import Searching, judge
from cir_vectorizer.evaluate.judged.reading import JudgedQuery, read_judged
from cir_vectorizer.models import set_defaults
from cir_vectorizer.models.published import TINY_FOLDER
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from tests.support.databases import ONE_OF_EACH, database_of

COLOURS = {
    "red": (208, 32, 38),
    "green": (48, 150, 62),
    "blue": (44, 96, 214),
    "white": (248, 248, 246),
    "black": (9, 9, 9),
}


class Shop:
    """Ten pictures, two of each colour, and the collection that sync made of them."""

    def __init__(self, folder, model):
        self.folder, self.model = folder, model
        self.address = f"qdrant:{folder}/index/shop"
        rows = ["image,sku,number"]
        for i, (colour, rgb) in enumerate(COLOURS.items()):
            for size in range(2):
                Image.new("RGB", (64, 48 + 8 * size), rgb).save(folder / f"{colour}{size}.png")
                rows.append(f"{colour}{size}.png,S-{colour},{i}")
        (folder / "catalog.csv").write_text("\n".join(rows))
        collection = open_collection(self.address)
        sync(open_source(folder / "catalog.csv"), collection, model)
        points = collection.get([id_ for id_, _ in collection.scan()])
        self.ids = {Path(point.payload["_cir"]["path"]).stem: point.id for point in points}
        self.names = {id_: name for name, id_ in self.ids.items()}
        collection.close()

    def found(self, query, without=(), limit=50):
        """Return the names that the library finds for a query, nearest first, less some."""
        collection = open_collection(self.address)
        hits = collection.search(self.model.compose([query]).vectors[0], Ask(50))
        collection.close()
        return [name for hit in hits if (name := self.names[hit.id]) not in without][:limit]

    def run(self, lines, *arguments, file="q.jsonl"):
        """Run the command on judged queries: objects, or texts for lines that are none."""
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (self.folder / file).write_text("\n".join(texts), encoding="utf-8")
        model = [] if "--model" in arguments else ["--model", "tiny"]
        given = ["--file", self.folder / file, "--in", self.address, "--device", "cpu", *model, *arguments]
        return CliRunner().invoke(main, ["evaluate", "queries", *map(str, given)])

    def report(self, lines, *arguments):
        result = self.run(lines, *arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture(scope="module")
def shop(tmp_path_factory, tiny):
    return Shop(tmp_path_factory.mktemp("shop"), tiny)


def value(report, figure, row=0):
    return report["rows"][row]["figures"][figure]["value"]


def counted_ndcg(found, gains):
    total = sum(gains.get(name, 0) / math.log2(rank + 2) for rank, name in enumerate(found[:10]))
    best = sorted(gains.values(), reverse=True)[:10]
    return total / sum(gain / math.log2(rank + 2) for rank, gain in enumerate(best))


def test_figures_equal_a_count_over_what_the_library_finds(shop):
    judged = [
        ({"image": shop.folder / "red0.png", "text": "in blue"}, {"blue0": 1, "blue1": 1}, {"red0", "red1"}),
        ({"text": "a black hat"}, {"black1": 3, "black0": 1, "white0": 0.5}, set()),
        ({"image": shop.folder / "white1.png"}, {"white0": 1}, {"black0"}),
    ]
    lines = []
    for query, gains, unwanted in judged:
        line = {key: part.name if isinstance(part, Path) else part for key, part in query.items()}
        line["relevant"] = {shop.ids[name]: gain for name, gain in gains.items()}
        lines.append(line | {"unwanted": [shop.ids[name] for name in unwanted]})
    report = shop.report(lines)

    ndcgs, precisions, first, ten, shares, unwanted_shares = [], [], [], [], [], []
    for query, gains, unwanted in judged:
        found = shop.found(query)
        ndcgs.append(counted_ndcg(found, gains))
        right = [rank for rank, name in enumerate(found[:10], start=1) if name in gains]
        precisions.append(sum((i + 1) / rank for i, rank in enumerate(right)) / min(10, len(gains)))
        first.append(found[0] in gains)
        ten.append(bool(right))
        shares.append(len(right) / len(gains))
        if unwanted:
            unwanted_shares.append(len(unwanted & set(found[:10])) / len(unwanted))
    expected = {
        "NDCG@10": ndcgs, "mAP@10": precisions, "R@1": first, "R@10": ten, "recall@10": shares,
        "NegRecall@10": unwanted_shares,
    }  # fmt: skip
    assert list(report["rows"][0]["figures"]) == list(expected)
    for figure, values in expected.items():
        assert value(report, figure) == pytest.approx(sum(values) / len(values), abs=1e-9), figure
    assert (report["queries"], report["gallery"]) == (3, 10)
    assert report["lower_is_better"] == ["NegRecall@10", "wording range"]
    curve = dict(map(tuple, report["rows"][0]["curves"]["R"]))
    assert curve[1] == pytest.approx(value(report, "R@1"))
    assert set(report["rows"][0]["parts"]["kind of query"]) == {"picture and text", "text", "picture"}


def test_an_object_that_is_the_querys_picture_is_left_out_of_its_results(shop):
    line = {"image": {"id": shop.ids["red0"]}, "relevant": [shop.ids["red1"]], "unwanted": [shop.ids["red0"]]}
    report = shop.report([line])
    assert value(report, "R@1") == (shop.found({"image": shop.folder / "red0.png"}, without=["red0"])[0] == "red1")
    assert value(report, "NegRecall@10") == 0
    shown = report["examples"][0]
    assert [each["caption"] for each in shown["references"]] == ["red0.png"]
    assert [each["picture"] for each in shown["references"]] == [str(shop.folder / "red0.png")]
    captions = [each["caption"] for each in shown["results"]["default"]]
    assert "red0.png" not in captions
    assert [each["right"] for each in shown["results"]["default"]] == [name == "red1.png" for name in captions]


def test_wrong_lines_are_named_and_the_others_judged(shop):
    good = {"text": "a red hat", "relevant": [shop.ids["red0"]]}
    lines = [
        good,
        "{broken",
        "",
        "[1]",
        {"text": "a hat"},
        {"text": "a hat", "relevant": "red0"},
        {"text": "a hat", "relevant": []},
        {"text": "a hat", "relevant": ["no id"]},
        {"text": "a hat", "relevant": [True]},
        {"text": "a hat", "relevant": {shop.ids["red0"]: -1}},
        {"text": "a hat", "relevant": {shop.ids["red0"]: 0}},
        good | {"unwanted": [shop.ids["red0"]]},
        good | {"unwanted": {"a": 1}},
        good | {"colour": "red"},
        good | {"image": "https://example.com/a.jpg"},
        good | {"image": "missing.png"},
        good | {"options": {"steps": 0}},
        good | {"group": []},
        good | {"image": {"id": shop.ids["red0"].upper()}},
    ]
    result = shop.run(lines, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["queries"] == 1
    assert "17 of 18 queries are left out." in report["summary"]
    expected = {
        2: "not valid JSON", 4: "holds a list", 5: "relevant: is missing", 6: "relevant: is a string",
        7: "relevant: names no object", 8: "relevant.0: names 'no id'", 9: "relevant.0: is true or false",
        10: "a gain is a number from 0 on", 11: "relevant: names no object", 12: "relevant too",
        13: "unwanted: is an object", 14: "colour: is not a field", 15: "image.0: is a URL", 16: "missing.png does not exist",
        17: "options.steps:", 18: "group: is a list", 19: "the query's own picture",
    }  # fmt: skip
    said = {line.partition("line ")[2].partition(":")[0]: line for line in result.stderr.splitlines()}
    assert set(said) == {str(number) for number in expected}
    for number, part in expected.items():
        assert said[str(number)].startswith(f"Left out: {shop.folder / 'q.jsonl'}, line {number}: ")
        assert part in said[str(number)]


@pytest.mark.parametrize(
    ("lines", "file", "said"),
    [
        ([], "q.jsonl", "the file is empty"),
        (["{broken", {"text": "a hat"}], "q.jsonl", "line 1: is not valid JSON"),
        ([{"text": "a hat", "relevant": [4711]}], "q.jsonl", "the collection has none of its relevant objects"),
        ([{"text": "a hat", "relevant": [1]}], "q.txt", "does not end in .jsonl"),
    ],
)
def test_a_file_without_any_judged_query_is_refused(shop, lines, file, said):
    result = shop.run(lines, file=file)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert said in result.stderr


def test_objects_that_the_collection_does_not_have_are_named(shop):
    lost = "00000000-0000-4000-8000-000000000000"
    lines = [
        {"text": "a red hat", "relevant": [shop.ids["red0"], lost], "unwanted": [4712]},
        {"image": {"id": 4711}, "relevant": [shop.ids["red0"]]},
        {"text": "a hat", "relevant": [4713]},
    ]
    result = shop.run(lines, "--json")
    report = json.loads(result.stdout)
    assert f"4 judged objects are not in the collection: {lost}, 4711, 4712, 4713." in report["summary"]
    assert report["queries"] == 1
    assert value(report, "recall@10") == 1
    assert "NegRecall@10" not in report["rows"][0]["figures"]
    assert "line 2: its picture 4711 is no object of the collection" in result.stderr
    assert "line 3: the collection has none of its relevant objects" in result.stderr


@pytest.mark.parametrize(("column", "ids"), [("sku", "S-{}"), ("number", 0), ("number", "0")])
def test_ids_may_be_the_values_of_a_column(shop, column, ids):
    def key(colour):
        return ids.format(colour) if column == "sku" else type(ids)(list(COLOURS).index(colour))

    lines = [
        {"image": {"id": key("red")}, "text": "in blue", "relevant": [key("blue")], "unwanted": [key("red")]},
        {"text": "a white hat", "relevant": {str(key("white")): 2, str(key("black")): 1, "S-none": 1}},
    ]
    report = shop.report(lines, "--id-column", column)
    assert report["queries"] == 2
    assert "1 judged object is not in the collection: S-none." in report["summary"]
    by_colour = list(dict.fromkeys(name[:-1] for name in shop.found(lines[1] | {"relevant": None})))
    results = {each["text"]: each["results"]["default"] for each in report["examples"]}
    assert [each["caption"] for each in results["a white hat"]] == [str(key(colour)) for colour in by_colour]
    assert [each["caption"] for each in results["in blue"]].count(str(key("red"))) == 0
    assert len(results["in blue"]) == 4
    assert value(report, "NegRecall@10") == 0


def test_composers_stand_side_by_side_and_are_compared_with_the_first(shop):
    lines = [
        {"image": f"{colour}0.png", "text": f"in {other}", "relevant": [shop.ids[f"{other}0"], shop.ids[f"{other}1"]]}
        for colour in COLOURS
        for other in COLOURS
        if other != colour
    ]
    refused = lines[0] | {"template": "a photo of $ that {text}"}
    result = shop.run([*lines, refused], "--composer", "text", "--composer", "image", "--composer", "sum", "--json")
    report = json.loads(result.stdout)
    assert [row["name"] for row in report["rows"]] == ["text", "image", "sum"]
    assert report["queries"] == 20
    assert "line 21: for text, template: TextOnly reads no template" in result.stderr
    assert [(each["row"], each["other"]) for each in report["comparisons"]] == [("image", "text"), ("sum", "text")]
    difference = report["comparisons"][0]["differences"]["NDCG@10"]
    assert difference["value"] == pytest.approx(value(report, "NDCG@10", 1) - value(report, "NDCG@10", 0))
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert 0 < difference["p"] <= 1
    best = max(report["rows"], key=lambda row: row["figures"]["NDCG@10"]["value"])
    assert report["summary"][0].startswith(f"{best['name']} has the highest NDCG@10")
    assert all(row["milliseconds"] > 0 for row in report["rows"])


def test_models_stand_side_by_side_each_with_its_own_defaults(shop):
    folder = shop.folder / "model"
    shutil.copytree(TINY_FOLDER, folder)
    set_defaults(folder, "sum", {"weights": {"text": 0.0}})
    lines = [
        {"image": f"{colour}0.png", "text": "a white shoe", "relevant": [shop.ids[f"{colour}1"]]} for colour in COLOURS
    ]
    given = ["--model", "tiny", "--model", folder, "--composer", "text", "--composer", "sum"]
    report = shop.report(lines, *given)
    tiny, own = "tiny", str(folder)
    names = [f"{tiny}: text", f"{tiny}: sum", f"{own}: text", f"{own}: sum"]
    assert [row["name"] for row in report["rows"]] == names
    pairs = [(each["row"], each["other"]) for each in report["comparisons"]]
    assert pairs == [(names[1], names[0]), (names[2], names[0]), (names[3], names[0]), (names[3], names[1])]
    assert value(report, "NDCG@10", 2) == value(report, "NDCG@10", 0)
    expected = [counted_ndcg(shop.found({"image": shop.folder / f"{c}0.png"}), {f"{c}1": 1}) for c in COLOURS]
    assert value(report, "NDCG@10", 3) == pytest.approx(sum(expected) / len(expected), abs=1e-9)
    assert report["rows"][3]["settings"]["options from the model folder"] == {"sum": {"weights": {"text": 0.0}}}
    assert "options from the model folder" not in report["rows"][1]["settings"]


def test_a_query_names_its_own_composer_if_none_is_given(shop):
    line = {"image": "red0.png", "text": "in blue", "composer": "image", "relevant": [shop.ids["red1"]]}
    report = shop.report([line])
    found = shop.found({"image": shop.folder / "red0.png"})
    assert [each["caption"] for each in report["examples"][0]["results"]["default"]] == [f"{n}.png" for n in found[:6]]


def test_words_that_results_must_or_must_not_show_score_them_as_in_a_search(shop):
    query = {
        "image": {"id": shop.ids["white0"]},
        "text": "a hat",
        "negative_text": ["white", "red"],
        "must_text": "green",
    }
    found = {}
    with closing(open_collection(shop.address)) as collection:
        for strength in (2.0, 0.5, 0.0):
            hits = cir_vectorizer.search(collection, query, model=shop.model, strength=strength)
            found[strength] = [hit.id for hit in hits]
    assert found[0.0] != found[2.0]
    for strength, ids in found.items():
        for rank, id_ in enumerate(ids[:3], start=1):
            report = shop.report([{**query, "relevant": [id_]}], "--strength", strength)
            assert value(report, "mAP@10") == pytest.approx(1 / rank)
        assert ["words that results must or must not show", f"score them again, with strength {strength:g}"] in [
            list(each) for each in report["choices"]
        ]


def test_the_weight_of_texts_may_be_given(shop, tmp_path):
    rows = [f"{shop.folder / name}.png,{'a red hat' if name == 'blue0' else 'a bag'}" for name in shop.ids]
    (tmp_path / "told.csv").write_text("\n".join(["image,title", *rows]))
    create = CreateOptions(text_columns=("title",))
    with closing(open_collection(f"qdrant:{tmp_path}/index/shop")) as collection:
        sync(open_source(tmp_path / "told.csv"), collection, shop.model, create=create)
        (told,) = [id_ for id_, record in collection.scan() if Path(record.path).stem == "blue0"]
        queries = [JudgedQuery("q:1", ComposedQuery.parse({"text": "a red hat"}), {str(told): 1.0})]
        for weight, said in ((None, "0.3"), (1.0, "1")):
            report = judge(queries, collection, {"tiny": shop.model}, searching=Searching(text_weight=weight))
            assert ("weight of the objects' texts", said) in report.choices
    assert report.rows[0].figures["R@1"].value == 1.0
    result = shop.run([{"text": "a hat", "relevant": [shop.ids["red0"]]}], "--text-weight", "0.5")
    assert result.exit_code == 1
    assert "text_weight: is for collections with texts" in result.output


def test_an_unknown_composer_is_refused(shop):
    result = shop.run([{"text": "a hat", "relevant": [shop.ids["red0"]]}], "--composer", "magic")
    assert result.exit_code == 1
    assert "has no composer 'magic'; it has lincir" in result.stderr


def test_wordings_of_one_wish_give_the_sensitivity_to_wording(shop):
    wordings = {"hat": ["a blue hat", "blue"], "lonely": ["a green hat"], "shoe": ["black", "a white shoe", "shoes"]}
    targets = {"hat": "blue0", "lonely": "green0", "shoe": "black1"}
    lines = [
        {"text": text, "relevant": [shop.ids[targets[group]]], "group": group, "name": f"{group}-{i}"}
        for group, texts in wordings.items()
        for i, text in enumerate(texts)
    ]
    lines.append({"text": "white", "relevant": [shop.ids["white0"]]})
    report = shop.report(lines)
    ranges = []
    for group in ("hat", "shoe"):
        values = [counted_ndcg(shop.found({"text": text}), {targets[group]: 1}) for text in wordings[group]]
        ranges.append(max(values) - min(values))
    assert value(report, "wording range") == pytest.approx(sum(ranges) / 2, abs=1e-9)
    assert "hat-0, a blue hat" in {each["text"] for each in report["examples"]}


def test_pictures_are_files_or_base64(shop):
    relevant = [shop.ids["red1"]]
    content = base64.b64encode((shop.folder / "red0.png").read_bytes()).decode()
    (shop.folder / "plain").write_bytes((shop.folder / "red0.png").read_bytes())
    pictures = ["red0.png", {"path": "red0.png"}, "plain", content, f"data:image/png;base64,{content}", ["red0.png"]]
    report = shop.report([{"image": each, "relevant": relevant} for each in pictures])
    assert report["queries"] == len(pictures)
    results = {json.dumps(each["results"]["default"]) for each in report["examples"]}
    assert len(results) == 1


def test_the_report_is_written_in_three_forms(shop, tmp_path):
    result = shop.run([{"text": "a hat", "relevant": [shop.ids["red0"]]}], "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("q.jsonl on qdrant:")
    assert "Report: " in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json", "report.md"]


def test_a_sheet_shows_the_first_queries_with_the_results_of_each_row(shop, tmp_path):
    lines = [
        {"image": f"{colour}0.png", "text": "in blue", "relevant": [shop.ids["blue1"]]} for colour in ("red", "green")
    ]
    lines += [{"text": f"hat {i}", "relevant": [shop.ids["red0"]]} for i in range(4)]
    rows = ("--composer", "text", "--composer", "lincir")
    result = shop.run(lines, *rows, "--sheet", tmp_path / "sheet.html")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "sheet.html").read_text()
    assert [f"“hat {i}”" in page for i in range(4)] == [True, True, False, False]
    assert page.count("<h2>text</h2>") == page.count("<h2 class=mark>lincir</h2>") == 4
    assert page.count("data:image/jpeg") == 2 + 4 * 2 * 5
    assert "of 6: text: " in page


def test_a_sheet_of_another_format_is_refused_before_the_work(shop, tmp_path):
    result = shop.run([{"text": "a hat", "relevant": [shop.ids["red0"]]}], "--sheet", tmp_path / "sheet.pdf")
    assert result.exit_code == 2
    assert "should end in .png, .webp or .html" in result.output


def test_a_collection_of_another_program_is_judged_by_its_numbers(tmp_path, tiny):
    client = QdrantClient(path=str(tmp_path / "index"))
    client.create_collection("shop", models.VectorParams(size=tiny.dim, distance=models.Distance.COSINE))
    vectors = np.random.default_rng(0).standard_normal((30, tiny.dim)).tolist()
    client.upsert("shop", [models.PointStruct(id=i, vector=v, payload={"n": i}) for i, v in enumerate(vectors)])
    client.close()
    query = {"image": {"id": 7}, "relevant": {"3": 1, "4": 2}, "unwanted": [5]}
    (tmp_path / "q.jsonl").write_text(json.dumps(query))
    given = ["--file", tmp_path / "q.jsonl", "--in", f"qdrant:{tmp_path}/index/shop", "--device", "cpu", "--json"]
    result = CliRunner().invoke(main, ["evaluate", "queries", *map(str, given), "--limit", "29"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    unit = np.array(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = [str(i) for i in np.argsort(-unit @ unit[7]) if i != 7]
    assert value(report, "NDCG@10") == pytest.approx(counted_ndcg(nearest, {"3": 1, "4": 2}), abs=1e-9)
    curve = dict(map(tuple, report["rows"][0]["curves"]["recall"]))
    assert curve[20] == len({"3", "4"} & set(nearest[:20])) / 2


@pytest.fixture(params=ONE_OF_EACH)
def database(request, tmp_path):
    found = database_of(request.param, request, tmp_path)
    yield found
    found.close()


@pytest.mark.parametrize("by", ["id", "sku", "number"])
def test_every_database_gives_the_same_figures(shop, tiny, database, by):
    collection = database.open("Judged")
    sync(open_source(shop.folder / "catalog.csv"), collection, tiny)
    keys = {
        "id": {colour: [shop.ids[f"{colour}0"], shop.ids[f"{colour}1"]] for colour in COLOURS},
        "sku": {colour: [f"S-{colour}"] for colour in COLOURS},
        "number": {colour: [i] for i, colour in enumerate(COLOURS)},
    }[by]
    lines = [
        {"image": {"id": keys["red"][0]}, "text": "in blue", "relevant": keys["blue"], "unwanted": keys["red"]},
        {"text": "a white hat", "relevant": keys["white"], "unwanted": keys["black"]},
        {"text": "a green shoe", "relevant": [*keys["green"], 99]},
    ]
    path = shop.folder / f"{by}.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    queries, problems = read_judged(path, by_column=by != "id")
    assert problems == []
    searching = Searching(id_column=None if by == "id" else by)
    found = judge(queries, collection, {"tiny": tiny}, ["sum"], searching)
    assert found.queries == 3
    assert "1 judged object is not in the collection: 99." in found.summary
    column = [] if by == "id" else ["--id-column", by]
    expected = shop.report(lines, "--composer", "sum", *column)["rows"][0]["figures"]
    for name, figure in found.rows[0].figures.items():
        assert figure.value == pytest.approx(expected[name]["value"], abs=1e-9), name


def test_a_column_that_no_object_has_is_named_with_the_columns_there_are(shop, tiny, database):
    collection = database.open("Judged")
    sync(open_source(shop.folder / "catalog.csv"), collection, tiny)
    path = shop.folder / "column.jsonl"
    path.write_text(json.dumps({"text": "a red hat", "relevant": ["S-red"]}))
    queries, _ = read_judged(path, by_column=True)
    with pytest.raises(SourceError) as refused:
        judge(queries, collection, {"tiny": tiny}, searching=Searching(id_column="skuu"))
    assert "has a value in column 'skuu'; give --id-column one of these: number, sku" in str(refused.value)


def test_a_folder_that_takes_no_report_is_refused_before_the_work(shop, tmp_path):
    (tmp_path / "file").touch()
    result = shop.run(["no judged query"], "--out", tmp_path / "file" / "report")
    assert result.exit_code == 1
    assert f"because {tmp_path}/file is a file; give another --out" in result.stderr
