"""The wheel in fresh virtual environments: small, without torch, and useful with a running service.

Needs a package index that pip reaches; skips without one.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.collections import open_collection
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from tests.support.indexing import draw
from tests.support.serving import serving
from tests.test_command_line import COMMANDS

ROOT = Path(__file__).parents[1]
BUNDLED = ("pip", "setuptools", "wheel", "_distutils_hack", "pkg_resources")
"""Packages of a fresh virtual environment."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Installation:
    """A virtual environment with the wheel and some of its extras."""

    def __init__(self, folder: Path, wheel: Path, extras: str) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        self.packages = next(folder.rglob("site-packages"))
        pip = [self.bin / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", f"{wheel}{extras}"], check=True)

    def python(self, code, **environment):
        return self.run("python", "-c", code, **environment)

    def command(self, *arguments, **environment):
        return self.run("cir-vectorizer", *arguments, **environment)

    def run(self, program, *arguments, **environment):
        """Run outside the checkout, so that the installed package is imported."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CIR_"))}
        words = [self.bin / program, *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, cwd=self.bin, env={**kept, **environment})

    def mebibytes(self):
        """Return the size of all packages in MiB, without pip's and without tiny's weights."""
        weights = self.packages / "cir_vectorizer" / "weights"
        files = [
            path
            for path in self.packages.rglob("*")
            if path.is_file() and not path.is_symlink() and weights not in path.parents
            if not path.relative_to(self.packages).parts[0].startswith(BUNDLED)
        ]
        return sum(path.stat().st_size for path in files) / 2**20

    def names(self):
        return sorted(
            path.name.partition("-")[0].lower()
            for path in self.packages.glob("*.dist-info")
            if not path.name.startswith(BUNDLED)
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    reached = subprocess.run([*pip, "download", "-q", "--no-deps", "--dest", folder, "mdurl"], capture_output=True)
    if reached.returncode:
        pytest.skip("pip reaches no package index")
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    return next(folder.glob("cir_vectorizer-*.whl"))


def test_the_wheel_brings_what_a_coding_agent_reads(wheel):
    with zipfile.ZipFile(wheel) as packed:
        assert packed.read("cir_vectorizer/SKILL.md") == (ROOT / "cir_vectorizer" / "SKILL.md").read_bytes()


@pytest.fixture(scope="module")
def base(wheel, tmp_path_factory):
    return Installation(tmp_path_factory.mktemp("base"), wheel, "")


@pytest.fixture(scope="module")
def qdrant(wheel, tmp_path_factory):
    return Installation(tmp_path_factory.mktemp("qdrant"), wheel, "[qdrant]")


@pytest.fixture(scope="module")
def both(wheel, tmp_path_factory):
    return Installation(tmp_path_factory.mktemp("both"), wheel, "[qdrant,weaviate]")


@pytest.fixture(scope="module")
def service():
    with serving() as running:
        yield running


class TestTheBaseInstall:
    def test_is_small(self, base):
        assert base.mebibytes() <= 150
        assert len(base.names()) <= 25, base.names()
        assert not {"torch", "pillow", "transformers", "qdrant_client", "weaviate_client"} & set(base.names())

    @pytest.mark.parametrize(
        "arguments", [[], *([name] for name in COMMANDS)], ids=lambda words: " ".join(words) or "all"
    )
    def test_every_command_shows_its_help(self, base, arguments):
        shown = base.command(*arguments, "--help")
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.startswith("Usage: ")

    def test_has_the_query_and_the_client(self, base):
        code = (
            "import cir_vectorizer\n"
            "from cir_vectorizer.client import AsyncClient, Client, ServedModel\n"
            "from cir_vectorizer.query.encoded import decode_base64\n"
            "print(cir_vectorizer.ComposedQuery.parse({'image': b'x', 'text': 'is red'}).text)"
        )
        done = base.python(code)
        assert done.stdout == "is red\n", done.stderr

    def test_its_client_asks_a_running_service(self, base, service):
        code = (
            "from cir_vectorizer.client import Client\n"
            f"with Client({service.url!r}) as client:\n"
            "    print(client.compose([{'text': 'a red hat'}]).vectors.shape)"
        )
        done = base.python(code)
        assert done.stdout.startswith("(1, "), done.stderr

    @pytest.mark.parametrize(
        ("arguments", "extra"),
        [
            (["train", "--captions", "missing.txt", "--out", "model"], "train"),
            (["train-compodiff", "--pairs", "missing.csv", "--out", "model"], "train"),
            (["serve", "--model", "tiny"], "serve"),
            (["search", "--in", "qdrant:index/shop", "--text", "a hat"], "models"),
            (["sync", "missing", "--to", "qdrant:index/shop"], "models"),
            (["search", "--service", "http://localhost:1", "--in", "qdrant:index/shop", "--text", "a"], "qdrant"),
            (
                ["search", "--service", "http://localhost:1", "--in", "weaviate://localhost/Shop", "--text", "a"],
                "weaviate",
            ),
            (["doctor", "--to", "qdrant:index/shop"], "qdrant"),
            (["models", "pull", "lincir-vit-l"], "models"),
        ],
        ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
    )
    def test_what_is_missing_is_one_sentence_with_the_command(self, base, arguments, extra):
        done = base.command(*arguments)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert done.stderr.startswith("error: ")
        assert f"pip install 'cir-vectorizer[{extra}]'" in done.stderr
        assert len(done.stderr.splitlines()) == 1


class TestWithADatabase:
    def test_they_are_small(self, qdrant, both):
        assert qdrant.mebibytes() <= 190
        assert both.mebibytes() <= 240
        assert not {"torch", "pillow", "transformers"} & {*qdrant.names(), *both.names()}

    def test_composed_works_for_both(self, both, tmp_path):
        draw(tmp_path / "a.png", 1)
        code = (
            "import json\n"
            "from pathlib import Path\n"
            "import cir_vectorizer_qdrant, cir_vectorizer_weaviate\n"
            f"asked = dict(image=Path({str(tmp_path / 'a.png')!r}), text='is red')\n"
            "print(cir_vectorizer_qdrant.composed(**asked).object['text'])\n"
            "print(json.loads(cir_vectorizer_weaviate.composed(**asked))['text'])"
        )
        done = both.python(code)
        assert done.stdout.splitlines() == ["is red", "is red"], done.stderr

    def test_search_and_sync_through_a_service(self, qdrant, service, tmp_path, tiny):
        for i in range(4):
            draw(tmp_path / "photos" / f"{i}.png", i)
        address = f"qdrant:{tmp_path}/index/shop"
        report = tmp_path / "report.json"
        done = qdrant.command(
            "sync", tmp_path / "photos", "--to", address, "--service", service.url, "--report", report
        )
        assert done.returncode == 0, done.stderr
        assert "added 4" in done.stdout
        collection = open_collection(address)
        again = sync(open_source(tmp_path / "photos"), collection, tiny)
        collection.close()
        assert (again.unchanged, again.encoded) == (4, 0)
        asked = ["search", "--in", address, "--image", str(tmp_path / "photos" / "0.png"), "--text", "in red", "--json"]
        found = qdrant.command(*asked, "--service", service.url)
        assert found.returncode == 0, found.stderr
        local = CliRunner().invoke(main, asked)
        mine, theirs = ([json.loads(line)["id"] for line in each.stdout.splitlines()] for each in (local, found))
        assert len(theirs) == 4
        assert theirs == mine
