"""Tables as programs really write them: separators, quotes, backslashes, and rows of other lengths than the header's."""

import gzip
import tracemalloc

import pytest

from cir_vectorizer.errors import SourceError
from cir_vectorizer.sources import Item, open_source
from cir_vectorizer.sources.separated import MOST_WITHIN
from tests.support.indexing import counts, only, payloads, run

pytest_plugins = ["tests.support.indexing"]


def listed(path, content, **options):
    """Return the rows of a table by their pictures' names, and the sentences of its failures."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = open_source(path, **options)
    assert source.count() is not None
    entries = list(source.items())
    rows = {each.name: each.columns for each in entries if isinstance(each, Item)}
    return rows, [str(each).partition(f"{path.name}, ")[2] for each in entries if not isinstance(each, Item)]


SHOP = {"a.jpg": {"colour": "red", "price": 10}, "b.jpg": {"colour": "blue", "price": 12}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("separator at each row's end", "image,colour,price\na.jpg,red,10,\nb.jpg,blue,12,\n"),
        ("separators at the header's end too", "image,colour,price,,\na.jpg,red,10,,\nb.jpg,blue,12,,\n"),
        ("separators at some ends", "image,colour,price\na.jpg,red,10,,,,\nb.jpg,blue,12\n"),
        ("rows of separators alone", "image,colour,price\n,,\na.jpg,red,10\n,,\nb.jpg,blue,12\n,,,,,\n"),
        ("semicolons", "image;colour;price\na.jpg;red;10\nb.jpg;blue;12\n"),
        ("semicolons at the end", "image;colour;price\na.jpg;red;10;\nb.jpg;blue;12;\n"),
        ("quoted semicolons", '"image";"colour";"price"\n"a.jpg";"red";"10"\n"b.jpg";"blue";"12"\n'),
        ("tabs in a csv", "image\tcolour\tprice\na.jpg\tred\t10\nb.jpg\tblue\t12\n"),
        ("bars", "image|colour|price\na.jpg|red|10\nb.jpg|blue|12\n"),
        ("Excel's first line", "sep=;\nimage;colour;price\na.jpg;red;10\nb.jpg;blue;12\n"),
        ("Excel's first line, with a mark", "\ufeffsep=;\r\nimage;colour;price\r\na.jpg;red;10\r\nb.jpg;blue;12\r\n"),
        ("Excel's first line, quoted", '"sep=|"\nimage|colour|price\na.jpg|red|10\nb.jpg|blue|12\n'),
        ("Excel's first line that names the usual one", "SEP=,\nimage,colour,price\na.jpg,red,10\nb.jpg,blue,12\n"),
        ("blank lines before the header", "\n\nimage;colour;price\n\na.jpg;red;10\nb.jpg;blue;12\n"),
        ("semicolons behind rows with commas", "image,colour,price\na.jpg,red,10;;;\nb.jpg,blue,12;;;\n"),
        ("semicolons behind all lines with commas", "image,colour,price;;\na.jpg,red,10;;\nb.jpg,blue,12;;\n"),
        ("commas behind rows with semicolons", "image;colour;price,,\na.jpg;red;10,,\nb.jpg;blue;12,,\n"),
        ("rows as single cells", '"image,colour,price"\n"a.jpg,""red"",10"\n"b.jpg,blue,12"\n'),
        ("rows as single cells, and separators", '"image,colour,price";;\n"a.jpg,red,10";;\n"b.jpg,blue,12";;\n'),
        ("blanks behind separators", "image, colour, price\na.jpg, red, 10\nb.jpg, blue, 12\n"),
        ("an unnamed column", "image,colour,,price\na.jpg,red,,10\nb.jpg,blue,,12\n"),
        ("blanks before quotes", 'image,"colour",price\na.jpg, "red", 10\nb.jpg, "blue", "12"\n'),
        (
            "Excel's first line that names a separator of its own",
            "sep=^\nimage^colour^price\na.jpg^red^10\nb.jpg^blue^12\n",
        ),
        ("old line ends", "image;colour;price\ra.jpg;red;10\rb.jpg;blue;12\r"),
    ],
)
def test_a_rough_table_is_read_as_its_writer_meant(tmp_path, name, content):
    assert listed(tmp_path / "shop.csv", content) == (SHOP, []), name
    assert listed(tmp_path / "shop.tsv", content) == (SHOP, []), name
    assert listed(tmp_path / "shop.csv.gz", gzip.compress(content.encode())) == (SHOP, []), name


@pytest.mark.parametrize("usual", [";", "\t", "|"])
def test_a_table_with_commas_keeps_other_separators_in_its_cells(tmp_path, usual):
    content = f"image,tags\na.jpg,new{usual}sale\nb.jpg,x{usual}y{usual}z\n"
    rows, failures = listed(tmp_path / "shop.csv", content)
    assert rows == {"a.jpg": {"tags": f"new{usual}sale"}, "b.jpg": {"tags": f"x{usual}y{usual}z"}}
    assert failures == []
    assert listed(tmp_path / "one.csv", "image\na.jpg\nb;c.jpg\n")[0].keys() == {"a.jpg", "b;c.jpg"}


def test_commas_mark_decimals_where_they_do_not_separate(tmp_path):
    rows, _ = listed(tmp_path / "shop.csv", "sep=;\nimage;colour;price\na.jpg;red;12,99\nb.jpg;blue;1.009,50\n")
    assert rows == {"a.jpg": {"colour": "red", "price": 12.99}, "b.jpg": {"colour": "blue", "price": 1009.5}}


@pytest.mark.parametrize(
    ("row", "title"),
    [
        ('a.jpg,24" screen,1', '24" screen'),
        ('a.jpg,screen of 24",1', 'screen of 24"'),
        ('a.jpg,"24"" screen",1', '24" screen'),
        ('a.jpg,"24" screen",1', '24" screen'),
        ('a.jpg,"the "best", I say",1', None),
        ('a.jpg,"a "good" hat, red",1', 'a "good" hat, red'),
        ('a.jpg,"Best" hat,1', '"Best" hat'),
        ('"a.jpg","the \\"best\\" hat","1"', 'the "best" hat'),
        ('"a.jpg","the best \\"hat\\"","1"', 'the best "hat"'),
        ('a.jpg,"the \\"best\\", red\nhat",1', 'the "best", red\nhat'),
        ('a.jpg,"red\nand the \\"best\\" hat",1', 'red\nand the "best" hat'),
        ("a.jpg,red\\, blue,1", "red, blue"),
        ("a.jpg,C:\\new,1", "C:\\new"),
        ('a.jpg,"C:\\new\\",1', "C:\\new\\"),
        ('a.jpg,"red\n\nhat, ""long""",1', 'red\n\nhat, "long"'),
        ('a.jpg,"red,1', None),
        ('a.jpg,red,"1', None),
        ('"a.jpg,red,1', None),
        ("a.jpg,red, blue,1", None),
    ],
)
def test_quotes_and_backslashes_hurt_no_other_row(tmp_path, row, title):
    around = "0.jpg,before,1\n", '\nb.jpg,after,1\nc.jpg,"said ""so""",1\nd.jpg,"two\nlines",1\n'
    rows, failures = listed(tmp_path / "shop.csv", f"image,title,price\n{around[0]}{row}{around[1]}")
    titles = {name: row["title"] for name, row in rows.items()}
    own = {} if title is None else {"a.jpg": title}
    assert titles == {"0.jpg": "before", **own, "b.jpg": "after", "c.jpg": 'said "so"', "d.jpg": "two\nlines"}
    assert all(failure.startswith("row 2 has ") for failure in failures)
    assert len(failures) == (title is None)


