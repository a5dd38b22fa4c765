"""Searches with more than one signal: combined scores, compared with sums written out here, on a fake collection."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from cir_vectorizer.collections import Ask, Candidates, Hit, Info, Point
from cir_vectorizer.collections.rescoring import TEXT_WEIGHT
from cir_vectorizer.collections.searching import Search
from cir_vectorizer.errors import QueryError

DIM, COUNT = 8, 40
INFO = Info(DIM, "cosine", COUNT)
WITH_TEXTS = Info(DIM, "cosine", COUNT, text_columns=("title",), text_weight=0.4)


def units(count, seed):
    """Return vectors of length 1, (count, dim)."""
    drawn = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@dataclass(eq=False)
class Fake:
    """A fake collection in memory, which compares with every object; it knows neither filters nor diversity."""

    objects: list = field(default_factory=list)
    asked: list = field(default_factory=list)

    def _cosines(self, signal):
        vectors = [each.vector if signal.of == "picture" else each.text_vector for each in self.objects]
        return [np.nan if vector is None else float(vector @ signal.vector) for vector in vectors]

    def search(self, vector, ask=Ask()):
        self.asked.append(ask)
        kept = [each for each in self.objects if each.id not in ask.without]
        hits = sorted(
            (Hit(each.id, float(each.vector @ vector), each.payload) for each in kept), key=lambda hit: -hit.score
        )
        return hits[ask.offset : ask.offset + ask.limit]

    def score(self, rankings, signals, ask, candidates, shown=0):
        self.asked.append(ask)
        chosen = set()
        for ranking in rankings:
            known = [(i, cosine) for i, cosine in enumerate(self._cosines(ranking)) if not np.isnan(cosine)]
            chosen |= {i for i, _ in sorted(known, key=lambda each: -each[1])[:candidates]}
        rows = [i for i in sorted(chosen) if self.objects[i].id not in ask.without]
        columns = [[cosines[i] for i in rows] for cosines in map(self._cosines, signals)]
        return Candidates([self.objects[i].id for i in rows], np.array(columns).T)

    def sample(self, count):
        return self.objects[:count]

    def payloads(self, ids):
        return {each.id: each.payload for each in self.objects if each.id in ids}


@pytest.fixture
def fake():
    """Objects of which every third has no text; the texts lie apart from the pictures."""
    apart = np.eye(DIM, dtype=np.float32)[0]
    texts = [(text + apart) / np.linalg.norm(text + apart) for text in units(COUNT, 2)]
    pictures = units(COUNT, 1)
    return Fake(
        [
            Point(i, pictures[i], {"kind": i % 7, "tags": ["a", "b"]}, text_vector=None if i % 3 == 0 else texts[i])
            for i in range(COUNT)
        ]
    )


def asked(negative=(), must=(), **options):
    query = {"text": "a hat", "negative_text": list(negative) or None, "must_text": list(must) or None}
    return Search.read(query, **options)


def run(search, fake, info=INFO, seed=3):
    """Run a search with drawn vectors in place of composed ones; return it with its vectors."""
    words = 1 + len(search.query.unwanted) + len(search.query.wanted)
    vectors = list(units(words, seed))
    return search.run(fake, vectors if search.strength else vectors[:1], info), vectors


def expected(fake, vectors, unwanted, weight=0.0, strength=2.0):
    """Return each object's sums by picture and text, its signals and its final score, as the documentation writes them."""
    sums, means = np.empty((len(fake.objects), len(vectors))), np.empty(len(vectors))
    for k, vector in enumerate(vectors):
        pictures = np.array([each.vector @ vector for each in fake.objects])
        texts = np.array([each.text_vector @ vector for each in fake.objects if each.text_vector is not None])
        for i, each in enumerate(fake.objects):
            standard = (pictures[i] - pictures.mean()) / pictures.std()
            text = texts.mean() + standard * texts.std() if each.text_vector is None else each.text_vector @ vector
            sums[i, k] = (1 - weight) * pictures[i] + weight * text
        means[k] = (1 - weight) * pictures.mean() + weight * texts.mean()
    scores = np.maximum(sums[:, 0] - means[0], 0)
    signals = np.empty((len(fake.objects), len(vectors) - 1))
    for k in range(1, len(vectors)):
        low = means[k] if k <= unwanted else sums[:, k].min()
        signals[:, k - 1] = np.clip((sums[:, k] - low) / (sums[:, k].max() - low), 0, 1)
        scores = scores * (1 - signals[:, k - 1] if k <= unwanted else signals[:, k - 1]) ** strength
    return sums, signals, scores


