"""Searches with a second score in every database, against the same searches in numpy: the top 10 is the same everywhere."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from cir_vectorizer.collections import (
    RECORD_KEY,
    TEXT_VECTOR,
    Ask,
    CreateOptions,
    ModelRecord,
    Point,
    Signal,
    TextShare,
)
from cir_vectorizer.collections.rescoring import Background, Words, combined, rescored, scaled
from cir_vectorizer.errors import CollectionError, QueryError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.filters import parse_filter
from cir_vectorizer_weaviate import scoring
from cir_vectorizer_weaviate.schema import UNNAMED, Schema
from tests.support.databases import EVERY, SERVERS, WEAVIATE, database_of, every, uid

DIM, COUNT = 32, 600
MODEL = ModelRecord("my-model", "a1" * 32, DIM)
COLOURS = ("red", "blue", "green", "grey", "black")
SHARE = TextShare(0.3, 0.8, -0.12)
CLOSE = 1e-4


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class Shop:
    """Objects of a drawn shop: pictures in clusters, texts near to them; a third has no text."""

    pictures: np.ndarray
    texts: np.ndarray
    has_text: np.ndarray
    payloads: list

    @property
    def points(self):
        return [
            Point(uid(i), self.pictures[i], self.payloads[i], text_vector=self.texts[i] if self.has_text[i] else None)
            for i in range(COUNT)
        ]

    def near(self, seed):
        """Return a query near some object."""
        noise = np.random.default_rng(seed)
        return unit(self.pictures[noise.integers(COUNT)] + 0.1 * noise.normal(size=DIM))

    def fused(self, vector, share):
        """Return every object's fused score."""
        pictures = self.pictures @ vector
        texts = np.where(self.has_text, self.texts @ vector, share.slope * pictures + share.offset)
        return (1 - share.weight) * pictures + share.weight * texts

    def candidates(self, vector, share, count, keep):
        """Return the rows of the first objects by picture and, with texts, by text."""
        firsts = [self.pictures @ vector]
        if share:
            firsts.append(np.where(self.has_text, self.texts @ vector, -np.inf))
        rows = set()
        for scores in firsts:
            order = [i for i in np.argsort(-scores, kind="stable") if keep[i] and np.isfinite(scores[i])]
            rows |= set(order[:count])
        return np.array(sorted(rows))


def draw():
    noise = np.random.default_rng(15)
    centres = unit(noise.normal(size=(12, DIM)))
    of = noise.integers(0, 12, COUNT)
    pictures = unit(centres[of] + 0.15 * noise.normal(size=(COUNT, DIM)))
    gap = 0.4 * unit(noise.normal(size=DIM))
    texts = unit(pictures + gap + 0.12 * noise.normal(size=(COUNT, DIM)))
    payloads = [
        {"colour": COLOURS[i % 5], "price": float(i), "maker": f"m{of[i]}", RECORD_KEY: {"path": f"{i}"}}
        for i in range(COUNT)
    ]
    return Shop(pictures, texts, np.arange(COUNT) % 3 != 0, payloads)


SHOP = draw()
ALL = np.ones(COUNT, dtype=bool)


def fill(collection, quantization="none"):
    """Create a collection with texts, and write the shop into it."""
    collection.create(MODEL, CreateOptions(text_columns=("title",), quantization=quantization))
    collection.upsert(SHOP.points)
    return collection


@pytest.fixture(scope="module")
def shop(request, tmp_path_factory):
    """The drawn shop in one of the databases."""
    database = database_of(request.param, request, tmp_path_factory.mktemp("second"))
    yield fill(database.open("Second"))
    database.close()


def shops(kinds=EVERY):
    return pytest.mark.parametrize("shop", kinds, indirect=True)


def row_of(id_):
    return int(id_.replace("-", ""), 16) - 1


def same(hits, scores, expected, close=CLOSE):
    """Check that hits are those rows, in that order but for near ties, with those scores."""
    assert len(hits) == len(expected)
    assert [hit.score for hit in hits] == pytest.approx([scores[i] for i in expected], abs=close)
    for hit, wanted in zip(hits, expected, strict=True):
        assert scores[row_of(hit.id)] == pytest.approx(scores[wanted], abs=close)


def top(scores, rows, count=10, offset=0):
    order = rows[np.argsort(-scores[rows], kind="stable")]
    return order[offset : offset + count]


