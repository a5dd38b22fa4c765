"""The LangChain package passes LangChain's own tests (langchain-tests), and finds what the core finds."""

import base64
import json

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from PIL import Image

import cir_vectorizer
from cir_vectorizer.client import Client
from cir_vectorizer.errors import ImageError, QueryError, ServiceError
from cir_vectorizer_langchain import ComposedEmbeddings, ComposedRetriever
from tests.support.servers import KEY


class TestEmbeddingsUnits(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return ComposedEmbeddings

    @property
    def init_from_env_params(self):
        return {"CIR_API_KEY": "secret"}, {"service": "http://localhost:8000"}, {"api_key": "secret"}


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return ComposedEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": "tiny"}


class TestServedEmbeddings(EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True)
    def _served(self, service):
        self.service = service

    @property
    def embeddings_class(self):
        return ComposedEmbeddings

    @property
    def embedding_model_params(self):
        return {"service": self.service.url, "api_key": KEY}


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _shop(self, drawn_shop, tiny):
        self.params = {"collection": drawn_shop.collection, "model": tiny}

    @property
    def retriever_constructor(self):
        return ComposedRetriever

    @property
    def retriever_constructor_params(self):
        return self.params

    @property
    def retriever_query_example(self):
        return "a red dress"


class TestServedRetriever(TestRetriever):
    @pytest.fixture(autouse=True)
    def _shop(self, drawn_shop, service):
        self.params = {"collection": drawn_shop.collection, "service": service.url, "api_key": KEY, "k": 5}


@pytest.fixture
def retriever(drawn_shop, tiny):
    return ComposedRetriever(collection=drawn_shop.collection, model=tiny, k=3)


@pytest.fixture
def dress(drawn_shop):
    return drawn_shop.photo("red", "dress")


def ids(documents: list[Document]) -> list[str]:
    return [document.id for document in documents]


def test_pictures_by_every_spelling_have_one_vector(dress, tiny):
    made = ComposedEmbeddings(tiny)
    content = dress.read_bytes()
    given = [str(dress), dress, content, base64.b64encode(content).decode(), Image.open(dress)]
    found = made.embed_images(given)
    expected = tiny.embed_images([dress])[0]
    np.testing.assert_allclose(found, [expected / np.linalg.norm(expected)] * len(given), atol=1e-5)
    assert made.embed_image(given) == found
    assert made.embed_images([]) == made.embed_documents([]) == made.embed_composed([]) == []


def test_composed_queries_take_pictures_of_every_kind(dress, tiny):
    made = ComposedEmbeddings(tiny)
    found = made.embed_composed(
        [{"image": each, "text": "is blue"} for each in (dress, dress.read_bytes(), Image.open(dress))]
    )
    np.testing.assert_allclose(found, [found[0]] * 3, atol=1e-5)
    with pytest.raises(QueryError) as caught:
        made.embed_composed([{"text": "a"}, {"text": "a", "colour": 3}])
    assert (caught.value.index, caught.value.field) == (1, "queries.1.colour")


def test_served_and_local_models_embed_alike(dress, tiny, service):
    local = ComposedEmbeddings(tiny)
    with Client(service.url, api_key=KEY, model="lincir") as client:
        for served in (ComposedEmbeddings("lincir", service=service.url, api_key=KEY), ComposedEmbeddings(client)):
            np.testing.assert_allclose(served.embed_images([dress]), local.embed_images([dress]), atol=1e-5)
            query = {"image": dress, "text": "is blue"}
            np.testing.assert_allclose(served.embed_composed([query]), local.embed_composed([query]), atol=1e-5)
            np.testing.assert_allclose(served.embed_query("a hat"), local.embed_query("a hat"), atol=1e-5)


async def test_asynchronous_methods_do_the_same(dress, tiny):
    made = ComposedEmbeddings(tiny)
    assert await made.aembed_images([dress]) == await made.aembed_image([dress]) == made.embed_images([dress])
    query = {"image": dress, "text": "is blue"}
    np.testing.assert_allclose(await made.aembed_composed([query]), made.embed_composed([query]), atol=1e-6)


def test_a_vector_store_of_langchain_searches_by_picture_and_words(drawn_shop, dress, tiny):
    made = ComposedEmbeddings(tiny)
    store = InMemoryVectorStore(made)
    files = sorted(drawn_shop.photos.glob("*.png"))
    for file, vector in zip(files, made.embed_images(files), strict=True):
        store.store[file.stem] = {"id": file.stem, "vector": vector, "text": file.stem, "metadata": {}}
    (vector,) = made.embed_composed([{"image": dress, "text": "is blue"}])
    assert store.similarity_search_by_vector(vector, k=1)[0].id == "blue-dress"


def test_a_bad_picture_is_named(dress, tiny):
    with pytest.raises(ImageError) as caught:
        ComposedEmbeddings(tiny).embed_images([dress, "nowhere.jpg"])
    assert caught.value.index == 1
    with pytest.raises(ServiceError, match="write http://HOST:PORT"):
        ComposedEmbeddings(service="localhost")


def test_a_picture_and_words_find_what_the_core_finds(retriever, drawn_shop, dress, tiny):
    query = {"image": dress, "text": "is blue"}
    expected = cir_vectorizer.search(drawn_shop.collection, query, model=tiny, limit=3)
    for found in (
        retriever.invoke("is blue", image=dress),
        retriever.invoke("is blue", image=str(dress)),
        retriever.invoke("is blue", image=[dress.read_bytes()]),
        retriever.invoke(query),
        retriever.invoke(cir_vectorizer.ComposedQuery.parse(query)),
        retriever.invoke(json.dumps({**query, "image": base64.b64encode(dress.read_bytes()).decode()})),
        retriever.invoke(json.dumps({"text": "is blue", "composer": "lincir"}), image=dress),
    ):
        assert ids(found) == [str(hit.id) for hit in expected]
        assert [document.metadata["score"] for document in found] == pytest.approx(
            [hit.score for hit in expected], abs=1e-5
        )
    assert found[0].metadata["title"] == "blue dress"


async def test_it_is_awaited_and_chained_like_any_runnable(retriever, dress):
    found = await retriever.ainvoke("is blue", image=dress)
    assert ids(found) == ids(retriever.invoke("is blue", image=dress))
    titles = retriever | RunnableLambda(lambda documents: [document.metadata["title"] for document in documents])
    assert titles.invoke({"image": dress, "text": "is blue"})[0] == "blue dress"


def test_a_document_holds_columns_path_and_score(retriever, drawn_shop, tiny):
    (found,) = retriever.invoke("a red dress", k=1)
    assert found.page_content == "red dress, red"
    assert found.metadata.pop("score") == found.metadata.pop("signals")["picture"]
    assert found.metadata == {
        "path": str(drawn_shop.photo("red", "dress")), "id": 1, "title": "red dress", "colour": "red", "price": 10,
    }  # fmt: skip
    titled = ComposedRetriever(collection=drawn_shop.collection, model=tiny, content_column="title", k=1)
    assert titled.invoke("a red dress")[0].page_content == "red dress"
    other = ComposedRetriever(collection=drawn_shop.collection, model=tiny, content_column="missing", k=1)
    assert other.invoke("a red dress")[0].page_content == ""


def test_options_of_a_search_are_passed_on(retriever, drawn_shop, dress, tiny):
    assert {each.metadata["colour"] for each in retriever.invoke("a dress", filter="colour=green")} == {"green"}
    filtered = ComposedRetriever(
        collection=drawn_shop.collection, model=tiny, filter="price<11", search_kwargs={"offset": 1}
    )
    assert len(filtered.invoke("a dress")) == 2
    assert len(filtered.invoke("a dress", offset=0)) == 3
    (red,) = retriever.invoke("a red dress", k=1)
    assert ids(retriever.invoke({"image": {"id": red.id}, "text": "is blue"})) == ids(
        retriever.invoke("is blue", image=dress, filter="id!=1")
    )
    with pytest.raises(QueryError, match="limit: is below 1"):
        retriever.invoke("a dress", k=0)
    with pytest.raises(QueryError, match="image: is given beside a query that has one already"):
        retriever.invoke({"image": dress}, image=dress)


def test_a_query_as_text_opens_no_file(retriever, dress):
    """A language model may have written it."""
    for image in ({"path": str(dress)}, str(dress)):
        with pytest.raises((QueryError, ImageError)):
            retriever.invoke(json.dumps({"image": image, "text": "is blue"}))


def test_it_opens_and_closes_an_address(drawn_shop, tmp_path):
    import shutil

    shutil.copytree(drawn_shop.photos / "index", tmp_path / "index", ignore=shutil.ignore_patterns(".lock"))
    retriever = ComposedRetriever(collection=f"qdrant:{tmp_path}/index/shop", model="tiny", k=1)
    assert retriever.invoke("a red dress")[0].metadata["title"] == "red dress"
    retriever.close()
    again = ComposedRetriever(collection=f"qdrant:{tmp_path}/index/shop", model="tiny", k=1)
    assert again.invoke("a red dress")[0].metadata["title"] == "red dress"
    again.close()


def test_the_key_of_the_service_is_no_part_of_what_is_printed(drawn_shop):
    retriever = ComposedRetriever(collection=drawn_shop.collection, service="http://localhost:1", api_key="sesame")
    assert "sesame" not in repr(retriever)


def test_notes_of_a_search_reach_the_callbacks(retriever):
    from langchain_core.callbacks import BaseCallbackHandler

    class Notes(BaseCallbackHandler):
        said: list[str] = []  # noqa: RUF012

        def on_text(self, text, **more):
            self.said.append(text)

    retriever.invoke("a hat " * 200, config={"callbacks": [Notes()]})
    assert "left out" in Notes.said[0]
