"""`/v1/search` and thumbnails of a collection that sync filled: the library's results, and no file but its pictures."""

import asyncio
import base64
import copy
import hashlib
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from cir_vectorizer.cli import main
from cir_vectorizer.cli.serve import _collections
from cir_vectorizer.collections import CreateOptions, ModelRecord, Point, SyncRecord, open_collection
from cir_vectorizer.collections.searching import Search, find
from cir_vectorizer.errors import CollectionError, QueryError
from cir_vectorizer.query.encoded import Limits
from cir_vectorizer.service.collection import ServedCollection
from cir_vectorizer.service.http.metrics import Metrics
from cir_vectorizer.service.http.problems import refusal
from cir_vectorizer.service.page.thumbnails import Thumbnails
from cir_vectorizer.service.settings import Settings
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from tests.support.databases import SERVERS, every
from tests.support.servers import our_service
from tests.support.serving import Running, drawn, encoded, serving, tiny

COLOURS = {
    "red": (208, 32, 38),
    "green": (48, 150, 62),
    "blue": (44, 96, 214),
    "white": (248, 248, 246),
    "black": (9, 9, 9),
}
RED = encoded(Image.new("RGB", (64, 48), COLOURS["red"]))

SEARCHES: dict[str, dict[str, Any]] = {
    "composed": {"query": {"image": RED, "text": "is blue"}},
    "text alone": {"query": {"text": "a green hat"}},
    "negative": {"query": {"text": "a hat", "negative_text": "red"}},
    "filtered": {"query": {"text": "a hat"}, "filter": "price>=20 and colour!=green"},
    "paged": {"query": {"text": "a hat"}, "limit": 2, "offset": 2},
    "grouped": {"query": {"text": "a hat"}, "group_by": "kind"},
    "hybrid": {"query": {"text": "blue"}, "hybrid": True},
    "several": {"query": {"image": [RED, drawn(0x0000FF)], "text": "is white", "composer": "sum"}},
    "second score": {
        "query": {"text": "a hat", "negative_text": ["red", "black"], "must_text": "blue"},
        "strength": 1.5,
    },
    "second score, no picture read": {
        "query": {"image": RED, "composer": "image", "text": "x", "negative_text": "red"}
    },
    "second score, grouped": {"query": {"text": "a hat", "must_text": "blue"}, "group_by": "kind"},
    "least score": {"query": {"text": "a hat"}, "min_score": 0.1},
    "like alone": {"like": [RED]},
    "like and unlike": {"query": {"text": "a hat"}, "like": [RED], "unlike": [drawn(0x0000FF)]},
}


@dataclass
class Shop:
    """A folder of pictures, the address of their collection, ids by colour, and the library's results."""

    folder: Path
    address: str
    ids: dict[str, str]
    expected: dict[str, list[tuple[Any, float]]]


def make_shop(folder: Path) -> Shop:
    rows = ["image,colour,price,kind"]
    for i, (colour, rgb) in enumerate(COLOURS.items()):
        Image.new("RGB", (640, 480), rgb).save(folder / f"{colour}.png")
        rows.append(f"{colour}.png,{colour},{10 * (i + 1)},{'gray' if colour in ('white', 'black') else 'bright'}")
    (folder / "catalog.csv").write_text("\n".join(rows))
    address = f"qdrant:{folder}/index/shop"
    collection = open_collection(address)
    sync(open_source(folder / "catalog.csv"), collection, tiny())
    ids = {Path(record.path).stem: str(id_) for id_, record in collection.scan() if record}
    expected = {}
    for name, asked in [*SEARCHES.items(), *of_objects(ids).items()]:
        asked = {"where" if key == "filter" else key: value for key, value in asked.items()}
        expected[name] = [(hit.id, hit.score) for hit in find(Search.read(**asked), collection, tiny()).hits]
    collection.close()
    return Shop(folder, address, ids, expected)


