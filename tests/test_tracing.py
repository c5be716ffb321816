"""Spans of requests, in this process and without Ray: what is sent, when nothing is, and what collectors may not do."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

import checkpoints
from cluster.errors import RecipeError
from collector import NEEDED, Collector, Span, has_exporter, open_collector
from pipelines.recipe.tables import Rerank
from pipelines.scorers import CrossEncoderScorer
from serving import tracing
from serving.api import build_app
from serving.catalog import ENCODER, RERANKER
from serving.messages import Limits
from serving.reranker import Reranker
from serving.served import Layout, Served
from serving.shard import Shards
from serving_apps import make_lexical_system
from test_generation import make_generation, open_encoder

ROOT = Path(__file__).parents[1]
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
QUERY = "the currency of Russia"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
needs_exporter = pytest.mark.skipif(not has_exporter(), reason=NEEDED)


def trace_parent(is_sampled: bool = True) -> dict[str, str]:
    return {"traceparent": f"00-{TRACE}-{PARENT}-0{int(is_sampled)}"}


def post(app: Any, path: str, headers: dict[str, str], **body: Any) -> httpx.Response:
    """Send a request to an application behind the middleware."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(tracing.RequestSpans(app, ["/search"]), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post(path, json=body, headers=headers)

    return asyncio.run(send())


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector to which this process sends its spans, when ``tracing.end`` is called or after a minute."""
    with open_collector() as opened:
        monkeypatch.setenv(ENDPOINT, opened.address)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
        assert tracing.start()
        assert not tracing.start()  # it has begun
        yield opened
        tracing.end()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_lexical_system(tmp_path_factory.mktemp("lexical"))


@pytest.fixture(scope="module")
def app(served: Served) -> Any:
    """The HTTP interface of a small system whose encoder and shards are apart."""
    layout = Layout.plan(served, Limits(), 0, with_encoder=True)
    shards = {group: Shards(layout, group) for group in layout.groups}
    generation = make_generation({ENCODER: open_encoder(layout), **shards})
    return build_app(generation, generation.info)


@needs_exporter
def test_a_search_is_one_trace_from_the_client_to_every_part(collector: Collector, app: Any) -> None:
    headers = trace_parent() | {"x-request-id": "mine-1"}
    assert post(app, "/search", headers, query=QUERY, languages=["en", "fa"]).status_code == 200
    tracing.end()
    assert {span.trace for span in collector.spans} == {TRACE}
    parts = {f"shard-{name} search" for name in ("en-00000", "en-00001", "fa-00000")}
    assert name_with_parents(collector) == {
        ("POST /search", PARENT),
        *((stage, "POST /search") for stage in ("encode", "search", "texts")),
        ("encoder encode", "encode"),
        *((part, "search") for part in parts),
    }
    assert len(collector.spans) == 5 + len(parts)
    check_request(collector.find("POST /search")[0])
    assert {span.kind for span in collector.spans if " " in span.name} == {"SERVER"}
    assert {span.kind for span in collector.spans if " " not in span.name} == {"INTERNAL"}
    editions = {span.attributes["babelray.serves"] for span in collector.spans if span.name != "POST /search"}
    assert len(editions) == 1
    assert "Russia" not in "".join(span.sent for span in collector.spans)
    assert {span.resource["service.name"] for span in collector.spans} == {"babelray"}


def check_request(span: Span) -> None:
    """What OpenTelemetry's conventions ask of the span of a request, and what is babelray's own."""
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/search",
        "url.path": "/search",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "babelray.request_id": "mine-1",
        "babelray.serves": "",  # written by the gateway, which is not here
    }
    assert not span.error


def name_with_parents(collector: Collector) -> set[tuple[str, str]]:
    """The names of all spans, each with that of its parent, or with its id where it was not sent."""
    by_id = {span.id: span.name for span in collector.spans}
    return {(span.name, by_id.get(span.parent, span.parent)) for span in collector.spans}


@needs_exporter
def test_spans_of_an_encoder_that_holds_the_shards_and_of_a_reranker(
    collector: Collector, served: Served, tmp_path: Path
) -> None:
    checkpoints.cross_encoder(tmp_path, ["the", "currency", "of", "russia"], layers=1)
    scorer = CrossEncoderScorer(model=str(tmp_path), max_length=64)
    served = replace(served, rerank=Rerank(scorer=scorer, candidates=4, default=True))
    layout = Layout.plan(served, Limits(), 1e9, with_encoder=True)
    generation = make_generation({ENCODER: open_encoder(layout), RERANKER: Reranker(layout)})
    assert post(build_app(generation, generation.info), "/search", trace_parent(), query=QUERY).status_code == 200
    tracing.end()
    assert name_with_parents(collector) == {
        ("POST /search", PARENT),
        *((stage, "POST /search") for stage in ("search", "texts", "rerank")),
        ("encoder search", "search"),
        ("encode", "encoder search"),
        ("reranker score", "rerank"),
    }


@needs_exporter
def test_other_calls_of_the_encoder_belong_to_their_request(collector: Collector, app: Any) -> None:
    assert post(app, "/encode", {}, input=[QUERY], input_type="query").status_code == 200
    tracing.end()
    (request,) = collector.find("POST")  # this path is none of the paths that are named here
    assert "http.route" not in request.attributes
    assert request.parent == ""
    (stage,) = collector.find("encode_texts")
    (call,) = collector.find("encoder encode_texts")
    assert (call.parent, stage.parent) == (stage.id, request.id)


@needs_exporter
def test_a_client_decides_that_its_request_is_not_traced(collector: Collector, app: Any) -> None:
    assert post(app, "/search", trace_parent(is_sampled=False), query=QUERY).status_code == 200
    assert post(app, "/livez", trace_parent(), query=QUERY).status_code == 404  # a probe, here without a gateway
    tracing.end()
    assert collector.spans == []


@needs_exporter
def test_a_traceparent_that_is_none_begins_a_trace(collector: Collector, app: Any) -> None:
    assert post(app, "/search", {"traceparent": "00-none-none-01"}, query=QUERY).status_code == 200
    tracing.end()
    (request,) = collector.find("POST /search")
    assert request.parent == ""


@needs_exporter
def test_errors_are_marked_and_their_messages_are_not_sent(collector: Collector) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/raises":
            with tracing.trace_stage("encode"):
                raise ValueError(f"cannot read {QUERY}")
        await PlainTextResponse("", status_code=int(scope["path"][1:]))(scope, receive, send)

    for path in ("/503", "/422", "/raises"):
        post(answer, path, {})
    tracing.end()
    spans = {span.attributes["url.path"]: span for span in collector.find("POST")}
    assert {path: (span.error, span.attributes.get("error.type")) for path, span in spans.items()} == {
        "/503": (True, "503"),
        "/422": (False, None),
        "/raises": (True, "ValueError"),
    }
    (stage,) = collector.find("encode")
    assert (stage.error, stage.parent) == (True, spans["/raises"].id)
    assert "Russia" not in "".join(span.sent for span in collector.spans)


@needs_exporter
@pytest.mark.parametrize("is_silent", [True, False], ids=["it does not answer", "nothing listens"])
def test_a_collector_that_takes_nothing_holds_up_no_request(
    monkeypatch: pytest.MonkeyPatch, app: Any, is_silent: bool
) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if is_silent:
            listening.listen()
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "8")  # each try, in the background
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
        assert tracing.start()
        begun = time.monotonic()
        for _ in range(5):
            assert post(app, "/search", {}, query=QUERY).status_code == 200
            time.sleep(0.01)  # spans of the one before are being sent
        assert time.monotonic() - begun < 7
        begun = time.monotonic()
        tracing.end()
        assert time.monotonic() - begun < tracing.END_S + 5


OFF = """
import asyncio, sys
from serving import tracing

