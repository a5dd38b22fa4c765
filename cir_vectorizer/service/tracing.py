"""OpenTelemetry: a trace of each request, by FastAPI's own instrumentation and with spans of ours for its steps.

Off unless the environment asks for it (`OTEL_…`, as for any program); nothing of OpenTelemetry is imported before. Spans
leave this process only with the names and attributes listed here: what a library notes besides, such as addresses with
their query, headers, or the message of an exception, may quote a request.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cir_vectorizer import __version__, extras
from cir_vectorizer.errors import CirError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Tracer

KEPT = frozenset(
    {
        "http.method", "http.request.method", "http.route", "http.status_code", "http.response.status_code", "http.scheme",
        "url.scheme", "http.flavor", "network.protocol.version", "error.type",
        "cir.queue", "cir.batch_size", "cir.device", "cir.collection", "cir.call",
    }
)  # fmt: skip
"""Attributes that may leave this process."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_QUIET = "/.well-known/,/metrics$,/page/,/docs"
"""Addresses without traces: probes and assets would drown the rest."""


class Tracing:
    """A service's traces; the engine's `Trace`.

    Args:
        exporter: sends spans away.
        at_once: send each span when it ends, instead of many from time to time.
    """

    def __init__(self, exporter: "SpanExporter", at_once: bool = False) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "cir-vectorizer"}
        resource = Resource.create({"service.version": __version__, **named})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        clean = _clean(exporter)
        self._provider.add_span_processor(SimpleSpanProcessor(clean) if at_once else BatchSpanProcessor(clean))
        self._tracer: Tracer = self._provider.get_tracer("cir_vectorizer", __version__)

    def instrument(self, app: "FastAPI") -> None:
        """Begin a trace, or go on with the caller's (`traceparent`), for each request of an application."""
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(
            app, tracer_provider=self._provider, excluded_urls=_QUIET, exclude_spans=["receive", "send"]
        )

    def span(self, name: str, began: float, ended: float, **attributes: str | int) -> None:
        """Note a step of the present request, from `began` to `ended` as of `time.monotonic`."""
        zero = time.time_ns() - time.monotonic_ns()
        started = self._tracer.start_span(name, start_time=zero + int(began * 1e9), attributes=attributes)
        started.end(zero + int(ended * 1e9))

    def close(self) -> None:
        """Send what is left, and end the threads."""
        self._provider.shutdown()


def trace_id() -> str | None:
    """Return the id (hex) of the present request's trace, for its log line; None outside of one."""
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else None


def from_environment(environment: Mapping[str, str] = os.environ) -> Tracing | None:
    """Return the traces that the environment asks for; None if it asks for none.

    Raises:
        MissingExtraError: the extra `otel` is not installed.
        CirError: it asks for an exporter or a protocol that is not at hand.
    """
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    endpoint = any(environment.get(name) for name in _ENDPOINTS)
    off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none"
    if off or not (exporter or endpoint):
        return None
    extras.require("otel", "tracing (OTEL_…)", "unset OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_EXPORTER")
    if exporter == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return Tracing(ConsoleSpanExporter())
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "http/protobuf")
    if exporter not in ("", "otlp"):
        raise CirError(f"OTEL_TRACES_EXPORTER={exporter} is not known here; set it to otlp, console or none")
    if protocol != "http/protobuf":
        raise CirError(
            f"spans are sent by http/protobuf alone, and the environment asks for {protocol}; set "
            "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf and the collector's port for it, usually 4318"
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return Tracing(OTLPSpanExporter())


def _clean(exporter: "SpanExporter") -> "SpanExporter":
    """Return an exporter that sends spans without anything that may quote a request."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Status

    def cleaned(span: "ReadableSpan") -> "ReadableSpan":
        kept: dict[str, Any] = {name: value for name, value in (span.attributes or {}).items() if name in KEPT}
        return ReadableSpan(
            span.name,
            span.context,
            span.parent,
            span.resource,
            kept,
            kind=span.kind,
            status=Status(span.status.status_code),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    class Clean(SpanExporter):
        def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
            return exporter.export([cleaned(span) for span in spans])

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30000) -> bool:
            return exporter.force_flush(timeout_millis)

    return Clean()
