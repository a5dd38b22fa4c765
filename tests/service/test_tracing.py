"""Traces: received by a collector over HTTP, joined to the caller's, and without a word of what was asked."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cir_vectorizer.collections import open_collection
from cir_vectorizer.errors import CirError, MissingExtraError
from cir_vectorizer.service.tracing import KEPT, Tracing, from_environment
from cir_vectorizer.sources import open_source
from cir_vectorizer.sync import sync
from tests.service.test_stop import Process
from tests.support.serving import Running, drawn, serving, tiny, wait_for

pytest.importorskip("opentelemetry.instrumentation.fastapi")
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

KEY, TEXT, NEGATIVE, PAYLOAD = (
    "key-of-the-shop-4711",
    "in crimson velvet 0815",
    "polka dots 2342",
    "payload-sekrit-1234",
)
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """The test's collector: takes OTLP over HTTP on a port of this machine and keeps the bytes of every message."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self) -> list[Span]:
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resource(self) -> dict[str, str]:
        first = ExportTraceServiceRequest.FromString(self.bodies[0]).resource_spans[0].resource
        return {each.key: each.value.string_value for each in first.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


@pytest.fixture
def service(collector: Collector, tmp_path: Path) -> Iterator[Running]:
    (tmp_path / "photos").mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (64, 48), colour).save(tmp_path / "photos" / f"{colour}.png")
    (tmp_path / "shop.csv").write_text(f"image,about\nphotos/red.png,{PAYLOAD}\nphotos/blue.png,{PAYLOAD}\n")
    collection = open_collection(f"qdrant:{tmp_path}/index/shop")
    sync(open_source(tmp_path / "shop.csv"), collection, tiny())
    tracing = Tracing(OTLPSpanExporter(f"{collector.url}/v1/traces"), at_once=True)
    with serving(tracing=tracing, api_keys=f"shop:{KEY}", collections={"shop": [collection]}) as running:
        running.client.headers["cir-api-key"] = KEY
        yield running


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def named(collector: Collector, name: str) -> list[Span]:
    return [span for span in collector.spans() if span.name == name]


def test_a_composed_query_has_a_span_for_each_step(service, collector):
    asked = {"queries": [{"image": drawn(1), "text": TEXT}]}
    assert service.post("/v1/compose", asked).status_code == 200
    wait_for(lambda: named(collector, "POST /v1/compose"), 10)
    (request,) = named(collector, "POST /v1/compose")
    assert request.kind == Span.SPAN_KIND_SERVER
    assert attributes(request)["http.route"] == "/v1/compose"
    steps = [span for span in collector.spans() if span.trace_id == request.trace_id and span is not request]
    steps = [span for span in steps if span.name != request.name]
    assert {span.name for span in steps} == {"host work", "queue wait", "forward pass"}
    assert {span.parent_span_id for span in steps} == {request.span_id}
    slack = 5_000_000
    for span in steps:
        assert request.start_time_unix_nano - slack <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano + slack
    passes = {attributes(span)["cir.queue"]: attributes(span) for span in steps if span.name == "forward pass"}
    assert passes.keys() == {"tiny/picture", "tiny/composer lincir"}
    assert all(each["cir.batch_size"] == 1 and each["cir.device"] == "cpu" for each in passes.values())
    assert collector.resource()["service.name"] == "cir-vectorizer"


def test_pieces_of_one_batch_say_how_large_it_was(service, collector):
    assert service.post("/v1/embed", {"texts": [f"text {i}" for i in range(5)]}).status_code == 200
    wait_for(lambda: named(collector, "POST /v1/embed"), 10)
    sizes = [attributes(span)["cir.batch_size"] for span in named(collector, "forward pass")]
    assert len(sizes) == 5
    assert max(sizes) >= 4


def test_a_search_has_a_span_for_each_call_of_the_database(service, collector):
    answer = service.post("/v1/search", {"query": {"text": TEXT}})
    assert answer.json()["hits"][0]["payload"]["about"] == PAYLOAD
    wait_for(lambda: named(collector, "POST /v1/search"), 10)
    (request,) = named(collector, "POST /v1/search")
    calls = [span for span in named(collector, "database call") if span.trace_id == request.trace_id]
    assert {attributes(span)["cir.call"] for span in calls} >= {"search"}
    assert {attributes(span)["cir.collection"] for span in calls} == {"shop"}


def test_the_callers_trace_goes_on(service, collector, caplog):
    caplog.set_level(logging.INFO)
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert service.post("/m/tiny/vectorize", {"texts": ["red"]}, headers=headers).status_code == 200
    wait_for(lambda: named(collector, "POST /m/{name:path}/vectorize"), 10)
    (request,) = named(collector, "POST /m/{name:path}/vectorize")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    lines = [getattr(record, "cir_fields", {}) for record in caplog.records]
    assert TRACE in [line.get("trace_id") for line in lines if line.get("door") == "weaviate"]


def test_a_trace_that_the_caller_does_not_sample_is_not_sent(service, collector):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    assert service.post("/v1/embed", {"texts": ["red"]}, headers=headers).status_code == 200
    assert service.post("/v1/embed", {"texts": ["red"]}).status_code == 200
    wait_for(lambda: named(collector, "POST /v1/embed"), 10)
    assert TRACE not in {span.trace_id.hex() for span in collector.spans()}


