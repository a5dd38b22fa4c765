"""Types of a table's columns: one odd cell changes no column, and is named."""

import pytest

from cir_vectorizer.sources import Item, open_source
from cir_vectorizer.sources.types import NONE
from tests.support.indexing import payloads, run, table

pytest_plugins = ["tests.support.indexing"]


def read(tmp_path, cells, separator=","):
    """Return the values of a column with these cells, and the source's notes; None for an empty cell."""
    path = tmp_path / "shop.csv"
    quoted = (f'"{cell}"' if separator in cell else cell for cell in cells)
    lines = [f"{number}.jpg{separator}{cell}" for number, cell in enumerate(quoted)]
    path.write_text("\n".join([f"image{separator}x", *lines]) + "\n")
    source = open_source(path)
    source.count()
    return [each.columns.get("x") for each in source.items() if isinstance(each, Item)], source.notes


@pytest.mark.parametrize("word", sorted(NONE))
def test_a_word_for_nothing_is_an_empty_cell(tmp_path, word):
    assert read(tmp_path, ["10.50", "9.00", word]) == ([10.5, 9.0, None], [])
    assert read(tmp_path, ["TRUE", word, "FALSE"]) == ([True, None, False], [])


def test_words_for_nothing_in_a_column_of_text_are_said(tmp_path):
    values, notes = read(tmp_path, ["striped", "none", "N/A", "plain"])
    assert values == ["striped", None, None, "plain"]
    assert notes == ["column 'x' holds text, and 2 cells count as empty: row 2 'none', row 3 'N/A'"]


@pytest.mark.parametrize(
    ("cells", "values", "note"),
    [
        (["10", "9", "call us"], [10, 9, "call us"], "1 cell stays text, so filters for numbers do not find it: row 3 'call us'"),
        (["10", "x", "9.5", "y", "8", "z", "7", "q", "6"], None, "4 cells stay text, so filters for numbers do not find them: row 2 'x', row 4 'y', row 6 'z' and 1 more"),
        (["TRUE", "maybe", "FALSE"], [True, "maybe", False], "true and false, but 1 cell stays text, so filters for true and false do not find it"),
        (["1", "2", "TRUE"], [1, 2, "TRUE"], "row 3 'TRUE'"),
        (["10", "1_000", "11"], [10, "1_000", 11], "row 2 '1_000'"),
        (["10", "2024-01-05", "11"], [10, "2024-01-05", 11], "row 2 '2024-01-05'"),
        (["10115", "80331", "01067"], ["10115", "80331", "01067"], "stays text, which < and > do not find: row 3 '01067' is a code"),
        (["1.5", "2.5", "5 USD", "5 EUR", "3.5", "4.5"], [1.5, 2.5, "5 USD", "5 EUR", 3.5, 4.5], "row 3 '5 USD', row 4 '5 EUR'"),
        (["10", "#VALUE!", "11"], [10, "#VALUE!", 11], "row 2 '#VALUE!'"),
        (["1,299", "15", "350"], ["1,299", 15, 350], "1 cell stays text, so filters for numbers do not find it: row 1 '1,299'"),
        (["5 USD", "6 USD", "7 EUR"], ["5 USD", "6 USD", "7 EUR"], "several currencies (row 1 '5 USD', row 3 '7 EUR')"),
    ],
)  # fmt: skip
def test_odd_cells_change_no_column_and_are_named(tmp_path, cells, values, note):
    found, notes = read(tmp_path, cells)
    assert values is None or found == values
    assert [type(each) for each in found] == [type(each) for each in values or found]
    assert len(notes) == 1
    assert notes[0].startswith("column 'x' ")
    assert note in notes[0]


