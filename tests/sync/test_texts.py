"""Texts of objects as their second vector: embedded when they are new or changed, and never lost."""

from pathlib import Path

import numpy as np
import pytest

from cir_vectorizer.collections import CreateOptions
from cir_vectorizer.sync import TextsRefused
from cir_vectorizer.sync.texts import Texts
from tests.support.databases import ONE_OF_EACH, every
from tests.support.indexing import counts, draw, only, run, table

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
    """Rows to change, and a way to write and open their table."""
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