def test_nothing_that_was_asked_reaches_the_collector(service, collector):
    secret_path, secret_query = "secretpath5150", "secretquery6160"
    picture = drawn(4242)
    query = {"image": picture, "text": TEXT, "negative_text": NEGATIVE}
    key = {"Authorization": f"Bearer {KEY}", "user-agent": f"agent {NEGATIVE}", "x-request-id": "request-id-778"}
    inside = {"data": query, "data_type": "object", "model": "tiny", "options": None}
    everything = [
        ("/v1/compose", {"queries": [query]}),
        ("/v1/explain", {"query": query}),
        ("/v1/search", {"query": query, "filter": f"about={PAYLOAD}"}),
        ("/v1/embeddings", {"input": [TEXT]}),
        ("/qdrant", {"inputs": [inside], "inference": "search", "token": KEY}),
        ("/vectorize", {"texts": [json.dumps(query), TEXT], "images": []}),
        ("/m/tiny/vectorize", {"texts": [TEXT], "images": [picture]}),
        (f"/m/{secret_path}/vectorize", {"texts": [TEXT]}),
        (f"/{secret_path}", {"text": TEXT}),
        (f"/v1/compose?text={secret_query}", {"queries": [{**query, "composer": TEXT}]}),
        ("/v1/compose", {"queries": [{"text": TEXT, "wrong": NEGATIVE}]}),
        ("/v1/embed", {"texts": [TEXT], "images": [TEXT]}),
    ]
    statuses = [service.post(path, body, headers=key).status_code for path, body in everything]
    assert set(statuses) >= {200, 400, 404}
    for headers in (
        {"cir-api-key": "wrong-key-999"},
        {"tracestate": f"shop={secret_query}", "baggage": f"text={secret_path}"},
    ):
        service.client.get(f"/v1/objects/{secret_path}/thumbnail?size={secret_query}", headers=headers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            service.service.engine.vectorizers["tiny"], "plan_text", lambda text: {}[text]
        )  # an error that quotes
        assert service.post("/v1/embed", {"texts": [TEXT]}).status_code == 500
    wait_for(lambda: len([span for span in collector.spans() if span.kind == Span.SPAN_KIND_SERVER]) >= 15, 20)
    sent = b"".join(collector.bodies)
    for secret in (
        KEY, TEXT, NEGATIVE, PAYLOAD, secret_path, secret_query, "wrong-key-999", "request-id-778", picture[:40], "127.0.0.1",
    ):  # fmt: skip
        assert secret.encode() not in sent, secret
    for span in collector.spans():
        assert attributes(span).keys() <= KEPT
        assert not span.events
        assert not span.links
        assert not span.status.message


def test_probes_and_metrics_have_no_trace(service, collector):
    for path in ("/.well-known/live", "/m/tiny/.well-known/ready", "/metrics", "/page/page.js", "/docs"):
        service.client.get(path)
    assert service.post("/v1/embed", {"texts": ["red"]}).status_code == 200
    wait_for(lambda: named(collector, "POST /v1/embed"), 10)
    assert {span.name for span in collector.spans() if span.kind == Span.SPAN_KIND_SERVER} == {"POST /v1/embed"}


def test_the_environment_turns_it_on(collector, monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    assert from_environment() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-search")
    for name, value in (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")):
        with monkeypatch.context() as off:
            off.setenv(name, value)
            assert from_environment() is None
    tracing = from_environment()
    assert tracing is not None
    with serving(tracing=tracing) as service:
        assert service.post("/v1/embed", {"texts": ["red"]}).status_code == 200
    assert {"POST /v1/embed", "forward pass"} <= {span.name for span in collector.spans()}  # sent when it stopped
    assert collector.resource()["service.name"] == "shop-search"


def test_a_real_process_sends_what_is_left_when_it_ends(collector):
    started = Process(
        "--drain-seconds", "0", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="60000"
    )
    try:
        started.wait_until_ready()
        assert started.ask("POST", "/v1/embed", {"texts": ["red"]})[0] == 200
        started.process.send_signal(signal.SIGTERM)
        assert started.process.wait(30) == 0, started.raw
    finally:
        started.process.kill()
    assert {"POST /v1/embed", "host work", "queue wait", "forward pass"} <= {span.name for span in collector.spans()}
    (line,) = [each for each in started.lines if each.get("door") == "rest"]
    assert line["trace_id"] == named(collector, "POST /v1/embed")[0].trace_id.hex()


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "usually 4318"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_a_sentence(environment, sentence):
    with pytest.raises(CirError, match=sentence):
        from_environment(environment)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.fastapi", None)
    monkeypatch.setattr("cir_vectorizer.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"cir-vectorizer\[otel\]"):
        from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"})


def test_a_collector_that_is_gone_costs_no_answer(caplog):
    tracing = Tracing(OTLPSpanExporter("http://127.0.0.1:9/v1/traces", timeout=1))
    with serving(tracing=tracing) as service:
        assert service.post("/v1/embed", {"texts": ["red"]}).status_code == 200


def test_nothing_of_opentelemetry_is_imported_while_it_is_off():
    code = (
        "import sys, cir_vectorizer.service.app, cir_vectorizer.service.run\n"
        "from cir_vectorizer.service.tracing import from_environment\n"
        "assert from_environment() is None\n"
        "assert 'opentelemetry.sdk' not in sys.modules and 'opentelemetry.instrumentation' not in sys.modules\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)
