"""`cir-vectorizer make-edits`: captions become references, words of a change, and targets."""

import csv
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.demo_world import OTHER_WORDINGS
from benchmarks.products import WORDINGS
from cir_vectorizer.cli import main
from cir_vectorizer.errors import SourceError
from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.edits.kinds import Kind, learn_kinds, normal
from cir_vectorizer_trainer.edits.mining import Finder
from cir_vectorizer_trainer.edits.phrasings import BLANK, OURS, ROLES, Phrasings
from cir_vectorizer_trainer.edits.swapping import EditMaker, without
from cir_vectorizer_trainer.edits.table import COLUMNS, read_edits, write_edits
from examples.demo.catalog import (
    CATEGORIES,
    COLOURS,
    HELD_OUT,
    QUERY_WORDINGS,
    SEEN,
    caption,
    catalog,
    queries,
    rough_captions,
)

KEPT_FOR_EVALUATION = (
    r"\bis \w", r"\bcomes\b", r"\bhas the colour\b", r"\bhas a\b", r"\blooks\b", r"\btakes the form\b", r"\bshows\b",
    r"\bsuits\b", r"\bfits\b", r"\bturns out\b", r"\bmade for\b", r"\bin colour\b",
)  # fmt: skip
TITLES = ("Acme Men {c} {t}", "Bolt Women Printed {c} {t}", "Acme Women {c} Running {t}", "Cord Men Solid {c} {t}")


def demo_captions(count=3000):
    rng = random.Random(4)
    return list(dict.fromkeys(caption(rng.choice(SEEN), rng) for _ in range(count)))


def make(folder: Path, captions, *arguments):
    source = folder / "captions.txt"
    source.write_text("\n".join(captions) + "\n", encoding="utf-8")
    out = folder / "edits.csv"
    result = CliRunner().invoke(
        main, ["make-edits", "--captions", str(source), "--out", str(out), *map(str, arguments)]
    )
    return result, out


@pytest.fixture(scope="module")
def learnt():
    return learn_kinds(demo_captions(), Phrasings.read(), random.Random(0))


@pytest.fixture(scope="module")
def edits(learnt):
    return list(EditMaker(demo_captions(), learnt, Phrasings.read(), seed=0).draw(6000))


def words_of(kind: Kind) -> set[str]:
    return {" ".join(tokens) for surfaces in kind.values.values() for tokens in surfaces}


def test_the_kinds_of_the_demos_captions_are_learnt_with_their_roles(learnt):
    roles = {kind.role: words_of(kind) for kind in learnt}
    assert roles["colour"] == set(COLOURS)
    assert roles["noun"] == set(CATEGORIES)
    assert {"plain", "solid", "striped", "stripy", "dotted", "checked", "checkered"} <= roles["pattern"]
    assert roles["part"] == {"stripes", "dots", "checks"}


def test_words_that_mean_the_same_and_spellings_are_one_value(learnt):
    pattern = next(kind for kind in learnt if kind.role == "pattern")
    assert any({("striped",), ("stripy",)} <= set(surfaces) for surfaces in pattern.values.values())
    assert normal(["t-shirt"]) == normal(["t", "shirts"]) == normal(["tshirts"])
    assert normal(["men's"]) == normal(["men"])
    assert normal(["dresses"]) == normal(["dress"])


def test_a_replaced_value_is_the_only_difference_and_the_words_name_it(edits, learnt):
    finder = Finder(learnt)
    replaced = [edit for edit in edits if edit.kind == "replace"]
    assert len(replaced) > 2500
    for edit in replaced:
        before, after = ({place.kind: place for place in finder.places(text)} for text in (edit.reference, edit.target))
        changed = [kind for kind in before if before[kind].value != after[kind].value]
        assert len(changed) == 1, edit
        new = edit.target[after[changed[0]].start : after[changed[0]].end]
        assert re.search(rf"\b{re.escape(new)}\b", edit.words), edit


def test_kinds_are_balanced_and_replacements_come_reversed_too(edits, learnt):
    finder = Finder(learnt)
    replaced = [edit for edit in edits if edit.kind == "replace"]
    counts = dict.fromkeys(("colour", "noun", "pattern", "part"), 0)
    for edit in replaced:
        before, after = ({place.kind: place for place in finder.places(text)} for text in (edit.reference, edit.target))
        counts[next(learnt[kind].role for kind in before if before[kind].value != after[kind].value)] += 1
    assert max(counts["colour"], counts["noun"]) < 1.5 * min(counts["colour"], counts["noun"], counts["pattern"])
    pairs = {(edit.reference, edit.target) for edit in replaced}
    assert sum((target, reference) in pairs for reference, target in pairs) > 0.3 * len(pairs)


