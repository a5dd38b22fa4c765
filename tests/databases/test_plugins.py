"""Plugins for databases: one from another package, and the two of this repository."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import cir_vectorizer_qdrant
import cir_vectorizer_weaviate
from cir_vectorizer.collections import (
    Ask,
    database_of,
    ensure,
    open_collection,
    parse_address,
    same_collection,
    same_place,
)
from cir_vectorizer.doctor.servers import version_finding
from cir_vectorizer.errors import AddressError
from cir_vectorizer.sources import names_collection
from tests.support.databases import FRONT, MODEL, points

ROOT = Path(__file__).parents[2]

STRANGER = '''
from dataclasses import replace

from cir_vectorizer.collections import Database, Lack, open_collection


def open_embedded(address, options):
    """A database whose collections are kept by embedded Qdrant."""
    return open_collection(replace(address, scheme="qdrant"), options=options)


STRANGE = Database("Strange", open_embedded, {"strange": 7000}, lacks=(Lack((2, 0), "warning", "aliases"),))
NOTHING = 7
'''


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A package with three entry points of the group, on the path as an installer would leave it."""
    (tmp_path / "strange_database.py").write_text(STRANGER)
    info = tmp_path / "strange_database-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-database\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[cir_vectorizer.collections]\nstrange = strange_database:STRANGE\n"
        "plain = strange_database:open_embedded\nnothing = strange_database:NOTHING\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert version("strange-database") == "1.0"
    yield
    sys.modules.pop("strange_database", None)


@pytest.mark.parametrize("scheme", ["strange", "plain"])
def test_a_stranger_registers_a_database_or_a_plain_function(stranger, tmp_path, scheme):
    shop = open_collection(f"{scheme}:{tmp_path}/index/shop")
    ensure(shop, MODEL)
    shop.upsert(points([{"n": i} for i in range(12)]))
    assert [hit.payload["n"] for hit in shop.search(FRONT, Ask(2, offset=1))] == [1, 2]
    assert len(shop.search(FRONT)) == 10
    shop.close()
    assert names_collection(f"{scheme}:{tmp_path}/index/shop")


def test_a_strangers_ports_and_versions_count(stranger):
    assert same_place(parse_address("strange://host/shop"), parse_address("strange://host:7000/shop"))
    assert not same_place(parse_address("plain://host/shop"), parse_address("plain://host:7000/shop"))
    database = database_of(parse_address("strange://host/shop"))
    assert "Strange 1.9 lacks aliases; update the server to 2.0 or later" in version_finding(database, "1.9").sentence
    assert version_finding(database_of(parse_address("plain://host/shop")), "1.9").level == "ok"


def test_what_opens_nothing_is_refused_with_its_name(stranger):
    with pytest.raises(AddressError, match=r"registers strange_database:NOTHING, which opens no collection; have it"):
        open_collection("nothing://host/shop")


@pytest.mark.parametrize(
    ("one", "other", "place", "collection"),
    [
        ("qdrant://host/shop", "qdrant://host:6333/shop", True, True),
        ("qdrant://host/shop", "qdrant://host/Shop", True, False),
        ("weaviate://host:8080/shop", "weaviate://host/Shop", True, True),
        ("weaviate://host/Shop", "weaviates://host/Shop", False, False),
        ("qdrant:a/../index/shop", "qdrant:index/shop", True, True),
        ("qdrant:index/shop", "qdrant://host/shop", False, False),
    ],
)
def test_addresses_lead_to_the_same_place_however_they_are_written(one, other, place, collection):
    one, other = parse_address(one), parse_address(other)
    assert same_place(one, other) == place
    assert same_collection(one, other) == collection


def test_the_two_plugins_are_twins():
    folders = [Path(plugin.__file__).parent for plugin in (cir_vectorizer_qdrant, cir_vectorizer_weaviate)]
    qdrant, weaviate = ({file.name for file in folder.glob("*.py")} for folder in folders)
    assert weaviate - qdrant == {"twin.py"}  # Qdrant keeps no pictures, of which a collection could be embedded anew
    assert not qdrant - weaviate


def test_the_core_names_no_database():
    """Sentences and docstrings may name a database; code never decides by its name."""
    for room in ("cli", "collections", "doctor", "sources", "sync"):
        for file in (ROOT / "cir_vectorizer" / room).glob("*.py"):
            assert not re.search(r'["\'](qdrant|weaviate)s?["\']', file.read_text(), re.IGNORECASE), file


def test_weaviates_client_leaves_pythons_warnings_as_they_are():
    code = "import warnings; import cir_vectorizer_weaviate; print([f for f in warnings.filters if f[:3] == ('default', None, Warning)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
