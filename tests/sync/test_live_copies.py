"""Collections that Weaviate's own client made as our README shows, pictures inside, as sources of `sync`; real servers."""

import json
import os
from datetime import datetime, timezone
from uuid import UUID

import pytest
import weaviate
from click.testing import CliRunner
from weaviate.classes.config import Configure, DataType, Property, ReferenceProperty
from weaviate.classes.data import GeoCoordinate, PhoneNumber
from weaviate.classes.query import QueryNested

from cir_vectorizer.cli import main
from cir_vectorizer.collections import OpenOptions, open_collection
from cir_vectorizer.collections.base import BaseCollection
from cir_vectorizer.errors import CollectionError
from cir_vectorizer_weaviate.twin import Twin
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
        for alias in client.alias.list_all():
            if alias.startswith(NAME):
                client.alias.delete(alias_name=alias)
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
    for arguments in ([photos, "--to", shop], [photos, "--to", shop, "--dry-run"]):
        refused = run(*arguments, "--model", model, *ports, *more)
        assert refused.exit_code == 1
        assert "--reembed" not in refused.output
        assert "collection" in refused.output
    refused = run(shop, "--to", shop, "--model", model, *ports)
    assert refused.exit_code == 1
    assert "give another --to, or --reembed" in refused.output


def remove_own(client):
    client.alias.delete(alias_name=f"{NAME}Own")
    for name in client.collections.list_all():
        if name.startswith(f"{NAME}Own"):
            client.collections.delete(name)


@pytest.fixture
def own(client, weaviate_server):
    """A collection of the README with properties of many types and a vector of its own beside the module's."""
    remove_own(client)
    properties = [
        Property(name="photo", data_type=DataType.BLOB),
        Property(name="title", data_type=DataType.TEXT),
        Property(name="price", data_type=DataType.NUMBER),
        Property(name="since", data_type=DataType.DATE),
        Property(name="place", data_type=DataType.GEO_COORDINATES),
        Property(name="phone", data_type=DataType.PHONE_NUMBER),
        Property(
            name="maker", data_type=DataType.OBJECT, nested_properties=[Property(name="city", data_type=DataType.TEXT)]
        ),
        Property(name="kin", data_type=DataType.UUID_ARRAY),
    ]
    vectors = [
        Configure.Vectors.multi2vec_clip(name="photo", image_fields=["photo"]),
        Configure.Vectors.self_provided(name="taste"),
    ]
    made = client.collections.create(f"{NAME}Own", properties=properties, vector_config=vectors)
    for i in range(COUNT):
        values = {
            "photo": base64_of(drawn(i)),
            "title": f"number {i}",
            "price": i + 0.5,
            "since": datetime(2024, 1, 1 + i, tzinfo=timezone.utc),
            "place": GeoCoordinate(latitude=i, longitude=-i),
            "phone": PhoneNumber(number=f"+49 30 12345{i:02}"),
            "maker": {"city": f"city {i}"},
            "kin": [UUID(int=99 - i)],
        }
        made.data.insert(values, uuid=UUID(int=i + 1), vector={"taste": [float(i), 1.0]})
    return f"weaviate://{weaviate_server.host}:{weaviate_server.port}/{NAME}Own"


def everything(client):
    """All objects as the client gives them, with their pictures and vectors."""
    wanted = ["photo", "title", "price", "since", "place", "phone", "maker", "kin"]
    found = client.collections.use(f"{NAME}Own").query.fetch_objects(
        limit=99,
        include_vector=True,
        return_properties=[*wanted[:6], QueryNested(name="maker", properties=["city"]), "kin"],
    )
    return {each.uuid: (each.properties, each.vector) for each in found.objects}