@shops()
class TestFused:
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize(
        "share", [SHARE, TextShare(0.0), TextShare(0.7, 1.2, 0.05), TextShare(1.0, 1.0, -0.12)], ids=str
    )
    def test_top_ten_is_that_of_numpy(self, shop, seed, share):
        vector, ask = SHOP.near(seed), Ask(texts=share, exact=True)
        scores = SHOP.fused(vector, share)
        same(shop.search(vector, ask), scores, top(scores, SHOP.candidates(vector, share, ask.pool, ALL)))

    def test_hits_tell_the_cosines_to_picture_and_text(self, shop):
        vector = SHOP.near(0)
        hits = shop.search(vector, Ask(50, texts=SHARE, exact=True))
        assert {"text" in hit.signals for hit in hits} == {True, False}
        for hit in hits:
            row = row_of(hit.id)
            wanted = {"picture": SHOP.pictures[row] @ vector}
            if SHOP.has_text[row]:
                wanted["text"] = SHOP.texts[row] @ vector
            assert hit.signals == pytest.approx(wanted, abs=CLOSE)
            assert hit.payload == SHOP.payloads[row]

    def test_filter_page_and_left_out_objects(self, shop):
        vector = SHOP.near(1)
        gone = tuple(hit.id for hit in shop.search(vector, Ask(3, texts=SHARE)))
        ask = Ask(
            5, parse_filter("colour in (red, blue) and price<500"), offset=4, without=gone, texts=SHARE, exact=True
        )
        keep = np.array(
            [
                p["colour"] in ("red", "blue") and p["price"] < 500 and uid(i) not in gone
                for i, p in enumerate(SHOP.payloads)
            ]
        )
        scores = SHOP.fused(vector, SHARE)
        same(shop.search(vector, ask), scores, top(scores, SHOP.candidates(vector, SHARE, ask.pool, keep), 5, 4))

    def test_best_of_each_group(self, shop):
        vector = SHOP.near(2)
        ask = Ask(3, offset=1, group_by="colour", texts=SHARE, exact=True)
        scores = SHOP.fused(vector, SHARE)
        order = top(scores, SHOP.candidates(vector, SHARE, ask.pool, ALL), COUNT)
        best = {}
        for i in order:
            best.setdefault(SHOP.payloads[i]["colour"], i)
        hits = shop.search(vector, ask)
        same(hits, scores, list(best.values())[1:4])
        assert all("picture" in hit.signals for hit in hits)

    def test_an_object_without_a_text_is_found(self, shop):
        row = 3
        hits = shop.search(SHOP.pictures[row], Ask(1, texts=TextShare(0.5), exact=True))
        assert (row_of(hits[0].id), hits[0].score) == (row, pytest.approx(1, abs=CLOSE))
        assert set(hits[0].signals) == {"picture"}

    @pytest.mark.parametrize(
        ("ask", "says"),
        [
            (Ask(texts=SHARE), "text_weight: needs the query's vector"),
            (Ask(diversity=0.5), "diversity: needs the query's vector"),
        ],
    )
    def test_a_query_that_is_not_composed_is_refused(self, shop, ask, says):
        with pytest.raises(QueryError) as caught:
            shop.search(ComposedQuery(text="red"), ask)
        assert says in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"texts": SHARE, "text": "red"}, "text_weight: needs scores, and hybrid"),
        ({"diversity": 0.5, "text": "red"}, "diversity: needs scores, and hybrid"),
        (
            {"diversity": 0.5, "texts": SHARE},
            "diversity: is chosen by the database, which knows nothing of text_weight",
        ),
        ({"diversity": 0.5, "group_by": "colour"}, "which knows nothing of group_by"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, says):
    with pytest.raises(QueryError) as caught:
        Ask(**options)
    assert says in str(caught.value)