def test_added_removed_empty_and_two_changes(edits):
    by_kind = {kind: [edit for edit in edits if edit.kind == kind] for kind in ("add", "remove", "two", "not", "empty")}
    assert all(len(found) > 150 for found in by_kind.values())
    assert all(len(edit.target) < len(edit.reference) for edit in by_kind["remove"])
    assert all(len(edit.target) > len(edit.reference) for edit in by_kind["add"])
    assert all(edit.words == edit.wording == "" and edit.target == edit.reference for edit in by_kind["empty"])
    assert all(edit.target != edit.reference for edit in edits if edit.kind != "empty")
    assert all(edit.words for edit in edits if edit.kind not in ("empty", "not"))
    assert {edit.kind for edit in edits if edit.negative} == {"not"}
    bare = [edit for edit in by_kind["not"] if not edit.words]
    assert 0.1 < len(bare) / len(by_kind["not"]) < 0.4
    for edit in by_kind["not"]:
        assert f" {edit.negative} " in f" {edit.reference} ".replace(",", " ")
        assert f" {edit.negative} " not in f" {edit.target} ".replace(",", " ")


def test_articles_follow_the_swapped_word(edits):
    texts = [text for edit in edits for text in (edit.reference, edit.target)]
    assert [text for text in texts if re.search(r"\ba (?=[aeiou])|\ban (?![aeiou])", text)] == []


@pytest.mark.parametrize(
    ("text", "value", "role", "rest"),
    [
        ("a red striped dress", "striped", "pattern", "a red dress"),
        ("a red dress with stripes", "stripes", "part", "a red dress"),
        ("a red dress with a striped pattern", "striped", "pattern", "a red dress"),
        ("a dress that is striped and red", "striped", "pattern", "a dress that is red"),
        ("a dress that is red and striped", "striped", "pattern", "a dress that is red"),
        ("a dress that is red with stripes", "red", "colour", "a dress with stripes"),
        ("this dress is red and has stripes", "stripes", "part", "this dress is red"),
        ("dress, red, striped", "red", "colour", "dress, striped"),
        ("red dress , striped", "striped", "pattern", "red dress"),
        ("acme men shoes black", "black", "colour", "acme men shoes"),
        ("a handbag with a belt", "belt", "noun", "a handbag"),
        ("a red dress", "dress", "noun", None),
        ("dress, red", "dress", "noun", None),
    ],
)
def test_a_removed_value_takes_the_words_that_lead_to_it_along(text, value, role, rest):
    kind = Kind("x", role, {value: {(value,): 1}, "other": {("other",): 1}})
    place = Finder([kind]).places(text)[0]
    assert without(text, place, role) == rest


def test_a_caption_with_two_values_of_a_kind_is_not_changed_there():
    colours = Kind("colour", "colour", {"red": {("red",): 1}, "blue": {("blue",): 1}})
    assert Finder([colours]).places("red and blue shirt") == []
    assert len(Finder([colours]).places("red shirt")) == 1


def test_in_half_of_the_edits_with_something_unwanted_nothing_else_changes(edits, learnt):
    """The words are then missing, or say what the reference has already, so that the reference is the hard negative."""
    finder = Finder(learnt)

    def values(text):
        return {(place.kind, place.value) for place in finder.places(text)}

    unwanted = [edit for edit in edits if edit.kind == "not"]
    changed = [len({kind for kind, _ in values(edit.reference) - values(edit.target)}) for edit in unwanted]
    assert 0.4 < sum(number == 1 for number in changed) / len(unwanted) < 0.8
    assert sum(number == 2 for number in changed) / len(unwanted) > 0.2


def blanked(text: str, values) -> str:
    words = [word.strip(",:;") for word in text.split()]
    return " ".join("V" if word in values else "a" if word == "an" else word for word in words)


def test_no_phrasing_is_a_wording_of_the_test_queries(edits):
    """Wordings are compared whole and in part, in the file, and in edits of the demo's captions."""
    kept = {
        wording.format(v="V", a="a V" if wordings is WORDINGS else "a")
        for wordings in (QUERY_WORDINGS, OTHER_WORDINGS, WORDINGS)
        for kind in wordings.values()
        for wording in kind
    }
    assert {"is V", "is V in colour", "came out V", "takes the form of a V", "is for V"} <= kept
    phrasings = Phrasings.read()
    names = {"new": "V", "old": "V", "a_new": "a V", "a_old": "a V", "first": "V", "second": "V"}
    templates = [
        t for change in ("replace", "add", "remove") for role in ROLES for t in phrasings.templates(change, role)
    ]
    forms = {template.format(**names) for template in [*templates, *json.loads(OURS.read_text("utf-8"))["en"]["two"]]}
    for text in ("polka dot", "stripy", "solid", "checkered"):
        edits = [Edit(e.reference, e.words.replace(text, "plain"), e.target, e.kind, e.wording) for e in edits]
    values = {*COLOURS, *CATEGORIES, "plain", "striped", "dotted", "checked", "stripes", "dots", "checks"}
    forms |= {blanked(edit.words, values) for edit in edits}
    assert len(forms) > 250
    assert [form for form in forms if any(f" {wording} " in f" {form} " for wording in kept)] == []
    assert [form for form in forms if any(re.search(pattern, form) for pattern in KEPT_FOR_EVALUATION)] == []
    texts = {query.text for seed in (11, 12) for query in queries(catalog(3000), 600, seed)}
    assert not texts & {edit.words for edit in edits}