class TestScores:
    @pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
    @pytest.mark.parametrize("strength", [0.5, 2.0])
    @pytest.mark.parametrize(("negative", "must"), [(["red"], []), (["red", "blue"], ["green"]), ([], ["a", "b"])])
    def test_they_are_the_products_that_the_documentation_writes(self, fake, weight, strength, negative, must):
        search = asked(negative, must, text_weight=weight, strength=strength)
        hits, vectors = run(search, fake, WITH_TEXTS)
        _, _, scores = expected(fake, vectors, len(negative), weight, strength)
        best = np.argsort(-scores, kind="stable")[:10]
        assert [hit.score for hit in hits] == pytest.approx(scores[best], abs=1e-5)
        assert [hit.id for hit in hits if hit.score > 1e-6] == [int(i) for i in best if scores[i] > 1e-6]

    def test_an_object_without_a_text_is_found_by_its_picture(self, fake):
        hits, _ = run(asked(["red"], text_weight=1.0, limit=40), fake, WITH_TEXTS)
        assert sorted(hit.id for hit in hits) == list(range(COUNT))
        assert {"text" in hit.signals for hit in hits if hit.id % 3 == 0} == {False}
        assert {"text" in hit.signals for hit in hits if hit.id % 3} == {True}
        assert min(i for i, hit in enumerate(hits) if hit.id % 3 == 0) < 10

    def test_signals_say_what_each_part_gave(self, fake):
        hits, vectors = run(asked(["red", "blue"], ["green"], text_weight=0.4), fake, WITH_TEXTS)
        _, signals, _ = expected(fake, vectors, 2, 0.4)
        for hit in hits:
            point, scaled = fake.objects[hit.id], signals[hit.id]
            assert hit.signals["picture"] == pytest.approx(point.vector @ vectors[0], abs=1e-5)
            assert hit.signals["unwanted"] == pytest.approx(scaled[:2].max(), abs=1e-5)
            assert hit.signals["wanted"] == pytest.approx(scaled[2], abs=1e-5)
            if point.text_vector is not None:
                assert hit.signals["text"] == pytest.approx(point.text_vector @ vectors[0], abs=1e-5)

    def test_without_words_and_texts_the_picture_is_the_score(self, fake):
        hits, _ = run(asked(), fake)
        assert [hit.signals for hit in hits] == [{"picture": hit.score} for hit in hits]

    def test_with_strength_0_the_words_only_reach_the_composer(self, fake, tiny):
        search = asked(["red"], strength=0.0)
        assert list(search.parts(tiny)) == ["query"]
        assert search.parts(tiny)["query"].negative == "red"
        hits, vectors = run(search, fake)
        assert hits == [Hit(hit.id, hit.score, hit.payload, {"picture": hit.score}) for hit in fake.search(vectors[0])]

    def test_words_order_what_scores_less_than_the_mean_too(self, fake):
        hits, vectors = run(asked(["red"], ["blue"], limit=COUNT), fake)
        sums, signals, _ = expected(fake, vectors, 1)
        products = (sums[:, 0] - sums[:, 0].min()) * ((1 - signals[:, 0]) * signals[:, 1]) ** 2
        behind = [products[hit.id] for hit in hits if hit.score == 0]
        assert len(behind) > 5
        assert behind == pytest.approx(sorted(behind, reverse=True), abs=1e-6)

    def test_the_only_object_that_stands_out_falls_behind_if_it_is_unwanted(self):
        vectors = [units(1, 1)[0], *(np.eye(DIM, dtype=np.float32)[i] for i in range(3))]
        few = Fake([Point(i, vector, {}) for i, vector in enumerate(vectors)])
        hits = asked(["red"]).run(few, [vectors[0], vectors[0]], INFO)
        assert [hit.id for hit in hits].index(0) >= 2

    @pytest.mark.parametrize(("negative", "must"), [(["red"], []), ([], ["red"])])
    def test_words_to_which_all_candidates_are_equally_near_change_no_order(self, fake, negative, must):
        search = asked(negative, must)
        query = units(1, 3)[0]
        nothing = np.zeros(DIM, np.float32)
        hits = search.run(fake, [query, nothing], INFO)
        assert [hit.id for hit in hits] == [hit.id for hit in fake.search(query)]

    def test_no_candidate_is_no_hit(self):
        assert run(asked(["red"]), Fake())[0] == []


