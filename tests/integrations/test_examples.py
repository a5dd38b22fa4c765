"""The examples of the integrations run as their docstrings say."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def address(drawn_shop, tmp_path):
    """A copy of the shop, since an embedded collection is opened by one process at a time."""
    shutil.copytree(drawn_shop.photos / "index", tmp_path / "index", ignore=shutil.ignore_patterns(".lock"))
    return f"qdrant:{tmp_path}/index/shop"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("langchain", ["--filter", "price<12"]),
        ("llamaindex", ["--filter", "price<12"]),
        ("mcp", ["--then", "is green"]),
    ],
)
def test_an_example_finds_the_wanted_product(name, more, address, drawn_shop):
    given = ["--in", address, "--model", "tiny", "--image", str(drawn_shop.photo("red", "dress")), "--text", "is blue"]
    command = [sys.executable, str(EXAMPLES / f"{name}_composed_search.py"), *given, "--limit", "2", *more]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steps = [step.splitlines() for step in done.stdout.strip().split("\n\n")]
    if name == "mcp":
        assert [step[0].split()[2] for step in steps] == ["blue-dress.png", "green-dress.png"]
    else:
        assert steps[0][0].split(maxsplit=2)[2] == "blue dress, blue"
    assert all(len(step) == 2 for step in steps)