def test_separators_within_quotes_behind_a_blank_stay_in_their_cell(tmp_path):
    rows, failures = listed(
        tmp_path / "shop.csv", 'image, colour\na.jpg, "red, blue"\nb.jpg, "a ""good"" hat"\nc.jpg,x;;\n'
    )
    assert rows == {"a.jpg": {"colour": "red, blue"}, "b.jpg": {"colour": 'a "good" hat'}, "c.jpg": {"colour": "x;;"}}
    assert failures == []


def test_an_unknown_separator_is_told_with_the_remedy(tmp_path):
    with pytest.raises(
        SourceError, match=r"one column, 'image\^price', .* name the separator in a first line such as sep=\^"
    ):
        listed(tmp_path / "shop.csv", "image^price\na.jpg^10\n")


def test_mysql_escapes_quotes_and_writes_backslash_n_for_nothing(tmp_path):
    content = 'image,title,price\n"a.jpg","the \\"best\\" hat",\\N\n"b.jpg","plain",5\n'
    rows, failures = listed(tmp_path / "shop.csv", content)
    assert (rows, failures) == ({"a.jpg": {"title": 'the "best" hat'}, "b.jpg": {"title": "plain", "price": 5}}, [])


def test_a_quote_that_swallows_rows_and_closes_in_another_is_found(tmp_path):
    content = 'image,title,price\na.jpg,"red,1\nb.jpg,blue,2\nc.jpg,green",3\nd.jpg,white,4\n'
    rows, failures = listed(tmp_path / "shop.csv", content)
    assert {"d.jpg"} <= rows.keys()
    content = 'image,title,price\na.jpg,"red,1\nb.jpg,blue,2\nc.jpg,green,3"\nd.jpg,white,4\n'
    rows, failures = listed(tmp_path / "shop.csv", content)
    assert rows.keys() == {"b.jpg", "c.jpg", "d.jpg"}
    assert len(failures) == 1
    assert failures[0].startswith('row 1 has a quote (") that does not close; close it')