class TestPages:
    def test_they_go_on_where_the_last_one_ended(self, fake):
        whole, _ = run(asked(["red"], limit=9, text_weight=0.3), fake, WITH_TEXTS)
        pages = [run(asked(["red"], limit=3, offset=at, text_weight=0.3), fake, WITH_TEXTS)[0] for at in (0, 3, 6)]
        assert [hit for page in pages for hit in page] == whole
        assert run(asked(["red"], offset=COUNT), fake)[0] == []

    @pytest.mark.parametrize(
        ("limit", "offset", "candidates"), [(1, 0, 500), (20, 0, 1000), (10, 900, 910), (1000, 9000, 10_000)]
    )
    def test_as_many_candidates_are_scored_as_pages_need(self, limit, offset, candidates):
        assert Ask(limit, offset=offset).candidates == candidates

    def test_each_group_is_there_once_with_its_best_object(self, fake):
        every, _ = run(asked(["red"], limit=COUNT), fake)
        best = {}
        for hit in every:
            best.setdefault(hit.payload["kind"], hit)
        assert run(asked(["red"], group_by="kind"), fake)[0] == list(best.values())
        assert run(asked(["red"], group_by="kind", limit=2, offset=2), fake)[0] == list(best.values())[2:4]
        assert [hit.payload["tags"] for hit in run(asked(["red"], group_by="tags"), fake)[0]] == [["a", "b"]] * 2
        assert run(asked(["red"], group_by="nowhere"), fake)[0] == []

    def test_objects_to_leave_out_are_left_out(self, fake):
        search = Search(asked(["red"]).query, without=(1, 2), limit=COUNT)
        assert {1, 2}.isdisjoint(hit.id for hit in run(search, fake)[0])


class TestLeastScore:
    @pytest.mark.parametrize("negative", [[], ["red"]])
    def test_it_is_a_standard_score_over_the_collection(self, fake, negative):
        hits, (vector, *_) = run(asked(negative, limit=COUNT, min_score=1.0), fake)
        cosines = np.array([each.vector @ vector for each in fake.objects])
        standard = (cosines - cosines.mean()) / cosines.std()
        assert sorted(hit.id for hit in hits) == [i for i in range(COUNT) if standard[i] >= 1]
        assert 0 < len(hits) < COUNT // 3

    def test_texts_count_in_it(self, fake):
        hits, (vector, *_) = run(asked(["red"], limit=COUNT, min_score=1.0), fake, WITH_TEXTS)
        sums, _, _ = expected(fake, [vector], 0, 0.4)
        pictures = np.array([each.vector @ vector for each in fake.objects])
        texts = np.array([each.text_vector @ vector for each in fake.objects if each.text_vector is not None])
        mean = 0.6 * pictures.mean() + 0.4 * texts.mean()
        spread = np.hypot(0.6 * pictures.std(), 0.4 * texts.std())
        assert sorted(hit.id for hit in hits) == [i for i in range(COUNT) if (sums[i, 0] - mean) / spread >= 1]

    def test_one_number_means_the_same_where_cosines_are_small(self, fake):
        """Vectors among the texts have small cosines to all pictures, as CLIP's have."""
        near, _ = run(asked(limit=COUNT, min_score=1.0), fake)
        apart = np.zeros(DIM + 1, np.float32)
        apart[-1] = 1
        wide = Fake([Point(each.id, np.append(each.vector, np.float32(0)), {}) for each in fake.objects])
        vector = 0.2 * np.append(units(1, 3)[0], np.float32(0)) + np.sqrt(np.float32(0.96)) * apart
        far = asked(limit=COUNT, min_score=1.0).run(wide, [vector], INFO)
        assert [hit.id for hit in far] == [hit.id for hit in near]
        assert far[0].score < 0.21

    def test_if_nothing_is_left_the_nearest_objects_score_is_told(self, fake):
        search = asked(min_score=50.0)
        hits, (vector,) = run(search, fake)
        (note,) = search.doubts(fake, vector, INFO)
        assert hits == []
        assert note.startswith("min_score: the nearest object has ")
        assert note.endswith(", and 50 is asked for; lower it")
        assert asked(min_score=0.0, offset=39).doubts(fake, vector, INFO) == []

    def test_one_object_alone_is_never_too_far(self):
        lonely = Fake([Point(1, units(1, 1)[0], {})])
        assert len(run(asked(min_score=5.0), lonely)[0]) == 1


