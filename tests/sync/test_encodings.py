"""Tables that are not UTF-8, that are not what their name says, or that name a column twice."""

import gzip

import pytest

from cir_vectorizer.errors import SourceError
from cir_vectorizer.sources import Item, open_source


def listed(path, content, **options):
    """Return the columns of a table's rows by picture, the sentences of its failures, and its notes."""
    path.write_bytes(content)
    source = open_source(path, **options)
    source.count()
    entries = list(source.items())
    rows = {each.name: each.columns for each in entries if isinstance(each, Item)}
    failures = [str(each) for each in entries if not isinstance(each, Item)]
    return rows, [each.replace(f"{path}, ", "") for each in failures], source.notes


SHOP = {"a.jpg": {"title": "Grün"}, "b.jpg": {"title": "blau"}}
TEXT = 'image,title\na.jpg,Grün\nb.jpg,"blau"\n'
LINES = '{"image": "a.jpg", "title": "Grün"}\n{"image": "b.jpg", "title": "blau"}\n'
LIST = '[{"image": "a.jpg", "title": "Grün"}, {"image": "b.jpg", "title": "blau"}]'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(("name", "text"), [("t.csv", TEXT), ("t.tsv", TEXT), ("t.jsonl", LINES), ("t.json", LIST)])
def test_utf_16_is_read_as_utf_8_is(tmp_path, name, text, encoding):
    assert listed(tmp_path / name, text.encode(encoding)) == (SHOP, [], [])
    old = text.replace("\n", "\r\n").encode(encoding)
    assert listed(tmp_path / f"{name}.gz", gzip.compress(old)) == (SHOP, [], [])


@pytest.mark.parametrize(("name", "text"), [("t.csv", TEXT), ("t.jsonl", LINES), ("t.json", LIST)])
def test_lines_of_windows_1252_are_read_and_said(tmp_path, name, text):
    rows, failures, notes = listed(tmp_path / name, text.encode("cp1252"))
    assert (rows, failures) == (SHOP, [])
    [note] = notes
    assert note.startswith(f"1 line of {tmp_path / name} is not UTF-8 and read as Windows-1252, as in line ")
    assert "Grün" in note


def test_one_line_of_windows_1252_among_others_changes_no_other_cell(tmp_path):
    lines = ["image,title", "a.jpg,Größe – “5”", "b.jpg,日本語"]
    content = "\n".join(lines).encode() + "\nc.jpg,10 € “Größe”\n".encode("cp1252") + b"d.jpg,\xc3\xbc and \xfc\n"
    rows, failures, notes = listed(tmp_path / "t.csv", content)
    titles = [row["title"] for row in rows.values()]
    assert titles == ["Größe – “5”", "日本語", "10 € “Größe”", "ü and ü"]
    assert failures == []
    assert notes[0].startswith(f"2 lines of {tmp_path / 't.csv'} are not UTF-8")


@pytest.mark.parametrize(
    ("word", "encoding"), [("Красный", "cp1251"), ("红色", "gbk"), ("赤いドレス", "shift_jis"), ("Κόκκινο", "cp1253")]
)
def test_a_line_of_an_encoding_that_cannot_be_told_fails_alone(tmp_path, word, encoding):
    expected = {"b.jpg": {"title": "blue"}}, ["row 1 is neither UTF-8 nor Windows-1252; save the table as UTF-8"], []
    content = f"image,title\na.jpg,{word}\nb.jpg,blue\n"
    assert listed(tmp_path / "t.csv", content.encode(encoding)) == expected
    content = f'{{"image": "a.jpg", "title": "{word}"}}\n{{"image": "b.jpg", "title": "blue"}}\n'
    assert listed(tmp_path / "t.jsonl", content.encode(encoding)) == expected


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>",
            r"is a web page \(HTML\), not a table; open its address",
        ),
        (b"<?xml version='1.0'?><rss></rss>", "is XML, which is not read here; export it as .csv"),
        (b"PK\x03\x04\x14\0", "is an Excel file or an archive; save its table as .csv"),
        (b"PAR1\x15\0", "is a parquet file; name it .parquet"),
        ("image,title\na.jpg,x".encode("utf-16")[:-1], "is damaged UTF-16"),
    ],
)
def test_what_is_no_text_is_a_sentence(tmp_path, content, problem):
    for name in ("t.csv", "t.json"):
        with pytest.raises(SourceError, match=problem):
            listed(tmp_path / name, content)


def test_a_name_need_not_say_whether_a_table_is_gzipped(tmp_path):
    assert listed(tmp_path / "t.csv", gzip.compress(TEXT.encode()))[0] == SHOP
    assert listed(tmp_path / "t.csv.gz", TEXT.encode())[0] == SHOP


def test_of_two_columns_with_one_name_the_first_is_read_and_it_is_said(tmp_path):
    path = tmp_path / "t.csv"
    rows, failures, notes = listed(path, b"image,price,colour,price,\na.jpg,1,red,2,\nb.jpg,,blue,3\n")
    assert rows == {"a.jpg": {"price": 1, "colour": "red"}, "b.jpg": {"colour": "blue"}}
    assert failures == []
    assert notes == [f"{path} has several columns named 'price'; the first of them is read"]


def test_blanks_around_the_names_of_columns_are_cut_off(tmp_path):
    rows, _, _ = listed(tmp_path / "t.csv", b"image, price ,sku \na.jpg,1,7\n", id_column=" sku")
    assert rows == {"a.jpg": {"price": 1, "sku": 7}}
