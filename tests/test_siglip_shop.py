"""The drawn shop's SigLIP-like model from end to end: train, sync and search embedded and on real servers, serve, page."""

import contextlib
import json

import numpy as np
import pytest
import weaviate as weaviate_client
from click.testing import CliRunner
from qdrant_client import QdrantClient, models
from weaviate.classes.query import MetadataQuery

import cir_vectorizer_qdrant
import cir_vectorizer_weaviate
from cir_vectorizer.cli import main
from cir_vectorizer.collections import open_collection
from cir_vectorizer.models import load
from examples.demo.catalog import catalog
from examples.demo.run import make_shop
from examples.drawn_siglip.make_model import FOLDER
from tests.support import servers
from tests.support.browser import Tab
from tests.support.serving import serving

pytestmark = pytest.mark.slow
COUNT = 48
NAME = "drawn"
TEXT = "is red"
LIMIT = 8


def cli(*arguments):
    """Run a command and return what it prints."""
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder of drawn pictures, with their table and some captions."""
    folder = tmp_path_factory.mktemp("shop")
    make_shop(folder, catalog(COUNT))
    captions = (folder / "captions.txt").read_text().splitlines()[::8]
    (folder / "captions.txt").write_text("\n".join(captions))
    return folder


@pytest.fixture(scope="module", params=["edits", "lincir"])
def trained(request, shop):
    """A model folder after a few steps of training on the captions."""
    out = shop / request.param
    common = ("--model", f"open_clip:{FOLDER}", "--captions", shop / "captions.txt", "--device", "cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cir_vectorizer_trainer.phi.edits_trainer.MOST_PROBES", 16)
        cli("train", *common, "--objective", request.param, "--steps", 3, "--batch-size", 16, "--out", out)
    return out


@pytest.fixture(scope="module")
def model(trained):
    return load(str(trained), "cpu")


@pytest.fixture(scope="module")
def index(shop, trained):
    """Address of an embedded collection of the pictures."""
    address = f"qdrant:{trained}/index/shop"
    synchronise(shop, trained, address)
    return address


@pytest.fixture(scope="module")
def reference(shop):
    """A picture of the shop."""
    return shop / "pictures" / "00005.jpg"


@pytest.fixture(scope="module")
def vector(model, reference):
    """The vector of the composed query, by the library."""
    made = model.compose([{"image": reference, "text": TEXT}]).vectors[0]
    return made / np.linalg.norm(made)


@pytest.fixture(scope="module")
def truth(index, vector):
    """(id, cosine) of the nearest objects, computed from the vectors of the embedded collection."""
    with contextlib.closing(open_collection(index)) as collection:
        points = collection.get([id_ for id_, _ in collection.scan()])
    scored = [(str(point.id), float(point.vector @ vector)) for point in points]
    return sorted(scored, key=lambda each: -each[1])[:LIMIT]


@pytest.fixture(scope="module")
def container(trained, tmp_path_factory):
    """Our service in a process of its own, with the trained model beside `tiny`."""
    folder = tmp_path_factory.mktemp("container")
    with servers.our_service(folder, "--model", f"{NAME}={trained}") as server:
        yield server


def synchronise(shop, trained, address, *more):
    said = cli("sync", shop / "shop.csv", "--to", address, "--model", trained, "--device", "cpu", *more)
    assert f"added {COUNT}" in said


def search(address, trained, *more):
    """Search a collection by command; return (id, cosine) of the results."""
    asked = ("--in", address, "--model", trained, "--device", "cpu", "--limit", LIMIT, "--json")
    hits = [json.loads(line) for line in cli("search", *asked, *more).splitlines()]
    return [(hit["id_text"], hit["score"]) for hit in hits]


def assert_same(found, truth):
    assert len(found) == len(truth)
    np.testing.assert_allclose([score for _, score in found], [score for _, score in truth], atol=1e-4)
    assert [id_ for id_, _ in found] == [id_ for id_, _ in truth]


def test_a_caption_finds_its_product(index, trained):
    product = catalog(COUNT)[0]
    words = f"a {product.colour} {product.pattern} {product.category}"
    asked = ("--in", index, "--model", trained, "--device", "cpu", "--json", "--limit", 1, "--text", words)
    payload = json.loads(cli("search", *asked))["payload"]
    assert (payload["colour"], payload["pattern"], payload["category"]) == (
        product.colour,
        product.pattern,
        product.category,
    )


def test_a_composed_search_is_the_librarys(index, trained, reference, truth):
    assert_same(search(index, trained, "--image", reference, "--text", TEXT), truth)


def test_the_service_and_its_page_search_the_collection(index, model, reference, vector, truth):
    collection = open_collection(index)
    query = {"image": servers.base64_of(reference.read_bytes()), "text": TEXT}
    with serving(vectorizers={NAME: model}, collections={"shop": [collection]}) as service:
        composed = service.post("/v1/compose", {"queries": [query]})
        found = service.post("/v1/search", {"query": query, "limit": LIMIT})
        page = service.client.get("/")
        shown = service.client.get("/v1/models").json()
    assert (composed.status_code, found.status_code, page.status_code) == (200, 200, 200), found.text
    made = np.array(composed.json()["vectors"][0])
    np.testing.assert_allclose(made / np.linalg.norm(made), vector, atol=1e-4)
    assert_same([(hit["id_text"], hit["score"]) for hit in found.json()["hits"]], truth)
    assert [each["id"] for each in shown["data"]] == [NAME]
    assert "<html" in page.text


@pytest.mark.browser
@pytest.mark.parametrize("trained", ["edits"], indirect=True)
def test_a_picture_with_words_is_composed_on_the_page(index, model, reference, truth, browser):
    tab = Tab(browser)
    collection = open_collection(index)
    with serving(vectorizers={NAME: model}, collections={"shop": [collection]}) as service:
        page = tab.page
        page.goto(f"{service.url}/")
        page.set_input_files("#file", reference)
        page.get_by_text("The nearest").wait_for()
        page.fill("#text", TEXT)
        with page.expect_response("**/v1/search") as answer:
            page.click("#search")
        page.locator("#results[aria-busy=false]").wait_for()
        assert_same([(hit["id_text"], hit["score"]) for hit in answer.value.json()["hits"][:LIMIT]], truth)
        scores = page.locator(".card .score").all_text_contents()
        assert scores[:LIMIT] == [f"{score:.3f}" for _, score in truth]
    assert tab.errors == []
    tab.context.close()


@pytest.mark.live
@pytest.mark.parametrize("trained", ["edits"], indirect=True)
class TestOnServers:
    def test_qdrant(self, container, shop, trained, reference, truth, tmp_path):
        with servers.qdrant(tmp_path, f"{container.url}/qdrant") as server:
            address = f"qdrant://{server.host}:{server.port}/Shop"
            synchronise(shop, trained, address)
            assert_same(search(address, trained, "--image", reference, "--text", TEXT), truth)
            client = QdrantClient(url=server.url, cloud_inference=True, timeout=60, check_compatibility=False)
            query = cir_vectorizer_qdrant.composed(image=reference, text=TEXT, model=NAME)
            exact = models.SearchParams(exact=True)
            found = client.query_points("Shop", query=query, limit=LIMIT, search_params=exact).points
            client.close()
        assert_same([(str(point.id), point.score) for point in found], truth)

    def test_weaviate_asks_for_the_vectors(self, container, shop, trained, reference, truth, tmp_path):
        with servers.weaviate(tmp_path, f"{container.url}/m/{NAME}") as server:
            address, port = f"weaviate://{server.host}:{server.port}/Shop", ("--grpc-port", server.grpc_port)
            synchronise(shop, trained, address, "--vectorize", "server", *port)
            assert_same(search(address, trained, "--image", reference, "--text", TEXT, *port), truth)
            concept = cir_vectorizer_weaviate.composed(image=reference, text=TEXT)
            asked = {"limit": LIMIT, "return_metadata": MetadataQuery(distance=True)}
            with weaviate_client.connect_to_local(server.host, server.port, server.grpc_port) as client:
                found = client.collections.use("Shop").query.near_text(concept, **asked).objects
        assert_same([(str(each.uuid), 1 - each.metadata.distance) for each in found], truth)