def of_objects(ids: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return searches that name objects by id."""
    return {
        "by id": {"query": {"image": {"id": ids["red"]}, "text": "is blue"}},
        "like an object": {
            "query": {"text": "a hat"},
            "like": [{"id": ids["white"]}],
            "unlike": [{"id": ids["black"]}],
        },
    }


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def served(shop: Shop) -> Iterator[Running]:
    with serving(collections={"shop": [open_collection(shop.address)]}) as running:
        yield running


@pytest.fixture
def own_shop(tmp_path: Path) -> Iterator[tuple[Shop, Running]]:
    """A shop of the test's own, which it may damage, and its service."""
    shop = make_shop(tmp_path)
    with serving(collections={"shop": [open_collection(shop.address)]}) as running:
        yield shop, running


def found(answer: Any) -> list[tuple[Any, float]]:
    assert answer.status_code == 200, answer.text
    return [(hit["id"], hit["score"]) for hit in answer.json()["hits"]]


def sentence(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert list(answer.json())[:2] == ["error", "code"]
    return answer.json()["error"]


def test_a_filter_that_no_value_can_meet_is_explained(served: Running) -> None:
    answer = served.client.post("/v1/search", json={"query": {"text": "a hat"}, "filter": "colour<5"})
    assert found(answer) == []
    assert answer.json()["notes"][-1].startswith("filter: column 'colour' holds text such as ")


def thumbnail(served: Running, id_: str, **more: Any) -> Any:
    return served.client.get(f"/v1/objects/{id_}/thumbnail", **more)


class TestSearch:
    @pytest.mark.parametrize("name", SEARCHES)
    def test_it_finds_what_the_library_finds(self, served, shop, name):
        assert_same(found(served.post("/v1/search", SEARCHES[name])), shop.expected[name])

    @pytest.mark.parametrize("name", ["by id", "like an object"])
    def test_objects_are_references_without_their_pictures(self, served, shop, name):
        assert_same(found(served.post("/v1/search", of_objects(shop.ids)[name])), shop.expected[name])

    def test_objects_that_a_search_names_are_no_hits(self, served, shop):
        asked = {"query": {"image": {"id": shop.ids["red"]}}, "limit": 2}
        assert shop.ids["red"] not in dict(found(served.post("/v1/search", asked)))
        assert len(found(served.post("/v1/search", asked))) == 2
        grouped = found(served.post("/v1/search", {**asked, "group_by": "colour"}))
        assert len(grouped) == 2
        assert shop.ids["red"] not in dict(grouped)

    def test_a_hit_has_other_objects_of_its_group(self, served, shop):
        asked = {"query": {"text": "a hat"}, "group_by": "kind", "group_size": 3}
        for hit in served.post("/v1/search", asked).json()["hits"]:
            assert all(each["payload"]["kind"] == hit["payload"]["kind"] for each in hit["others"])
            assert all(each["thumbnail"] == f"/v1/objects/{each['id']}/thumbnail" for each in hit["others"])
            assert len(hit["others"]) == (1 if hit["payload"]["kind"] == "gray" else 2)
        refused = sentence(served.post("/v1/search", {"query": {"text": "a hat"}, "group_size": 3}), 400)
        assert refused == "group_size: is for groups; add group_by or leave it out"

    def test_a_hit_says_what_it_is_and_where_its_thumbnail_is(self, served, shop):
        asked = {"query": {"image": {"id": shop.ids["red"]}}, "include_reference": True}
        body = served.post("/v1/search", asked).json()
        first = body["hits"][0]
        assert first["payload"] == {"colour": "red", "price": 10, "kind": "bright"}
        assert (first["id"], first["name"]) == (shop.ids["red"], "red.png")
        assert first["thumbnail"] == f"/v1/objects/{shop.ids['red']}/thumbnail"
        assert body["model"] == f"tiny@{tiny().fingerprint[:12]}"
        assert str(shop.folder) not in json.dumps(body)

    def test_a_note_comes_with_the_hits(self, served):
        body = served.post("/v1/search", {"query": {"text": "a hat " * 200}}).json()
        assert "its end was left out" in body["notes"][0]

    def test_the_model_may_be_named_and_must_fit(self, served):
        asked = {"query": {"text": "a hat"}}
        named = {**asked, "model": f"tiny@{tiny().fingerprint[:12]}"}
        assert found(served.post("/v1/search", named)) == found(served.post("/v1/search", asked))
        assert "no model 'other' is served" in sentence(served.post("/v1/search", {**asked, "model": "other"}), 400)

    def test_a_composer_in_the_models_name_is_used(self, served):
        asked = {"query": {"image": RED, "text": "is blue"}}
        pinned = found(served.post("/v1/search", {**asked, "model": "tiny/sum"}))
        assert pinned == found(served.post("/v1/search", {"query": {**asked["query"], "composer": "sum"}}))
        assert pinned != found(served.post("/v1/search", asked))

    def test_explain_takes_objects_too(self, served, shop):
        body = served.post("/v1/explain", {"query": {"image": {"id": shop.ids["red"]}, "text": "is blue"}}).json()
        assert {part["part"] for part in body["parts"]} == {"image.0", "text"}
        assert len(body["pictures"][0]) == 10

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({}, "the search is empty"),
            ({"unlike": [RED]}, "unlike: says only what to avoid"),
            ({"query": {}}, "query: the query is empty"),
            ({"query": {"text": "x", "colour": "red"}}, "query: colour: is not a field"),
            ({"query": {"image": {"id": "nine"}}}, "image.0: names 'nine', which is no id"),
            ({"query": {"image": {"id": 9}}}, "image.0: names object 9, which is not in"),
            ({"like": [{"id": "00000000-0000-0000-0000-000000000000"}]}, "like.0: names object 0000"),
            ({"like": [{"path": "/etc/passwd"}]}, "like.0: a path is not accepted here"),
            ({"query": {"text": "x"}, "filter": "price<<5"}, "filter: at letter 7"),
            ({"query": {"text": "x"}, "limit": 0}, "limit"),
            ({"query": {"text": "x"}, "limit": 1001}, "limit: is over this service's 1,000"),
            ({"query": {"text": "x"}, "offset": 9995}, "offset: is, together with limit, over 10,000"),
            ({"query": {"image": RED}, "hybrid": True}, "hybrid: looks for the words of the text"),
            ({"query": {"text": "x"}, "collection": "other"}, "no collection 'other' is searched here; there is shop"),
            ({"query": {"text": "x"}, "page": 2}, "page: is not a field"),
            ({"query": {"text": "x", "negative_text": [1]}}, "query: negative_text: has a number in its list"),
            ({"query": {"text": "x", "must_text": ["y"] * 17}}, "query: must_text: has 17 texts, more than 16"),
            ({"query": {"must_text": "y"}}, "query: must_text: says only what results must show"),
            ({"query": {"text": "x"}, "text_weight": 0.5}, "text_weight: is for collections with texts"),
            ({"query": {"text": "x"}, "text_weight": 2}, "text_weight"),
            ({"query": {"text": "x"}, "strength": 11}, "strength"),
            ({"query": {"text": "x"}, "diversity": -1}, "diversity"),
            ({"query": {"text": "x"}, "min_score": "high"}, "min_score"),
            ({"query": {"text": "x"}, "hybrid": True, "min_score": 1}, "min_score: needs scores, and hybrid"),
            ({"query": {"text": "x", "must_text": "y"}, "diversity": 0.5}, "diversity: is chosen by the database"),
        ],
    )
    def test_what_makes_no_sense_is_refused_with_a_sentence(self, served, asked, expected):
        answer = served.post("/v1/search", asked)
        assert expected in sentence(answer, 400)
        if ": " in expected:
            assert answer.json()["field"] in expected.replace("query: ", "query.")

    def test_hits_say_what_each_signal_gave(self, served):
        answer = served.post("/v1/search", SEARCHES["second score"]).json()["hits"]
        assert [set(hit["signals"]) for hit in answer] == [{"picture", "unwanted", "wanted"}] * 5
        assert {value for hit in answer for name, value in hit["signals"].items() if name == "wanted"} >= {0.0, 1.0}
        plain = served.post("/v1/search", SEARCHES["composed"]).json()["hits"]
        assert [hit["signals"] for hit in plain] == [{"picture": hit["score"]} for hit in plain]

    def test_a_least_score_that_leaves_nothing_is_told(self, served):
        answer = served.post("/v1/search", {"query": {"text": "a hat"}, "min_score": 50})
        assert found(answer) == []
        assert answer.json()["notes"][-1].startswith("min_score: the nearest object has ")

    def test_words_that_are_cut_are_named(self, served):
        query = {"text": "a hat", "must_text": ["red", "stripes " * 200]}
        (note,) = served.post("/v1/search", {"query": query}).json()["notes"]
        assert note.startswith("must_text.1: longer than")

    def test_texts_count_where_the_collection_has_them(self, shop, tmp_path):
        rows = [f"{shop.folder / colour}.png,a {colour} hat" for colour in list(COLOURS)[:4]]
        (tmp_path / "catalog.csv").write_text("\n".join(["image,title", *rows, f"{shop.folder / 'black'}.png,"]))
        collection = open_collection(f"qdrant:{tmp_path}/index/told")
        sync(open_source(tmp_path / "catalog.csv"), collection, tiny(), create=CreateOptions(text_columns=("title",)))
        collection.weigh_texts(0.25)
        with serving(collections={"told": [collection]}) as running:
            (described,) = running.client.get("/v1/collections").json()["collections"]
            assert (described["texts"], described["text_weight"]) == (True, 0.25)
            hits = running.post("/v1/search", {"query": {"text": "a hat"}}).json()["hits"]
            assert sum("text" in hit["signals"] for hit in hits) == 4
            for hit in hits:
                if "text" in hit["signals"]:
                    fused = 0.75 * hit["signals"]["picture"] + 0.25 * hit["signals"]["text"]
                    assert hit["score"] == pytest.approx(fused, abs=1e-4)
            pictures = running.post("/v1/search", {"query": {"text": "a hat"}, "text_weight": 0}).json()["hits"]
            assert [set(hit["signals"]) for hit in pictures] == [{"picture"}] * 5
            answer = running.post("/v1/search", {"query": {"text": "a hat"}, "diversity": 0.5})
            assert "with diversity, the vectors of the texts do not score the results" in answer.json()["notes"][0]

    def test_without_a_collection_it_says_how_to_get_one(self):
        with serving() as running:
            assert "the service's operator adds one by --collection ADDRESS" in sentence(
                running.post("/v1/search", {"query": {"text": "x"}}), 400
            )
            assert running.client.get("/v1/collections").json() == {"collections": [], "key_needed": False}
            assert "/v1/search" not in running.client.get("/openapi.json").json()["paths"]

    def test_keys_are_asked_for(self, shop, tmp_path):
        shutil.copytree(shop.folder / "index", tmp_path / "index")
        opened = {"shop": [open_collection(f"qdrant:{tmp_path}/index/shop")]}
        with serving(collections=opened, api_keys="me:secret") as running:
            asked = {"query": {"text": "a hat"}}
            sentence(running.post("/v1/search", asked), 401)
            for path in ("/", "/v1/collections", f"/v1/objects/{shop.ids['red']}/thumbnail"):
                sentence(running.client.get(path), 401)
                assert running.client.get(path, auth=("", "secret")).status_code == 200
            assert found(running.post("/v1/search", asked, headers={"cir-api-key": "secret"}))


