"""A collector of OpenTelemetry's spans on loopback: takes OTLP over HTTP, and keeps what came."""

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

NEEDED = "needs opentelemetry-exporter-otlp-proto-http: pip install 'babelray[trace]'"


class Span(NamedTuple):
    """A span as it was sent. ``error`` is whether its status is ERROR; ``sent`` is all of it, as text."""

    name: str
    trace: str
    id: str
    parent: str
    kind: str
    error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]
    sent: str


class Collector:
    """What came so far."""

    def __init__(self, address: str):
        self.address = address
        self.spans: list[Span] = []

    def find(self, name: str, trace: str | None = None) -> list[Span]:
        """The spans of a name, of a trace or of all."""
        return [span for span in self.spans if span.name == name and trace in (None, span.trace)]


def has_exporter() -> bool:
    """Whether spans can be sent from here."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


@contextmanager
def open_collector() -> Iterator[Collector]:
    """Take spans until the end of the block."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            message = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            collector.spans += read_spans(message)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def read_spans(message: ExportTraceServiceRequest) -> list[Span]:
    """The spans of a message."""
    return [
        Span(
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            span.status.code == span.status.STATUS_CODE_ERROR,
            _read_attributes(span.attributes),
            _read_attributes(of_process.resource.attributes),
            str(span),
        )
        for of_process in message.resource_spans
        for scope in of_process.scope_spans
        for span in scope.spans
    ]


def _read_attributes(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