def test_edits_of_one_wording_differ_in_the_values_alone(edits):
    assert all(BLANK in edit.wording for edit in edits if edit.words)
    said = {edit.wording: set() for edit in edits}
    for edit in edits:
        said[edit.wording].add(re.sub(r"\b(?:an?)\b ", "", edit.words))
    for wording, words in said.items():
        pattern = re.escape(re.sub(r"\b(?:an?) ", "", wording)).replace(BLANK, r"[\w-]+(?: [\w-]+)?")
        assert all(re.fullmatch(pattern, text) for text in words), wording
    assert len(said) > 200


def test_the_same_seed_makes_the_same_edits_and_the_share_is_printed(tmp_path):
    captions = demo_captions(800)
    result, out = make(tmp_path, captions, "--count", 500, "--seed", 3)
    assert result.exit_code == 0, result.output
    first = out.read_bytes()
    assert re.search(r"\d+ % of the [\d,]+ captions gave edits; 100 % hold a value that can change", result.output)
    assert re.search(r"kind '.*' \(noun\), in 100 % of the captions: ", result.output)
    for seed in ("1", "2"):  # the order of sets differs from process to process
        again = [sys.executable, "-m", "cir_vectorizer.cli", "make-edits", "--captions", str(tmp_path / "captions.txt")]
        again += ["--count", "500", "--seed", "3", "--out", str(out)]
        subprocess.run(again, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed})
        assert out.read_bytes() == first
    make(tmp_path, captions, "--count", 500, "--seed", 4)
    assert out.read_bytes() != first