class TestCollections:
    def test_they_are_listed(self, served):
        (described,) = served.client.get("/v1/collections").json()["collections"]
        assert described == {
            "name": "shop", "default": True, "problem": None, "count": 5, "model": "tiny", "made_with": "tiny",
            "references": True, "texts": False, "text_weight": None, "database": "qdrant", "stored_as": "shop", "tenant": None,
            "vector": None, "vectorize": "client",
        }  # fmt: skip

    def test_one_that_is_not_there_yet_is_a_problem_until_sync_made_it(self, tmp_path):
        Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
        collection = open_collection(f"qdrant:{tmp_path}/index/later")
        with serving(collections={"later": [collection]}) as running:
            (described,) = running.client.get("/v1/collections").json()["collections"]
            assert "cir-vectorizer sync makes it" in described["problem"]
            assert "cir-vectorizer sync makes it" in sentence(running.post("/v1/search", {"query": {"text": "x"}}), 400)
            sync(open_source(tmp_path), collection, tiny())
            assert len(found(running.post("/v1/search", {"query": {"text": "x"}}))) == 1

    def test_a_server_that_does_not_answer_is_no_fault_of_the_request(self):
        with serving(collections={"far": [open_collection("qdrant://127.0.0.1:9/shop")]}) as running:
            assert running.client.get("/.well-known/ready").status_code == 204
            assert "no Qdrant server answers" in sentence(running.post("/v1/search", {"query": {"text": "x"}}), 502)
            (described,) = running.client.get("/v1/collections").json()["collections"]
            assert "no Qdrant server answers" in described["problem"]

    def test_one_of_another_backbone_is_refused_with_both_names(self, tmp_path):
        collection = open_collection(f"qdrant:{tmp_path}/index/shop")
        collection.create(ModelRecord("clip-l", "ff" * 32, tiny().dim))
        with serving(collections={"shop": [collection]}) as running:
            said = sentence(running.post("/v1/search", {"query": {"text": "x"}}), 400)
            assert "clip-l@ffffffffffff" in said
            assert "tiny@" in said

    def test_of_several_one_is_named(self, shop, tmp_path):
        shutil.copytree(shop.folder / "index", tmp_path / "index")
        other = open_collection(f"qdrant:{tmp_path}/other/shop")
        Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
        sync(open_source(tmp_path), other, tiny())
        opened = {"one": [open_collection(f"qdrant:{tmp_path}/index/shop")], "two": [other]}
        with serving(collections=opened) as running:
            asked = {"query": {"text": "a hat"}}
            assert len(found(running.post("/v1/search", asked))) == 5
            body = running.post("/v1/search", {**asked, "collection": "two"}).json()
            assert len(body["hits"]) == 1
            picture = running.client.get(body["hits"][0]["thumbnail"])
            assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")

    def test_objects_of_another_program_are_references_at_the_mean_norm(self, tmp_path):
        client = QdrantClient(path=str(tmp_path / "index"))
        client.create_collection("shop", models.VectorParams(size=tiny().dim, distance=models.Distance.COSINE))
        pictures = [Image.new("RGB", (64, 64), rgb) for rgb in COLOURS.values()]
        vectors = tiny().embed_images(pictures)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        client.upsert("shop", [models.PointStruct(id=i, vector=v.tolist()) for i, v in enumerate(vectors)])
        client.close()
        with serving(collections={"shop": [open_collection(f"qdrant:{tmp_path}/index/shop")]}) as running:
            given = {"vector": vectors[0].tolist(), "norm": tiny().mean_image_norm}
            asked = {"query": {"image": {"id": "0"}, "text": "is blue"}, "include_reference": True}
            by_id = found(running.post("/v1/search", asked))
            by_vector = found(running.post("/v1/search", {"query": {"image": given, "text": "is blue"}}))
            assert_same(by_id, by_vector)
            assert "no object 0 that sync wrote" in sentence(thumbnail(running, "0"), 404)

    def test_the_model_that_a_collection_was_made_with_explains_too(self, shop, tmp_path):
        shutil.copytree(shop.folder / "index", tmp_path / "index")
        mine, other = copy.copy(tiny()), copy.copy(tiny())  # copies, because the service sets their names
        other.backbone = copy.copy(other.backbone)
        other.backbone.__dict__["fingerprint"] = "ff" * 32
        opened = {"shop": [open_collection(f"qdrant:{tmp_path}/index/shop")]}
        with serving(vectorizers={"other": other, "mine": mine}, collections=opened) as running:
            query = {"image": {"id": shop.ids["red"]}, "text": "is blue"}
            full_name = f"mine@{tiny().fingerprint[:12]}"
            assert running.post("/v1/search", {"query": query}).json()["model"] == full_name
            for asked in ({"collection": "shop"}, {}):
                assert running.post("/v1/explain", {"query": query, **asked}).json()["model"] == full_name
            text = {"query": {"text": "a hat"}}
            assert running.post("/v1/explain", {**text, "collection": "shop"}).json()["model"] == full_name
            assert running.post("/v1/explain", text).json()["model"].startswith("other@")
            named = {"query": query, "collection": "shop", "model": "other"}
            assert "cannot be compared" in sentence(running.post("/v1/explain", named), 400)


