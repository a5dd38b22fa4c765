"""Stands in for pip: `pip install` checks that our extras exist, and that other packages are installed as required."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import Requirement

from tests.docs.blocks import ROOT
from tests.docs.parsing import tomllib

OURS = "cir-vectorizer"


def problem(word: str) -> str:
    """Return what is wrong with a requirement of the command line; "" if nothing is."""
    local = re.fullmatch(r"\.(\[.*\])?", word)
    requirement = Requirement(f"{OURS}{local[1] or ''}" if local else word)
    if requirement.name == OURS:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        missing = sorted(requirement.extras - project["optional-dependencies"].keys())
        return f"{OURS} has no extra {', '.join(missing)}" if missing else ""
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return f"{word} is not installed here, so the block must be marked: <!-- not run: installs packages -->"
    return (
        "" if requirement.specifier.contains(installed, prereleases=True) else f"installed is {installed}, not {word}"
    )


def main() -> str:
    if sys.argv[1:2] != ["install"]:
        return f"pip {' '.join(sys.argv[1:2])} cannot be checked here"
    words, followed = [], False
    for word in sys.argv[2:]:
        if not followed and not word.startswith("-"):
            words.append(word)
        followed = word in ("-c", "-r", "--constraint", "--requirement", "--index-url", "--extra-index-url")
    return "; ".join(filter(None, map(problem, words)))


if __name__ == "__main__":
    sys.exit(main() or 0)
