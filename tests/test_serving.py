"""The served application over HTTP on a real Ray Serve, compared with offline search and merging."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import httpx
import pytest
import yaml
from openapi_spec_validator import validate as validate_openapi
from ray.exceptions import ActorDiedError

import serving.app
import serving_apps
from cluster.artifact import Artifact
from cluster.errors import RecipeError, StepError
from cluster.storage import Place
from pipelines import recipe
from pipelines.indexes.base import SearchOptions
from pipelines.search import open_shards, search
from serving.api import UnavailableError, build_app
from serving.app import GatewayArgs, Scale, ServeArgs, application
from serving.arrange import share_ties
from serving.calls import gather
from serving.config import add_words, build_config
from serving.messages import Info, LanguageInfo, Limits

# importing Ray Data warns about a deprecated setting of its own
pytestmark = pytest.mark.filterwarnings("ignore:.use_push_based_shuffle:DeprecationWarning")
ROOT = Path(__file__).parents[1]
JSON = {"content-type": "application/json"}


def open_client(served, name):
    return httpx.Client(base_url=served.url(name), timeout=60)


@pytest.fixture(scope="module", params=serving_apps.SYSTEMS)
def system(request, served):
    return served.systems[request.param]


@pytest.fixture(scope="module")
def http_of_each(system, served):
    """A client of ``system``."""
    (name,) = (name for name, candidate in served.systems.items() if candidate is system)
    with open_client(served, name) as opened:
        yield opened


@pytest.fixture(scope="module")
def http(served):
    """A client of the BM25 system, for what does not depend on the system."""
    with open_client(served, "words") as opened:
        yield opened


@pytest.fixture(scope="module")
def lexical(served):
    with open_client(served, "lexical") as opened:
        yield opened


@cache
def load_student(directory):
    from pipelines.students import load_encoder

    return load_encoder(directory, "cpu")


def search_offline(system, query, k, langs=None, **options):
    """Compute the pooled ranking with the offline code, in this process. Languages of equal score take turns."""
    text = query
    if system.student:
        query = load_student(system.student.place.path / system.encoder.checkpoint).encode_queries([query])[0]
    options = SearchOptions(k=k, **options)
    found = {lang: search(open_shards(system.index.place, lang), [query], options)[0] for lang in langs or system.docs}
    return [(f"{hit.lang}:{hit.doc_id}", hit.score) for hit in share_ties(found, text)][:k]


def list_names(results):
    return [f"{r['lang']}:{r['doc_id']}" for r in results]


def find_replicas(app, name):
    """Find the process ids of a deployment's replicas."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"ServeReplica:{app}:{name}" in title:
            found.append(int(process.name))
    return found


def test_ids_and_a_filter_limit_what_the_parts_search(http, lexical):
    """The field ``part`` is 1 for the second part of English, 0 elsewhere."""
    asked = {"query": "the currency of Russia and Иран", "k": 100}
    whole = http.post("/search", json=asked).json()["results"]

    def find(**limits):
        answer = http.post("/search", json=asked | limits)
        assert answer.status_code == 200, answer.text
        return [(r["lang"], r["doc_id"], r["score"]) for r in answer.json()["results"]]

    def expect(holds):
        return [(r["lang"], r["doc_id"], r["score"]) for r in whole if holds(r["lang"], r["doc_id"])]

    second = {"field": "part", "op": "==", "value": 1}
    late = ("d3", "d4", "d5")
    assert find(filter=second) == expect(lambda lang, name: lang == "en" and name in late) != []
    assert find(filter={"not": second}) == expect(lambda lang, name: lang != "en" or name not in late) != []
    assert find(ids=["d0", "d3", "none"]) == expect(lambda _, name: name in ("d0", "d3")) != []
    assert find(ids=["d0", "d3"], filter=second) == expect(lambda lang, name: (lang, name) == ("en", "d3")) != []
    assert find(ids=[]) == []
    refused = lexical.post("/search", json=asked | {"filter": second})
    assert refused.status_code == 422
    assert "have no metadata to filter by: name the fields that are to be kept in the recipe" in refused.json()["error"]