def broken(collection: Any, error: Exception) -> Any:
    """Return the collection, changed so that its search fails."""

    def search(*_: Any, **__: Any) -> None:
        raise error

    collection.search = search
    return collection


class TestErrors:
    def test_no_directory_is_named(self, served, shop):
        asked = [{"like": [{"id": 999999}]}, {"query": {"image": {"id": 999999}}}]
        for body in asked:
            assert "which is not in shop" in sentence(served.post("/v1/search", body), 400)
        said = sentence(served.post("/v1/explain", asked[1]), 400)
        assert "image.0: names object 999999, which is not in shop; correct the id" in said

    def test_no_directory_is_named_where_something_is_wrong_with_it(self, tmp_path):
        other = open_collection(f"qdrant:{tmp_path}/index/other")
        other.create(ModelRecord("clip-l", "ff" * 32, tiny().dim))
        (tmp_path / "file").write_text("no directory")
        with serving(
            collections={
                "items": [other],
                "later": [open_collection(f"qdrant:{tmp_path}/later/name")],
                "locked": [open_collection(f"qdrant:{tmp_path}/index/other")],
                "odd": [open_collection(f"qdrant:{tmp_path}/file/name")],
            }
        ) as running:
            described = running.client.get("/v1/collections").json()["collections"]
            assert [each["name"] for each in described if each["problem"]] == ["items", "later", "locked", "odd"]
            for name in ("items", "later", "locked", "odd"):
                answer = running.post("/v1/search", {"query": {"text": "x"}, "collection": name})
                assert name in answer.json()["error"]
                assert str(tmp_path) not in answer.text
        assert str(tmp_path) not in json.dumps(described)

    def test_no_host_is_named(self):
        addresses = {"one": "qdrant://127.0.0.1:9/shop", "two": "weaviate://127.0.0.1:9/Shop"}
        with serving(collections={name: [open_collection(text)] for name, text in addresses.items()}) as running:
            for name in addresses:
                said = sentence(running.post("/v1/search", {"query": {"text": "x"}, "collection": name}), 502)
                assert f"server answers at {name} (" in said
                assert "127.0.0.1" not in said

    @pytest.mark.parametrize(
        ("address", "said", "expected"),
        [
            (
                "qdrant://qdrant/a",
                "no Qdrant server answers at qdrant:6333 (x)",
                "no Qdrant server answers at shop (x)",
            ),
            ("qdrant://db:1/a", "see http://db:1/collections/a, or db:2", "see http://shop/collections/a, or shop"),
            ("qdrant://db/a", "db answered 500: db-1 adbc x.db", "shop answered 500: db-1 adbc x.db"),
            ("qdrant://db/a", "last error: ipv4:10.0.0.5:6334: refused", "last error: shop: refused"),
            ("qdrant://[::1]:6333/a", "at [::1]:6333, ipv6:%5B::1%5D:6333", "at shop, shop"),
            ("qdrant:./a", "there is none. Look (again).", "there is none. Look (again)."),
            ("qdrant:/srv/db/a", "/srv/db/.lock and file:///srv/db", "shop/.lock and file://shop"),
        ],
    )
    def test_a_place_is_found_however_it_is_written(self, address, said, expected):
        collection = broken(open_collection(address), QueryError("filter", said))
        catalog = ServedCollection("shop", [collection], Metrics())
        with pytest.raises(QueryError) as caught:
            asyncio.run(catalog.call("search", lambda opened: opened.search()))
        assert (str(caught.value), caught.value.field) == (f"filter: {expected}", "filter")
        catalog.close()

    @pytest.mark.parametrize(
        ("cause", "status"),
        [
            (UnexpectedResponse(400, "Bad Request", b"", httpx.Headers()), 400),
            (UnexpectedResponse(422, "Unprocessable", b"", httpx.Headers()), 400),
            (UnexpectedResponse(500, "Internal", b"", httpx.Headers()), 502),
            (SimpleNamespace(name="INVALID_ARGUMENT"), 400),
            (SimpleNamespace(name="UNAVAILABLE"), 502),
            (ConnectionError("refused"), 502),
        ],
    )
    def test_what_the_database_would_not_take_is_no_outage(self, cause, status):
        error = CollectionError("the database refused this")
        if isinstance(cause, SimpleNamespace):
            code, cause = cause, RuntimeError()
            cause.code = lambda: code
        error.__cause__ = cause
        refused = refusal(error)
        assert refused.status == status
        assert ("retry-after" in refused.headers) == (status == 502)


