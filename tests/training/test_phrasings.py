"""A customer's phrasings: they replace or extend ours, and wrong ones are refused."""

import json
import re

import pytest

from cir_vectorizer.errors import SourceError
from cir_vectorizer_trainer.edits.phrasings import Phrasings
from cir_vectorizer_trainer.edits.table import read_edits
from tests.training.test_edits import demo_captions, make


def test_a_customers_phrasings_replace_or_extend_ours(tmp_path):
    theirs = {
        "en": {
            "replace": {"any": ["dip it in {new}"]},
            "add": {"any": ["with extra {new}"]},
            "remove": {"any": ["ditch {old}"]},
            "two": ["{first} + {second}"],
        }
    }
    path = tmp_path / "phrasings.json"
    path.write_text(json.dumps(theirs))
    result, out = make(tmp_path, demo_captions(800), "--phrasings", path, "--count", 200)
    assert result.exit_code == 0, result.output
    words = [edit.words for edit in read_edits(out, print) if edit.kind == "replace"]
    assert words
    assert all(text.startswith("dip it in ") for text in words)
    theirs["en"]["extend"] = True
    path.write_text(json.dumps(theirs))
    both = Phrasings.read(path)
    assert {"dip it in {new}", "make it {new}"} <= set(both.templates("replace", "colour"))
    german = Phrasings.read(language="de")
    assert "in {new} statt in {old}" in german.templates("replace", "colour")
    assert german.with_article("kleid") == "kleid"


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"replace": {"any": ["make it {newer}"]}}, "must have its values as {new}, {old}"),
        ({"replace": {"any": ["make it red"]}}, "must have its values as"),
        ({"replace": {"any": ["make it {new"]}}, "a brace too many or too few"),
        ({"replace": {"size": ["{new}"]}}, "must hold lists of phrasings by role"),
        ({"replace": {"any": "{new}"}}, "not a list of phrasings"),
        ({"swap": {}}, "'swap' is unknown"),
        ({"replace": {"any": ["{new}"]}}, "no phrasing for 'add' of 'colour'"),
        ({"two": ["{first}"]}, "must have its values as {first}, {second}"),
        ({"ignored": "photo"}, '"ignored" a list'),
        ({"roles": {"colour": ["red"]}}, '"roles" must hold'),
        ({"articles": []}, '"articles" must be'),
    ],
)
def test_wrong_phrasings_are_refused_with_a_sentence(tmp_path, entry, sentence):
    path = tmp_path / "phrasings.json"
    path.write_text(json.dumps({"en": entry}))
    with pytest.raises(SourceError, match=re.escape(sentence)):
        Phrasings.read(path)


def test_an_unknown_language_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no phrasings for 'xx'; choose one of en, de"):
        Phrasings.read(language="xx")
