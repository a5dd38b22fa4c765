"""The composed query: every door reads the same one, and names the fault of a wrong one."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cir_vectorizer.errors import QueryError
from cir_vectorizer.query import ComposedQuery, ImageRef, check_template, read_text

PICTURE = "iVBORw0KGgo="


def test_json_text_dict_and_object_read_the_same():
    given_as_dict = {"image": PICTURE, "text": "is red", "options": {"guidance": [1.5, 7.5], "seed": 3}}
    query = ComposedQuery.parse(given_as_dict)
    assert query == ComposedQuery.parse(json.dumps(given_as_dict)) == ComposedQuery.parse(query)
    assert query.options.guidance == (1.5, 7.5)
    assert query.image == (ImageRef(base64=PICTURE),)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (PICTURE, "base64"),
        ("https://shop.example/a.jpg", "url"),
        ([0.1, 2, -3.5], "vector"),
        (b"\x89PNG", "data"),
        (Path("a.jpg"), "path"),
        ({"id": 7}, "id"),
        ({"vector": [1.0], "norm": 9.5}, "vector"),
    ],
)
def test_an_image_may_be_written_in_short(value, kind):
    (ref,) = ComposedQuery.parse({"image": value}).image
    assert getattr(ref, kind) is not None


def test_several_references_keep_their_order():
    query = ComposedQuery.parse({"image": [PICTURE, {"id": "x"}, [0.5, 0.5]], "text": "mixed"})
    assert [ref.model_dump(exclude_none=True) for ref in query.image] == [
        {"base64": PICTURE}, {"id": "x"}, {"vector": [0.5, 0.5]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ({}, "", "at least image or text"),
        ({"text": "  "}, "", "at least image or text"),
        ({"negative_text": "logo"}, "negative_text", "add text or an image"),
        ({"mask": PICTURE, "text": "a"}, "mask", "add image"),
        ({"image": PICTURE, "mask": [1.0]}, "mask", "black and white picture"),
        ({"image": PICTURE, "colour": "red"}, "colour", "the fields are image, text"),
        ({"image": PICTURE, "options": {"step": 3}}, "options.step", "the fields are steps"),
        ({"image": PICTURE, "options": {"steps": 0}}, "options.steps", "greater than or equal to 1"),
        ({"image": PICTURE, "options": {"steps": 10_000}}, "options.steps", "less than or equal to 1000"),
        ({"image": PICTURE, "options": {"weights": {"text": float("nan")}}}, "options.weights.text", "finite"),
        ({"image": PICTURE, "options": {"seed": "7"}}, "options.seed", "integer"),
        ({"image": {"base64": PICTURE, "url": "http://a"}}, "image.0", "base64 and url"),
        ({"image": {"path": "/etc/passwd"}}, "image.0", "a path is not accepted"),
        ({"image": {"norm": 3.0, "base64": PICTURE}}, "image.0", "norm goes with vector"),
        ({"image": [0.0, 0.0]}, "image.0", "zeros"),
        ({"image": ""}, "image.0", "empty"),
        ({"image": [PICTURE] * 17}, "image", "at most 16"),
        ({"image": 5}, "image.0", "JSON object"),
        ({"text": ["red"]}, "text", "string"),
        ({"image": PICTURE, "template": "a photo"}, "template", "no $"),
        ({"image": PICTURE, "template": "a photo of $", "text": "red"}, "template", "{text}"),
        ({"image": PICTURE, "template": "$ that {text}"}, "template", "no text"),
        ({"image": PICTURE, "template": "$2 that"}, "template", "$2 names no picture"),
        ({"image": [PICTURE, PICTURE], "template": "$1 alone"}, "template", "leaves out picture 2"),
        ({"text": "red", "template": "$ {text}"}, "template", "with an image"),
    ],
)
def test_a_wrong_query_names_its_field_and_the_fix(query, field, words):
    with pytest.raises(QueryError) as caught:
        ComposedQuery.parse(query)
    assert caught.value.field.startswith(field)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ['{"image": ', "[" * 100_000, '{"text": NaN}', "null", '"red"', "3", "\ud800"])
def test_text_that_is_no_query_is_refused_in_words(text):
    with pytest.raises(QueryError):
        ComposedQuery.parse(text)


@pytest.mark.parametrize(
    "text",
    ["red dress", "", "{", "{not json}", '{"text": "red"}', '{"price": 3}', "[1, 2]", '{"a": "image"}', "{}", "$ 50"],
)
def test_catalog_text_is_never_taken_for_a_query(text):
    assert read_text(text) == text


@pytest.mark.parametrize("key", ["image", "mask", "negative_text", "composer"])
def test_a_json_object_with_a_composing_field_is_a_query_or_an_error(key):
    with pytest.raises(QueryError):
        read_text(json.dumps({key: 5, "text": "red"}))


def test_a_cut_off_query_is_an_error_and_not_plain_text():
    with pytest.raises(QueryError, match="not valid JSON"):
        read_text('{"image": "abc", "text": ')


@pytest.mark.parametrize(
    ("query", "plain"),
    [
        ({"text": "red"}, True),
        ({"image": PICTURE}, True),
        ({"image": PICTURE, "text": "red"}, False),
        ({"image": [PICTURE, PICTURE]}, False),
        ({"text": "red", "composer": "lincir"}, False),
        ({"text": "red", "negative_text": "logo"}, False),
    ],
)
def test_one_picture_or_one_text_alone_is_a_plain_search(query, plain):
    assert ComposedQuery.parse(query).plain is plain


def test_template_pieces():
    assert check_template("a $1 with the pattern of $2", 2, False) == ["a ", 1, " with the pattern of ", 2]
    assert check_template("$ that {text}", 2, True) == [0, " that {text}"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_any_json_value_gives_a_query_or_a_sentence(value):
    for candidate in (value, {"image": value}, {"image": PICTURE, "options": value}, {"text": value, "mask": value}):
        try:
            ComposedQuery.parse(candidate)
        except QueryError as error:
            assert str(error)