class TestSlowDatabase:
    def test_the_list_of_collections_has_a_deadline(self, tmp_path):
        collection = open_collection(f"qdrant:{tmp_path}/index/shop")
        hold = threading.Event()
        collection.info = lambda: hold.wait(20) and None
        with serving(collections={"slow": [collection]}) as running:
            answer = running.client.get("/v1/collections", headers={"x-request-timeout": "0.2"})
            assert "no answer within 0.2 s" in sentence(answer, 503)
            hold.set()

    def test_a_call_counts_until_its_thread_is_done_and_one_that_waits_is_dropped(self, tmp_path):
        catalog = ServedCollection("shop", [open_collection(f"qdrant:{tmp_path}/index/shop")], Metrics())
        hold, begun, calls = threading.Event(), threading.Event(), []

        def work(_: Any) -> None:
            calls.append(1)
            begun.set()
            hold.wait(20)
            raise ValueError("nobody hears this")

        async def main() -> None:
            tasks = [asyncio.ensure_future(catalog.call("search", work)) for _ in range(2)]
            while not begun.is_set():
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)
            assert catalog._running == 1
            hold.set()
            while catalog._running:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)

        asyncio.run(asyncio.wait_for(main(), 20))
        assert len(calls) == 1
        catalog.close()


class TestThumbnails:
    def test_it_is_a_small_jpeg_of_the_object(self, served, shop):
        answer = thumbnail(served, shop.ids["red"])
        assert answer.headers["content-type"] == "image/jpeg"
        picture = Image.open(io.BytesIO(answer.content))
        assert picture.size == (320, 240)
        assert np.abs(np.asarray(picture).mean((0, 1)) - COLOURS["red"]).max() < 4

    def test_its_size_may_be_asked_for_within_limits(self, served, shop):
        sizes = {}
        for asked in (1, 160, 161, 99999):
            answer = thumbnail(served, shop.ids["red"], params={"size": asked})
            sizes[asked] = Image.open(io.BytesIO(answer.content)).size[0]
        assert sizes == {1: 160, 160: 160, 161: 320, 99999: 640}  # a thumbnail is never larger than its picture
        for wrong in ("-1", "wide", "1e9", "٣"):
            assert "size" in sentence(thumbnail(served, shop.ids["red"], params={"size": wrong}), 400)

    def test_a_client_that_has_it_gets_none(self, served, shop):
        first = thumbnail(served, shop.ids["blue"])
        again = thumbnail(served, shop.ids["blue"], headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = thumbnail(served, shop.ids["blue"], params={"size": 160})
        assert other.headers["etag"] != first.headers["etag"]

    def test_one_made_before_is_kept(self, own_shop):
        shop, running = own_shop
        first = thumbnail(running, shop.ids["red"])
        (shop.folder / "red.png").unlink()
        assert thumbnail(running, shop.ids["red"]).content == first.content
        assert 'cir_thumbnails_total{result="kept"} 1.0' in running.client.get("/metrics").text

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/objects/../../etc/passwd/thumbnail", "/v1/objects/..%2f..%2fetc%2fpasswd/thumbnail",
            "/v1/objects/%2fetc%2fpasswd/thumbnail", "/v1/objects/red.png/thumbnail", "/v1/objects/%00/thumbnail",
            "/v1/objects//thumbnail", "/v1/objects/catalog.csv/thumbnail",
        ],
    )  # fmt: skip
    def test_paths_lead_nowhere(self, served, path):
        answer = served.client.get(path)
        assert answer.status_code in (400, 404)
        assert list(answer.json())[:2] == ["error", "code"]

    def test_a_changed_file_is_not_shown(self, own_shop):
        shop, running = own_shop
        size = (shop.folder / "red.png").stat().st_size
        (shop.folder / "red.png").write_bytes(b"x" * size)
        assert "changed since sync" in sentence(thumbnail(running, shop.ids["red"]), 404)
        Image.new("RGB", (640, 480), "pink").save(shop.folder / "red.png")
        assert "changed since sync" in sentence(thumbnail(running, shop.ids["red"]), 404)

    def test_few_fetched_pictures_wait_to_be_drawn(self):
        data = base64.b64decode(RED)
        waiting, most = 0, 0

        async def fetch(_: str) -> bytes:
            nonlocal waiting, most
            waiting += 1
            most = max(most, waiting)
            return data

        async def on_host(call: Any, *arguments: Any) -> bytes:
            nonlocal waiting
            await asyncio.sleep(0.01)
            waiting -= 1
            return call(*arguments)

        async def main() -> None:
            thumbnails = Thumbnails(2**20, Limits(), fetch)
            record = SyncRecord("http://shop.example/a.png", 1, 1, hashlib.sha256(data).hexdigest(), 1.0, "", "")
            await asyncio.gather(*(thumbnails.get(record, 160, on_host) for _ in range(50)))

        asyncio.run(main())
        assert most == 16

    def test_a_link_that_was_bent_shows_nothing(self, own_shop, tmp_path):
        shop, running = own_shop
        secret = tmp_path / "secret.png"
        Image.new("RGB", (640, 480), "gold").save(secret)
        (shop.folder / "red.png").unlink()
        (shop.folder / "red.png").symlink_to(secret)
        assert "changed since sync" in sentence(thumbnail(running, shop.ids["red"]), 404)
        (shop.folder / "blue.png").unlink()
        (shop.folder / "blue.png").symlink_to("/etc/passwd")
        assert "changed since sync" in sentence(thumbnail(running, shop.ids["blue"]), 404)

    def test_what_is_no_file_any_more_shows_nothing_at_once(self, own_shop):
        shop, running = own_shop
        for colour, make in (("red", os.mkfifo), ("blue", os.mkdir)):
            (shop.folder / f"{colour}.png").unlink()
            make(shop.folder / f"{colour}.png")
            sentence(thumbnail(running, shop.ids[colour], timeout=5), 404)
        (shop.folder / "green.png").unlink()
        said = sentence(thumbnail(running, shop.ids["green"]), 404)
        assert "that the service cannot read" in said
        assert str(shop.folder) not in said

    def test_a_record_that_names_another_file_shows_nothing(self, own_shop):
        shop, running = own_shop
        real = SyncRecord(str(shop.folder / "red.png"), 1, 1, "0" * 64, 1.0, tiny().fingerprint, "")
        forged = [
            replace(real, path="/etc/passwd", size=os.stat("/etc/passwd").st_size),
            replace(real, path="../../etc/passwd"),
            replace(real, path=str(shop.folder / "red.png"), size=(shop.folder / "red.png").stat().st_size),
            replace(real, path="https://shop.example/a.png"),
            replace(real, path="\0"),
            replace(real, sha256=""),
        ]
        vector = np.full(tiny().dim, tiny().dim ** -0.5, np.float32)
        (served,) = running.service.collections.values()
        collection = served._idle.get()
        collection.upsert([Point(i, vector, record.join({})) for i, record in enumerate(forged)])
        served._idle.put(collection)
        for i in range(len(forged)):
            sentence(thumbnail(running, str(i)), 404)