class TestWeightOfTexts:
    def test_it_is_the_one_asked_for_else_the_collections_own(self):
        assert asked(text_weight=0.7).texts_weigh(WITH_TEXTS) == 0.7
        assert asked(text_weight=0.0).texts_weigh(WITH_TEXTS) == 0.0
        assert asked().texts_weigh(WITH_TEXTS) == 0.4
        assert asked().texts_weigh(Info(DIM, "cosine", 1, text_columns=("title",))) == TEXT_WEIGHT
        assert asked().texts_weigh(INFO) == 0.0

    def test_a_collection_without_texts_refuses_it(self):
        with pytest.raises(QueryError, match=r"text_weight: is for collections with texts.*--text-column"):
            asked(text_weight=0.5).texts_weigh(INFO)
        assert asked(text_weight=0.0).texts_weigh(INFO) == 0.0

    def test_without_words_the_database_adds_them(self, fake):
        run(asked(text_weight=0.3), fake, WITH_TEXTS)
        share = fake.asked[-1].texts
        vector = units(1, 3)[0]
        pictures = np.array([each.vector @ vector for each in fake.objects])
        texts = np.array([each.text_vector @ vector for each in fake.objects if each.id % 3])
        stand_in = share.slope * pictures + share.offset
        assert share.weight == 0.3
        assert (stand_in.mean(), stand_in.std()) == pytest.approx((texts.mean(), texts.std()), abs=1e-5)

    @pytest.mark.parametrize("options", [{"hybrid": True}, {"diversity": 0.3}])
    def test_where_pictures_alone_score_a_note_says_so(self, options):
        search = asked(**options)
        assert search.texts_weigh(WITH_TEXTS) == 0.0
        assert search.unheard(WITH_TEXTS) == [
            f"with {next(iter(options))}, the vectors of the texts do not score the results; their pictures alone do"
        ]
        assert search.unheard(INFO) == []


class TestReading:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"text_weight": 1.1}, "text_weight: is 1.1, which is not from 0 to 1"),
            ({"text_weight": float("nan")}, "text_weight: is nan"),
            ({"strength": -1}, "strength: is -1, which is not from 0 to 10"),
            ({"diversity": 2}, "diversity: is 2, which is not from 0 to 1"),
            ({"min_score": float("inf")}, "min_score: is no finite number"),
            ({"hybrid": True, "text_weight": 0.5}, "text_weight: needs scores, and hybrid"),
            ({"hybrid": True, "diversity": 0.5}, "diversity: needs scores, and hybrid"),
            ({"hybrid": True, "min_score": 0}, "min_score: needs scores, and hybrid"),
            ({"hybrid": True, "must": ["green"]}, "must_text: needs scores, and hybrid"),
            ({"diversity": 0.5, "text_weight": 0.5}, "diversity: is chosen by the database, which knows nothing of text_weight"),
            ({"diversity": 0.5, "negative": ["red"]}, "knows nothing of negative_text"),
            ({"diversity": 0.5, "must": ["green"]}, "knows nothing of must_text"),
            ({"diversity": 0.5, "group_by": "kind"}, "knows nothing of group_by"),
        ],
    )  # fmt: skip
    def test_what_does_not_go_together_names_its_field(self, given, says):
        with pytest.raises(QueryError) as caught:
            asked(**given)
        assert says in str(caught.value)

    def test_with_strength_0_diversity_and_unwanted_words_go_together(self):
        assert asked(["red"], strength=0.0, diversity=0.5).diversity == 0.5

    @pytest.mark.parametrize(
        ("search", "note"),
        [
            (asked(["red"], hybrid=True), "with hybrid, negative_text changes the query alone"),
            (asked(must=["red"], strength=0.0), "with strength 0, must_text changes nothing"),
        ],
    )
    def test_words_that_change_nothing_are_told(self, search, note):
        assert search.unheard(INFO)[0].startswith(note)


class TestParts:
    def test_each_word_is_a_query_of_its_own(self, tiny):
        parts = asked(["red", " ", "blue"], ["green"]).parts(tiny)
        assert list(parts) == ["query", "negative_text.0", "negative_text.1", "must_text.0"]
        assert [each.text for each in parts.values()] == ["a hat", "red", "blue", "green"]
        assert parts["query"].negative_text == "red, blue"
        assert parts["query"].must_text is None

    @pytest.mark.parametrize("composer", ["text", "image"])
    def test_a_composer_that_reads_no_unwanted_words_gets_none(self, tiny, composer):
        query = {"image": [1.0] * 128, "text": "x", "composer": composer, "negative_text": "red", "must_text": "blue"}
        search = Search.read(query)
        assert search.parts(tiny)["query"].negative_text is None
        assert list(search.parts(tiny)) == ["query", "negative_text.0", "must_text.0"]
        tiny.compose(list(search.parts(tiny).values()))

    def test_words_come_behind_the_pictures_to_be_like(self, tiny):
        search = asked(["red"], like=[[1.0] * 128], unlike=[[2.0] * 128])
        assert list(search.parts(tiny)) == ["query", "like.0", "unlike.0", "negative_text.0"]
        with_words = list(units(4, 5))
        assert search.blend(with_words) == pytest.approx(
            asked(like=[[1.0] * 128], unlike=[[2.0] * 128]).blend(with_words[:3])
        )

    def test_a_word_that_is_cut_is_named(self, tiny):
        search = asked(["stripes " * 200], ["dots"])
        parts = search.parts(tiny)
        said = search.notes(list(parts), tiny.compose(list(parts.values())).notes)
        assert [note.partition(":")[0] for note in said] == ["negative_text", "negative_text.0"]
