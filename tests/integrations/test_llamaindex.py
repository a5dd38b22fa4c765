"""The LlamaIndex package keeps LlamaIndex's contract, and finds what the core finds.

LlamaIndex has no test kit for others: the tests of its own embedding packages check the base class alone. So the contract is
checked here by its own parts: the abstract methods, `to_dict` and `from_dict`, batches, an ingestion pipeline, a vector
store index of texts and pictures, and a query engine.
"""

import base64
import json
from io import BytesIO

import numpy as np
import pytest
from llama_index.core import MockEmbedding, Settings, StorageContext
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.embeddings import BaseEmbedding, MultiModalEmbedding
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, MetadataMode, QueryBundle, TextNode

import cir_vectorizer
from cir_vectorizer.errors import ImageError, QueryError
from cir_vectorizer_llamaindex import ComposedEmbedding, ComposedRetriever
from tests.support.servers import KEY


@pytest.fixture
def embedding(tiny):
    return ComposedEmbedding(tiny)


@pytest.fixture
def retriever(drawn_shop, tiny):
    return ComposedRetriever(drawn_shop.collection, tiny, similarity_top_k=3)


@pytest.fixture
def dress(drawn_shop):
    return drawn_shop.photo("red", "dress")


def test_they_are_of_the_kinds_that_llamaindex_asks_for():
    assert MultiModalEmbedding.__name__ in [base.__name__ for base in ComposedEmbedding.__mro__]
    assert issubclass(ComposedEmbedding, BaseEmbedding)
    assert issubclass(ComposedRetriever, BaseRetriever)


def test_it_is_written_and_read_as_a_dict_without_its_key(service, dress):
    made = ComposedEmbedding("lincir", service=service.url, api_key=KEY, embed_batch_size=3)
    written = made.to_dict()
    assert written["class_name"] == ComposedEmbedding.class_name() == "ComposedEmbedding"
    assert KEY not in json.dumps([written, made.to_payload()]) + repr(made)
    again = ComposedEmbedding.from_dict(written, api_key=KEY)
    assert (again.model_name, again.service, again.embed_batch_size) == ("lincir", service.url, 3)
    assert again.get_text_embedding("a hat") == made.get_text_embedding("a hat")
    local = ComposedEmbedding("tiny")
    np.testing.assert_allclose(
        ComposedEmbedding.from_dict(local.to_dict()).get_image_embedding(str(dress)), made.get_image_embedding(str(dress)), atol=1e-5
    )  # fmt: skip


def test_texts_and_pictures_are_those_of_the_model(embedding, dress, tiny):
    expected = tiny.embed_texts(["a hat", "a red dress"])
    np.testing.assert_allclose(embedding.get_text_embedding_batch(["a hat", "a red dress"]), expected, atol=1e-5)
    np.testing.assert_allclose(embedding.get_query_embedding("a red dress"), expected[1], atol=1e-5)
    content = dress.read_bytes()
    given = [str(dress), BytesIO(content), base64.b64encode(content).decode()]
    picture = tiny.embed_images([dress])[0]
    found = embedding.get_image_embedding_batch(given)
    np.testing.assert_allclose(found, [picture / np.linalg.norm(picture)] * 3, atol=1e-5)
    assert embedding.get_image_embedding(given[0]) == found[0]
    query = {"image": dress, "text": "is blue"}
    np.testing.assert_allclose(embedding.get_composed_embeddings([query]), tiny.compose([query]).vectors, atol=1e-5)
    assert embedding.get_composed_embeddings([]) == []


async def test_asynchronous_methods_do_the_same(embedding, dress):
    assert await embedding.aget_query_embedding("a hat") == embedding.get_query_embedding("a hat")
    assert await embedding.aget_text_embedding("a hat") == embedding.get_text_embedding("a hat")
    assert await embedding.aget_text_embedding_batch(["a hat"]) == [embedding.get_text_embedding("a hat")]
    assert await embedding.aget_image_embedding(str(dress)) == embedding.get_image_embedding(str(dress))
    assert await embedding.aget_image_embedding_batch([str(dress)]) == [embedding.get_image_embedding(str(dress))]
    query = {"image": dress, "text": "is blue"}
    assert await embedding.aget_composed_embeddings([query]) == embedding.get_composed_embeddings([query])


def test_a_bad_picture_is_an_error_with_a_sentence(embedding, dress):
    with pytest.raises(ImageError) as caught:
        embedding.get_image_embedding_batch([str(dress), "nowhere.jpg"])
    assert caught.value.index == 1


