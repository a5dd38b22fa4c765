"""Notes about filters that find nothing because of a column's type."""

import json

import pytest
from click.testing import CliRunner

from cir_vectorizer.cli import main
from cir_vectorizer.collections.filter_notes import filter_notes
from cir_vectorizer.query.filters import parse_filter
from tests.support.indexing import draw


@pytest.mark.parametrize(
    ("where", "values", "note"),
    [
        ("x<11", ["15.00 USD", "9.50 USD"], "holds text such as '15.00 USD', and < compares numbers; compare with =, or have the table's cells"),
        ("x>=11", [True, False], "holds true and false, and >= compares numbers"),
        ("x=red", [10, 11], "holds numbers such as 10, which never equals the text 'red'"),
        ('x="38"', [38, 40], "which never equals the text '38'; write a value like that, without quotes"),
        ("x in (red, blue)", [1.5], "which never equals the text 'red' or 'blue'"),
        ("x=1", [True], "holds true and false, which never equals the text '1'"),
        ("x=true", ["TRUE", "FALSE"], "holds the text 'TRUE', not 'true'; capital letters count, so write 'TRUE'"),
        ("x=Red", ["red"], "holds the text 'red', not 'Red'"),
        ("x<11", [], "none of the 1 objects looked at has a value in column 'x'; check the column's name"),
        ("colour=red and x<11", ["dear"], "column 'x' holds text"),
    ],
)  # fmt: skip
def test_a_condition_that_no_value_can_meet_is_explained(where, values, note):
    payloads = [{"x": value, "colour": "red"} for value in values] or [{"colour": "red"}]
    notes = filter_notes(parse_filter(where), payloads)
    assert len(notes) == 1
    assert note in notes[0]


@pytest.mark.parametrize(
    ("where", "values"),
    [
        ("x<11", [15, 20]),
        ("x<11", ["ask", 20]),
        ("x=38", ["38", "M"]),
        ("x=38", ["S", "M"]),
        ("x=true", [False]),
        ("x=red", ["blue", "Red", "red"]),
        ("x!=red", [10]),
        ("x=red", [["blue", "green"]]),
        ("x=red", [{"y": "red"}]),
    ],
)
def test_a_condition_that_others_may_meet_is_not(where, values):
    assert filter_notes(parse_filter(where), [{"x": value} for value in values]) == []


def test_search_says_that_a_column_holds_text(tmp_path):
    for number in range(3):
        draw(tmp_path / f"{number}.jpg", number)
    prices = ["ask us", "by request", "soon"]
    (tmp_path / "shop.csv").write_text("image,price\n" + "".join(f"{i}.jpg,{each}\n" for i, each in enumerate(prices)))
    to = f"qdrant:{tmp_path}/index/shop"
    runner = CliRunner()
    report = str(tmp_path / "report.json")
    made = runner.invoke(main, ["sync", str(tmp_path / "shop.csv"), "--to", to, "--model", "tiny", "--report", report])
    assert made.exit_code == 0, made.output
    asked = ["search", "--in", to, "--model", "tiny", "--text", "a hat", "--json"]
    found = runner.invoke(main, [*asked, "--filter", "price<11"])
    assert (found.exit_code, found.stdout) == (0, "")
    assert "Note: filter: column 'price' holds text such as '" in found.stderr
    (tmp_path / "shop.csv").write_text("image,price\n0.jpg,10.50 USD\n1.jpg,9.00 USD\n2.jpg,N/A\n")
    made = runner.invoke(main, ["sync", str(tmp_path / "shop.csv"), "--to", to, "--model", "tiny", "--report", report])
    assert "Note: column 'price' is read as numbers, without 'USD'" in made.stderr
    assert json.loads((tmp_path / "report.json").read_text())["notes"]
    found = runner.invoke(main, [*asked, "--filter", "price<11"])
    assert len(found.stdout.splitlines()) == 2
