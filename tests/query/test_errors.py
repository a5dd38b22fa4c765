"""Errors carry a code, a field and a position beside the sentence, and no code reads the sentence."""

import ast
import pickle
from pathlib import Path

import pytest

import cir_vectorizer.service.app  # noqa: F401  defines the service's own errors
from cir_vectorizer.collections.searching import Search
from cir_vectorizer.errors import CirError, CollectionError, ImageError, PartialWriteError, QueryError
from cir_vectorizer.query import ComposedQuery, parse_pictures

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("cir_vectorizer", "trainer", "plugins", "integrations")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def kinds(kind: type[CirError] = CirError) -> list[type[CirError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in kinds(below))]


def test_the_codes_never_change():
    codes = {kind.__name__: kind.code for kind in kinds() if kind.__module__ == "cir_vectorizer.errors"}
    assert codes == {
        "CirError": "error",
        "QueryError": "query",
        "ImageError": "image",
        "ModelError": "model",
        "CheckpointError": "checkpoint",
        "BackboneMismatch": "backbone-mismatch",
        "ComposerMismatch": "composer-mismatch",
        "CaptionError": "captions",
        "SourceError": "source",
        "CollectionError": "collection",
        "AddressError": "collection-address",
        "PartialWriteError": "partial-write",
        "OverloadError": "overload",
        "DeviceError": "device",
        "DeviceFullError": "device-memory",
        "MissingExtraError": "missing-extra",
        "ServiceError": "service",
    }


def test_a_query_names_its_field_beside_the_sentence():
    with pytest.raises(QueryError) as caught:
        ComposedQuery.parse({"text": "red", "options": {"steps": 0}})
    error = caught.value
    assert (error.code, error.field, error.index) == ("query", "options.steps", None)
    assert str(error) == f"options.steps: {error.problem}"


def test_an_error_is_placed_deeper_and_the_first_one_stays_as_it_was():
    inner = QueryError("options.steps", "is 0; give at least 1")
    item = inner.within("queries", 3)
    assert str(item) == "queries[3]: options.steps: is 0; give at least 1"
    assert (item.field, item.index) == ("queries.3.options.steps", 3)
    assert (item.item_error, item.problem) == (str(inner), "is 0; give at least 1")
    below = item.at("body")
    assert str(below) == f"body: {item}"
    assert (below.field, below.index, below.item_error) == ("body.queries.3.options.steps", 3, str(inner))
    assert (inner.field, inner.index, inner.item_error) == ("options.steps", None, None)


def test_a_placed_error_keeps_its_cause_and_kind():
    cause = ConnectionError("refused")
    error = CollectionError("the database is away; start it")
    error.__cause__ = cause
    placed = error.within("inputs", 0, said="inputs[0] (model 'tiny'): ")
    assert type(placed) is CollectionError
    assert placed.__cause__ is cause
    assert str(placed) == "inputs[0] (model 'tiny'): the database is away; start it"
    assert str(placed.saying("shop is away")) == "inputs[0] (model 'tiny'): shop is away"


@pytest.mark.parametrize(
    "error",
    [
        QueryError("text", "is empty").within("queries", 2),
        ImageError("url", "is at a host that is not known").at("image.0", said="image.0 "),
        PartialWriteError({7: "too long"}, 3),
    ],
)
def test_errors_travel_between_processes_with_their_data(error):
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error)
    assert (str(other), vars(other)) == (str(error), vars(error))


@pytest.mark.parametrize(
    ("pictures", "field", "index"),
    [
        ([{"id": 1}, {"id": 2, "colour": "red"}], "like.1.colour", 1),
        ([{"id": 1}] * 17, "like", None),
        ([{"id": 1}, {}, 5], "like.1", 1),
    ],
)
def test_pictures_that_results_should_be_like_are_named_by_their_position(pictures, field, index):
    for read in (lambda: parse_pictures(pictures, "like"), lambda: Search.read(like=pictures)):
        with pytest.raises(QueryError) as caught:
            read()
        assert (caught.value.field, caught.value.index) == (field, index)
        assert str(caught.value).startswith(f"{field}: ")


def test_a_column_to_group_by_that_is_none_is_named():
    with pytest.raises(QueryError) as caught:
        Search.read({"text": "red"}, group_by="a b")
    assert caught.value.field == "group_by"
    assert str(caught.value) == "group_by: 'a b' is no column's name; put quotes around odd names"


READERS = {
    "fullmatch", "match", "search", "sub", "split", "findall", "finditer", "removeprefix", "removesuffix", "partition",
    "rpartition", "rsplit", "startswith", "endswith", "replace", "index", "find", "strip",
}  # fmt: skip


class _Reading(ast.NodeVisitor):
    """Find code that takes apart the sentence of one of our own errors, or writes another into its `args`."""

    def __init__(self, ours: set[str]) -> None:
        self.ours = ours
        self.names: list[str] = []
        self.lines: list[int] = []

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        caught = {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)} if node.type else set()
        if node.name and caught & self.ours:
            self.names.append(node.name)
            self.generic_visit(node)
            self.names.pop()
        else:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        reads = isinstance(node.func, ast.Attribute) and node.func.attr in READERS
        if reads and any(map(self.is_sentence, [node.func.value, *node.args])):
            self.lines.append(node.lineno)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if any(map(self.is_sentence, [node.left, *node.comparators])):
            self.lines.append(node.lineno)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr == "args" and isinstance(node.value, ast.Name) and node.value.id in self.names:
            self.lines.append(node.lineno)
        self.generic_visit(node)

    def is_sentence(self, node: ast.expr) -> bool:
        """True if the node is `str(error)` of an error that was caught as one of ours."""
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str" and node.args):
            return False
        return isinstance(node.args[0], ast.Name) and node.args[0].id in self.names


def test_no_code_reads_our_own_sentences():
    ours = {kind.__name__ for kind in kinds()}
    found = []
    for path in SOURCES:
        reading = _Reading(ours)
        reading.visit(ast.parse(path.read_text(encoding="utf-8")))
        found += [f"{path.relative_to(ROOT)}:{line}" for line in reading.lines]
    assert found == []


def test_such_code_would_be_found():
    reading = _Reading({"QueryError"})
    reading.visit(
        ast.parse(
            "try: read()\n"
            "except QueryError as error:\n"
            "    a = str(error).removeprefix('x: ')\n"
            "    b = re.fullmatch('x', str(error))\n"
            "    c = 'x' in str(error)\n"
            "    error.args = ('y',)\n"
        )
    )
    assert reading.lines == [3, 4, 5, 6]


def test_a_query_of_a_batch_is_named_by_its_position(tiny, tmp_path):
    good = {"text": "red"}
    with pytest.raises(QueryError) as caught:
        tiny.compose([good, {"text": "red", "composer": "none"}])
    assert (caught.value.field, caught.value.index) == ("composer", 1)
    (broken := tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError) as refused:
        tiny.compose([good, good, {"image": broken, "text": "red"}])
    assert (refused.value.field, refused.value.index) == ("image.0", 2)
    assert str(refused.value).startswith(f"{broken} ")