@shops()
class TestScored:
    @pytest.mark.parametrize("of", [("picture",), ("picture", "text"), ("text",)], ids="+".join)
    def test_each_candidate_has_its_cosine_to_each_signal(self, shop, of):
        vector, words = SHOP.near(5), SHOP.near(6)
        rankings = [Signal(vector, each) for each in of]
        signals = [Signal(each, side) for each in (vector, words) for side in ("picture", "text")]
        found = shop.score(rankings, signals, Ask(exact=True), 40)
        firsts = {
            "picture": SHOP.candidates(vector, None, 40, ALL),
            "text": np.argsort(-np.where(SHOP.has_text, SHOP.texts @ vector, -np.inf))[:40],
        }
        assert {row_of(id_) for id_ in found.ids} == {int(i) for each in of for i in firsts[each]}
        assert len(set(found.ids)) == len(found.ids)
        for id_, cosines in zip(found.ids, found.cosines, strict=True):
            row = row_of(id_)
            pictures = [SHOP.pictures[row] @ one for one in (vector, words)]
            texts = [SHOP.texts[row] @ one if SHOP.has_text[row] else np.nan for one in (vector, words)]
            wanted = pictures[0], texts[0], pictures[1], texts[1]
            assert list(cosines) == pytest.approx(wanted, abs=CLOSE, nan_ok=True)

    def test_filter_and_left_out_objects(self, shop):
        vector = SHOP.near(7)
        ask = Ask(where=parse_filter("colour=red"), without=(uid(5), uid(10)), exact=True)
        found = shop.score([Signal(vector)], [Signal(vector)], ask, 200)
        assert {row_of(id_) for id_ in found.ids} == {i for i in range(0, COUNT, 5) if i not in (5, 10)}

    def test_a_filter_that_nothing_meets(self, shop):
        ask = Ask(where=parse_filter("colour=none"))
        rankings = [Signal(SHOP.near(1)), Signal(SHOP.near(1), "text")]
        assert shop.score(rankings, [Signal(SHOP.near(2))], ask, 50).ids == []
        assert shop.search(SHOP.near(1), replace(ask, texts=SHARE)) == []

    @pytest.mark.parametrize("share", [None, SHARE], ids=["pictures", "texts"])
    def test_words_score_again_as_in_numpy(self, shop, share):
        vector, unwanted, wanted = SHOP.near(8), SHOP.near(9), SHOP.near(10)
        ask = Ask(texts=share, exact=True)
        hits = rescored(shop, vector, Words((unwanted,), (wanted,), 2.0), ask)
        rows = SHOP.candidates(vector, share, ask.candidates, ALL)
        background, weight = Background.of(shop, DIM, share is not None), share.weight if share else 0.0
        base = SHOP.fused(vector, share or TextShare(0.0))[rows] - background.usual(vector, weight)[0]
        n, w = (
            SHOP.fused(each, background.share(each, weight) if share else TextShare(0.0))[rows][:, None]
            for each in (unwanted, wanted)
        )
        n, w = scaled(n, np.array([background.usual(unwanted, weight)[0]])), scaled(w, w.min(axis=0), flat=1.0)
        scores = np.full(COUNT, -np.inf)
        scores[rows] = combined(base, n, w, 2.0)
        same(hits, scores, top(scores, rows))


@shops()
class TestSample:
    def test_it_holds_both_vectors_and_is_the_same_each_time(self, shop):
        first, again = shop.sample(20), shop.sample(20)
        assert [point.id for point in first] == [point.id for point in again]
        assert len(first) == 20
        for point in first:
            row = row_of(point.id)
            assert point.payload == {}
            assert point.vector == pytest.approx(SHOP.pictures[row], abs=1e-6)
            assert (point.text_vector is not None) == SHOP.has_text[row]
            if point.text_vector is not None:
                assert point.text_vector == pytest.approx(SHOP.texts[row], abs=1e-6)

    def test_every_database_has_the_same_sample(self, shop):
        assert [row_of(point.id) for point in shop.sample(20)] == list(range(20))

    def test_payloads_are_read_without_vectors(self, shop):
        assert shop.payloads([uid(1), uid(7), uid(COUNT + 5)]) == {uid(i): SHOP.payloads[i] for i in (1, 7)}


def marginal(vector, diversity, pool, count):
    """Return the rows that maximal marginal relevance picks, and their cosines."""
    cosines = SHOP.pictures @ vector
    rest = list(np.argsort(-cosines, kind="stable")[:pool])
    picked = [rest.pop(0)]
    while rest and len(picked) < count:
        near = (SHOP.pictures[rest] @ SHOP.pictures[picked].T).max(axis=1)
        picked.append(rest.pop(int(np.argmax((1 - diversity) * cosines[rest] - diversity * near))))
    return picked, cosines