@every(SERVERS)
def test_real_servers_find_the_same_for_many_at_once(shop, database):
    collection = database.open()
    sync(open_source(shop.folder / "catalog.csv"), collection, tiny())
    opened = [database.again(collection) for _ in range(3)]
    asked = {**SEARCHES, **of_objects(shop.ids)}
    with serving(collections={"shop": opened}) as running, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda body: running.post("/v1/search", body), [*asked.values()] * 3))
        for name, answer in zip([*asked] * 3, answers, strict=True):
            if name == "hybrid":  # keyword scores differ between databases
                assert answer.json()["hits"][0]["payload"]["colour"] == "blue"
            else:
                assert_same(found(answer), shop.expected[name])
        pictures = list(threads.map(lambda id_: thumbnail(running, id_), [*shop.ids.values()] * 3))
        assert {picture.status_code for picture in pictures} == {200}
        said = sentence(running.post("/v1/search", {"query": {"image": {"id": 9}}}), 400)
        assert "names object 9, which is not in" in said


class TestServe:
    def test_the_command_serves_a_collection_and_its_page(self, shop, tmp_path):
        shutil.copytree(shop.folder / "index", tmp_path / "index")
        arguments = ("--collection", f"mine=qdrant:{tmp_path}/index/shop", "--max-results", "3")
        with our_service(tmp_path, *arguments) as server:
            answer = httpx.post(f"{server.url}/v1/search", json={"query": {"text": "a hat"}, "limit": 3})
            assert answer.json()["collection"] == "mine"
            assert len(found(answer)) == 3
            assert httpx.get(f"{server.url}{answer.json()['hits'][0]['thumbnail']}").status_code == 200
            assert "limit" in sentence(httpx.post(f"{server.url}/v1/search", json={"query": {}, "limit": 4}), 400)
            assert httpx.get(server.url).status_code == 200
        assert '"collection mine: 5 objects, searched with model tiny"' in server.log.read_text()

    def test_collections_may_come_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("CIR_COLLECTION", "one=qdrant:./a/b weaviate://localhost/Shop")
        opened = _collections(Settings())
        assert {name: [str(each.address) for each in every] for name, every in opened.items()} == {
            "one": ["qdrant:a/b"],
            "Shop": ["weaviate://localhost/Shop"] * 4,
        }

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            (["shop"], "does not say which database"),
            (["magic://host/shop"], "no plugin is installed for magic:"),
            (["qdrant:./a/shop", "qdrant:./b/shop"], "two collections would be called 'shop'"),
            (["qdrant:./a/my shop"], "collection 'my shop' cannot have this name here"),
        ],
    )
    def test_an_address_that_makes_no_sense_ends_it_with_a_sentence(self, given, says):
        options = [part for each in given for part in ("--collection", each)]
        result = CliRunner().invoke(main, ["serve", "--port", "0", *options])
        assert result.exit_code == 1
        assert says in result.output


