"""The README's promises: its length, its badges, its figures and its pictures."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROJECT = dict(re.findall(r'^(license|requires-python) = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))


def test_it_is_read_in_a_minute():
    assert len(README.splitlines()) <= 120


def test_badges_say_what_the_package_says():
    least = PROJECT["requires-python"].removeprefix(">=")
    assert f"python-{least}%2B" in README
    assert f"licence-{PROJECT['license'].replace('-', '--')}" in README


def test_figures_are_those_of_the_demos_table():
    document = (ROOT / "docs" / "drawn-catalog.md").read_text()
    table = document[document.index("| query vector |") :].split("\n\n")[0]
    printed = {
        name: pair for name, *pair in re.findall(r"^\| ([^|]+) \| (\d\.\d+) \| (\d\.\d+) \|", table, re.MULTILINE)
    }
    shown = {
        name: pair
        for name, *pair in re.findall(
            r"^\| \**([^|*]+)\** \| \**(\d\.\d+)\** \| \**(\d\.\d+)\** \|", README, re.MULTILINE
        )
    }
    names = {
        "best weighted sum of both": "best swept sum",
        "LinCIR as published": "LinCIR as published",
        "CompoDiff": "CompoDiff, these weights",
        "LinCIR, edit-aware: what `train` makes of captions alone": "LinCIR, edit-aware (captions alone)",
    }
    assert set(names) < set(shown)
    for ours, theirs in names.items():
        assert shown[ours] == printed[theirs], ours


def test_it_names_the_licence_of_published_weights():
    assert "CC BY-NC" in README[README.index("## Licence") :]