def test_columns_name_the_kinds_and_captions_spell_the_values(tmp_path):
    rng = random.Random(1)
    types = {"Tshirts": ("T-Shirt", "Tshirts"), "Casual Shoes": ("Casual Shoes",), "Jeans": ("Jeans",)}
    table = tmp_path / "products.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["title", "articleType", "baseColour", "gender"])
        for i in range(400):
            kind, colour = rng.choice(list(types)), rng.choice(["Red", "Navy Blue", "Black", "NA"])
            title = rng.choice(TITLES).format(c=colour.replace("NA", ""), t=rng.choice(types[kind]))
            writer.writerow([f"{title} {i}", kind, colour, "Men" if " Men " in title else "Women"])
    out = tmp_path / "edits.jsonl"
    arguments = [
        "make-edits",
        "--captions",
        table,
        "--column",
        "title",
        "--attributes",
        "baseColour,articleType,gender",
    ]
    result = CliRunner().invoke(main, [*map(str, arguments), "--count", "600", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "kind 'baseColour' (colour)" in result.output
    assert "kind 'articleType' (noun)" in result.output
    assert "kind 'gender' (audience)" in result.output
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert list(rows[0]) == list(COLUMNS)
    replaced = [row for row in rows if row["kind"] == "replace"]
    assert any("t-shirt" in row["reference"] and "casual shoes" in row["target"] for row in replaced)
    assert any("navy blue" in row["words"] for row in replaced)
    assert not any("acme" in row["words"] or "bolt" in row["words"] for row in rows)

    refused = CliRunner().invoke(main, [*map(str, arguments[:-1]), "material", "--out", str(out)])
    assert refused.exit_code == 1
    assert "no column 'material' for --attributes; the tables' columns are title, articleType" in refused.output


def test_brands_that_open_titles_are_no_kind_where_titles_name_things():
    rng = random.Random(2)
    brands = [f"brand{chr(97 + i)}x" for i in range(12)]
    captions = [
        f"{rng.choice(brands)} {rng.choice(('men', 'women'))} {rng.choice(list(COLOURS))} {rng.choice(CATEGORIES)} {i}"
        for i in range(3000)
    ]
    kinds = learn_kinds(captions, Phrasings.read(), random.Random(0))
    assert {kind.role for kind in kinds} == {"colour", "noun", "audience"}
    assert not set(brands) & {word for kind in kinds for word in words_of(kind)}


def test_rough_captions_give_edits_of_their_attributes():
    rng = random.Random(3)
    products = [rng.choice(SEEN) for _ in range(4000)]
    captions = list(dict.fromkeys(text.lower() for text in rough_captions(products, rng)))
    kinds = learn_kinds(captions, Phrasings.read(), random.Random(0))
    assert words_of(kinds[0]) >= set(CATEGORIES) or words_of(kinds[0]) >= set(COLOURS) - {"navy"}
    assert {"colour", "noun", "pattern"} <= {kind.role for kind in kinds[:4]}
    assert "norvik" not in {word for kind in kinds for word in words_of(kind)}


def test_captions_without_anything_to_swap_are_refused(tmp_path):
    result, out = make(tmp_path, ["a lone sentence", "quite another text"])
    assert result.exit_code == 1
    assert "name columns of the captions' table with --attributes" in result.output
    assert not out.exists()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_a_table_of_edits_is_read_as_it_was_written(tmp_path, edits, suffix):
    out = tmp_path / "new" / f"edits.{suffix}"
    some = [*edits[:200], Edit('a "red" dress, plain', "blue", "a blue dress", "two", "…", "plain")]
    assert write_edits(some, out) == 201
    assert list(read_edits(out, print)) == some


def test_a_table_of_somebody_else_needs_three_columns(tmp_path):
    table = tmp_path / "llm.csv"
    table.write_text("target,words,reference,id\nA Blue Dress,In BLUE,A red $ dress,1\nA mug,,A mug,2\n")
    first, second = read_edits(table, print)
    assert first == Edit("a red dress", "in blue", "a blue dress", "table", "in blue")
    assert second.kind == "empty"
    table.write_text("reference,target\na,b\n")
    with pytest.raises(
        SourceError, match="has no column 'words'; a table of edits has the columns reference, words, target"
    ):
        list(read_edits(table, print))
    table.write_text("reference,words,target\na,b,\n")
    with pytest.raises(SourceError, match=r"no row of .* is an edit; the first one: .*row 1: 'target' is empty"):
        list(read_edits(table, print))
    with pytest.raises(SourceError, match="must end in one of"):
        write_edits([], tmp_path / "edits.parquet")


def test_rows_that_are_no_edits_are_left_out_and_named(tmp_path):
    table = tmp_path / "llm.csv"
    bad = ['"x,y,z', "a,b,", ",b,c", "a,b,c,d", *["a,b,"] * 4]
    rows = ["reference,words,target", "a red dress,in blue,a blue dress", *bad, "a mug,bigger,a big mug"]
    table.write_text("\n".join(rows))
    told = []
    assert [edit.words for edit in read_edits(table, told.append)] == ["in blue", "bigger"]
    assert told[0].startswith(f'left out: {table}, row 2 has a quote (") that does not close')
    assert told[1] == f"left out: {table}, row 3: 'target' is empty; an edit needs both captions"
    assert told[-1] == f"left out: 3 more rows of {table}"
    lines = ['{"reference": "a", "words": "b", "target": 5}', '{"reference": "a", "words": "b", "target": "c"}']
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    assert len(list(read_edits(tmp_path / "x.jsonl", told.append))) == 1
    assert "row 1: 'target' is no text; write it as text" in told[-1]


def test_a_pair_of_captions_gives_its_own_caption_as_target():
    captions = [
        f"{a} {colour} shirt of {name}" for name in ("ada", "bo") for a, colour in (("a", "red"), ("an", "orange"))
    ]
    colours = Kind("colour", "colour", {"red": {("red",): 2}, "orange": {("orange",): 2}})
    found = list(EditMaker(captions, [colours], Phrasings.read()).draw(200))
    assert {edit.target for edit in found if edit.kind == "replace"} <= set(captions)


def test_known_only_makes_no_combination_that_no_caption_has(learnt):
    held_out = {(p.colour, p.category, p.pattern) for p in HELD_OUT}
    patterns = {"solid": "plain", "stripy": "striped", "polka dot": "dotted", "checkered": "checked", "dots": "dotted"}
    patterns |= {"stripes": "striped", "checks": "checked"}

    def combinations(edits):
        finder = Finder(learnt)
        for edit in edits:
            found = {
                learnt[place.kind].role: edit.target[place.start : place.end] for place in finder.places(edit.target)
            }
            pattern = found.get("pattern") or found.get("part")
            yield found.get("colour"), found.get("noun"), patterns.get(pattern, pattern)

    captions = demo_captions(6000)
    free, known = (
        set(combinations(EditMaker(captions, learnt, Phrasings.read(), 0, only).draw(4000))) for only in (False, True)
    )
    assert len(known) > 300
    assert free & held_out
    assert not known & held_out
