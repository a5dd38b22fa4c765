"""Searches in Python: ids, pictures to be like and unlike, and the results of `find`."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qdrant_client import QdrantClient, models

import cir_vectorizer
from cir_vectorizer.collections import Ask, Info, ModelRecord, Point, SyncRecord, open_collection
from cir_vectorizer.collections.records import values_at
from cir_vectorizer.collections.searching import Search, find
from cir_vectorizer.collections.stored import read_id, resolve
from cir_vectorizer.errors import QueryError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from tests.support.databases import every, uid

COLOURS = {"red": (208, 32, 38), "green": (48, 150, 62), "blue": (44, 96, 214), "white": (248, 248, 246)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for colour, rgb in COLOURS.items():
        Image.new("RGB", (64, 48), rgb).save(folder / f"{colour}.png")
    return folder


@pytest.fixture(scope="module")
def shop(folder, tiny):
    """An embedded collection, filled by sync."""
    collection = open_collection(f"qdrant:{folder}/index/shop")
    sync(open_source(folder), collection, tiny)
    yield collection
    collection.close()


@pytest.fixture(scope="module")
def ids(shop):
    return {Path(record.path).stem: id_ for id_, record in shop.scan()}


def cosine(a, b):
    return float(np.dot(a, b))


class TestIds:
    def test_an_object_stands_for_its_picture(self, shop, ids, tiny, folder):
        resolved = resolve(ComposedQuery.parse({"image": {"id": ids["red"]}, "text": "is blue"}), shop)
        by_id = tiny.compose([resolved]).vectors[0]
        by_picture = tiny.compose([{"image": folder / "red.png", "text": "is blue"}]).vectors[0]
        assert cosine(by_id, by_picture) == pytest.approx(1, abs=1e-5)

    def test_its_norm_is_the_recorded_one(self, shop, ids):
        (ref,) = resolve(ComposedQuery.parse({"image": {"id": ids["red"]}}), shop).image
        assert ref.norm == SyncRecord.read(shop.get([ids["red"]])[0].payload).norm
        assert np.linalg.norm(ref.vector) == pytest.approx(1, abs=1e-5)

    def test_several_are_read_at_once_and_keep_their_places(self, shop, ids, folder):
        image = [{"id": ids["blue"]}, folder / "green.png", {"id": ids["red"]}, {"id": ids["blue"].upper()}]
        resolved = resolve(ComposedQuery.parse({"image": image}), shop).image
        assert resolved[1].path == folder / "green.png"
        assert resolved[0] == resolved[3] != resolved[2]

    def test_a_query_without_ids_asks_nothing(self):
        query = ComposedQuery.parse({"text": "a hat"})
        assert resolve(query, open_collection("qdrant://127.0.0.1:9/nowhere")) == query

    def test_a_collection_of_another_program_gives_the_mean_norm(self, tmp_path, tiny, folder):
        client = QdrantClient(path=str(tmp_path / "index"))
        client.create_collection("shop", models.VectorParams(size=tiny.dim, distance=models.Distance.COSINE))
        embedding = tiny.embed_images([Image.open(folder / "red.png").convert("RGB")])[0]
        embedding /= np.linalg.norm(embedding)
        client.upsert("shop", [models.PointStruct(id=7, vector=embedding.tolist())])
        client.close()
        collection = open_collection(f"qdrant:{tmp_path}/index/shop")
        (ref,) = resolve(ComposedQuery.parse({"image": {"id": "7"}}), collection).image
        assert ref.norm is None
        length = tiny.given_embedding(0, ref).norm().item()
        assert length == pytest.approx(tiny.mean_image_norm, rel=1e-5)
        collection.close()

    def test_vectors_that_blend_text_are_refused(self, shop, ids, tiny):
        blends = Info(tiny.dim, "cosine", 4, blends_text=True)
        with pytest.raises(QueryError, match=r"image\.0: .*pictures and texts together.*give the picture itself"):
            resolve(ComposedQuery.parse({"image": {"id": ids["red"]}}), shop, blends)

    @pytest.mark.parametrize(
        ("id_", "says"),
        [
            ("nine", "which is no id; give a whole number or a UUID"),
            (9, "object 9, which is not in qdrant:"),
            ("00000000-0000-0000-0000-000000000000", "which is not in qdrant:"),
        ],
    )
    def test_one_that_is_not_there_is_named(self, shop, id_, says):
        with pytest.raises(QueryError, match=r"image\.1: ") as caught:
            resolve(ComposedQuery.parse({"image": [[1.0, 2.0], {"id": id_}]}), shop)
        assert says in str(caught.value)

    def test_an_object_without_a_vector_is_refused(self, tmp_path, tiny):
        client = QdrantClient(path=str(tmp_path / "index"))
        params = models.VectorParams(size=tiny.dim, distance=models.Distance.COSINE)
        client.create_collection("shop", {"a": params, "b": params})
        client.upsert("shop", [models.PointStruct(id=7, vector={"b": [1.0] * tiny.dim})])
        client.close()
        from cir_vectorizer.collections import OpenOptions

        collection = open_collection(f"qdrant:{tmp_path}/index/shop", options=OpenOptions(using="a"))
        with pytest.raises(QueryError, match="object 7, which has no vector"):
            resolve(ComposedQuery.parse({"image": {"id": 7}}), collection)
        collection.close()

    def test_numbers_and_uuids_are_ids(self):
        assert read_id("17", "id") == read_id(17, "id") == 17
        assert read_id("F47AC10B-58CC-4372-A567-0E02B2C3D479", "id") == "f47ac10b-58cc-4372-a567-0e02b2c3d479"


class TestLikeAndUnlike:
    def test_like_draws_the_vector_towards_a_picture_and_unlike_away(self, shop, tiny, folder):
        plain = find(Search.read({"text": "a hat"}), shop, tiny).vector
        part = tiny.compose([{"image": folder / "blue.png", "composer": "lincir"}]).vectors[0]
        like = find(Search.read({"text": "a hat"}, like=[folder / "blue.png"]), shop, tiny).vector
        unlike = find(Search.read({"text": "a hat"}, unlike=[folder / "blue.png"]), shop, tiny).vector
        assert cosine(unlike, part) < cosine(plain, part) < cosine(like, part)
        expected = plain + 0.5 * part
        assert like == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)

    def test_several_count_as_their_mean(self, shop, tiny, folder):
        one = find(Search.read({"text": "a hat"}, like=[folder / "blue.png"]), shop, tiny).vector
        twice = find(Search.read({"text": "a hat"}, like=[folder / "blue.png"] * 2), shop, tiny).vector
        assert twice == pytest.approx(one, abs=1e-5)

    def test_like_alone_is_a_search_by_pictures(self, shop, ids, tiny):
        hits = find(Search.read(like=[{"id": ids["blue"]}], include_reference=True), shop, tiny).hits
        assert hits[0].id == ids["blue"]
        assert hits[0].score == pytest.approx(1, abs=1e-4)

    def test_what_is_unlike_falls_behind(self, shop, ids, tiny):
        keeping = {"like": [{"id": ids["blue"]}], "include_reference": True}
        before = find(Search.read(**keeping), shop, tiny).hits
        after = find(Search.read(**keeping, unlike=[{"id": before[1].id}]), shop, tiny).hits
        assert after[0].id == ids["blue"]
        assert [hit.id for hit in after].index(before[1].id) > 1

    @pytest.mark.parametrize(
        ("query", "composer"),
        [
            ({"text": "a hat"}, "lincir"),
            ({"text": "a hat", "composer": "sum"}, "sum"),
            ({"text": "a hat", "composer": "text"}, None),
            ({"image": [1.0] * 128}, None),
            (None, None),
        ],
    )
    def test_their_pictures_go_through_the_composer_of_the_query(self, tiny, query, composer):
        parts = Search.read(query, like=[[1.0] * 128]).parts(tiny)
        assert parts["like.0"].composer == composer
        assert parts["like.0"].plain == (composer is None)

    def test_numbers_of_the_query_that_are_about_its_text_do_not_reach_them(self, tiny):
        query = {"image": [1.0] * 8, "text": "x", "composer": "sum", "options": {"keep": 0.2, "seed": 3}}
        options = Search.read(query, unlike=[[1.0] * 8]).parts(tiny)["unlike.0"].options
        assert (options.keep, options.seed) == (None, 3)

    def test_a_search_that_takes_itself_away_is_refused(self, shop, ids, tiny):
        with pytest.raises(QueryError, match="unlike: takes away all"):
            Search.read(like=[{"id": 1}], unlike=[{"id": 1}]).blend(
                [np.ones(4, np.float32) / 2, np.ones(4, np.float32)]
            )


class TestGroups:
    @every()
    @pytest.mark.parametrize(
        "more",
        [{}, {"hybrid": True}, {"must": "blue"}, {"where": "n!=3"}, {"offset": 1}, {"without": True}],
        ids=lambda each: next(iter(each), "plain"),
    )
    def test_a_hit_has_the_next_objects_of_its_group(self, database, tiny, more):
        """The best of each group and the next two, in the order of the search without groups.

        Fused ranks and scores by words depend on the candidates, so there the order may be another one.
        """
        collection = database.open("Grouped")
        collection.create(ModelRecord.of(tiny))
        things = [(colour, noun) for noun in ("hat", "dress", "mug") for colour in (*COLOURS, "black", "orange")]
        vectors = tiny.compose([{"text": f"a {colour} {noun}"} for colour, noun in things]).vectors
        styles: list[object] = ["A", 7, "7", ["A", "B"], True, None]
        collection.upsert(
            [
                Point(uid(i), vector, {"n": i, "style": styles[i % 6], "word": "red" if i % 2 else "blue"})
                for i, vector in enumerate(vectors)
            ]
        )
        asked = {"query": {"text": "red"}, **more, "limit": 20}
        if asked.pop("must", None):
            asked["query"] = {"text": "red", "must_text": "blue"}
        if asked.pop("without", None):
            asked["query"] = {"image": {"id": uid(0)}}
        alone = find(Search.read(**{**asked, "offset": 0}), collection, tiny).hits
        grouped = find(Search.read(**asked, group_by="style", group_size=3), collection, tiny).hits
        assert len(grouped) == (3 if "offset" in more else 4)
        for hit in grouped:
            own = {(type(each), each) for each in values_at(hit.payload, ("style",))}
            group = [each.id for each in alone if own & {(type(v), v) for v in values_at(each.payload, ("style",))}]
            others = [each.id for each in hit.others]
            assert len(others) == min(2, len(group) - 1)
            if {"hybrid", "must"} & set(more):
                assert set(others) <= set(group) - {hit.id}
            else:
                assert others == [each for each in group if each != hit.id][:2]
        assert all(not each.others for each in alone)


class TestReading:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({}, "the search is empty"),
            ({"unlike": [{"id": 1}]}, "unlike: says only what to avoid"),
            ({"query": {"text": "x"}, "like": [{"colour": 7}]}, "like.0.colour: is not a field"),
            ({"query": {"text": "x"}, "like": [{"id": i} for i in range(17)]}, "like"),
            ({"query": {"text": "x"}, "limit": 0}, "limit: is below 1"),
            ({"query": {"text": "x"}, "offset": -1}, "offset: is below 0"),
            ({"query": {"text": "x"}, "offset": 9_999}, "offset: is, together with limit, over 10,000"),
            ({"query": {"image": [1.0]}, "hybrid": True}, "hybrid: looks for the words of the text"),
            ({"query": {"text": "x"}, "group_by": ""}, "group_by: '' is no column's name"),
            ({"query": {"text": "x"}, "where": "a<<b"}, "filter: at letter"),
            ({"query": {"text": "x"}, "group_size": 2}, "group_size: is for groups; add group_by"),
            ({"query": {"text": "x"}, "group_by": "a", "group_size": 11}, "group_size: is not from 1 to 10"),
        ],
    )
    def test_what_makes_no_sense_names_its_field(self, given, says):
        with pytest.raises(QueryError) as caught:
            Search.read(**given)
        assert says in str(caught.value)

    def test_the_collection_is_asked_for_all_that_was_said(self, shop, tiny):
        found = find(Search.read({"text": "red"}, limit=2, offset=1, hybrid=True), shop, tiny)
        vector = tiny.compose([{"text": "red"}]).vectors[0]
        assert found.hits == shop.search(vector, Ask(2, offset=1, text="red"))

    def test_notes_of_the_composer_come_along(self, shop, tiny):
        assert "left out" in find(Search.read({"text": "a hat " * 200}), shop, tiny).notes[0]


class TestFromPython:
    def test_an_address_is_opened_and_a_model_loaded(self, tmp_path, folder, tiny):
        with closing(open_collection(f"qdrant:{tmp_path}/index/shop")) as collection:
            sync(open_source(folder), collection, tiny)
        found = cir_vectorizer.search(f"qdrant:{tmp_path}/index/shop", {"text": "a red hat"}, model="tiny", limit=2)
        again = cir_vectorizer.search(f"qdrant:{tmp_path}/index/shop", '{"text": "a red hat"}', model=tiny, limit=2)
        assert [hit.id for hit in found] == [hit.id for hit in again]
        assert len(found) == 2

    def test_an_open_collection_stays_open(self, shop, folder, tiny):
        query = {"image": Image.open(folder / "red.png"), "text": "is blue"}
        found = cir_vectorizer.search(shop, query, model=tiny, limit=3, offset=1)
        assert (
            found.hits
            == find(Search.read({"image": folder / "red.png", "text": "is blue"}, limit=3, offset=1), shop, tiny).hits
        )
        assert shop.count() == 4

    def test_it_returns_a_sequence_with_notes_and_the_vector(self, shop, tiny):
        found = cir_vectorizer.search(shop, {"text": "a hat " * 200}, model=tiny)
        assert (found[0], found[1:], list(found), bool(found)) == (found.hits[0], found.hits[1:], found.hits, True)
        assert "left out" in found.notes[0]
        assert found.vector == pytest.approx(tiny.compose([{"text": "a hat " * 200}]).vectors[0])
        assert not cir_vectorizer.search(shop, {"text": "a hat"}, model=tiny, where="path=nowhere")

    def test_pictures_to_be_like_need_no_query(self, shop, ids, tiny):
        found = cir_vectorizer.search(shop, like=[{"id": ids["blue"]}], include_reference=True, model=tiny)
        assert found[0].id == ids["blue"]

    @pytest.mark.parametrize(
        ("options", "says"), [({"text_weight": 0.5}, "text_weight: is for"), ({"strength": 11}, "strength: is 11")]
    )
    def test_what_makes_no_sense_names_its_field(self, shop, tiny, options, says):
        with pytest.raises(QueryError) as caught:
            cir_vectorizer.search(shop, {"text": "a hat"}, model=tiny, **options)
        assert says in str(caught.value)


class TestWordsOfResults:
    """Words that results must or must not show, on a collection that sync filled."""

    def test_scores_are_the_products_that_the_documentation_writes(self, shop, tiny):
        query = {"text": "a hat", "negative_text": ["red", "green"], "must_text": "blue"}
        found = cir_vectorizer.search(shop, query, model=tiny)
        words = [{"text": "a hat", "negative_text": "red, green"}, {"text": "red"}, {"text": "green"}, {"text": "blue"}]
        points = shop.get([id_ for id_, _ in shop.scan()])
        sums = np.array([each.vector for each in points]) @ tiny.compose(words).vectors.T
        mean, low, high = sums.mean(axis=0), sums.min(axis=0), sums.max(axis=0)
        unwanted = np.clip((sums - mean) / (high - mean), 0, 1)[:, 1:3]
        wanted = ((sums - low) / (high - low))[:, 3]
        scores = np.maximum(sums[:, 0] - mean[0], 0) * ((1 - unwanted[:, 0]) * (1 - unwanted[:, 1]) * wanted) ** 2
        expected = {each.id: score for each, score in zip(points, scores, strict=True)}
        assert [hit.score for hit in found] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
        assert [hit.score for hit in found] == pytest.approx([expected[hit.id] for hit in found], abs=1e-5)
        assert set(found[0].signals) == {"picture", "unwanted", "wanted"}

    def test_they_change_the_order(self, shop, ids, folder, tiny):
        query = {"image": folder / "white.png", "composer": "image", "text": "a hat"}
        assert cir_vectorizer.search(shop, query, model=tiny)[0].id == ids["white"]
        assert cir_vectorizer.search(shop, {**query, "negative_text": "white"}, model=tiny)[0].id != ids["white"]

    def test_it_goes_together_with_a_filter_and_ids(self, shop, ids, tiny):
        query = {"image": {"id": ids["red"]}, "text": "is blue", "negative_text": "green"}
        found = cir_vectorizer.search(shop, query, model=tiny)
        assert ids["red"] not in [hit.id for hit in found]
        assert len(found) == 3


def test_a_point_is_unchanged_by_being_a_reference(shop, ids):
    before = shop.get([ids["red"]])[0]
    resolve(ComposedQuery.parse({"image": {"id": ids["red"]}}), shop)
    after = shop.get([ids["red"]])[0]
    assert isinstance(after, Point)
    assert np.array_equal(before.vector, after.vector)