@shops()
class TestDiverse:
    @pytest.mark.parametrize("diversity", [0.3, 0.7, 1.0])
    def test_hits_are_those_of_numpy_and_scores_are_cosines(self, shop, diversity):
        vector, ask = SHOP.near(11), Ask(10, diversity=diversity, exact=True)
        picked, cosines = marginal(vector, diversity, ask.pool, 10)
        hits = shop.search(vector, ask)
        assert [row_of(hit.id) for hit in hits] == picked
        assert [hit.score for hit in hits] == pytest.approx([cosines[i] for i in picked], abs=CLOSE)
        assert hits[0].payload == SHOP.payloads[picked[0]]

    def test_a_page_follows_the_one_before(self, shop):
        vector = SHOP.near(12)
        whole = shop.search(vector, Ask(6, diversity=0.5, exact=True))
        second = shop.search(vector, Ask(3, offset=3, diversity=0.5, exact=True))
        assert [hit.id for hit in second] == [hit.id for hit in whole[3:]]


@every(SERVERS)
@pytest.mark.parametrize("quantization", ["scalar", "binary"])
def test_cosines_of_quantised_vectors_are_true(database, quantization):
    shop = fill(database.open("Quantised"), quantization)
    vector, words = SHOP.near(3), SHOP.near(4)
    signals = [Signal(each, side) for each in (vector, words) for side in ("picture", "text")]
    found = shop.score([Signal(vector), Signal(vector, "text")], signals, Ask(), 60)
    for id_, cosines in zip(found.ids, found.cosines, strict=True):
        row = row_of(id_)
        expected = [side[row] @ one for one in (vector, words) for side in (SHOP.pictures, SHOP.texts)]
        there = ~np.isnan(cosines)
        assert cosines[there] == pytest.approx(np.array(expected)[there], abs=CLOSE)
    hits = shop.search(vector, Ask(texts=SHARE))
    scores = SHOP.fused(vector, SHARE)
    assert [hit.score for hit in hits] == pytest.approx([scores[row_of(hit.id)] for hit in hits], abs=CLOSE)


@every(WEAVIATE)
class TestMarks:
    """In Weaviate, objects with a text are marked, so that the others can be searched alone."""

    def fused(self, shop):
        """Check that fused searches find the best objects; return how they asked the server."""
        asked = []
        with pytest.MonkeyPatch.context() as patch:
            nearest = scoring.nearest

            def noted(remote, vector, target, *rest):
                asked.append(target if isinstance(target, str) else "both")
                return nearest(remote, vector, target, *rest)

            patch.setattr(scoring, "nearest", noted)
            for seed in range(4):
                vector = SHOP.near(seed)
                scores = SHOP.fused(vector, SHARE)
                same(shop.search(vector, Ask(texts=SHARE)), scores, top(scores, np.arange(COUNT)))
        return asked

    def test_one_search_by_both_vectors_and_one_among_objects_without_text(self, database):
        asked = self.fused(fill(database.open("Marked")))
        assert sorted(asked) == ["both"] * 4 + [UNNAMED] * 4

    def test_objects_that_an_older_release_wrote_are_found(self, database, monkeypatch):
        shop = database.open("Mixed")
        shop.create(MODEL, CreateOptions(text_columns=("title",)))
        with monkeypatch.context() as patch:
            patch.setattr(Schema, "marks_texts", False)
            shop.upsert(SHOP.points[::2])
        shop.upsert(SHOP.points[1::2])
        assert TEXT_VECTOR in self.fused(shop)

    def test_a_collection_of_an_older_release_is_searched_by_each_vector(self, database, monkeypatch):
        shop = database.open("Older")
        shop.create(MODEL)
        monkeypatch.setattr(Schema, "marks_texts", True)
        shop.add_texts(["title"])  # no mark is added
        monkeypatch.undo()
        shop.upsert(SHOP.points)
        assert sorted(self.fused(shop)) == [TEXT_VECTOR] * 4 + [UNNAMED] * 4

    def test_marks_follow_the_texts(self, database):
        shop = database.open("Following")
        shop.create(MODEL)
        shop.upsert([replace(point, text_vector=None) for point in SHOP.points])
        shop.add_texts(["title"])
        texts = {point.id: point.text_vector for point in SHOP.points}
        wrong = dict.fromkeys(texts, SHOP.texts[1])
        payloads = {point.id: point.payload for point in SHOP.points}
        for some in (wrong, texts):
            shop.replace_payload(payloads, some)
        shop.replace_payload(payloads)
        assert "both" in (asked := self.fused(shop))
        assert TEXT_VECTOR not in asked

    def test_a_client_without_its_private_parts_answers_alike(self, database):
        shop = fill(database.open("Public"))
        schema, vector = shop._schema, SHOP.near(0)

        def public(remote):
            return SimpleNamespace(query=SimpleNamespace(near_vector=remote.query.near_vector))

        def found(wrapped):
            return shop._on(
                lambda remote: scoring.nearest(
                    wrapped(remote), vector, scoring.both(0.3, schema), 15, None, [UNNAMED, TEXT_VECTOR], schema.shown
                )
            )

        assert found(public) == found(lambda remote: remote)

    def test_pages_and_filters(self, database):
        shop = fill(database.open("Pages"))
        vector = SHOP.near(3)
        scores = SHOP.fused(vector, SHARE)
        red = np.array([i for i in range(COUNT) if SHOP.payloads[i]["colour"] == "red"])
        for offset in (0, 20, 100):
            ask = Ask(20, parse_filter("colour=red"), offset=offset, texts=SHARE)
            same(shop.search(vector, ask), scores, top(scores, red, 20, offset))


