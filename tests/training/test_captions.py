"""Captions are read from every kind of file, cleaned, each once; unreadable files end in a sentence."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from cir_vectorizer.errors import CaptionError
from cir_vectorizer_trainer.captions.reading import CaptionSet, clean, read_captions

EXPECTED = ["a red dress", "a blue mug, striped"]

FILES: dict[str, str] = {
    "lines.txt": "a red dress\na blue mug, striped\n",
    "table.csv": 'id,caption\n1,a red dress\n2,"a blue mug, striped"\n',
    "table.tsv": "caption\timage\na red dress\t1.jpg\na blue mug, striped\t2.jpg\n",
    "records.jsonl": '{"caption": "a red dress", "id": 1}\n\n{"id": 2, "caption": "a blue mug, striped"}\n',
    "strings.jsonl": '"a red dress"\n"a blue mug, striped"\n',
    "strings.json": '["a red dress", "a blue mug, striped"]',
    "records.json": '[{"title": "a red dress", "sku": "x"}, {"title": "a blue mug, striped", "sku": "y"}]',
    "fashioniq.json": '[{"target": "B1", "candidate": "B2", "captions": ["a red dress", "a blue mug, striped"]}]',
}


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return str(path)


def refusal(source: str, column: str | None = None) -> str:
    with pytest.raises(CaptionError) as caught:
        read_captions([source], column)
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_every_kind_of_file_gives_its_captions_also_gzipped(name: str, ending: str, tmp_path: Path) -> None:
    assert read_captions([write(tmp_path, name + ending, FILES[name])]).captions == EXPECTED


@pytest.mark.parametrize("name", FILES)
def test_a_byte_order_mark_and_windows_line_ends_are_tolerated(name: str, tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + FILES[name].replace("\n", "\r\n").encode()
    assert read_captions([write(tmp_path, name, content)]).captions == EXPECTED


def test_the_ending_may_be_in_capitals(tmp_path: Path) -> None:
    assert read_captions([write(tmp_path, "CATALOG.TXT", FILES["lines.txt"])]).captions == EXPECTED


def test_stray_quotes_and_blank_lines_do_not_stop_the_reading(tmp_path: Path) -> None:
    table = 'id,text\n1,"a red" dress\n\n2,a 5" mug\n'
    assert read_captions([write(tmp_path, "t.csv", table)]).captions == ['"a red" dress', 'a 5" mug']
    lines = '"a red dress"\n\n{"caption": "a mug", "price": 1e999, "ean": 123456789012345678901234567890}\n'
    found = read_captions([write(tmp_path, "t.ndjson", lines)])
    assert found == CaptionSet(["a red dress", "a mug"], read=2, blank=0, duplicates=0)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_parquet_gives_its_text_column_and_lists_of_texts(ending: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for values in (EXPECTED, [EXPECTED, None], pa.array(EXPECTED).dictionary_encode()):
        buffer = io.BytesIO()
        parquet.write_table(pa.table({"n": list(range(len(values))), "words": values}), buffer)
        assert read_captions([write(tmp_path, f"t.parquet{ending}", buffer.getvalue())]).captions == EXPECTED


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'cir-vectorizer[train]'" in refusal(write(tmp_path, "t.parquet", b"PAR1"))


def test_broken_parquet_is_explained(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    assert "is no parquet file" in refusal(write(tmp_path, "t.parquet", b"nothing like it"))


def test_standard_input_is_read_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("a red dress\n\nein grünes Kleid\n".encode())))
    found = read_captions(["-"])
    assert found.captions == ["a red dress", "ein grünes Kleid"]
    assert found.blank == 1


def test_several_sources_are_joined_in_order_without_duplicates(tmp_path: Path) -> None:
    first = write(tmp_path, "a.txt", "b\na\n")
    second = write(tmp_path, "b.jsonl", '"a"\n"c"\n')
    assert read_captions([first, second]) == CaptionSet(["b", "a", "c"], read=4, blank=0, duplicates=1)


def test_a_hundred_thousand_duplicates_leave_one(tmp_path: Path) -> None:
    found = read_captions([write(tmp_path, "a.txt", "a red  dress \n" * 100_000 + " \n")])
    assert found == CaptionSet(["a red dress"], read=100_001, blank=1, duplicates=99_999)
    assert found.summary() == "1 caption out of 100,001 read: left out 1 blank and 99,999 duplicates."


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        (" a \t red\u00a0dress\r\n", "a red dress"),
        ("a\x00red\x07dress", "a red dress"),
        ("\ufeffa red dress", "a red dress"),
        ("red \ud83d dress", "red dress"),
        ("红色连衣裙", "红色连衣裙"),
        ("👩‍👧 family", "👩‍👧 family"),
        ("\x00\x01 ", ""),
        ("<p>Red &amp; white <strong>dress</strong></p>", "Red & white dress"),
        ('<div class="x"><ul><li>100% cotton</li></ul></div>', "100% cotton"),
        ("<p>Red</p><p>long<br/>soft</p>", "Red long soft"),
        ("<H1 STYLE='a'>Red</H1>dress<sup>2</sup>", "Red dress2"),
        ("Red<!-- <p>draft</p> --> hat <style>p {}</style><script>let a = '<p>'</script>", "Red hat"),
        ("&lt;p&gt;Red &amp;amp; white&lt;/p&gt;", "Red & white"),
        ("caf&eacute;&nbsp;cup &#8211; &#x41; 5&quot;", 'café cup – A 5"'),
        (
            "R&D, AT&T; size <5 & >3, a <3 hat, x<y, <$> and <red>",
            "R&D, AT&T; size <5 & >3, a <3 hat, x<y, <$> and <red>",
        ),
        ("black&notwhite &copy 2020", "black&notwhite &copy 2020"),
    ],
)
def test_cleaning_removes_control_characters_and_collapses_whitespace(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_nul_bytes_in_a_table_are_no_obstacle(tmp_path: Path) -> None:
    assert read_captions([write(tmp_path, "t.csv", "caption\na red\x00dress\n")]).captions == ["a red dress"]


def test_emoji_and_long_captions_pass_unharmed(tmp_path: Path) -> None:
    long = " ".join(f"word{n}" for n in range(500))
    assert read_captions([write(tmp_path, "t.txt", f"😍🔥\n赤いドレス\n{long}\n")]).captions == [
        "😍🔥",
        "赤いドレス",
        long,
    ]


def test_a_huge_field_and_line_breaks_in_quotes_fit_into_csv(tmp_path: Path) -> None:
    huge = "red " * 100_000
    found = read_captions([write(tmp_path, "t.csv", f'text\n"{huge}"\n"two\nlines"\n')])
    assert found.captions == [huge.strip(), "two lines"]


def test_short_rows_and_empty_fields_count_as_blank(tmp_path: Path) -> None:
    found = read_captions([write(tmp_path, "t.csv", "id,text\n1,a mug\n2\n3,\n\n4,a hat,,\n")])
    assert found == CaptionSet(["a mug", "a hat"], read=4, blank=2, duplicates=0)


def test_objects_without_the_key_count_as_blank(tmp_path: Path) -> None:
    lines = '{"id": 1}\n{"id": 2, "name": "a mug"}\n{"id": 3, "name": null}\n'
    assert read_captions([write(tmp_path, "t.jsonl", lines)], "name").captions == ["a mug"]


def test_cc3m_without_a_header_row_is_read_whole(tmp_path: Path) -> None:
    rows = "a bus station\thttp://example.com/1.jpg\nsierra at sunset\thttp://example.com/2.jpg\n"
    path = write(tmp_path, "Train_GCC-training.tsv", rows)
    assert read_captions([path]).captions == ["a bus station", "sierra at sunset"]
    assert read_captions([path], "1").captions == ["a bus station", "sierra at sunset"]


@pytest.mark.parametrize(
    "content",
    ["id,product\n1,a red dress\n", "product\na red dress\n", "product,url\na red dress,https://x.y/1.jpg\n"],
)
def test_the_only_column_with_text_is_found(content: str, tmp_path: Path) -> None:
    assert read_captions([write(tmp_path, "t.csv", content)]).captions == ["a red dress"]


def test_a_named_column_wins(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "caption,alt\na red dress,a mug\n")
    assert read_captions([path], "alt").captions == ["a mug"]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json", "t.parquet"])
@pytest.mark.parametrize("column", [None, "colour"])
def test_an_unclear_or_unknown_column_lists_those_there_are(name: str, column: str | None, tmp_path: Path) -> None:
    row = {"sku": "x-1", "name": "a red dress", "maker": "puma"}
    if name == "t.parquet":
        pa = pytest.importorskip("pyarrow")
        buffer = io.BytesIO()
        pytest.importorskip("pyarrow.parquet").write_table(pa.Table.from_pylist([row]), buffer)
        path = write(tmp_path, name, buffer.getvalue())
    else:
        table = f"{','.join(row)}\n{','.join(row.values())}\n"
        path = write(tmp_path, name, {"t.csv": table, "t.json": json.dumps([row])}.get(name, json.dumps(row)))
    message = refusal(path, column)
    assert "sku, name, maker" in message
    assert path in message
    assert ("--column" if column is None else "'colour'") in message


def test_two_well_known_columns_are_not_chosen_between(tmp_path: Path) -> None:
    assert "title, description" in refusal(write(tmp_path, "t.csv", "title,description\na mug,a red mug\n"))


def test_another_encoding_names_file_line_and_remedy(tmp_path: Path) -> None:
    path = write(tmp_path, "t.txt", "caption\nein gr\u00fcnes Kleid\n".encode("latin-1"))
    message = refusal(path)
    assert f"{path}, line 2: not UTF-8 (byte 0xfc)" in message
    assert "iconv" in message


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_table_in_another_encoding_is_read_and_says_so(name: str, tmp_path: Path) -> None:
    content = {"t.csv": "caption\na mug\nein gr\u00fcnes Kleid\n", "t.jsonl": '"a mug"\n"ein gr\u00fcnes Kleid"\n'}[
        name
    ]
    found = read_captions([write(tmp_path, name, content.encode("latin-1"))])
    assert list(found.captions) == ["a mug", "ein gr\u00fcnes Kleid"]
    assert f"1 line of {tmp_path / name} is not UTF-8 and read as Windows-1252" in found.summary()


def test_a_bad_json_line_names_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, "t.jsonl", '\n\n{"caption": \n')
    assert f"{path}, line 3 is not valid JSON" in refusal(path)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t.jsonl", '"a mug"\n{"caption": \n"a hat"\n', "line 2 is not valid JSON"),
        ("t.csv", "caption\na mug\na red, long coat\na hat\n", "line 3 has 2 cells for 1 column"),
        ("t.csv", 'id,caption\n1,a mug\n2,"a coat\n3,a hat\n', "line 3 has a quote"),
        ("t.csv", 'sep=;\nid;caption\n1;a mug\n2;"a coat\n3;a hat\n', "line 4 has a quote"),
    ],
)
def test_a_bad_row_is_left_out_and_named(name: str, content: str, problem: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, content)
    found = read_captions([path])
    assert found.captions == ["a mug", "a hat"]
    assert f"1 row cannot be read; the first: {path}, {problem}" in found.summary()


def test_a_bad_json_file_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "t.json", '[\n"a mug",\n]')
    assert f"{path}, line 3 is not valid JSON" in refusal(path) or f"{path}, line 2 is not valid JSON" in refusal(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.json", '{"annotations": []}', "holds an object; a list of strings or of objects is needed"),
        ("t.jsonl", "3\n", "line 1: a number where a caption should be"),
        ("t.json", '[{"caption": {"en": "a mug"}}]', "item 1: an object where a caption should be"),
        ("t.json", "[" * 100_000, "nested too deeply"),
        ("t.csv", "caption\na red, striped mug\n", "line 2 has 2 cells for 1 column; put quotes"),
        ("t.tsv", 'caption\tid\n"a mug\t1\n', 'line 2 has a quote (") that does not close'),
        ("t.tsv", 'caption\tid\n"a mug\t1\na hat"\t2\n', "close that quote"),
        ("t.doc", "a mug", "must end in one of .txt, .csv, .tsv, .jsonl, .json, .parquet, each also with .gz"),
        ("mugs", "a mug", "must end in one of"),
    ],
)
def test_unusable_content_is_explained(name: str, content: str, said: str, tmp_path: Path) -> None:
    assert said in refusal(write(tmp_path, name, content))


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.txt", ""), ("t.txt", " \n\n"), ("t.csv", ""), ("t.csv", "caption\n"), ("t.json", "[]"), ("t.jsonl", "null\n")],
)
def test_a_source_without_captions_is_refused_with_a_remedy(name: str, content: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, content)
    assert f"{path} holds no caption; give a text file with one caption a line" in refusal(path)


def test_no_source_at_all_is_refused() -> None:
    with pytest.raises(CaptionError, match="holds no caption"):
        read_captions([])


def test_missing_files_folders_and_broken_archives_are_explained(tmp_path: Path) -> None:
    assert "does not exist" in refusal(str(tmp_path / "none.txt"))
    (tmp_path / "folder.txt").mkdir()
    assert "is a folder" in refusal(str(tmp_path / "folder.txt"))
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"a mug\n" * 1000)[:30])
    assert "damaged or cut short" in refusal(str(tmp_path / "cut.txt.gz"))
