"""CONTRIBUTING.md is true: the map is up to date, real runs take the walks, and the rules hold in the code."""

import re
import subprocess
import sys

import pytest

from tests.support import house

TEXT = house.DOCUMENT.read_text(encoding="utf-8")
STEP = re.compile(r"^\d+\. `([^`]+)` `(\w+)`: ", re.MULTILINE)
LONGEST = {"query": 14, "picture": 12, "caption": 9}
CODE = [path for package in house.PACKAGES for path in sorted((house.ROOT / package).rglob("*.py"))]


def test_the_map_is_up_to_date():
    assert house.draw() in TEXT, "run `make lint`, which draws it anew"


@pytest.mark.parametrize("name", LONGEST)
def test_a_walk_is_short_and_a_real_run_takes_it(name):
    walk = STEP.findall(TEXT.partition(f"<!-- walk: {name} -->")[2].partition("<!-- walk:")[0].partition("\n## ")[0])
    files = [file for file, _ in walk]
    assert 0 < len(files) <= LONGEST[name]
    assert len(set(files)) == len(files)
    command = [sys.executable, "-m", "tests.support.walks", name]
    traced = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=house.ROOT, check=True).stdout
    taken = [tuple(line.split()) for line in traced.splitlines()]
    assert [step for step in walk if step not in taken] == []


def found(pattern: str) -> list[str]:
    expression = re.compile(pattern)
    return [
        f"{path.relative_to(house.ROOT)}:{number}: {line.strip()}"
        for path in CODE
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if expression.search(line)
    ]


def test_only_one_module_reads_entry_points():
    assert {line.partition(":")[0] for line in found(r"\bentry_points\(")} == {"cir_vectorizer/extras.py"}


def test_no_composer_is_probed():
    assert found(r"(getattr|hasattr)\([^)]*compos") == []


def test_the_core_names_no_database():
    doors = (
        "cir_vectorizer/service/doors/qdrant.py",
        "cir_vectorizer/service/doors/weaviate.py",
        "cir_vectorizer/service/http/front.py",  # the doors' names in logs and metrics
        "cir_vectorizer/extras.py",  # the names of extras
    )
    named = [line for line in found(r"""["'](qdrant|weaviate)s?["']""") if line.startswith("cir_vectorizer/")]
    assert [line for line in named if not line.startswith(doors)] == []