@pytest.mark.parametrize("query", ["the currency of Russia", "Столица Ирана", "首都 伊朗", "x"])
@pytest.mark.parametrize(("k", "langs"), [(1, None), (3, None), (20, None), (5, ["fa", "en"]), (2, ["en"])])
def test_search_equals_offline_search_and_merge(http_of_each, system, query, k, langs):
    answer = http_of_each.post("/search", json={"query": query, "k": k, "languages": langs})
    assert answer.status_code == 200
    results = answer.json()["results"]
    expected = search_offline(system, query, k, langs)
    assert list_names(results) == [name for name, _ in expected]
    assert [r["score"] for r in results] == pytest.approx([score for _, score in expected], rel=1e-5)
    assert [r["rank"] for r in results] == list(range(1, len(results) + 1))


def test_search_returns_title_and_text_of_each_document(http_of_each, system):
    answer = http_of_each.post("/search", json={"query": "the currency of Russia", "k": 20}).json()
    everything = {
        (lang, f"d{n}"): doc
        for lang, parts in serving_apps.TEXTS.items()
        for n, doc in enumerate(d for part in parts for d in part)
    }
    assert answer["results"]
    for result in answer["results"]:
        assert (result["title"], result["text"]) == everything[result["lang"], result["doc_id"]]
    assert answer["query"] == "the currency of Russia"
    assert set(answer["took_ms"]) == {"search", "texts", "total"} | ({"encode"} if system.student else set())
    parts = sum(ms for name, ms in answer["took_ms"].items() if name != "total")
    assert 0 < parts <= answer["took_ms"]["total"] + 0.05  # each duration is rounded


def count_shared_batches(served):
    """Count the encoders' batches of more than one query, from Serve's Prometheus metrics."""
    text = httpx.get(served.metrics).text
    counts = [r"count\{.*\}", r'bucket\{.*le="1\.0".*\}']
    batches, single = (re.findall(rf"^ray_serve_actual_batch_size_{count} (\S+)$", text, re.M) for count in counts)
    return sum(map(float, batches)) - sum(map(float, single))


def test_concurrent_requests_share_batches_and_get_their_own_answers(served):
    queries = [f"{word} {n}" for n in range(15) for word in ("currency", "Столица", "首都")]

    async def send():
        async with httpx.AsyncClient(base_url=served.url("dense"), timeout=60) as clients:
            return await asyncio.gather(*(clients.post("/search", json={"query": q, "k": 3}) for q in queries))

    before = count_shared_batches(served)
    for query, answer in zip(queries, asyncio.run(send()), strict=True):
        body = answer.json()
        assert body["query"] == query
        results = [(f"{r['lang']}:{r['doc_id']}", pytest.approx(r["score"], rel=1e-4)) for r in body["results"]]
        assert [(name, score) for name, score in search_offline(served.systems["dense"], query, 3)] == results
    deadline = time.monotonic() + 30
    while count_shared_batches(served) == before:
        assert time.monotonic() < deadline, "every query was encoded alone"


def test_texts_are_encoded_scored_and_matched_by_the_encoder(served):
    """Through Serve, in several calls to the encoder: more texts than one call takes."""
    texts = [f"The rial {n} is the currency of Iran." for n in range(70)]
    for name in ("dense", "lexical"):
        student = load_student(served.systems[name].student.place.path / "best")
        with open_client(served, name) as client:
            answer = client.post("/encode", json={"input": texts, "input_type": "document"}).json()
            expected = student.encode_docs(texts)
            assert [item["vectors"] for item in answer["data"]] == [len(vectors) for vectors in expected]
            for item, vectors in zip(answer["data"], expected, strict=True):
                assert item["embedding"] == [pytest.approx(row.tolist(), abs=1e-5) for row in vectors]
            ranked = client.post("/v2/rerank", json={"query": "rial 69", "documents": texts}).json()["results"]
            assert sorted(item["index"] for item in ranked) == list(range(70))
            assert ranked[0]["index"] == 69 or name == "dense"
    with open_client(served, "lexical") as client:
        found = client.post("/search", json={"query": "currency of Iran", "k": 20, "explain": True}).json()["results"]
    assert len(found) > 4
    for result in found:
        assert [match["query"]["text"] for match in result["matches"]] == ["currency", "of", "Iran"]


