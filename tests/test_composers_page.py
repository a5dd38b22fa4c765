"""`docs/composers.md` lists every composer and every option, with their values and defaults as the code has them."""

import re
from pathlib import Path
from typing import Any

import pytest

from cir_vectorizer import extras
from cir_vectorizer.composers.compodiff.knobs import Knobs
from cir_vectorizer.query import Options
from cir_vectorizer.query.takes import FUSION

PAGE = (Path(__file__).parents[1] / "docs" / "composers.md").read_text(encoding="utf-8")
COMPOSERS = {name: point.load() for name, point in extras.plugins("cir_vectorizer.composers").items() if point.dist}


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of the tables of options, by the option's name."""
    found = {}
    for line in re.findall(r"^\| `.*", text, re.MULTILINE):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells)
    return found


@pytest.mark.parametrize("name", sorted(COMPOSERS))
def test_every_composer_has_a_section_with_its_fields_and_its_options(name: str) -> None:
    takes = COMPOSERS[name].takes.with_fusion()
    assert f"| [`{name}`](#{name}) |" in section("Which one")
    text = section(f"`{name}`")
    assert set(rows(text)) == set(takes.options)
    read, ignored = (
        set(re.findall(r"`([a-z_]+)`", found[0])) if (found := re.findall(pattern, text)) else set()
        for pattern in (r"Reads (.*?)[.;] ?", r"; (.*?) are ignored")
    )
    assert read == {field for field in takes.uses if takes.reads(field)}
    assert ignored == {field for field, use in takes.uses.items() if use == "ignored"}


def test_every_option_stands_there() -> None:
    listed = rows(PAGE)
    fields = {
        f"{name}.{inner}" if inner else name
        for name, field in Options.model_fields.items()
        for inner in nested(field.annotation)
    }
    assert fields == {name for name in listed if name.partition(".")[0] in Options.model_fields}


def nested(annotation: Any) -> list[str]:
    """Return the names of the fields of an option that is a group; [""] for a plain one."""
    groups = [each for each in getattr(annotation, "__args__", ()) if hasattr(each, "model_fields")]
    return list(groups[0].model_fields) if groups else [""]


def limits(name: str) -> list[float]:
    """Return the least and the largest value that an option allows, from the API's description."""
    schema = Options.model_json_schema()
    group, _, inner = name.partition(".")
    described = schema["$defs"][group.capitalize()]["properties"][inner] if inner else schema["properties"][group]
    kinds = [described, *described.get("anyOf", [])]
    return [
        float(kind[key])
        for keys in (("minimum", "ge"), ("maximum", "le"))
        for kind in kinds
        for key in keys
        if key in kind
    ]


@pytest.mark.parametrize("name", ["keep", "source_weight", "steps", *FUSION])
def test_ranges_are_those_of_the_code(name: str) -> None:
    low, high = limits(name)
    assert rows(section("Fusion") if name in FUSION else PAGE)[name][1] == f"{low:g} to {high:g}"


def test_defaults_are_those_of_the_code() -> None:
    diffusion, usual = rows(section("`compodiff`")), Knobs()
    assert diffusion["steps"][2] == str(usual.steps)
    assert diffusion["guidance"][2] == f"[{usual.image_scale}, {usual.text_scale}]"
    assert diffusion["source_weight"][2] == str(usual.source_weight)
    assert diffusion["squash"][2] == str(usual.squash).lower()
    weights = COMPOSERS["sum"].default_weights
    assert [float(rows(section("`sum`"))[f"weights.{part}"][2]) for part in ("image", "text", "negative")] == list(
        weights
    )
    fusion = Options.model_fields["fusion"].annotation.__args__[0]  # type: ignore[union-attr]
    assert [float(rows(section("Fusion"))[f"fusion.{part}"][2]) for part in "abc"] == [
        fusion.model_fields[part].default for part in "abc"
    ]


def test_its_pictures_are_there() -> None:
    pictures = re.findall(r"\]\((images/[^)]+)\)", PAGE)
    assert len(pictures) == 6
    assert [name for name in pictures if not (Path(__file__).parents[1] / "docs" / name).is_file()] == []
