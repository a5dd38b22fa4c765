"""Addresses, and the contract of a collection: the same tests on embedded Qdrant, a Qdrant server and a Weaviate server."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cir_vectorizer.collections import (
    Address,
    Ask,
    CreateOptions,
    ModelRecord,
    Point,
    check,
    ensure,
    open_collection,
    parse_address,
)
from cir_vectorizer.errors import AddressError, CollectionError, PartialWriteError
from cir_vectorizer.query.filters import parse_filter
from tests.support import servers
from tests.support.databases import FRONT, MODEL, RECORD, Database, every, points, uid, unit


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("qdrant://localhost/shop", Address("qdrant", "shop", "localhost")),
            ("qdrant://db.example.com:7333/shop", Address("qdrant", "shop", "db.example.com", 7333)),
            ("qdrants://db.example.com/shop/", Address("qdrants", "shop", "db.example.com")),
            ("qdrant://[::1]:6333/shop", Address("qdrant", "shop", "::1", 6333)),
            ("qdrant://KEY@host/shop", Address("qdrant", "shop", "host", api_key="KEY")),
            ("qdrant://me:K%40Y@host/my%20shop", Address("qdrant", "my shop", "host", api_key="K@Y")),
            ("weaviate://host:8080/Shop", Address("weaviate", "Shop", "host", 8080)),
            ("qdrant:./x/y/shop", Address("qdrant", "shop", path=Path("x/y"))),
            ("qdrant:x/shop", Address("qdrant", "shop", path=Path("x"))),
            ("qdrant:/abs/dir/shop", Address("qdrant", "shop", path=Path("/abs/dir"))),
            ("qdrant:~/index/shop", Address("qdrant", "shop", path=Path.home() / "index")),
        ],
    )
    def test_each_form_is_read(self, text, address):
        assert parse_address(text) == address

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "which database"),
            ("shop", "which database"),
            ("./index/shop", "which database"),
            ("C:\\index\\shop", "which database"),
            ("http://host:6333/shop", "write qdrant://"),
            ("https://host:6333/shop", "write qdrants://"),
            ("qdrant:", "no directory"),
            ("qdrant:shop", "no directory"),
            ("qdrant:/shop", "no directory"),
            ("qdrant:./index/", "ends in a slash"),
            ("qdrant://", "no host"),
            ("qdrant:///shop", "no host"),
            ("qdrant://host", "no collection"),
            ("qdrant://host/", "no collection"),
            ("qdrant://host/a/b", "more than a collection"),
            ("qdrant://host:port/shop", "wrong host or port"),
            ("qdrant://host:99999/shop", "wrong host or port"),
            ("qdrant://[::1/shop", "wrong host or port"),
            ("qdrant://host/shop?tls=1", "? or #"),
            ("qdrant:./index/..", "databases refuse"),
            ("qdrant://host/a:b", "databases refuse"),
            (f"qdrant://host/{'x' * 256}", "databases refuse"),
            ("qdrant:~nobody-here/index/shop", "unknown user"),
        ],
    )
    def test_a_malformed_one_is_refused_with_cause_and_remedy(self, text, problem):
        with pytest.raises(AddressError, match=problem.replace("?", r"\?")):
            parse_address(text)

    @pytest.mark.parametrize("text", ["qdrant://SECRET@host:6333/shop", "qdrant://me:SECRET@[::1]/shop"])
    def test_a_key_is_kept_but_never_printed(self, text):
        address = parse_address(text)
        assert address.api_key == "SECRET"
        assert "SECRET" not in f"{address} {address!r}"
        assert parse_address(str(address)) == Address("qdrant", "shop", address.host, address.port)

    def test_a_key_is_not_repeated_by_an_error(self):
        with pytest.raises(AddressError) as caught:
            parse_address("qdrant://SECRET@host:port/shop")
        assert "SECRET" not in str(caught.value)

    def test_an_unknown_database_is_refused_with_those_installed(self):
        with pytest.raises(AddressError, match=r"no plugin is installed for milvus: addresses, only for .*qdrant"):
            open_collection("milvus://host/shop")

    def test_tls_makes_no_sense_for_an_embedded_collection(self):
        with pytest.raises(AddressError, match="write qdrant:"):
            open_collection("qdrants:./index/shop")


@every()
class TestTheContract:
    def test_opening_and_asking_creates_nothing(self, database):
        shop = database.open()
        assert shop.info() is None
        with pytest.raises(CollectionError, match="there is no collection"):
            check(shop, MODEL)
        assert shop.info() is None

    def test_what_is_made_remembers_its_model(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        ensure(shop, MODEL)
        info = check(shop, MODEL)
        assert (info.dim, info.distance, info.count, info.vectorize) == (4, "cosine", 0, "client")
        assert (info.model, info.fingerprint) == (MODEL.name, MODEL.fingerprint)
        assert (info.version is None) == database.embedded
        assert not info.blends_text

    def test_objects_are_written_read_searched_and_removed(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        ids = [uid(1), uid(2), uid(7)]
        vectors = [unit(1, 0, 0, 0), unit(1, 1, 0, 0), unit(0, 0, 1, 0)]
        payloads = [RECORD.join({"colour": "red"}), RECORD.join({}), {"colour": "blue"}]
        shop.upsert([Point(*each) for each in zip(ids, vectors, payloads, strict=True)])
        assert shop.count() == 3
        assert shop.records([*ids, uid(99)]) == {ids[0]: RECORD, ids[1]: RECORD}
        assert dict(shop.scan()) == {ids[0]: RECORD, ids[1]: RECORD, ids[2]: None}
        (point,) = shop.get([ids[1]])
        assert point.payload == payloads[1]
        np.testing.assert_allclose(point.vector, vectors[1], atol=1e-6)
        hits = shop.search(unit(1, 0.1, 0, 0), Ask(2))
        assert [hit.id for hit in hits] == ids[:2]
        assert hits[0].score == pytest.approx(0.995, abs=1e-3)
        assert hits[0].payload == payloads[0]
        shop.delete([ids[0], uid(99)])
        assert {id_ for id_, _ in shop.scan()} == set(ids[1:])

    def test_nothing_of_a_payload_is_lost_whatever_its_types(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        payloads = [
            {"size": 38, "a": [1, 2.5, None, {"b": "ü"}], "sold": True, "n": 1.0},
            {"size": "38", "a": "text", "sold": "yes", "n": 1},
            {"size": [38, "M", True], "a": None, "sold": [], "n": 0.1},
            {"size": {"eu": 38, "us": {"men": "M"}}, "brand name": "Ü & Co", "a.b": {"": 1}, "Size": -0.0},
            {"id": 7, "vector": [0.1], "_id": "x", "9lives": 2**53 + 1, "ü": "a\nb", "class": "", "__x": "  y "},
            {},
        ]
        shop.upsert(points([RECORD.join(each) for each in payloads]))
        found = {point.id: point.payload for point in shop.get([uid(i) for i in range(len(payloads))])}
        for i, payload in enumerate(payloads):
            expected = RECORD.join(payload)
            assert json.dumps(found[uid(i)], sort_keys=True) == json.dumps(expected, sort_keys=True)
        assert shop.search(FRONT, Ask(1))[0].payload == RECORD.join(payloads[0])

    def test_a_new_payload_replaces_the_whole_old_one_and_nothing_else(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        shop.upsert(points([RECORD.join({"colour": "red", "words": "long sleeves"}), RECORD.join({"colour": "red"})]))
        before = {point.id: point.vector for point in shop.get([uid(0), uid(1)])}
        shop.replace_payload({uid(0): {"size": 3}, uid(99): {"size": 4}})
        assert shop.get([uid(0)])[0].payload == {"size": 3}
        assert shop.count() == 2
        assert shop.records([uid(0), uid(1)]) == {uid(1): RECORD}
        for point in shop.get([uid(0), uid(1)]):
            np.testing.assert_allclose(point.vector, before[point.id], atol=1e-7)
        assert [hit.id for hit in shop.search(FRONT, Ask(5, parse_filter("colour=red")))] == [uid(1)]
        assert [hit.id for hit in shop.search(FRONT, Ask(5, parse_filter("size=3")))] == [uid(0)]
        shop.replace_payload({uid(0): RECORD.join({"colour": "blue", "words": "short sleeves"})})
        assert shop.records([uid(0)]) == {uid(0): RECORD}
        assert [hit.id for hit in shop.search(FRONT, Ask(5, parse_filter("colour=blue")))] == [uid(0)]

    def test_an_object_that_is_written_again_is_replaced_whole(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        shop.upsert([Point(uid(0), unit(1, 0, 0, 0), RECORD.join({"colour": "red", "size": 3}))])
        shop.upsert([Point(uid(0), unit(0, 1, 0, 0), {"colour": "blue"})])
        (point,) = shop.get([uid(0)])
        assert point.payload == {"colour": "blue"}
        np.testing.assert_allclose(point.vector, unit(0, 1, 0, 0), atol=1e-6)
        assert shop.search(FRONT, Ask(5, parse_filter("size=3"))) == []
        assert shop.count() == 1

    def test_pages_of_a_long_list_make_the_whole(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        shop.upsert(points([{"n": i} for i in range(25)]))
        whole = [hit.id for hit in shop.search(FRONT, Ask(25))]
        assert whole == [uid(i) for i in range(25)]
        assert [hit.id for start in range(0, 30, 10) for hit in shop.search(FRONT, Ask(10, offset=start))] == whole

    def test_the_best_object_for_each_value_of_a_column(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        payloads = [{"shoe": f"model {i // 4}", "maker": {"no": i // 8}} for i in range(24)]
        shop.upsert(
            points([*payloads, {"shoe": 7}, {"shoe": None}, {}, {"shoe": ["model 9", "model 0"]}, {"shoe": 1.5}])
        )
        groups = shop.search(FRONT, Ask(10, group_by="shoe"))
        assert [hit.id for hit in groups] == [uid(i) for i in (0, 4, 8, 12, 16, 20, 24, 27)]
        assert [hit.id for hit in shop.search(FRONT, Ask(2, group_by="shoe", offset=3))] == [uid(12), uid(16)]
        assert [hit.id for hit in shop.search(FRONT, Ask(9, group_by="maker.no"))] == [uid(0), uid(8), uid(16)]
        assert [hit.id for hit in shop.search(FRONT, Ask(9, parse_filter("maker.no>0"), group_by="shoe"))] == [
            uid(i) for i in (8, 12, 16, 20)
        ]

    def test_groups_are_found_however_far_down_they_begin(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        shop.upsert(points([{"shoe": "many"} for _ in range(700)] + [{"shoe": "rare"}]))
        assert [hit.id for hit in shop.search(FRONT, Ask(5, group_by="shoe"))] == [uid(0), uid(700)]

    def test_keywords_beside_the_vector_lift_what_names_them(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        payloads = [{"title": "red dress"}, {"title": "red shoe"}, {"title": "hat"}, {"tags": ["Zebra", "dress"]}] * 5
        shop.upsert(points([RECORD.join({**each, "n": i}) for i, each in enumerate(payloads)]))
        assert [hit.payload["n"] for hit in shop.search(FRONT, Ask(4))] == [0, 1, 2, 3]
        by_words = [hit.payload["n"] for hit in shop.search(FRONT, Ask(5, text="a ZEBRA!"))]
        assert set(by_words) == {3, 7, 11, 15, 19}
        assert [hit.payload["n"] for hit in shop.search(FRONT, Ask(3, text="zebra", offset=2))] == by_words[2:]
        assert {hit.payload["n"] for hit in shop.search(FRONT, Ask(3, parse_filter("n>10"), text="zebra"))} == {
            11,
            15,
            19,
        }
        assert len(shop.search(FRONT, Ask(20, text="nobody writes this"))) == 20
        titles = {hit.payload["title"] for hit in shop.search(FRONT, Ask(9, text="dress zebra", group_by="title"))}
        assert titles == {"red dress", "red shoe", "hat"}

    def test_words_are_found_in_scripts_without_spaces(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        titles = [
            "青いドレス",
            "iPhone手机壳 red",
            "หมวกสีแดงใหม่",
            "เสื้อสีเขียว",
            "hat",
            "红色连衣裙夏季新款",
            "赤い帽子 ｳｰﾙ",
        ]
        shop.upsert(points([RECORD.join({"title": title}) for title in ["x"] * 9 + titles]))

        def first(text):
            return shop.search(FRONT, Ask(1, text=text))[0].payload["title"]

        for text, title in (
            ("帽子", 6), ("赤", 6), ("ウール", 6), ("連衣裙の连衣裙", 5), ("手机", 1), ("IPHONE", 1), ("ドレス", 0), ("สีแดง", 2), ("เสื้อ", 3),
        ):  # fmt: skip
            assert first(text) == titles[title], text
        shop.replace_payload({uid(0): RECORD.join({"title": "黒い靴"})})
        assert first("靴") == "黒い靴"

    def test_objects_named_by_id_are_left_out(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        shop.upsert(points([{"n": i, "title": "red"} for i in range(6)]))

        def found(**options):
            return [hit.payload["n"] for hit in shop.search(FRONT, Ask(3, without=(uid(0), uid(2)), **options))]

        assert found() == found(group_by="n") == [1, 3, 4]
        by_words = found(text="red")
        assert len(by_words) == 3
        assert not {0, 2} & set(by_words)
        assert found(where=parse_filter("n!=3")) == [1, 4, 5]

    def test_words_follow_a_changed_payload(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        shop.upsert(points([{"title": f"thing {i}"} for i in range(4)]))
        shop.replace_payload({uid(3): {"title": "zebra"}, uid(1): {"n": 1}})
        assert shop.search(FRONT, Ask(1, text="zebra"))[0].id == uid(3)
        shop.replace_payload({uid(3): {}})
        assert shop.search(FRONT, Ask(1, text="zebra"))[0].id == uid(0)

    def test_objects_that_the_database_refuses_are_named_and_the_others_are_written(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        batch = points([{"n": i} for i in range(7)])
        batch[2] = Point(uid(2), unit(1, 0, 0), {"n": 2})
        batch[5] = Point("no-uuid", FRONT, {"n": 5})
        with pytest.raises(PartialWriteError, match=r"2 of 7 objects") as caught:
            shop.upsert(batch)
        assert set(caught.value.failed) == {uid(2), "no-uuid"}
        assert caught.value.failed[uid(2)] != caught.value.failed["no-uuid"]
        assert "3" in caught.value.failed[uid(2)]
        assert {id_ for id_, _ in shop.scan()} == {uid(i) for i in (0, 1, 3, 4, 6)}

    def test_of_a_batch_that_is_refused_whole_every_object_is_named(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        with pytest.raises(PartialWriteError) as caught:
            shop.upsert([Point(uid(i), unit(1, i, 0), {}) for i in range(5)])
        assert set(caught.value.failed) == {uid(i) for i in range(5)}
        assert shop.count() == 0

    def test_a_scan_sees_every_object_once(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        for start in range(0, 2500, 500):
            shop.upsert([Point(uid(i), FRONT, RECORD.join({})) for i in range(start, start + 500)])
        seen = list(shop.scan())
        assert len(seen) == 2500
        assert dict(seen) == {uid(i): RECORD for i in range(2500)}
        assert len(shop.records([uid(i) for i in range(0, 3000, 2)])) == 1250
        shop.delete([uid(i) for i in range(0, 2500, 2)])
        assert shop.count() == 1250

    def test_a_name_is_switched_to_a_collection_made_beside_it(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        shop.upsert(points([{"made": "first"}]))
        for round_ in ("second", "third"):
            other = ModelRecord("other", round_[0] * 64, 8)
            beside = shop.beside(f"{shop.address.collection}_{round_}")
            ensure(beside, other)
            beside.upsert([Point(uid(0), unit(*range(1, 9)), {"made": round_})])
            assert shop.get([uid(0)])[0].payload != {"made": round_}
            shop.take_over(beside)
            assert check(shop, other).count == 1
            assert shop.get([uid(0)])[0].payload == {"made": round_}
            shop.upsert([Point(uid(1), unit(*range(2, 10)), {"made": "later", f"column of {round_}": 1})])
            assert beside.count() == 2
        assert shop.beside(f"{shop.address.collection}_second").info() is None
        shop.close()
        again = database.again(shop)
        assert again.get([uid(0)])[0].payload == {"made": "third"}
        again.drop()
        assert again.info() is None
        assert again.beside(f"{shop.address.collection}_third").info() is None

    def test_another_model_is_noted_under_a_switched_name(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        beside = shop.beside(f"{shop.address.collection}_new")
        ensure(beside, MODEL)
        shop.take_over(beside)
        other = ModelRecord("other", "b2" * 32, 4)
        shop.remember(other)
        assert check(shop, other).model == "other"

    def test_a_switch_to_nothing_changes_nothing(self, database):
        shop = database.open()
        ensure(shop, MODEL)
        with pytest.raises(CollectionError, match=r"there is no collection .*nothing was switched"):
            shop.take_over(shop.beside(f"{shop.address.collection}_none"))
        assert shop.count() == 0

    def test_dropping_what_is_not_there_is_no_error(self, database):
        database.open().drop()

    def test_a_vector_of_several_is_named(self, database):
        shop = database.open(using="front")
        ensure(shop, MODEL)
        shop.upsert(points([RECORD.join({"n": i}) for i in range(3)]))
        info = check(shop, MODEL)
        assert (info.using, info.vectors, info.dim) == ("front", ("front",), 4)
        assert shop.search(FRONT, Ask(1))[0].payload["n"] == 0
        np.testing.assert_allclose(shop.get([uid(0)])[0].vector, FRONT, atol=1e-6)
        shop.replace_payload({uid(1): {"n": 11}})
        assert [hit.payload["n"] for hit in shop.search(unit(1, 0.1, 0, 0), Ask(1))] == [11]
        shop.close()
        assert database.again(shop, using=None).search(FRONT, Ask(1, text="x"))[0].payload["n"] == 0
        shop.close()
        database.opened[-1].close()
        with pytest.raises(CollectionError, match=r"has the vectors front, and not 'back'; name one with --using"):
            database.again(shop, using="back").info()
        database.opened[-1].close()

    @pytest.mark.parametrize("quantization", ["none", "scalar", "binary"])
    def test_vectors_on_disk_and_quantised_find_the_same(self, database, quantization):
        shop = database.open()
        model = ModelRecord("wide", "b2" * 32, 64)
        ensure(shop, model, CreateOptions(vector_on_disk=True, quantization=quantization, indexed=("n", "maker.city")))
        vectors = normal(300, 64)
        shop.upsert([Point(uid(i), v, {"n": i, "maker": {"city": "Oslo"}}) for i, v in enumerate(vectors)])
        for query in range(0, 300, 30):
            assert shop.search(vectors[query], Ask(1))[0].payload["n"] == query
        found = {hit.payload["n"] for hit in shop.search(vectors[0], Ask(5, parse_filter("n>200 and maker.city=Oslo")))}
        nearest = [int(i) for i in np.argsort(-(vectors @ vectors[0])) if i > 200]
        assert found == set(nearest[:5]) if quantization == "none" else found <= set(nearest[:20])


def normal(count, dim, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@every()
def test_exact_searches_with_filters_find_what_arithmetic_finds(database):
    """Every database is compared with the same numbers, so all of them find the same objects."""
    shop = database.open()
    ensure(shop, ModelRecord("wide", "b2" * 32, 32))
    vectors = normal(3000, 32)
    payloads = [
        {"price": i % 97, "colour": ["red", "blue", "green"][i % 3], "tags": ["new"] * (i % 2)} for i in range(3000)
    ]
    for start in range(0, 3000, 500):
        part = range(start, start + 500)
        shop.upsert([Point(uid(i), vectors[i], payloads[i]) for i in part])
    filters = {
        None: lambda p: True,
        "price<10": lambda p: p["price"] < 10,
        "colour=red and price>=50": lambda p: p["colour"] == "red" and p["price"] >= 50,
        "colour!=red": lambda p: p["colour"] != "red",
        "tags=new and colour in (blue, green)": lambda p: p["tags"] and p["colour"] != "red",
    }
    for seed, (text, holds) in enumerate(filters.items()):
        for query in normal(10, 32, seed=seed + 1):
            scores = vectors @ query
            order = [int(i) for i in np.argsort(-scores) if holds(payloads[i])][:10]
            hits = shop.search(query, Ask(10, parse_filter(text) if text else (), exact=True))
            np.testing.assert_allclose([hit.score for hit in hits], scores[order], atol=1e-4)
            for hit, expected in zip(hits, order, strict=True):
                assert scores[int(hit.id.replace("-", ""), 16) - 1] == pytest.approx(scores[expected], abs=1e-4)


@every()
def test_two_that_make_and_fill_a_collection_at_once_lose_nothing(database):
    first = database.open()
    collections = [first] if database.embedded else [first, database.again(first), database.again(first)]
    errors = []

    def fill(number, collection):
        try:
            ensure(collection, MODEL)
            for i in range(5):
                payload = {"who": number, f"column {number} {i}": i, "both": ["text", 1, True][number % 3]}
                collection.upsert([Point(uid(100 * number + i), FRONT, payload)])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=fill, args=each) for each in enumerate(collections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert first.count() == 5 * len(collections)
    for number in range(len(collections)):
        assert len(first.search(FRONT, Ask(50, parse_filter(f"who={number} and 'column {number} 3'=3")))) == 1
    assert len(first.search(FRONT, Ask(50, parse_filter("both=text")))) == 5


@pytest.mark.live
@pytest.mark.parametrize("kind", ["qdrant", "qdrant-grpc", "weaviate"])
def test_a_server_that_is_killed_and_started_again_loses_nothing(kind, service, tmp_path):
    """Calls in progress wait for the server; earlier writes are still there."""
    start = servers.weaviate if kind == "weaviate" else servers.qdrant
    database = Database(kind)
    errors = []

    def write(shop):
        try:
            for start in range(100, 2000, 20):
                shop.upsert([Point(uid(i), FRONT, RECORD.join({"n": i})) for i in range(start, start + 20)])
                written.append(start)
                if ended.is_set() and len(written) > before + 3:
                    return
        except Exception as error:
            errors.append(error)

    written, ended, before = [], threading.Event(), 10**9
    inference = f"{service.with_key(servers.KEY)}/m/tiny"
    with start(tmp_path, inference) as server:
        database.server = server
        shop = database.open()
        ensure(shop, MODEL)
        shop.upsert(points([RECORD.join({"n": i}) for i in range(100)]))
        writer = threading.Thread(target=write, args=[shop])
        writer.start()
        while len(written) < 3:
            time.sleep(0.01)
        server.process.kill()
        server.process.wait()
        before = len(written)
        ended.set()
        time.sleep(1)
    with start(tmp_path, inference, again=server):
        writer.join(120)
        assert errors == []
        assert len(written) > before
        assert dict(shop.scan()) == {
            uid(i): RECORD for i in [*range(100), *(n + i for n in written for i in range(20))]
        }
        assert shop.search(FRONT, Ask(1, parse_filter(f"n={written[-1]}")))[0].id == uid(written[-1])
        shop.close()
