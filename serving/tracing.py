"""Spans of requests, in OpenTelemetry's form: what each stage of a request took, and in which process.

    POST /search                       gateway: a request
    ├─ encode ── encoder encode        gateway: a stage ── another process: the call that the stage made there
    └─ search ── shards-0 search

Off unless the environment names a collector of OTLP over HTTP, as for every SDK of OpenTelemetry, of which this module
imports nothing until then. A request joins the trace of its ``traceparent`` and follows what that says about sampling.
A call to a part carries that of its stage. Spans hold no text: no query, no document, no message of an exception.

Cost: at most 2048 spans wait in memory, and a thread sends them; those that the collector does not take are dropped.
"""

import functools
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.errors import RecipeError
from serving.admission import find_path, read_request_id

OTLP = "OTEL_EXPORTER_OTLP_"
SERVES, SERVES_HEADER = "babelray.serves", b"x-babelray-serves"  # the editions that answered
PROBES = ("/livez", "/readyz")  # asked every few seconds by what watches the server: they have no spans
# By OpenTelemetry's conventions any other method is "_OTHER", so that clients cannot make names without end.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
END_S = 2.0  # how long a process that ends waits for its last spans to be sent
Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])


class _Tracing(NamedTuple):
    tracer: Any  # makes spans
    provider: Any  # sends them
    propagator: Any  # reads and writes ``traceparent``


_tracing: _Tracing | None = None  # of this process


def find_endpoint(environment: Mapping[str, str] = os.environ) -> str:
    """The address to which spans are sent; "" where the environment names none, or turns tracing off. Raises
    RecipeError where it asks for something else than OTLP over HTTP."""
    base = environment.get(f"{OTLP}ENDPOINT", "").rstrip("/")
    endpoint = environment.get(f"{OTLP}TRACES_ENDPOINT") or (f"{base}/v1/traces" if base else "")
    is_off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not endpoint or is_off or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return ""
    protocol = environment.get(f"{OTLP}TRACES_PROTOCOL") or environment.get(f"{OTLP}PROTOCOL") or "http/protobuf"
    if protocol != "http/protobuf":
        raise RecipeError(f"{OTLP}PROTOCOL: expected http/protobuf, got {protocol}: name the collector's port for HTTP")
    if not endpoint.startswith(("http://", "https://")):
        raise RecipeError(f"{OTLP}ENDPOINT: expected an address such as http://127.0.0.1:4318, got {endpoint}")
    return endpoint


def load_exporter() -> Any:
    """The class that sends spans; None where tracing is off. Raises RecipeError where it cannot be as it is wanted."""
    if not find_endpoint():
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        remedy = "pip install 'babelray[trace]', or unset it"
        raise RecipeError(f"{OTLP}ENDPOINT asks for traces, and their exporter is not installed: {remedy}") from error
    return OTLPSpanExporter


def start() -> bool:
    """Begin to make spans in this process where that is wanted. Returns whether this call did."""
    global _tracing
    exporter = load_exporter()
    if _tracing or exporter is None:
        return False
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    resource = Resource.create({"process.pid": os.getpid()})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):  # the environment names none
        resource = resource.merge(Resource({"service.name": "babelray"}))
    # of our own, not OpenTelemetry's global one, which Serve's own tracing sets
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter()))
    _tracing = _Tracing(provider.get_tracer("babelray"), provider, TraceContextTextMapPropagator())
    return True


def end() -> None:
    """Make no more spans, and send those that are left, for at most ``END_S`` seconds."""
    global _tracing
    if _tracing:
        sending = threading.Thread(target=_tracing.provider.shutdown, daemon=True, name="last-spans")
        _tracing = None
        sending.start()
        sending.join(END_S)


class TracedReplica:
    """A replica whose process makes spans where that is wanted. Serve calls ``__del__`` when it ends a replica."""

    _began = False  # of one that could not be made

    def __init__(self) -> None:
        self._began = start()

    def __del__(self) -> None:
        if self._began:
            end()


def trace_stage(name: str, edition: str = "") -> AbstractContextManager[Any]:
    """The span of a stage of the request that is answered; nothing where that is not traced."""
    return _record(name, {SERVES: edition} if edition else {}) if _is_traced() else nullcontext()


def carry() -> dict[str, Mapping[str, str]]:
    """What a call to a part carries beside its arguments, so that its span belongs to the stage that makes it."""
    carried: dict[str, str] = {}
    if _tracing and _is_traced():
        _tracing.propagator.inject(carried)
    return {"carried": carried} if carried else {}


def trace_call(method: Method) -> Method:
    """Let a method of a part make a span of each call that carries a ``traceparent``."""

    @functools.wraps(method)
    async def call(self: Any, edition: str, *args: Any, carried: Mapping[str, str] | None = None) -> Any:
        name, is_traced = f"{self.name} {method.__name__}", _tracing is not None and carried is not None
        with _record(name, {SERVES: edition}, carried) if is_traced else nullcontext():
            return await method(self, edition, *args)

    return cast(Method, call)


class RequestSpans:
    """ASGI middleware that makes a span of every request but probes. ``routes``: paths that may be in a span's name."""

    def __init__(self, app: ASGIApp, routes: Iterable[str]):
        self.app, self.routes = app, frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _tracing is None or scope["type"] != "http" or (path := find_path(scope)) in PROBES:
            await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        attributes = {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]}
        attributes["babelray.request_id"] = read_request_id(scope)
        attributes |= {"http.route": path} if path in self.routes else {}
        name = " ".join(["HTTP" if method == "_OTHER" else method, attributes.get("http.route", "")]).strip()
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        with _record(name, attributes, headers) as span:

            async def send_recorded(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status, serves = message["status"], dict(message.get("headers", ())).get(SERVES_HEADER, b"")
                    span.set_attributes({"http.response.status_code": status, SERVES: serves.decode()})
                    if status >= 500:
                        _mark_error(span, str(status))
                await send(message)

            await self.app(scope, receive, send_recorded)


def _is_traced() -> bool:
    """Whether what runs now has a span that is recorded."""
    if _tracing is None:
        return False
    from opentelemetry.trace import get_current_span

    return get_current_span().is_recording()


def _mark_error(span: Any, kind: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)


@contextmanager
def _record(name: str, attributes: Mapping[str, Any], carried: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A span within the current one; or, of what a client or another process asks for, within that of ``carried``."""
    from opentelemetry.trace import SpanKind

    tracing = cast(_Tracing, _tracing)
    context = None if carried is None else tracing.propagator.extract(carried)
    kind = SpanKind.INTERNAL if carried is None else SpanKind.SERVER
    quiet = {"record_exception": False, "set_status_on_exception": False}  # a message may repeat what was asked
    with tracing.tracer.start_as_current_span(name, context, kind, attributes, **quiet) as span:
        try:
            yield span
        except Exception as error:  # not of a call that is cancelled: the stage that waited for it has the error
            _mark_error(span, type(error).__qualname__)
            raise
