"""`cir-vectorizer evaluate catalog`: queries made of a collection, against counts written here; the choice and its refusals."""

import csv
import json
import random
import re
import shutil
import tracemalloc
from collections import Counter
from hashlib import blake2b

import numpy as np
import pytest
from click.testing import CliRunner

import cir_vectorizer
from cir_vectorizer.cli import main
from cir_vectorizer.collections import SyncRecord, open_collection
from cir_vectorizer.collections.records import Point
from cir_vectorizer.errors import BackboneMismatch, CollectionError, SourceError
from cir_vectorizer.evaluate.catalog import CEILING, Asking, judge
from cir_vectorizer.evaluate.catalog.attributes import attributes_of, catalog_words
from cir_vectorizer.evaluate.catalog.objects import Objects, read_objects
from cir_vectorizer.evaluate.catalog.queries import Answers, QueryMaker, halves
from cir_vectorizer.evaluate.catalog.wordings import Wordings, singular
from cir_vectorizer.models import read_record
from cir_vectorizer.models.published import TINY_FOLDER
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from cir_vectorizer_trainer.edits.phrasings import OURS, Phrasings
from examples.demo.catalog import caption, catalog, draw

PICTURES = 360
COLUMNS = ("category", "colour", "pattern")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny):
    """A drawn shop with columns of attributes and a title, and the embedded collections that sync made of it."""
    folder = tmp_path_factory.mktemp("drawn")
    titles = random.Random(5)
    (folder / "pictures").mkdir()
    with (folder / "shop.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", *COLUMNS, "title"])
        for i, product in enumerate(catalog(PICTURES)):
            path = folder / "pictures" / f"{i}.jpg"
            draw(product, random.Random(f"7/{i}"), 96).save(path)
            row = [i, path, product.category, product.colour, product.pattern, caption(product, titles)]
            writer.writerow(row)
    rows = list(csv.DictReader((folder / "shop.csv").open()))
    with (folder / "titles.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "image", "title"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    for name in ("shop", "titles"):
        collection = open_collection(f"qdrant:{folder}/index-{name}/{name}")
        sync(open_source(folder / f"{name}.csv", id_column="id"), collection, tiny)
        collection.close()
    return folder


def opened(folder, name="shop"):
    return open_collection(f"qdrant:{folder}/index-{name}/{name}")


@pytest.fixture(scope="module")
def objects(folder):
    collection = opened(folder)
    found = read_objects(collection, 10_000)
    collection.close()
    return found


@pytest.fixture(scope="module")
def judged(folder, tiny):
    collection = opened(folder)
    found = judge(collection, {"tiny": tiny}, Asking(queries=160))
    collection.close()
    return found


def evaluate(*arguments):
    return CliRunner().invoke(main, ["evaluate", "catalog", *map(str, arguments)])


def made_of(columns, words="en", **given):
    """Attributes of objects that have these columns and nothing else."""
    count = len(next(iter(columns.values())))
    rows = [{name: values[i] for name, values in columns.items()} for i in range(count)]
    blank = Objects(range(count), np.zeros((count, 1), np.float32), [None] * count, rows, [""] * count, count)
    return attributes_of(blank, catalog_words(words), **given)


class TestObjects:
    def test_they_hold_the_collections_vectors_norms_columns_and_pictures(self, objects, folder):
        assert (len(objects), objects.total) == (PICTURES, PICTURES)
        assert np.allclose(np.linalg.norm(objects.vectors, axis=1), 1, atol=1e-5)
        assert all(norm > 0 for norm in objects.norms)
        products = catalog(PICTURES)
        for columns, picture in zip(objects.columns, objects.pictures, strict=True):
            number = int(picture.rsplit("/", 1)[1].removesuffix(".jpg"))
            assert columns["colour"] == products[number].colour

    def test_a_large_collection_is_sampled_evenly(self, folder):
        collection = opened(folder)
        found = [read_objects(collection, 60, seed) for seed in range(30)]
        collection.close()
        assert {(len(each), each.total) for each in found} == {(60, PICTURES)}
        drawn = Counter(id_ for each in found for id_ in each.ids)
        assert len(drawn) > 0.98 * PICTURES
        assert max(drawn.values()) < 18  # 5 on average

    def test_memory_does_not_grow_with_two_million_objects(self):
        tracemalloc.start()
        found = read_objects(FakeLargeCollection(2_000_000), 500)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (len(found), found.total) == (500, 2_000_000)
        assert peak < 8e6

    def test_too_few_objects_are_refused(self):
        with pytest.raises(CollectionError, match=r"holds 1 objects with a vector, and 20 are needed"):
            read_objects(FakeLargeCollection(1), 500)


class FakeLargeCollection:
    """A fake: a collection of any size whose objects are made when they are read; `TestObjects` reads real ones too."""

    address = "fake://large"

    def __init__(self, count):
        self._count = count

    def scan(self):
        return ((number, None) for number in range(self._count))

    def get(self, ids):
        record = SyncRecord("a.jpg", 1, 1, "", 3.0, "", "")
        return [Point(id_, np.full(4, 0.5, np.float32), record.join({"colour": "red"})) for id_ in ids]


class TestAttributes:
    def test_columns_that_many_objects_share_are_found_and_others_are_not(self):
        names = [f"model {i}" for i in range(60)]
        found = made_of({
            "sku": names,
            "colour": ["Red", "blue", "GREEN"] * 20,
            "price": ["12.50", "9"] * 30,
            "articleType": ["Tshirts", "Shirts", "Jeans", "Skirts"] * 15,
            "masterCategory": ["Top", "Top", "Bottom", "Bottom"] * 15,
            "year": ["2011", "2012"] * 30,
            "brand_new": ["yes"] * 60,
        })  # fmt: skip
        assert [(each.name, each.role) for each in found.attributes] == [("colour", "colour"), ("articleType", "noun")]
        assert found.attributes[0].values[:3] == ["red", "blue", "green"]
        assert found.notes == ["column 'masterCategory': 'articleType' determines it"]

    def test_cells_that_say_nothing_are_unknown(self):
        found = made_of({"colour": ["red", "NA", "", "blue", "unknown", None] * 10, "type": ["mug", "vase"] * 30})
        assert found.attributes[0].values[:6] == ["red", None, None, "blue", None, None]

    def test_named_columns_are_used_as_they_are(self):
        columns = {"colour": ["red", "blue"] * 20, "season": ["summer", "winter"] * 20}
        assert [each.name for each in made_of(columns, named=["season"]).attributes] == ["season"]
        with pytest.raises(SourceError, match=r"no column 'size'; its columns of text are colour, season"):
            made_of(columns, named=["size"])
        for cells in (["acme"] * 40, [f"brand {i}" for i in range(40)], ["38", "40"] * 20):
            with pytest.raises(SourceError, match=r"'brand' has fewer than two values in words that 5 objects share"):
                made_of({**columns, "brand": cells}, named=["brand"])
        with pytest.raises(SourceError, match=r"column 'price' holds no texts; its columns of text are colour, season"):
            made_of({**columns, "price": [9.5] * 40}, named=["price"])

    def test_captions_give_attributes_where_there_are_no_columns(self):
        draws = random.Random(3)
        titles = [caption(product, draws) for product in catalog(600)]
        found = made_of({"title": titles})
        assert found.captions == "title"
        assert {each.role for each in found.attributes} >= {"colour", "noun", "pattern"}
        colours = next(each for each in found.attributes if each.role == "colour")
        right = [value == product.colour for value, product in zip(colours.values, catalog(600), strict=True)]
        assert np.mean(right) > 0.95

    def test_a_catalog_without_either_is_refused(self):
        with pytest.raises(SourceError, match=r"no columns of attributes .* and none of captions"):
            made_of({"sku": [f"a{i}" for i in range(50)]})
        with pytest.raises(SourceError, match=r"no words of column 'note' take each other's place"):
            made_of({"note": ["one and the same note"] * 50}, captions="note")


class TestQueries:
    def test_wanted_and_unwanted_objects_are_those_a_loop_finds(self, objects):
        attributes = made_of_columns(objects)
        maker = QueryMaker(attributes, Wordings())
        queries = maker.draw(300)
        assert set(Counter(query.change for query in queries)) == {"one", "two", "add", "remove"}
        answers = Answers.of(queries, maker.combinations)
        rows = [tuple(columns[name] for name in COLUMNS) for columns in objects.columns]
        everything = np.tile(np.arange(len(objects)), (len(queries), 1))
        right, unwanted = answers.right(everything), answers.unwanted(everything)
        totals = answers.totals(maker.combinations.sizes)
        for at, query in enumerate(queries):
            base = rows[query.reference]
            for other, row in enumerate(rows):
                same = [row[i] == base[i] for i in range(3) if i not in query.attributes]
                if query.change == "remove":
                    (changed,) = query.attributes
                    wanted = all(same) and row[changed] != base[changed]
                else:
                    wanted = row == query.target
                assert right[at, other] == wanted
                assert unwanted[at, other] == (row == base)
            assert totals[0][at] == right[at].sum() > 0
            assert totals[1][at] == unwanted[at].sum() - 1  # without the picture itself

    def test_the_words_say_what_changes(self, objects):
        attributes = made_of_columns(objects)
        for query in QueryMaker(attributes, Wordings()).draw(300):
            base = [attribute.values[query.reference] for attribute in attributes]
            for at in query.attributes:
                value = base[at] if query.change == "remove" else query.target[at]
                assert singular(value) in query.text if attributes[at].role == "noun" else value in query.text
            assert "…" in query.wording
            if query.change == "add":
                assert base[query.attributes[0]] == "plain"

    def test_no_combination_is_in_both_halves(self, objects):
        queries = QueryMaker(made_of_columns(objects), Wordings()).draw(300)
        later = halves(queries)
        assert 0.4 < later.mean() < 0.6
        sides = [{query.target for query, own in zip(queries, later, strict=True) if own == side} for side in (0, 1)]
        assert not sides[0] & sides[1]

    def test_the_same_seed_makes_the_same_queries(self, objects):
        attributes = made_of_columns(objects)
        first, again, other = (QueryMaker(attributes, Wordings(), seed).draw(50) for seed in (1, 1, 2))
        assert first == again != other

    def test_queries_for_one_combination_alone_are_refused(self):
        rare = made_of({"pattern": ["plain"] * 20_000 + ["striped"] * 30}, named=["pattern"]).attributes
        queries = QueryMaker(rare, Wordings()).draw(100)
        assert {query.change for query in queries} == {"remove"}
        with pytest.raises(SourceError, match=r"queries ask for the same combination of values"):
            halves(queries)

    def test_a_catalog_that_is_exhausted_gives_what_it_has(self):
        few = made_of({"colour": ["red", "blue"] * 20, "type": ["mug", "mug", "vase", "vase"] * 10}).attributes
        found = QueryMaker(few, Wordings()).draw(100_000)
        assert 100 < len(found) == len({(query.reference, query.text) for query in found}) < 5000

    def test_a_catalog_of_one_kind_allows_none(self):
        found = made_of({"colour": ["red", "blue"] * 20, "type": ["mug", "vase"] * 20}, named=["colour", "type"])
        with pytest.raises(SourceError, match=r"allows 0 queries that change colour, type, and 20 are needed"):
            QueryMaker(found.attributes, Wordings()).draw(100)

    @pytest.mark.parametrize("language", ["en", "de"])
    def test_no_training_uses_a_wording(self, language):
        ours = {plain(wording) for wording in Wordings(language).all()}
        entry = json.loads(OURS.read_text(encoding="utf-8"))[language]
        phrasings = Phrasings.read(language=language)
        theirs = {
            plain(template)
            for change in ("replace", "add", "remove")
            for role in entry[change]
            if role != "any"
            for template in phrasings.templates(change, role)
        }
        assert len(theirs) > 30
        assert not ours & theirs

    def test_a_language_without_wordings_is_refused(self):
        with pytest.raises(SourceError, match=r"no wordings for 'fr'; choose one of en, de"):
            Wordings("fr")

    @pytest.mark.parametrize(
        ("plural", "one"),
        [("tshirts", "tshirt"), ("casual shoes", "casual shoes"), ("dresses", "dress"), ("watches", "watch"),
         ("scarves", "scarf"), ("accessories", "accessory"), ("ties", "tie"), ("hoodies", "hoodie"), ("bus", "bus"), ("glass", "glass"),
         ("laptop bag", "laptop bag"), ("boxes", "box")],
    )  # fmt: skip
    def test_nouns_stand_in_the_singular(self, plural, one):
        assert singular(plural) == one


def made_of_columns(objects):
    return attributes_of(objects, catalog_words("en"), COLUMNS).attributes


def plain(template):
    """Return a wording with its placeholders alike."""
    return re.sub(r"\{\w+\}", "…", template.lower())


class TestJudging:
    def test_figures_are_those_of_searches_counted_here(self, judged, objects, tiny):
        """The queries are made again; every figure of LinCIR is counted from the vectors that the model gives."""
        attributes = {each.name: each for each in made_of_columns(objects)}
        names = dict(judged.report.choices)["attributes"].removesuffix(" (columns)").split(", ")
        maker = QueryMaker([attributes[name] for name in names], Wordings())
        queries = maker.draw(160)
        mine = [query for query, own in zip(queries, halves(queries), strict=True) if own]
        assert judged.report.queries == len(mine)
        rows = maker.combinations.rows
        counted = Counter()
        for query in mine:
            asked = ComposedQuery(image=(objects.reference(query.reference),), text=query.text, composer="lincir")
            scores = (tiny.compose([asked]).vectors @ objects.vectors.T)[0]
            order = [i for i in np.argsort(-scores, kind="stable") if i != query.reference]
            base = rows[query.reference]
            if query.change == "remove":
                (at,) = query.attributes
                wanted = [
                    row[:at] == base[:at] and row[at + 1 :] == base[at + 1 :] and row[at] != base[at] for row in rows
                ]
            else:
                wanted = [row == query.target for row in rows]
            found = [wanted[i] for i in order[:10]]
            total = sum(wanted)
            counted["R@1"] += found[0]
            counted["R@10"] += any(found)
            precise = [sum(found[: k + 1]) / (k + 1) for k in range(10) if found[k]]
            counted["mAP@10"] += sum(precise) / min(10, total)
            own = sum(rows[i] == base for i in order[:10])
            counted["NegRecall@10"] += own / max(1, min(10, sum(row == base for row in rows) - 1))
            first = rows[order[0]]
            kept = [first[at] == base[at] for at in range(len(base)) if at not in query.attributes]
            counted["keep@1"] += all(kept)
            asked_for = [
                first[at] != base[at] if query.target[at] is None else first[at] == query.target[at]
                for at in query.attributes
            ]
            counted["edit@1"] += all(asked_for)
        row = next(row for row in judged.report.rows if row.name == "lincir")
        for name, figure in row.figures.items():
            assert figure.value == pytest.approx(counted[name] / len(mine), abs=1e-9), name
            assert figure.low <= figure.value <= figure.high

    def test_the_report_compares_every_composer(self, judged):
        report = judged.report
        names = [row.name for row in report.rows]
        assert {"lincir", "compodiff", "image", "text", "sum", "sum, centred", "slerp"} < set(names)
        assert names[-1] == CEILING
        assert report.rows[-1].ceiling
        assert judged.choice.name == names[0] == report.comparisons[0].row
        assert judged.choice.served
        assert {each.other for each in report.comparisons if each.row == names[0]} == set(names[1:-1])
        assert {"attribute", "change", "wording"} == set(report.rows[0].parts)
        assert all(row.milliseconds > 0 for row in report.rows if row.settings.get("composer"))
        best = max(row.figures["R@10"].value for row in report.rows if row.settings.get("composer"))
        chosen = report.rows[0].figures["R@10"].value
        assert judged.regret == pytest.approx(best - chosen)
        assert "Use 'lincir' of tiny" in report.summary[0] or "Use 'compodiff' of tiny" in report.summary[0]
        asked = next(each for each in report.confusions if each.attribute == "colour")
        assert np.sum(asked.counts) > 0
        for example in report.examples:
            assert example.references[0].picture.endswith(".jpg")
            assert set(example.results) <= set(names)

    def test_samples_are_typical_queries_one_of_each_attribute_with_plain_and_trained_results(self, judged):
        plain = {row.name for row in judged.report.rows if row.plain}
        assert {"sum, centred", "slerp", "image", "text", "sum"} <= plain
        assert not plain & {"lincir", "compodiff", CEILING}
        assert len(judged.report.samples) == 4  # category, colour, pattern, and two at once
        for sample in judged.report.samples:
            before, after = sample.results
            assert before in plain
            assert after not in plain
            assert all(len(found) == 5 for found in sample.results.values())
            assert len(sample.references) == 1

    def test_every_setting_gives_its_vectors_again_as_a_query(self, judged, objects, tiny):
        """A row's settings are a query's own words: composer and options, as a shop sends them."""
        for row in judged.report.rows:
            if "composer" in row.settings:
                query = {"image": objects.reference(3), "text": "is red", "composer": row.settings["composer"],
                         "options": row.settings["options"]}  # fmt: skip
                assert tiny.compose([query]).vectors.shape == (1, tiny.dim)

    def test_captions_alone_are_enough(self, folder, tiny):
        collection = opened(folder, "titles")
        found = judge(collection, {"tiny": tiny}, Asking(queries=120))
        collection.close()
        assert "words of column 'title'" in dict(found.report.choices)["attributes"]
        by_name = {row.name: row.figures["R@10"].value for row in found.report.rows}
        assert max(by_name["lincir"], by_name["compodiff"]) > by_name["image"]

    def test_more_than_the_memory_holds_is_refused(self, folder, tiny, monkeypatch):
        monkeypatch.setattr("cir_vectorizer.evaluate.catalog.judging.MOST_PAIRS", 60 * PICTURES - 1)
        collection = opened(folder)
        with pytest.raises(SourceError, match=r"60 queries over \d+ objects need too much memory; ask for fewer"):
            judge(collection, {"tiny": tiny}, Asking(queries=60))
        collection.close()

    def test_another_backbone_is_refused(self, folder, clip_folder):
        collection = opened(folder)
        with pytest.raises(BackboneMismatch):
            judge(collection, {"other": cir_vectorizer.load(str(clip_folder), "cpu")})
        collection.close()


class TestCommand:
    def test_it_writes_a_report_and_applies_the_choice(self, folder, tmp_path):
        shutil.copytree(TINY_FOLDER, tmp_path / "mine")
        address = f"qdrant:{folder}/index-shop/shop"
        result = evaluate("--in", address, "--model", tmp_path / "mine", "--out", tmp_path / "report", "--queries", 100,
                          "--apply", "--json", "--sheet", tmp_path / "sheet.html")  # fmt: skip
        assert result.exit_code == 0, result.output
        printed = json.loads(result.stdout)
        assert printed == json.loads((tmp_path / "report" / "report.json").read_text())
        titles = re.findall("<h2[^>]*>([^<]+)</h2>", (tmp_path / "sheet.html").read_text())
        plain, trained = titles[:2]
        assert titles == [plain, trained] * len(printed["samples"])
        assert plain.startswith("Plain CLIP: ")
        assert plain.removeprefix("Plain CLIP: ") in {row["name"] for row in printed["rows"] if row["plain"]}
        page = (tmp_path / "report" / "report.html").read_text()
        assert "Catalog shop" in page
        assert "data:image/jpeg;base64," in page
        assert "now composes with" in result.stderr
        settings = printed["rows"][0]["settings"]
        record = read_record(tmp_path / "mine")
        assert record["default_composer"] == settings["composer"]
        assert record.get("defaults", {}).get(settings["composer"], {}) == settings["options"]
        model = cir_vectorizer.load(str(tmp_path / "mine"), "cpu")
        query = {"image": folder / "pictures" / "0.jpg", "text": "is red"}
        explicit = {**query, "composer": settings["composer"], "options": settings["options"]}
        tiny = cir_vectorizer.load("tiny", "cpu")
        assert np.allclose(model.compose([query]).vectors, tiny.compose([explicit]).vectors, atol=1e-6)

    def test_two_models_are_compared_in_pairs(self, folder, tmp_path):
        for name in ("before", "after"):
            shutil.copytree(TINY_FOLDER, tmp_path / name)
        address = f"qdrant:{folder}/index-shop/shop"
        result = evaluate("--in", address, "--model", tmp_path / "before", "--model", tmp_path / "after", "--queries", 60,
                          "--out", tmp_path / "report", "--json")  # fmt: skip
        assert result.exit_code == 0, result.output
        pairs = {(each["row"], each["other"]): each["differences"] for each in json.loads(result.stdout)["comparisons"]}
        same = pairs["after: lincir", "before: lincir"]["R@10"]
        assert (same["value"], same["p"]) == (0, 1)
        names = [row["name"] for row in json.loads(result.stdout)["rows"]]
        assert names.count("image") == 1

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (["--attributes", "size"], "has no column 'size'; its columns of text are"),
            (["--captions", "words"], "has no column 'words'"),
            (["--language", "fr"], "no wordings for 'fr'; choose one of en, de"),
            (["--model", "tiny", "--model", "tiny"], "names one model twice"),
            (["--attributes", "colour", "--captions", "title"], "give one of them"),
        ],
    )
    def test_wrong_options_are_refused_with_a_sentence(self, folder, tmp_path, options, says):
        result = evaluate("--in", f"qdrant:{folder}/index-shop/shop", "--out", tmp_path / "report", *options)
        assert result.exit_code in (1, 2)
        assert says in result.output
        assert "Traceback" not in result.output
        assert not (tmp_path / "report").exists()

    def test_a_collection_that_is_not_there_is_refused(self, tmp_path):
        result = evaluate("--in", f"qdrant:{tmp_path}/index/none", "--out", tmp_path / "report")
        assert (result.exit_code, "there is no collection" in result.output) == (1, True)

    def test_the_packaged_model_is_not_changed(self, folder, tmp_path):
        before = blake2b((TINY_FOLDER / "model.json").read_bytes()).digest()
        result = evaluate(
            "--in", f"qdrant:{folder}/index-shop/shop", "--queries", 40, "--apply", "--out", tmp_path / "r"
        )
        assert result.exit_code == 1
        assert "built in" in result.output
        assert not (tmp_path / "r").exists()  # refused before the work
        assert blake2b((TINY_FOLDER / "model.json").read_bytes()).digest() == before
