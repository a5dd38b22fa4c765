"""The filter language, and the objects it finds in each database."""

import numpy as np
import pytest

from cir_vectorizer.collections import Ask, CreateOptions, ModelRecord, Point, open_collection
from cir_vectorizer.errors import QueryError
from cir_vectorizer.query.filters import Condition, Value, parse_column, parse_filter
from tests.support.databases import EVERY, SERVERS, database_of, uid

OBJECTS = [
    {
        "n": 0,
        "colour": "red",
        "price": 10,
        "tags": ["new", "sale"],
        "size": 38,
        "sold": False,
        "brand name": "Ü & Co",
    },
    {"n": 1, "colour": "light blue", "price": 49.5, "tags": ["sale"], "size": "38", "sold": True},
    {"n": 2, "colour": "blue", "price": 50, "tags": [], "size": "M", "maker": {"city": "Oslo"}},
    {"n": 3, "colour": "women's red", "ean": 9007199254740993, "a.b": "flat"},
    {"n": 4, "colour": "red", "price": -5.0, "ean": 9007199254740992, "note": " two  spaces "},
]


def indexed(param):
    """A database whose collection has payload indexes for all columns that the filters name."""
    return pytest.param((param.values[0], True), id=f"{param.id}-indexed", marks=param.marks)


@pytest.fixture(
    scope="module",
    params=[pytest.param((each.values[0], False), id=each.id, marks=each.marks) for each in EVERY]
    + [indexed(each) for each in SERVERS],
)
def found(request, tmp_path_factory):
    """Search that returns the numbers of the OBJECTS that a filter finds."""
    kind, with_indexes = request.param
    database = database_of(kind, request, tmp_path_factory.mktemp("index"))
    collection = database.open("Filtered")
    columns = ("colour", "price", "tags", "size", "sold", '"brand name"', "maker.city", "ean", "n")
    collection.create(ModelRecord("m", "f", 2), CreateOptions(indexed=columns if with_indexes else ()))
    collection.upsert([Point(uid(i), np.array([1, 0], dtype=np.float32), each) for i, each in enumerate(OBJECTS)])

    def search(text):
        hits = collection.search(np.array([1, 0], dtype=np.float32), Ask(10, parse_filter(text)))
        return sorted(hit.payload["n"] for hit in hits)

    yield search
    database.close()


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("colour=red", [0, 4]),
        ("colour = red", [0, 4]),
        ("colour!=red", [1, 2, 3]),
        ("colour='light blue'", [1]),
        ('colour="women\'s red"', [3]),
        ("colour in (red, 'light blue')", [0, 1, 4]),
        ("price<50", [0, 1, 4]),
        ("price<=50", [0, 1, 2, 4]),
        ("price>49.5", [2]),
        ("price>=49.5", [1, 2]),
        ("price=50", [2]),
        ("price=10.0", [0]),
        ("price!=50", [0, 1, 3, 4]),
        ("price=-5", [4]),
        ("tags=new", [0]),
        ("tags in (new, sale)", [0, 1]),
        ("sold=true", [1]),
        ("sold=False", [0]),
        ("maker.city=Oslo", [2]),
        ("'a.b'=flat", [3]),
        ("'brand name'='Ü & Co'", [0]),
        ("colour=red and price<5", [4]),
        ("colour=red AND price<50 and tags=sale", [0]),
        ("nowhere=red", []),
        ("nowhere!=red", [0, 1, 2, 3, 4]),
        ("nowhere<5", []),
        ("tags!=sale", [2, 3, 4]),
        ("sold!=true", [0, 2, 3, 4]),
        ("size!=38", [2, 3, 4]),
        ("maker.city!=Oslo", [0, 1, 3, 4]),
        ("maker.country=Norway", []),
        ("colour<5", []),
        ("size>37", [0]),
        ("size in (38, M) and n>0", [1, 2]),
        ("colour=''", []),
        ("colour='red '", []),
        ("colour=RED", []),
        ("note=' two  spaces '", [4]),
        ("note='two  spaces'", []),
    ],
)
def test_a_filter_finds_the_objects_that_meet_it(found, text, numbers):
    assert found(text) == numbers


def test_a_bare_number_equals_the_number_and_the_text_but_a_quoted_one_only_the_text(found):
    assert found("size=38") == [0, 1]
    assert found("size='38'") == [1]
    assert found("size in (38, M)") == [0, 1, 2]
    assert found("size=38.0") == [0, 1]
    assert found("size!=38.00") == [2, 3, 4]


def test_whole_numbers_beyond_what_floats_hold_are_told_apart(found):
    assert found("ean=9007199254740993") == [3]
    assert found("ean=9007199254740993.0") == [3]


def test_a_filter_becomes_typed_conditions():
    assert parse_filter('colour="light blue" and tag in (a, 2) and x.y>=1.5') == (
        Condition(("colour",), "=", (Value("light blue"),)),
        Condition(("tag",), "in", (Value("a"), Value("2", 2))),
        Condition(("x", "y"), ">=", (Value("1.5", 1.5),)),
    )


@pytest.mark.parametrize("text", [str(2**63), str(-(2**63)), "9" * 400, "9" * 5000, "1e999"])
def test_a_number_that_no_database_holds_is_a_text(text):
    assert parse_filter(f"ean={text}")[0].values == (Value(text),)
    with pytest.raises(QueryError, match="no number"):
        parse_filter(f"ean<{text}")


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("", "ends too early", "column"),
        ("colour", "ends too early", "="),
        ("colour=", "ends too early", "a value"),
        ("=red", "letter 1", "column"),
        ("colour==red", "letter 8", "a value"),
        ("colour=light blue", "letter 14: 'blue'", "quotes"),
        ("colour=red and", "ends too early", "column"),
        ("colour=red or price<5", "letter 12: 'or'", "and"),
        ("price<cheap", "letter 7: 'cheap'", "no number"),
        ("price<'50'", "letter 7", "no number"),
        ("tag in red", "letter 8", "("),
        ("tag in (red", "ends too early", ")"),
        ("tag in ()", "letter 9", "a value"),
        ("colour='red", "letter 8", "never closed"),
        ("colour!red", "letter 7: '!'", "!="),
        ("a..b=1", "letter 1", "column"),
    ],
)
def test_an_error_points_at_the_place_and_says_what_fits(text, place, hint):
    with pytest.raises(QueryError) as caught:
        parse_filter(text)
    assert caught.value.field == "filter"
    assert place in str(caught.value)
    assert hint in str(caught.value)


def test_a_column_that_qdrant_cannot_address_is_refused(tmp_path):
    collection = open_collection(f"qdrant:{tmp_path}/shop")
    collection.create(ModelRecord("m", "f", 2))
    with pytest.raises(QueryError, match="quote in its name"):
        collection.search(np.array([1, 0], dtype=np.float32), Ask(10, parse_filter("""'5" screen'=1""")))
    collection.close()


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("colour", ("colour",)),
        ("maker.city", ("maker", "city")),
        ('"brand name"', ("brand name",)),
        ("'a.b'", ("a.b",)),
    ],
)
def test_a_column_is_named_as_in_a_filter(text, column):
    assert parse_column(text) == column


@pytest.mark.parametrize("text", ["", "brand name", "a..b", "colour=red", "'open"])
def test_what_is_no_column_is_refused(text):
    with pytest.raises(QueryError, match="put quotes around odd names"):
        parse_column(text)