@pytest.mark.parametrize(
    ("cells", "values", "currency"),
    [
        (["15.00 USD", "9.50 USD"], [15.0, 9.5], "USD"),
        (["USD 15", "USD 9"], [15, 9], "USD"),
        (["€ 12,50", "€ 1.234,50"], [12.5, 1234.5], "€"),
        (["12,50 €", "7 €", "8"], [12.5, 7, 8], "€"),
        (["$1,234", "$12.99", "$5"], [1234, 12.99, 5], "$"),
        (["-5 USD", "5 usd", "n/a"], [-5, 5, None], "USD"),
        (["1 234,50 kr", "99 kr"], [1234.5, 99], "KR"),
        (["CHF 1'234.50", "CHF 99"], [1234.5, 99], "CHF"),
        (["EUR 15,00", "EUR 1.299,00", "EUR 3"], [15, 1299, 3], "EUR"),
        (["€ 12,50", "€ 1.299"], [12.5, 1299], "€"),
        (["10 EUR", "12 €", "9"], [10, 12, 9], "EUR"),
        (["$15.00 USD", "$1,016.50 USD"], [15, 1016.5], "USD"),
        (["15.-", "CHF 20.–", "CHF 9.50"], [15, 20, 9.5], "CHF"),
        (["Rs. 1,50,000", "Rs. 999"], [150000, 999], "RS."),
        (["10%", "12.5 %", "7"], [10, 12.5, 7], "%"),
    ],
)
def test_prices_in_one_currency_are_numbers(tmp_path, cells, values, currency):
    assert read(tmp_path, cells) == (values, [f"column 'x' is read as numbers, without {currency!r}"])


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["TRUE", "FALSE", "TRUE"], [True, False, True]),
        (["true", "False"], [True, False]),
        ([" 10 ", "11"], [10, 11]),
        (["1,234.50", "9"], [1234.5, 9]),
        (["38", "M"], ["38", "M"]),
        (["36,38", "40,42"], ["36,38", "40,42"]),
        (["15,00", "3,50", "7"], [15.0, 3.5, 7.0]),
        (["1.299,00", "15,50", "1.299"], [1299.0, 15.5, 1299.0]),
        (["1,299.00", "15.50", "1,299"], [1299.0, 15.5, 1299.0]),
        (["1.299", "15", "3"], [1.299, 15.0, 3.0]),
        (["+10", "-5"], [10, -5]),
        ([".5", "0.75", "-.25"], [0.5, 0.75, -0.25]),
        (["15,-", "20,--"], [15, 20]),
        (["10", "  ", " N/A", "11"], [10, None, None, 11]),
        (["TRUE ", " false"], [True, False]),
        (["yes", "no"], ["yes", "no"]),
        (["100 % cotton", "3-pack"], ["100 % cotton", "3-pack"]),
        (["2024-01-05", "12.12.2024"], ["2024-01-05", "12.12.2024"]),
        (["1e400", "2"], ["1e400", "2"]),
        (["٣", "٤"], ["٣", "٤"]),
    ],
)
def test_other_columns_are_what_they_look_like(tmp_path, cells, values):
    assert read(tmp_path, cells) == (values, [])


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1.299,00", "15", "1.299"], [1299.0, 15.0, 1299.0]),
        (["12,99", "1.299"], [12.99, 1299.0]),
        (["12.99", "1,299"], [12.99, 1299.0]),
        (["1.299", "15"], [1.299, 15.0]),
        (["1,299", "15"], [1.299, 15.0]),
    ],
)
def test_a_cell_that_shows_the_mark_before_decimals_shows_it_for_its_column(tmp_path, cells, values):
    assert read(tmp_path, cells, separator=";") == (values, [])


def test_the_report_names_the_odd_cells(photos, shop, tiny):
    rows = [
        {"image": name, "price": price} for name, price in [("a.jpg", "10.50"), ("b.png", "9.00"), ("c.webp", "12")]
    ]
    run(table(photos / "shop.csv", rows), shop, tiny)
    rows[2]["price"] = "ask"
    report = run(table(photos / "shop.csv", rows), shop, tiny)
    assert (report.changed, report.unchanged) == (1, 2)
    assert report.notes == [
        "column 'price' holds numbers, but 1 cell stays text, so filters for numbers do not find it: row 3 'ask'"
    ]
    assert payloads(shop) == {"a.jpg": {"price": 10.5}, "b.png": {"price": 9.0}, "c.webp": {"price": "ask"}}