@every(WEAVIATE)
def test_tenants_have_scores_of_their_own(database):
    one = database.open("Tenants", tenant="one")
    fill(one)
    two = database.again(one, tenant="two")
    two.create(MODEL)
    two.upsert(SHOP.points[:9])
    assert len(two.score([Signal(SHOP.near(0))], [Signal(SHOP.near(1), "text")], Ask(), 50).ids) == 9
    assert {row_of(hit.id) for hit in two.search(SHOP.near(0), Ask(50, texts=SHARE))} == set(range(9))
    assert len(two.sample(50)) == 9


@every()
class TestWithoutTexts:
    def test_a_collection_without_texts_says_how_to_get_them(self, database):
        shop = database.open("Plain")
        shop.create(MODEL)
        shop.upsert([replace(point, text_vector=None) for point in SHOP.points[:20]])
        vector = SHOP.near(0)
        for search in (
            lambda: shop.search(vector, Ask(texts=SHARE)),
            lambda: shop.score([Signal(vector)], [Signal(vector, "text")], Ask(), 10),
        ):
            with pytest.raises(
                CollectionError, match=r"have no vector of a text; run cir-vectorizer sync with --text-column"
            ):
                search()
        assert len(shop.score([Signal(vector)], [Signal(vector)], Ask(), 10).ids) == 10
        assert [point.text_vector for point in shop.sample(3)] == [None] * 3

    def test_words_score_again_without_texts(self, database):
        shop = database.open("Plain")
        shop.create(MODEL)
        shop.upsert([replace(point, text_vector=None) for point in SHOP.points[:50]])
        hits = rescored(shop, SHOP.near(0), Words((SHOP.near(1),)), Ask(5))
        assert len(hits) == 5
        assert set(hits[0].signals) == {"picture", "unwanted"}


@every(SERVERS)
class TestOldServers:
    """A faked version stands for an old server, which cannot run here."""

    def test_diversity_names_the_version_it_needs(self, database, monkeypatch):
        shop = database.open("Old")
        shop.create(MODEL)
        version, needed = ("1.36.4", "1.37") if database.kind == "weaviate" else ("1.14.0", "1.15")
        monkeypatch.setattr(shop, "_read_version", lambda: version)
        with pytest.raises(
            CollectionError, match=f"server {version}, and diversity needs {needed} or later; update the server"
        ):
            shop.search(SHOP.near(0), Ask(diversity=0.5))


@pytest.mark.live
def test_all_databases_give_the_same_top_ten(request, tmp_path):
    databases = [database_of(str(kind.values[0]), request, tmp_path) for kind in EVERY]
    try:
        collections = [fill(database.open("Same")) for database in databases]
        for seed in range(5):
            vector, unwanted = SHOP.near(seed), SHOP.near(seed + 50)
            ask = Ask(texts=SHARE, exact=True)
            for search in (
                lambda shop: shop.search(vector, ask),  # noqa: B023
                lambda shop: rescored(shop, vector, Words((unwanted,)), ask),  # noqa: B023
            ):
                first, *others = [search(collection) for collection in collections]
                for hits in others:
                    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in first], abs=CLOSE)
                    scores = {hit.id: hit.score for hit in first}
                    assert all(
                        hit.score == pytest.approx(scores.get(hit.id, first[-1].score), abs=CLOSE) for hit in hits
                    )
    finally:
        for database in databases:
            database.close()