def test_pipeline_and_multi_modal_index_of_llamaindex_take_it(embedding, drawn_shop, dress):
    nodes = IngestionPipeline(transformations=[embedding]).run(nodes=[TextNode(text="a red dress")])
    assert nodes[0].embedding == embedding.get_text_embedding("a red dress")
    pictures = [
        ImageNode(image_path=str(file), text=file.name, id_=file.stem)
        for file in sorted(drawn_shop.photos.glob("*.png"))
    ]
    index = MultiModalVectorStoreIndex(
        nodes=pictures,
        embed_model=embedding,
        image_embed_model=embedding,
        storage_context=StorageContext.from_defaults(),
    )
    found = index.as_retriever(image_similarity_top_k=1).text_to_image_retrieve("a blue dress")
    assert found[0].node.id_ == "blue-dress"
    found = index.as_retriever(image_similarity_top_k=1).image_to_image_retrieve(str(dress))
    assert found[0].node.id_ == "red-dress"


def test_a_picture_and_words_find_what_the_core_finds(retriever, drawn_shop, dress, tiny):
    query = {"image": dress, "text": "is blue"}
    expected = cir_vectorizer.search(drawn_shop.collection, query, model=tiny, limit=3)
    written = json.dumps({**query, "image": base64.b64encode(dress.read_bytes()).decode()})
    for found in (
        retriever.retrieve(QueryBundle("is blue", image_path=str(dress))),
        retriever.retrieve(written),
        retriever.retrieve_composed(query),
    ):
        assert [each.node.id_ for each in found] == [str(hit.id) for hit in expected]
        assert [each.score for each in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert found[0].node.metadata["title"] == "blue dress"


async def test_it_is_awaited(retriever, dress):
    asked = QueryBundle("is blue", image_path=str(dress))
    found = await retriever.aretrieve(asked)
    assert [each.node.id_ for each in found] == [each.node.id_ for each in retriever.retrieve(asked)]


def test_a_node_holds_text_columns_and_picture(retriever, drawn_shop, tiny, dress):
    (found,) = retriever.retrieve_composed("a red dress", limit=1)
    node = found.node
    assert isinstance(node, ImageNode)
    assert (node.text, node.image_path, node.image_url, node.image_mimetype) == (
        "red dress, red",
        str(dress),
        None,
        "image/png",
    )
    assert node.resolve_image() == str(dress)
    assert node.metadata == {"path": str(dress), "id": 1, "title": "red dress", "colour": "red", "price": 10}
    assert "colour: red" in node.get_content(MetadataMode.ALL)
    titled = ComposedRetriever(drawn_shop.collection, tiny, text_column="title", similarity_top_k=1)
    assert titled.retrieve("a red dress")[0].text == "red dress"


def test_options_of_a_search_are_passed_on(drawn_shop, tiny):
    options = {"filter": "price<11", "search_kwargs": {"offset": 1}}
    filtered = ComposedRetriever(drawn_shop.collection, tiny, similarity_top_k=5, **options)
    assert len(filtered.retrieve("a dress")) == 2
    assert len(filtered.retrieve_composed("a dress", offset=0)) == 3
    with pytest.raises(QueryError, match="filter: at letter"):
        ComposedRetriever(drawn_shop.collection, tiny, filter="a<<b").retrieve("a dress")


def test_pictures_on_the_web_are_named_by_their_address(drawn_shop, tiny, monkeypatch):
    retriever = ComposedRetriever(drawn_shop.collection, tiny, similarity_top_k=1)
    monkeypatch.setattr(retriever._searcher, "place", lambda payload: "https://shop.example/a.jpg")
    node = retriever.retrieve("a red dress")[0].node
    assert (node.image_url, node.image_path) == ("https://shop.example/a.jpg", None)


def test_a_query_engine_answers_from_it(drawn_shop, service, tiny):
    retriever = ComposedRetriever(drawn_shop.collection, service=service.url, api_key=KEY, similarity_top_k=2)
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM(), response_mode="compact")
    answer = engine.query("a red dress")
    assert "title: red dress" in str(answer)  # the mock repeats its prompt
    assert answer.source_nodes[0].node.metadata["title"] == "red dress"
    retriever.close()


def test_it_is_no_default_of_llamaindex(embedding):
    """A program sets it as `Settings.embed_model`, which checks its kind."""
    before = Settings._embed_model
    try:
        Settings.embed_model = embedding
        assert Settings.embed_model is embedding
    finally:
        Settings._embed_model = before or MockEmbedding(embed_dim=1)
