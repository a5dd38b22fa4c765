"""Collections that Weaviate's own client made as our README shows, pictures inside, as sources of `sync`; real servers."""

import os
from uuid import UUID

import pytest
import weaviate
from click.testing import CliRunner
from weaviate.classes.config import Configure, DataType, Property

from cir_vectorizer.cli import main
from cir_vectorizer.collections import OpenOptions, open_collection
from tests.support.servers import base64_of, drawn

pytestmark = pytest.mark.live
NAME = f"CirReadme{os.getpid()}"
COUNT = 20


def run(*arguments):
    return CliRunner().invoke(main, ["sync", *map(str, arguments)])


@pytest.fixture(scope="module")
def client(weaviate_server):
    server = weaviate_server
    with weaviate.connect_to_local(server.host, server.port, server.grpc_port) as client:
        yield client
        for name in client.collections.list_all():
            if name.startswith(NAME):
                client.collections.delete(name)


@pytest.fixture(scope="module")
def shop(client, weaviate_server):
    """The address of a collection of the README: a blob property, the module's vectors, and a title."""
    shop = client.collections.create(
        NAME,
        properties=[Property(name="photo", data_type=DataType.BLOB), Property(name="title", data_type=DataType.TEXT)],
        vector_config=Configure.Vectors.multi2vec_clip(image_fields=["photo"]),
    )
    for i in range(COUNT):
        shop.data.insert({"photo": base64_of(drawn(i)), "title": f"number {i}"}, uuid=UUID(int=i + 1))
    return f"weaviate://{weaviate_server.host}:{weaviate_server.port}/{NAME}"


@pytest.fixture
def ports(weaviate_server, monkeypatch):
    return ["--grpc-port", weaviate_server.grpc_port]


def objects(address, server):
    collection = open_collection(address, options=OpenOptions(grpc_port=server.grpc_port))
    found = collection.get([str(UUID(int=i + 1)) for i in range(COUNT)])
    collection.close()
    return {point.id: point for point in found}


@pytest.mark.parametrize("given", [[], ["--image-column", "photo"]], ids=["guessed", "named"])
def test_it_is_copied_with_its_ids_and_columns(shop, ports, weaviate_server, tiny, given):
    target = f"{shop}Copy{len(given)}"
    result = run(shop, "--to", target, "--model", "tiny", *ports, *given)
    assert result.exit_code == 0, result.output
    assert f"added {COUNT}, changed 0, unchanged 0, failed 0" in result.output
    copied, first = objects(target, weaviate_server), objects(shop, weaviate_server)
    assert copied.keys() == first.keys()
    for id_, point in copied.items():
        assert point.payload["title"] == first[id_].payload["title"]
        assert point.payload["_cir"]["fingerprint"] == tiny.fingerprint
        assert point.payload["_cir"]["norm"] > 0
        assert float(point.vector @ first[id_].vector) > 0.999
    again = run(shop, "--to", target, "--model", "tiny", *ports, *given)
    assert f"added 0, changed 0, unchanged {COUNT}, failed 0" in again.output


def test_it_is_copied_across_widths_and_kept_with_another_model(shop, ports, weaviate_server, clip_folder):
    target, model = f"{shop}Other", f"transformers:{clip_folder}"
    assert run(shop, "--to", target, "--model", "tiny", *ports).exit_code == 0
    refused = run(shop, "--to", target, "--model", model, *ports)
    assert refused.exit_code == 1
    assert "or give --reembed" in refused.output
    result = run(shop, "--to", target, "--model", model, "--reembed", *ports)
    assert result.exit_code == 0, result.output
    assert {len(point.vector) for point in objects(target, weaviate_server).values()} == {24}


@pytest.mark.parametrize("more", [[], ["--reembed"]])
@pytest.mark.parametrize("other_width", [False, True])
def test_advice_names_no_option_that_was_given_or_will_be_refused(shop, ports, photos, clip_folder, more, other_width):
    model = f"transformers:{clip_folder}" if other_width else "tiny"
    for arguments in ([photos, "--to", shop], [photos, "--to", shop, "--dry-run"], [shop, "--to", shop]):
        refused = run(*arguments, "--model", model, *ports, *more)
        assert refused.exit_code == 1
        assert "--reembed" not in refused.output
        assert "collection" in refused.output
