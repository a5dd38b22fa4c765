"""The OpenAPI document is true: requests that fit it are answered with 200, others are refused with a sentence."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from cir_vectorizer.service.http.queries import PICTURE_FORMAT
from tests.support.serving import Running, drawn, serving

schemathesis = pytest.importorskip("schemathesis")
from schemathesis.generation import GenerationMode  # noqa: E402

BOUNDED = settings(
    max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
pictures = [drawn(number) for number in range(5)]
schemathesis.openapi.format(PICTURE_FORMAT, st.sampled_from([*pictures, f"data:image/png;base64,{pictures[0]}"]))


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with serving() as running:
        yield running


def for_each_operation(service: Running, mode: GenerationMode, check: Callable[[Any], None]) -> None:
    """Run `check` with requests to every operation that the document describes."""
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 10
    for operation in operations:
        test = settings(BOUNDED)(given(case=operation.as_strategy(generation_mode=mode))(lambda case: check(case)))
        with contextlib.suppress(Unsatisfiable):  # for an address without parameters no request can be wrong
            test()


@pytest.mark.slow
def test_requests_that_fit_are_answered(service):
    def check(case: Any) -> None:
        answer = case.call()
        assert answer.status_code in (200, 204), (case.operation.label, case.body, answer.text[:500])

    for_each_operation(service, GenerationMode.POSITIVE, check)


@pytest.mark.slow
def test_requests_that_do_not_fit_never_break_it(service):
    def check(case: Any) -> None:
        answer = case.call()
        assert answer.status_code < 500, (case.operation.label, case.body, answer.text[:500])
        if answer.status_code >= 400:
            assert list(answer.json())[:2] == ["error", "code"]

    for_each_operation(service, GenerationMode.NEGATIVE, check)


def test_the_worked_examples_work(service):
    document = service.client.get("/openapi.json").json()
    count = 0
    for path, item in document["paths"].items():
        content = item.get("post", {}).get("requestBody", {}).get("content", {})
        for example in content.get("application/json", {}).get("examples", {}).values():
            answer = service.post(path.replace("{name}", "tiny"), example["value"])
            assert answer.status_code == 200, (path, answer.text)
            count += 1
    assert count >= 10
    assert set(document["components"]["securitySchemes"]) == {"basic", "bearer", "header"}


def test_every_address_of_the_applications_door_is_described(service):
    described_paths = set(service.client.get("/openapi.json").json()["paths"])
    assert {
        "/v1/compose",
        "/v1/embed",
        "/v1/embeddings",
        "/v1/multimodalembeddings",
        "/v1/explain",
        "/v1/models",
        "/vectorize",
        "/qdrant",
        "/meta",
    } <= described_paths
    assert service.client.get("/docs").status_code == 200