def test_a_quote_that_never_closes_in_a_long_table_takes_one_row_and_bounded_memory(tmp_path):
    line = "{}.jpg," + "long " * 20 + ",1\n"
    many = 4 * MOST_WITHIN // len(line)
    path = tmp_path / "shop.csv"
    with path.open("w") as stream:
        stream.write('image,title,price\nbad.jpg,"red,1\n')
        stream.writelines(line.format(number) for number in range(many))
    source = open_source(path)
    tracemalloc.start()
    found = sum(isinstance(each, Item) for each in source.items())
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == many
    assert most < 8 * MOST_WITHIN


def test_rows_shorter_than_the_header_lack_columns(tmp_path):
    rows, failures = listed(tmp_path / "shop.csv", "image,colour,price\na.jpg\nb.jpg,blue\nc.jpg,red,3\n")
    assert rows == {"a.jpg": {}, "b.jpg": {"colour": "blue"}, "c.jpg": {"colour": "red", "price": 3}}
    assert failures == []


def test_rows_longer_than_the_header_fail_alone_by_number(tmp_path, photos, shop, tiny):
    (photos / "shop.csv").write_text("image,colour\na.jpg,red\n\nb.png,light, blue\nc.webp,green\n")
    report = run(photos / "shop.csv", shop, tiny)
    assert counts(report) == only(added=2, failed=1, encoded=2)
    assert str(report.failed[0]).partition("shop.csv, ")[2].startswith("row 2 has 3 cells for 2 columns")
    assert payloads(shop) == {"a.jpg": {"colour": "red"}, "c.webp": {"colour": "green"}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("shop.csv", "a.jpg,red,10\nb.jpg,blue,12\n"),
        ("shop.tsv", "a.jpg\tred\t10\nb.jpg\tblue\t12\n"),
        ("shop.csv", "a.jpg;red;10\nb.jpg;blue;12\n"),
    ],
)
def test_a_table_without_a_header_has_numbered_columns_and_says_so(tmp_path, name, content):
    rows, failures = listed(tmp_path / name, content)
    assert rows == {"a.jpg": {"2": "red", "3": 10}, "b.jpg": {"2": "blue", "3": 12}}
    source = open_source(tmp_path / name)
    assert source.count() == 2
    assert "names no columns, so they are called 1, 2, …; the pictures are in 1" in source.notes[0]
    assert failures == []


def test_a_table_without_a_header_takes_its_pictures_from_urls(tmp_path):
    (tmp_path / "cc3m.tsv").write_text("a bus\thttps://example.com/1\na hat\thttps://example.com/2\n")
    source = open_source(tmp_path / "cc3m.tsv")
    assert source.count() == 2
    assert [each.columns for each in source.items()] == [{"1": "a bus"}, {"1": "a hat"}]


@pytest.mark.parametrize("name", ["shop.jsonl", "shop.json"])
def test_a_first_row_that_lacks_a_column_hides_it_from_nobody(tmp_path, name):
    rows = ['{"colour": "red"}', '{"image": "a.jpg", "sku": 1, "colour": "red"}', '{"image": "b.jpg", "sku": 2}']
    content = "\n".join(rows) if name.endswith("l") else f"[{', '.join(rows)}]"
    found, failures = listed(tmp_path / name, content)
    assert found.keys() == {"a.jpg", "b.jpg"}
    assert failures == ["row 1 has no picture in column 'image'; fill it, or drop the row"]
    found, failures = listed(tmp_path / name, content, image_column="image", id_column="sku")
    assert found.keys() == {"a.jpg", "b.jpg"}
    assert failures == ["row 1 has no id in column 'sku'; fill it, or drop the row"]


def test_a_column_that_only_a_late_row_has_can_be_named(tmp_path):
    lines = ['{"image": "a.jpg"}\n'] * 3000 + ['{"image": "b.jpg", "bild": "c.jpg"}\n']
    (tmp_path / "shop.jsonl").write_text("".join(lines))
    entries = list(open_source(tmp_path / "shop.jsonl", image_column="bild").items())
    assert [each.name for each in entries if isinstance(each, Item)] == ["c.jpg"]
    with pytest.raises(SourceError, match="no column 'foto'; --image-column is one of: image"):
        open_source(tmp_path / "shop.jsonl", image_column="foto")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("shop.csv", "image\na.jpg,red\nb.jpg,blue\n", "the first one has 2 cells for 1 column; put quotes"),
        ("shop.csv", 'image,colour\n"a.jpg,red\n', "the first one has a quote .* that does not close; close it"),
        ("shop.csv", 'image,"colour\na.jpg,red\n', "line 1, which names the columns, has a quote"),
        ("shop.jsonl", "{image: 1}\n{image: 2}\n", "the first one is not valid JSON"),
    ],
)
def test_a_table_is_refused_only_if_no_row_can_be_read(tmp_path, name, content, problem):
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=problem):
        open_source(tmp_path / name).count()
