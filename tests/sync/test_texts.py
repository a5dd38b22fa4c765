"""Texts of objects as their second vector: embedded when they are new or changed, and never lost."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from qdrant_client import models

from cir_vectorizer.cli import main
from cir_vectorizer.collections import CreateOptions, ModelRecord, open_collection
from cir_vectorizer.errors import CollectionError, SourceError
from cir_vectorizer.models import load
from cir_vectorizer.sources import CollectionSource, Web, open_source, stable_id
from cir_vectorizer.sync import TextsRefused, dry_run, reembed
from cir_vectorizer.sync.texts import Texts
from tests.support.databases import ONE_OF_EACH, every
from tests.support.indexing import counts, draw, only, run, table
from tests.support.servers import our_service

TITLES = CreateOptions(text_columns=("title",))
ROWS = [
    {"image": "a.jpg", "title": "Red <b>shirt</b>", "price": 5},
    {"image": "b.png", "title": "blue  dress", "price": 6},
    {"image": "c.webp", "title": "", "price": 7},
    {"image": "inner/d.gif", "title": "green hat", "price": 8},
    {"image": "inner/e.bmp", "price": 9},
]


@pytest.fixture
def rows(photos):
    """Rows of a catalog of the photos, for a test to change."""
    return [dict(row) for row in ROWS]


def catalog(photos, rows):
    return table(photos / "catalog.jsonl", rows)


def every_point(shop):
    return {Path(point.payload["_cir"]["path"]).name: point for point in shop.get([id_ for id_, _ in shop.scan()])}


def assert_texts(shop, model, expected):
    """Check which object has which text's embedding, and that every object has its picture's."""
    found = every_point(shop)
    assert {name for name, point in found.items() if point.text_vector is not None} == set(expected)
    for name, text in expected.items():
        np.testing.assert_allclose(found[name].text_vector, model.embed_texts([text])[0], atol=1e-5)
    for point in found.values():
        assert point.vector is not None
        assert bool(point.payload["_cir"].get("text")) == (point.text_vector is not None)


ALL = {"a.jpg": "Red shirt", "b.png": "blue dress", "d.gif": "green hat"}


class TestTheTextOfAnObject:
    @pytest.mark.parametrize(
        ("columns", "names", "text"),
        [
            ({"title": "<p>Red &amp; white</p>\n <b>dress</b>"}, ("title",), "Red & white dress"),
            ({"title": "dress", "brand": "Acme"}, ("brand", "title"), "Acme, dress"),
            ({"title": "dress"}, ("brand", "title"), "dress"),
            ({"tags": ["new", " ", "silk", 3]}, ("tags",), "new, silk, 3"),
            ({"size": 42, "weight": 1.5, "sold": True, "none": None}, ("size", "weight", "sold", "none"), "42, 1.5"),
            ({"maker": {"name": "Acme", "city": "Rome"}}, ("maker.city",), "Rome"),
            ({"maker": {"name": "Acme", "city": "Rome"}}, ("maker",), "Acme, Rome"),
            ({"maker.city": "Rome", "brand name": "Acme"}, ("maker.city", "brand name"), "Rome, Acme"),
            ({"title": "  ", "tags": []}, ("title", "tags"), ""),
            ({"title": "dress"}, (), ""),
            ({"title": "a\ud800b"}, ("title",), "a?b"),
            ({"weight": float("nan")}, ("weight",), ""),
        ],
    )
    def test_is_made_of_the_columns_in_the_order_given(self, columns, names, text):
        assert Texts(names).of(columns) == text


@every(ONE_OF_EACH)
class TestInStep:
    def test_texts_of_new_objects_are_embedded_once(self, photos, rows, database, tiny):
        shop = database.open()
        report = run(catalog(photos, rows), shop, tiny, create=TITLES, batch_size=2)
        assert (counts(report), report.texts) == (only(added=5, encoded=5), 3)
        assert_texts(shop, tiny, ALL)
        report = run(catalog(photos, rows), shop, tiny)
        assert (counts(report), report.texts) == (only(unchanged=5), 0)

    def test_texts_are_added_without_encoding_a_picture(self, photos, rows, database, tiny):
        shop = database.open()
        run(catalog(photos, rows), shop, tiny)
        before = every_point(shop)
        with pytest.raises(TextsRefused, match="--yes"):
            run(catalog(photos, rows), shop, tiny, create=TITLES)
        assert shop.info().text_columns == ()
        report = run(catalog(photos, rows), shop, tiny, create=TITLES, yes=True, batch_size=2)
        assert (counts(report), report.texts) == (only(changed=3, unchanged=2), 3)
        assert report.changes["text"] == 3
        assert_texts(shop, tiny, ALL)
        for name, point in every_point(shop).items():
            np.testing.assert_allclose(point.vector, before[name].vector, atol=1e-6)
        report = run(catalog(photos, rows), shop, tiny)
        assert (counts(report), report.texts) == (only(unchanged=5), 0)

    def test_only_changed_texts_are_embedded_again(self, photos, rows, database, tiny):
        shop = database.open()
        run(catalog(photos, rows), shop, tiny, create=TITLES)
        rows[0]["title"] = "yellow shirt"
        rows[1]["price"] = 60
        rows[3]["title"] = None
        rows[4]["title"] = "black shoe"
        report = run(catalog(photos, rows), shop, tiny)
        assert (counts(report), report.texts) == (only(changed=4, unchanged=1), 2)
        assert_texts(shop, tiny, {"a.jpg": "yellow shirt", "b.png": "blue dress", "e.bmp": "black shoe"})
        assert every_point(shop)["b.png"].payload["price"] == 60

    def test_a_changed_picture_keeps_its_text(self, photos, rows, database, tiny):
        shop = database.open()
        run(catalog(photos, rows), shop, tiny, create=TITLES)
        draw(photos / "a.jpg", 100)
        (photos / "b.png").touch()
        report = run(catalog(photos, rows), shop, tiny)
        assert (counts(report), report.texts) == (only(changed=1, unchanged=4, encoded=1), 1)
        assert_texts(shop, tiny, ALL)

    def test_other_columns_are_noted_and_embedded(self, photos, rows, database, tiny):
        shop = database.open()
        run(catalog(photos, rows), shop, tiny, create=TITLES)
        report = run(catalog(photos, rows), shop, tiny, create=CreateOptions(text_columns=("title", "price")))
        assert (counts(report), report.texts) == (only(changed=5), 5)
        assert shop.info().text_columns == ("title", "price")
        expected = {**{name: f"{text}, {price}" for (name, text), price in zip(ALL.items(), (5, 6, 8), strict=True)}}
        assert_texts(shop, tiny, {**expected, "c.webp": "7", "e.bmp": "9"})

    def test_a_failed_text_fails_alone(self, photos, rows, database, tiny, monkeypatch):
        shop = database.open()
        run(catalog(photos, rows), shop, tiny)
        texts = type(tiny).run

        def broken(self, works):
            vectors = texts(self, works)
            vectors[[i for i, work in enumerate(works) if work.plan.query.text == "blue dress"]] = np.nan
            return vectors

        monkeypatch.setattr(type(tiny), "run", broken)
        report = run(catalog(photos, rows), shop, tiny, create=TITLES, yes=True)
        assert [each.reason for each in report.failed] == ["text"]
        assert "b.png has a text whose embedding" in str(report.failed[0])
        assert_texts(shop, tiny, {name: text for name, text in ALL.items() if name != "b.png"})
        monkeypatch.undo()
        assert run(catalog(photos, rows), shop, tiny).texts == 1
        assert_texts(shop, tiny, ALL)


class TestWhatIsRefused:
    def test_a_column_that_is_not_there_is_told_with_those_that_are(self, photos, rows, tmp_path, shop, tiny):
        place = catalog(photos, rows)
        with pytest.raises(SourceError, match=r"no column 'name'; --text-column is one of: image, title, price"):
            open_source(place, text_columns=("title", "name"))
        with pytest.raises(SourceError, match=r"no column 'maker'"):
            open_source(place, text_columns=("maker.city",))
        with pytest.raises(
            SourceError, match=r"'image' of .* holds the pictures; --text-column is one of: title, price"
        ):
            open_source(place, text_columns=("image",))
        with pytest.raises(SourceError, match="is a folder, which has no columns; leave out --text-column"):
            open_source(photos, text_columns=("title",))
        run(place, shop, tiny)
        copy = CollectionSource(shop, Web(), lent=True, text_columns=("name",))
        with pytest.raises(SourceError, match=r"no column 'name'; --text-column is one of: .*title"):
            copy.count()

    @pytest.mark.parametrize("where", ["first", "last"])
    def test_a_column_of_few_rows_is_found(self, photos, where):
        rows = [{"image": "a.jpg", "n": i} for i in range(1200)]
        rows[0 if where == "first" else -1]["maker"] = {"city": "Rome"}
        open_source(catalog(photos, rows), text_columns=("maker.city",))

    def test_a_collection_of_another_program(self, photos, rows, shop, tiny):
        place = catalog(photos, rows)
        config = models.VectorParams(size=tiny.dim, distance=models.Distance.COSINE)
        shop._call(lambda client: client.create_collection("shop", vectors_config=config))
        with pytest.raises(CollectionError, match="made by another program, whose objects get no second vector"):
            run(place, shop, tiny, create=TITLES, yes=True)
        with pytest.raises(CollectionError, match="leave out --text-column"):
            run(place, shop, tiny, create=TITLES, take_over=True)
        with pytest.raises(CollectionError, match="the database's server makes the vectors"):
            run(place, shop, tiny, create=CreateOptions(vectorize="server", text_columns=("title",)))

    def test_a_source_without_such_texts_is_noted(self, photos, rows, shop, tiny):
        run(catalog(photos, rows), shop, tiny, create=TITLES)
        renamed = [{**{k: v for k, v in row.items() if k != "title"}, "name": row.get("title")} for row in rows]
        report = run(catalog(photos, renamed), shop, tiny)
        assert any("has a text in title" in note for note in report.notes)
        assert_texts(shop, tiny, {})
        assert run(catalog(photos, renamed), shop, tiny, create=CreateOptions(text_columns=("name",))).notes == []
        assert_texts(shop, tiny, ALL)


class TestTheRestOfSync:
    def test_texts_beyond_the_context_are_counted(self, photos, rows, shop, tiny):
        rows[0]["title"] = "red " * 500
        rows[1]["title"] = "blue " * 500
        report = run(catalog(photos, rows), shop, tiny, create=TITLES)
        assert any("2 texts are longer than the model's context" in note for note in report.notes)
        assert (report.texts, len(report.failed)) == (3, 0)

    def test_a_dry_run_says_what_a_run_would_do(self, photos, rows, shop, tiny):
        place = catalog(photos, rows)
        model = ModelRecord.of(tiny)
        made = dry_run(open_source(place), shop, model, create=TITLES)
        assert (made.report.texts, made.report.encoded, made.report.notes) == (3, 5, [])
        run(place, shop, tiny)
        made = dry_run(open_source(place), shop, model, create=TITLES)
        assert (made.report.texts, made.report.encoded, made.report.changes["text"]) == (3, 0, 3)
        assert "--yes" in made.report.notes[-1]
        assert "text     a.jpg" in made.lines
        assert shop.info().text_columns == ()
        assert dry_run(open_source(place), shop, model, create=TITLES, yes=True).report.notes == []

    def test_another_backbone_embeds_the_texts_too(self, photos, rows, shop, tiny, clip_folder):
        other = load(str(clip_folder), "cpu")

        def copy(wanted):
            return CollectionSource(shop, Web(), keep_owners=True, wanted=wanted, lent=True)

        run(catalog(photos, rows), shop, tiny, create=TITLES)
        part = table(photos / "part.jsonl", rows[:2])
        made = dry_run(open_source(part), shop, ModelRecord.of(other), reembed=True)
        assert made.report.texts == 2
        report = reembed(open_source(part), shop, other, copy)
        assert (report.switched, report.encoded, report.texts) == (True, 5, 3)
        assert shop.info().text_columns == ("title",)
        assert_texts(shop, other, ALL)
        plain = shop.beside("plain")
        run(catalog(photos, rows), plain, tiny)
        with pytest.raises(TextsRefused, match="--yes"):
            reembed(open_source(part), plain, other, copy, create=TITLES)

    def test_objects_of_other_sources_keep_theirs(self, photos, rows, shop, tiny):
        run(table(photos / "one.jsonl", rows[:3]), shop, tiny, create=TITLES)
        report = run(table(photos / "two.jsonl", rows[3:]), shop, tiny)
        assert report.texts == 1
        assert_texts(shop, tiny, ALL)

    def test_an_object_that_moves_to_another_id_takes_its_text_along(self, photos, shop, tiny):
        rows = [{"image": "a.jpg", "sku": 101, "title": "red shirt"}]
        place = catalog(photos, rows)
        run(place, shop, tiny, id_column="sku", create=TITLES)
        (point,) = every_point(shop).values()
        shop.delete([point.id])
        shop.upsert([replace(point, id=stable_id("101.0"))])
        report = run(place, shop, tiny, id_column="sku")
        assert (report.moved, report.encoded, report.texts) == (1, 0, 0)
        assert_texts(shop, tiny, {"a.jpg": "red shirt"})

    def test_an_interrupted_addition_goes_on(self, photos, rows, shop, tiny):
        """The vector was added, and the run was killed before the columns were noted."""
        run(catalog(photos, rows), shop, tiny)
        shop._add_text_vector(shop._schema)
        assert shop.info().text_columns == ()
        assert run(catalog(photos, rows), shop, tiny).texts == 0
        assert run(catalog(photos, rows), shop, tiny, create=TITLES, yes=True).texts == 3
        assert_texts(shop, tiny, ALL)


class TestTheCommand:
    def sync(self, source, place, *arguments):
        return CliRunner().invoke(main, ["sync", str(source), "--to", place, "--model", "tiny", *arguments])

    def test_texts_are_asked_for_confirmed_counted_and_copied(self, photos, rows, tmp_path):
        source, place, report = catalog(photos, rows), f"qdrant:{tmp_path}/index/shop", tmp_path / "report.json"
        assert self.sync(source, place).exit_code == 0
        asked = self.sync(source, place, "--text-column", "title")
        assert asked.exit_code == 1
        assert "unless they name another (using=…), as before" in asked.output
        assert "run the same command with --yes" in asked.output
        dry = self.sync(source, place, "--text-column", "title", "--dry-run")
        assert "it would embed 3 texts" in dry.output
        assert "--yes" in dry.output
        done = self.sync(source, place, "--text-column", "title", "--yes", "--report", str(report))
        assert (done.exit_code, "3 texts embedded" in done.output) == (0, True)
        kept = json.loads(report.read_text())
        assert (kept["encoded"], kept["texts"], kept["changes"]["text"]) == (0, 3, 3)
        other = f"qdrant:{tmp_path}/index/copy"
        copied = self.sync(place, other)
        assert "3 texts embedded" in copied.output, copied.output
        collection = open_collection(other)
        assert collection.info().text_columns == ("title",)
        assert_texts(collection, load("tiny", "cpu"), ALL)
        collection.close()

    @pytest.mark.parametrize("other", [["--vectorize", "server"], ["--take-over"]])
    def test_options_that_do_not_go_together(self, photos, rows, tmp_path, other):
        place = f"qdrant:{tmp_path}/index/shop"
        refused = self.sync(catalog(photos, rows), place, "--text-column", "title", *other)
        assert refused.exit_code == 2
        assert "give one" in refused.output
        assert not (tmp_path / "index").exists()

    def test_a_service_embeds_the_texts(self, photos, rows, tmp_path, tiny):
        place = f"qdrant:{tmp_path}/index/shop"
        rows[0]["title"] = "red " * 500
        with our_service(tmp_path) as service:
            done = self.sync(catalog(photos, rows), place, "--service", service.url, "--text-column", "title")
        assert (done.exit_code, "3 texts embedded" in done.output) == (0, True), done.output
        assert "1 text is longer than the model's context" in done.output
        collection = open_collection(place)
        assert_texts(collection, tiny, {**ALL, "a.jpg": ("red " * 500).strip()})
        collection.close()