def test_requests_and_calls_are_counted(served):
    served.post("/v1/search", {"query": {"text": "a hat"}})
    text = served.client.get("/metrics").text
    assert 'cir_requests_total{door="rest",key="none",status="200"}' in text
    assert 'cir_collection_seconds_count{call="search",collection="shop"}' in text


def test_the_document_describes_what_there_is_and_its_examples_work(served):
    document = served.client.get("/openapi.json").json()
    assert {"/v1/search", "/v1/collections", "/v1/objects/{id}/thumbnail"} <= set(document["paths"])
    content = document["paths"]["/v1/search"]["post"]["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        assert served.post("/v1/search", example["value"]).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_whatever_is_asked_it_answers_or_says_why_not(served, mode):
    pytest.importorskip("schemathesis")
    from schemathesis.generation import GenerationMode

    from tests.service.test_openapi import for_each_operation

    def check(case: Any) -> None:
        if "/v1/search" in case.operation.label or "/objects/" in case.operation.label:
            answer = case.call()
            assert answer.status_code < 500, (case.operation.label, case.body, answer.text[:500])
            if answer.status_code >= 400:
                assert list(answer.json())[:2] == ["error", "code"]

    for_each_operation(served, GenerationMode[mode], check)
    assert served.post("/v1/search", SEARCHES["composed"]).status_code == 200


def assert_same(ours: list[tuple[Any, float]], theirs: list[tuple[Any, float]]) -> None:
    assert [id_ for id_, _ in ours] == [id_ for id_, _ in theirs]
    assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-4)
    assert ours