def test_probes_reach_the_index(served, lexical):
    """One probed cell per query vector finds fewer documents than all cells, and the same ones as offline."""
    query = "currency"
    few, all_of_them = (search_offline(served.systems["lexical"], query, 20, probes=probes) for probes in (1, 10_000))
    assert len(few) < len(all_of_them)
    for probes, expected in ((1, few), (10_000, all_of_them)):
        answer = lexical.post("/search", json={"query": query, "k": 20, "probes": probes})
        assert list_names(answer.json()["results"]) == [name for name, _ in expected]


@pytest.mark.parametrize("query", ["…", "\u200b"])
def test_query_without_words_has_no_results(lexical, http, query):
    for server in (lexical, http):
        answer = server.post("/search", json={"query": query})
        assert (answer.status_code, answer.json()["results"]) == (200, [])


BAD = {
    "not json": (b'{"query": "x"', "body", "valid JSON"),
    "nothing": (b"", "body", "JSON object"),
    "a list": (b"[]", "body", "JSON object"),
    "no query": (b'{"k": 3}', "query", "1 to 200 characters"),
    "empty query": (b'{"query": ""}', "query", "1 to 200 characters"),
    "blank query": (b'{"query": " \\n "}', "query", "1 to 200 characters"),
    "long query": (json.dumps({"query": "я" * 201}).encode(), "query", "1 to 200 characters"),
    "query of another type": (b'{"query": 5}', "query", "a text"),
    "lone surrogate": (b'{"query": "\\ud800"}', "query", "a text"),
    "k of 0": (b'{"query": "x", "k": 0}', "k", "an integer from 1 to 1000"),
    "k too large": (b'{"query": "x", "k": 1001}', "k", "an integer from 1 to 1000"),
    "k as text": (b'{"query": "x", "k": "5"}', "k", "an integer from 1 to 1000"),
    "k not whole": (b'{"query": "x", "k": 2.5}', "k", "an integer from 1 to 1000"),
    "k true": (b'{"query": "x", "k": true}', "k", "an integer from 1 to 1000"),
    "k of 300 digits": (b'{"query": "x", "k": ' + b"1" * 300 + b"}", "k", "an integer from 1 to 1000"),
    "k not a number": (b'{"query": "x", "k": NaN}', "k", "an integer from 1 to 1000"),
    "unknown language": (b'{"query": "x", "languages": ["en", "de"]}', "languages.1", "en, fa, ru, zh"),
    "no language": (b'{"query": "x", "languages": []}', "languages", "one or more of en, fa, ru, zh"),
    "languages as text": (b'{"query": "x", "languages": "fa"}', "languages", "a list"),
    "probes of 0": (b'{"query": "x", "probes": 0}', "probes", "at least 1"),
    "unknown field": (b'{"query": "x", "lang": "fa"}', "lang", "query, queries, k, languages, probes"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_request_names_field_expectation_and_value(http, case):
    content, field, expected = BAD[case]
    answer = http.post("/search", content=content, headers=JSON)
    assert answer.status_code == 422
    body = answer.json()
    assert [f["field"] for f in body["fields"]] == [field]
    assert expected in body["fields"][0]["expected"]
    assert body["fields"][0]["got"]
    assert expected in body["error"]


UNREADABLE = {
    "no text": (b'{"query": "\xff\xfe"}', "UTF-8"),
    "5,000 digits": (b'{"query": "x", "k": ' + b"1" * 5000 + b"}", "too many digits"),
    "30,000 brackets": (b'{"query": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", "brackets within brackets"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_body_that_cannot_be_parsed_is_refused_with_the_reason(http, case):
    content, reason = UNREADABLE[case]
    answer = http.post("/search", content=content, headers=JSON)
    assert answer.status_code == 400
    assert [f["field"] for f in answer.json()["fields"]] == ["body"]
    assert reason in answer.json()["error"]


@pytest.mark.parametrize("size", [64 << 10, (64 << 10) + 1, 10 << 20])
@pytest.mark.parametrize("chunked", [False, True])
def test_body_above_64_kib_is_refused(http, size, chunked):
    content = b'{"query": "x"' + b" " * (size - 14) + b"}"
    pieces = (content[i : i + 10_000] for i in range(0, size, 10_000))
    answer = http.post("/search", content=pieces if chunked else content, headers=JSON)
    assert answer.status_code == (200 if size <= 64 << 10 else 413)
    if answer.status_code == 413:
        assert answer.json()["error"] == "body: expected at most 65,536 bytes, got more"


def test_body_of_another_type_is_refused(http):
    answer = http.post("/search", content=b'{"query": "x"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 422
    assert "application/json" in answer.json()["error"]


@pytest.mark.parametrize(("path", "status"), [("/search", 405), ("/nothing", 404), ("/docs", 404)])
def test_wrong_address_lists_the_routes(http, path, status):
    answer = http.get(path)
    assert answer.status_code == status
    routes = ("POST /search", "POST /v1/embeddings", "POST /rerank", "GET /health", "GET /info", "GET /openapi.json")
    assert all(route in answer.json()["error"] for route in routes)


def test_unusual_characters_are_searched_without_error(http):
    for query in ("a\x00b", "\U0001f600", "‏ایران‎", "a" * 200):
        assert http.post("/search", json={"query": query}).status_code == 200


def test_info_describes_the_served_system(http_of_each, system):
    info = http_of_each.get("/info").json()
    assert (info["recipe"], info["system"], info["index"]) == ("tiny", system.system, system.index.name)
    assert info["model"] == (system.student.name if system.student else None)
    everything = {
        "en": ("English", "ltr", 6),
        "fa": ("Persian", "rtl", 2),
        "ru": ("Russian", "ltr", 2),
        "zh": ("Chinese", "ltr", 2),
    }
    found = {lang["code"]: (lang["name"], lang["dir"], lang["documents"]) for lang in info["languages"]}
    assert found == {lang: everything[lang] for lang in system.docs}
    assert info["documents"] == sum(documents for *_, documents in found.values())
    assert [shard["lang"] for shard in info["shards"]] == ["en", *system.docs]
    assert info["limits"]["max_query_chars"] == 200


def test_text_bytes_of_a_language_are_split_by_documents(http):
    """The shards of a language have text_bytes in proportion to their documents."""
    shards = http.get("/info").json()["shards"]
    texts = {lang: sum(shard["text_bytes"] for shard in shards if shard["lang"] == lang) for lang in ("en", "fa")}
    assert texts["en"] > sum(len(text.encode()) for part in serving_apps.TEXTS["en"] for _, text in part)
    one, other = (shard for shard in shards if shard["lang"] == "en")
    assert one["text_bytes"] / one["docs"] == pytest.approx(other["text_bytes"] / other["docs"], rel=0.01)


def test_openapi_is_valid_and_names_the_limits(http):
    api = http.get("/openapi.json").json()
    validate_openapi(api)
    request = api["components"]["schemas"]["SearchRequest"]
    assert request["additionalProperties"] is False
    assert request["properties"]["query"]["maxLength"] == 200
    assert (request["properties"]["k"]["minimum"], request["properties"]["k"]["maximum"]) == (1, 1000)
    assert '"enum": ["en", "fa", "ru", "zh"]' in json.dumps(request["properties"]["languages"])
    assert set(api["paths"]) > {"/search", "/health", "/info"}  # the others: tests/test_serving_routes.py


def test_an_encoder_holds_the_shards_where_one_process_can(served):
    app = served.parts("lexical")
    assert (find_replicas(app, "shard"), len(find_replicas(app, "encoder"))) == ([], 1)
    with open_client(served, "lexical") as client:
        assert {shard["part"] for shard in client.get("/info").json()["shards"]} == {"encoder"}


def test_shard_replicas_hold_no_torch(served):
    """The memory maps of the processes show it: no library of torch in shards, and one in the encoder."""
    app = served.parts("dense")
    shards, encoders = find_replicas(app, "shard-"), find_replicas(app, "encoder")
    assert (len(shards), len(encoders)) == (3, 1)
    for pid in shards:
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    for pid in encoders:
        assert "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def search_currency(http):
    return http.post("/search", json={"query": "the currency of Russia", "k": 20})


def test_killed_shard_is_reported_and_restarted(served, http):
    """There are no partial answers: while a shard is gone it is named, and searches wait for it or fail."""
    assert http.get("/health").json()["status"] == "ok"
    whole = search_currency(http).json()["results"]
    (pid,) = find_replicas(served.parts("words"), "shard-fa-00000")
    os.kill(pid, signal.SIGKILL)
    seen, deadline = ["killed"], time.monotonic() + 90
    while seen[-1] != "ok" or "unavailable" not in seen:
        assert time.monotonic() < deadline, seen
        health = http.get("/health")
        seen.append(health.json()["status"])
        assert health.status_code == (503 if seen[-1] == "unavailable" else 200)
        assert health.json()["missing"] == (["shard-fa-00000"] if seen[-1] == "unavailable" else [])
    assert search_currency(http).json()["results"] == whole


def wait_for_health(http, status, parts=()):
    """Ask until the health is ``status``, since ``parts`` are not ok and all others are. Returns the last answer.

    The gateway checks its parts every second, and on a busy machine others may be late for a while.
    """
    deadline = time.monotonic() + 60
    while True:
        health = http.get("/health")
        found = [part for part, state in health.json()["parts"].items() if state != "ok"]
        if health.json()["status"] == status and found == list(parts):
            return health
        assert time.monotonic() < deadline, health.text
        time.sleep(0.1)


@contextmanager
def suspend(pid):
    """Suspend a process without ending it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_suspended_shard_is_reported_busy_not_gone(served, http):
    whole = search_currency(http).json()["results"]
    (pid,) = find_replicas(served.parts("words"), "shard-fa-00000")
    with suspend(pid):
        health, answer = wait_for_health(http, "busy", ["shard-fa-00000"]), search_currency(http)
        partial = http.post("/search", json={"query": "the currency of Russia", "k": 20, "allow_partial": True})
    assert (health.status_code, health.json()["status"], health.json()["missing"]) == (200, "busy", [])
    assert answer.status_code == 503
    assert answer.json()["missing"] == ["shard-fa-00000"]
    assert answer.json()["error"] == "no answer within 4.5 s from shard-fa-00000; try again"  # nine tenths of 5 s
    assert (partial.status_code, partial.json()["missing"]) == (200, ["shard-fa-00000"])
    assert partial.json()["coverage"] == pytest.approx(10 / 12)  # documents of the shards that answered
    rest = [result for result in whole if result["lang"] != "fa"]
    assert [result | {"rank": 0} for result in partial.json()["results"]] == [result | {"rank": 0} for result in rest]
    answer = search_currency(http).json()
    assert (answer["results"], answer["coverage"], answer["missing"]) == (whole, 1, [])
    assert wait_for_health(http, "ok").status_code == 200


def test_late_encoder_is_named_and_shards_are_not(served, lexical):
    (pid,) = find_replicas(served.parts("lexical"), "encoder")
    with suspend(pid):
        answer = lexical.post("/search", json={"query": "currency", "allow_partial": True})
    assert (answer.status_code, answer.json()["missing"]) == (503, ["encoder"])
    assert answer.json()["error"] == "no answer within 9.0 s from encoder; try again"  # it holds the shards too
    assert lexical.post("/search", json={"query": "currency"}).status_code == 200


def test_dead_part_is_gone_and_unanswered_part_is_late():
    async def wait():
        answered, pending, dead = (asyncio.get_running_loop().create_future() for _ in range(3))
        answered.set_result(1)
        dead.set_exception(ActorDiedError())
        with pytest.raises(UnavailableError) as raised:
            await gather({"a": answered, "b": pending, "c": dead}, deadline=0)
        assert pending.cancelled()
        return raised.value

    error = asyncio.run(wait())
    assert (error.gone, error.late) == (["c"], ["b"])
    (answer,) = post_in_process(error, b'{"query": "x"}')
    assert (answer.status_code, answer.json()["missing"]) == (503, ["b", "c"])
    assert answer.json()["error"] == "c: gone, being restarted; no answer within 0.0 s from b; try again"


def post_in_process(error, *contents):
    """Post searches to the HTTP interface, without Ray, over a backend that raises ``error``. Returns the responses."""

    class Broken:
        async def answer(self, request):
            raise error

        async def check_parts(self):
            return {}

    english = LanguageInfo(code="en", name="English", autonym="English", dir="ltr", documents=1)
    facts = {"recipe": "r", "system": "s", "model": None, "index": "i", "kind": "exact", "dim": 1, "documents": 1}
    app = build_app(Broken(), Info(**facts, languages=[english], shards=[], limits=Limits(), versions={}))

    async def post():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here", headers=JSON) as client:
            return [await client.post("/search", content=content) for content in contents]

    return asyncio.run(post())


def test_nested_brackets_are_refused_at_every_depth():
    """Some depths can be parsed but not written again, and an error repeats the value."""
    answers = post_in_process(RuntimeError(), *(b"[" * depth + b"]" * depth for depth in range(700, 1000)))
    assert {answer.status_code for answer in answers} == {400, 422}


def test_server_error_is_logged_and_its_response_hides_the_cause(caplog):
    (answer,) = post_in_process(RuntimeError("a secret"), b'{"query": "x"}')
    assert (answer.status_code, set(answer.json())) == (500, {"error", "fields", "missing"})
    assert "secret" not in answer.text
    (record,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert record.message == "POST /search failed"
    assert "a secret" in caplog.text


def test_incomplete_index_names_the_missing_step(served, tmp_path):
    with pytest.raises(StepError, match="index@1 is not complete"):
        application(replace(served.systems["words"], index=Artifact(Place.of(tmp_path / "index@1"))))


def test_language_without_documents_is_refused(served):
    system = served.systems["words"]
    with pytest.raises(RecipeError, match=r"got none for \['ru', 'zh'\]"):
        application(replace(system, docs={lang: system.docs[lang] for lang in ("en", "fa")}))


def test_config_file_has_only_keys_of_the_serve_schema():
    """Serve ignores unknown keys silently, so the names are compared with its schema."""
    from ray.serve.schema import DeploymentSchema, HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

    args = ServeArgs(recipe="atlas", overrides=["root=runs"], scale=Scale(encoders=2, gateways=3))
    written_config = build_config([args], ("0.0.0.0", 8000))
    parsed = ServeDeploySchema.model_validate(written_config)
    assert set(written_config) <= set(ServeDeploySchema.model_fields)
    assert set(written_config["http_options"]) <= set(HTTPOptionsSchema.model_fields)
    for written, read in zip(written_config["applications"], parsed.applications, strict=True):
        assert set(written) <= set(ServeApplicationSchema.model_fields)
        assert all(set(part) <= set(DeploymentSchema.model_fields) for part in written.get("deployments", []))
        assert callable(getattr(serving.app, read.import_path.removeprefix("serving.app:")))
    gateway, parts = parsed.applications
    assert ServeArgs.model_validate(parts.args) == args
    assert (gateway.route_prefix, parts.route_prefix) == ("/", None)
    (deployment,) = gateway.deployments
    assert (deployment.num_replicas, deployment.user_config) == (3, {"serves": [[parts.name]]})


def test_config_file_keeps_what_runs_until_the_new_answers():
    """The gateway of the second file is that of the first but for what it serves, so that it does not start anew."""
    before, after = (ServeArgs(recipe="atlas", system=system) for system in ("bm25", "student"))
    first = build_config([before], ("0.0.0.0", 8000))
    second = build_config([after], ("0.0.0.0", 8000), kept=first["applications"][1:])
    assert second["applications"][2:] == first["applications"][1:]
    new, old = (app["name"] for app in second["applications"][1:])
    assert new != old
    changed = second["applications"][0]
    assert changed["deployments"][0]["user_config"] == {"serves": [[new, old]]}
    changed["deployments"][0]["user_config"] = {"serves": [[old]]}
    assert changed == first["applications"][0]
    assert build_config([before], ("0.0.0.0", 8000), kept=first["applications"][1:]) == first


def test_config_file_of_several_recipes_keeps_those_that_are_not_replaced():
    """With ``[serve] hybrid`` the index of words is an application of its own."""
    hybrid = ServeArgs(recipe="atlas", overrides=["serve.hybrid.depth=50"])
    small, other = (ServeArgs(recipe="atlas", system=system) for system in ("bm25", "untrained"))
    args = add_words([hybrid, other])
    assert [(one.recipe, one.system) for one in args] == [
        ("atlas", "student"),
        ("atlas", "bm25"),
        ("atlas", "untrained"),
    ]
    assert add_words([small]) == [small]
    assert add_words(args) == args
    config = build_config(args, ("0.0.0.0", 8000))
    names = [app["name"] for app in config["applications"][1:]]
    assert config["applications"][0]["deployments"][0]["user_config"] == {"serves": [[name] for name in names]}
    assert len({*names, build_config([ServeArgs(recipe="atlas")], ("0.0.0.0", 8000))["applications"][1]["name"]}) == 4


def run_cli(*arguments, cwd=ROOT, keys="none"):
    env = os.environ | {"PYTHONPATH": str(ROOT), "BABELRAY_API_KEYS": keys}
    command = [sys.executable, "-m", "serving", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env)
    return done.returncode, done.stdout, done.stderr


def test_print_config_prints_a_file_for_serve_deploy():
    code, out, _ = run_cli("atlas", "--set", "root=runs", "--port", "9001", "--print-config")
    assert code == 0
    printed = yaml.safe_load(out)
    # clients of a cluster's proxies are on other machines
    assert printed["http_options"] == {"host": "0.0.0.0", "port": 9001}
    # a relative root is resolved here, since the file may be read elsewhere
    gateway, parts = printed["applications"]
    assert parts["args"] == {"recipe": "atlas", "overrides": [f"root={ROOT / 'runs'}"]}
    assert re.fullmatch("babelray-[0-9a-f]{12}", parts["name"])
    assert gateway["name"] == "babelray"
    assert gateway["args"] == {"access": {"hosts": ["*"]}}


def test_printed_config_holds_the_keys_and_needs_some():
    key = {"name": "anna", "sha256": "a" * 64, "per_minute": 5}
    code, out, _ = run_cli("atlas", "--print-config", keys=f"anna:{'a' * 64}:5")
    assert code == 0
    args = yaml.safe_load(out)["applications"][0]["args"]
    assert args["access"] == {"keys": [key], "hosts": ["*"]}
    assert [one.name for one in GatewayArgs.model_validate(args).access.keys] == ["anna"]
    code, _, err = run_cli("atlas", "--print-config", keys="")
    assert code == 1
    assert "0.0.0.0 is reached from other machines, so a server there needs API keys" in err


def test_printed_config_loads_the_same_recipe_in_another_directory(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text(
        'extends = "atlas"\nroot = "runs"\n[evaluate.mine.source]\nkind = "parallel"\npath = "data"\n'
    )
    for data in (tmp_path / "data", tmp_path / "more" / "data"):  # what the recipe reads is part of what it serves
        data.mkdir(parents=True)
        (data / "queries.en.tsv").write_text("q1\tWhich?\n")
        (data / "qrels.tsv").write_text("q1 0 d1 1\n")
        for lang in ("en", "de", "fr", "es", "zh", "fa", "ru"):
            (data / f"collection.{lang}.tsv").write_text("d1\tA text.\n")
    own = ["evaluate.own.source.kind=parallel", "evaluate.own.source.path=more/data"]
    sets = [part for value in own for part in ("--set", value)]
    code, out, err = run_cli("mine.toml", *sets, "--host", "10.0.0.1", "--print-config", cwd=tmp_path)
    assert code == 0, err
    printed = yaml.safe_load(out)
    assert printed["http_options"]["host"] == "10.0.0.1"
    args = printed["applications"][1]["args"]
    elsewhere = recipe.load(args["recipe"], args["overrides"])
    assert elsewhere.root == str(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    here = recipe.load("mine.toml", own)
    assert elsewhere == here.model_copy(update={"root": str(tmp_path / "runs")})


def test_address_is_that_of_the_running_serve(served):
    """A cluster that runs Serve already keeps its address; the requested one is ignored, with a message."""
    code = "import ray; from serving.__main__ import _base; ray.init(logging_level='error'); print(_base(('::1', 1)))"
    env = os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": served.ray_address}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=ROOT)
    assert done.stdout.strip() == served.base, done.stderr
    assert f"Serve runs on this cluster already, on {served.base.removeprefix('http://')}" in done.stderr


def test_port_in_use_is_refused_before_ray_starts():
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        code, _, err = run_cli("atlas", "--port", str(occupied.getsockname()[1]))
    assert code == 1
    assert "Choose another --port" in err


def test_recipe_without_artifacts_is_refused(tmp_path):
    code, _, err = run_cli("atlas", "--set", f"root={tmp_path}")
    assert code == 1
    assert "is not complete" in err
    assert f"babelray run atlas --set root={tmp_path}" in err
    assert "Ray starts" not in err
    assert "Traceback" not in err


def test_unknown_system_is_refused():
    code, _, err = run_cli("atlas", "--system", "studnet")
    assert code == 1
    assert "has the systems student, bm25, untrained, not 'studnet'" in err


def test_unknown_recipe_is_refused():
    code, _, err = run_cli("atlass", "--print-config")
    assert code == 1
    assert "did you mean 'atlas'" in err