@pytest.mark.parametrize("other_width", [False, True])
def test_it_is_embedded_anew_in_place(client, own, ports, weaviate_server, tiny, clip_folder, other_width):
    model = f"transformers:{clip_folder}" if other_width else "tiny"
    command = (own, "--to", own, "--using", "photo", "--reembed", "--model", model, *ports)
    before = everything(client)
    planned = run(*command, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "let it take over" in planned.output
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert f"added {COUNT}, changed 0, unchanged 0, failed 0; weaviate://" in result.output
    assert "another source" not in result.output
    after = everything(client)
    assert {id_: properties for id_, (properties, _) in after.items()} == {
        id_: properties for id_, (properties, _) in before.items()
    }
    assert {id_: vectors["taste"] for id_, (_, vectors) in after.items()} == {
        id_: vectors["taste"] for id_, (_, vectors) in before.items()
    }
    assert {len(vectors["photo"]) for _, vectors in after.values()} == {24 if other_width else tiny.dim}
    config = client.collections.use(f"{NAME}Own").config.get()
    assert config.vector_config["photo"].vectorizer.model["imageFields"] == ["photo"]
    again = run(*command)
    assert f"added 0, changed 0, unchanged {COUNT}, failed 0" in again.output, again.output
    found = CliRunner().invoke(
        main, ["search", "--in", own, "--model", model, "--using", "photo", "--text", "red", "--json", *map(str, ports)]
    )
    assert json.loads(found.stdout.splitlines()[0])["payload"]["title"].startswith("number")


def test_a_picture_that_changed_since_is_embedded_again_and_keeps_the_rest(client, own, ports):
    command = (own, "--to", own, "--using", "photo", "--reembed", "--model", "tiny", *ports)
    assert run(*command).exit_code == 0
    shop = client.collections.use(f"{NAME}Own")
    shop.data.update(UUID(int=1), properties={"photo": base64_of(drawn(50)), "title": "sold out"})
    shop.data.insert({"photo": base64_of(drawn(51)), "title": "new"}, uuid=UUID(int=99))
    result = run(*command)
    assert f"added 1, changed 1, unchanged {COUNT - 1}, failed 0" in result.output, result.output
    after = everything(client)
    assert after[UUID(int=1)][0] | {"since": None, "phone": None} == {
        "photo": base64_of(drawn(50)),
        "title": "sold out",
        "price": 0.5,
        "since": None,
        "place": GeoCoordinate(latitude=0, longitude=0),
        "phone": None,
        "maker": {"city": "city 0"},
        "kin": [UUID(int=99)],
    }
    assert after[UUID(int=99)][0]["title"] == "new"


def test_a_run_that_was_stopped_goes_on(client, own, ports, tiny, weaviate_server, monkeypatch):
    command = (own, "--to", own, "--using", "photo", "--reembed", "--model", "tiny", "--batch-size", 8, *ports)
    switch = BaseCollection.take_over
    merge, calls = Twin.merge, []

    def stop(*_):
        raise CollectionError("the server went away")

    def merge_once(self, points):
        calls.append(len(points))
        merge(self, points) if len(calls) == 1 else stop()

    monkeypatch.setattr(Twin, "merge", merge_once)
    assert "the server went away" in run(*command).output
    assert len(everything(client)) == COUNT  # the old collection still answers
    monkeypatch.setattr(Twin, "merge", merge)
    monkeypatch.setattr(BaseCollection, "take_over", stop)
    stopped = run(*command)
    assert f"added {COUNT - calls[0]}, changed 0, unchanged {calls[0]}, failed 0" in stopped.output, stopped.output
    client.collections.delete(f"{NAME}Own")  # as if the process had died between removing the old name and the alias
    monkeypatch.setattr(BaseCollection, "take_over", switch)
    result = run(*command)
    assert f"added 0, changed 0, unchanged {COUNT}, failed 0" in result.output, result.output
    assert len(everything(client)) == COUNT


def test_what_a_copy_would_lose_is_refused(client, own, ports):
    shop = client.collections.use(f"{NAME}Own")
    shop.config.add_reference(ReferenceProperty(name="brand", target_collection=f"{NAME}Own"))
    refused = run(own, "--to", own, "--using", "photo", "--reembed", "--model", "tiny", *ports)
    assert refused.exit_code == 1
    assert "would lose brand" in refused.output
    assert len(everything(client)) == COUNT