async def answer(scope, receive, send):
    with tracing.trace_stage("encode"):
        assert tracing.carry() == {}

class Part(tracing.TracedReplica):
    name = "encoder"

    @tracing.trace_call
    async def encode(self, edition, text):
        return text

before = set(sys.modules)  # FastAPI imports OpenTelemetry's interface, and not what makes spans
scope = {"type": "http", "method": "POST", "path": "/search", "scheme": "http", "headers": [(b"traceparent", b"x")]}
asyncio.run(tracing.RequestSpans(answer, ["/search"])(scope, None, None))
assert asyncio.run(Part().encode("1f0c5a2b7d9e", "copper")) == "copper"
print(*sorted(set(sys.modules) - before), *[name for name in sys.modules if name.startswith("opentelemetry.sdk")])
"""


def test_nothing_is_imported_where_no_collector_is_named() -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ""),
        ({ENDPOINT: ""}, ""),
        ({ENDPOINT: "http://collector:4318/"}, "http://collector:4318/v1/traces"),
        ({ENDPOINT: "http://a", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://b/spans"}, "https://b/spans"),
        ({ENDPOINT: "http://a", "OTEL_SDK_DISABLED": "True"}, ""),
        ({ENDPOINT: "http://a", "OTEL_TRACES_EXPORTER": "none"}, ""),
    ],
)
def test_where_spans_go(environment: dict[str, str], expected: str) -> None:
    assert tracing.find_endpoint(environment) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({ENDPOINT: "http://a:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "expected http/protobuf, got grpc"),
        ({ENDPOINT: "collector:4318"}, "expected an address such as .* got collector:4318"),
    ],
)
def test_what_cannot_be_sent_to_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tracing.find_endpoint(environment)


def test_a_server_that_cannot_send_spans_says_so_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from serving.cli import app

    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)  # not installed
    result = CliRunner().invoke(app, ["serve", "atlas"])
    assert result.exit_code == 1
    assert "pip install 'babelray[trace]'" in result.output
    assert "Ray starts" not in result.output
