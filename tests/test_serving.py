"""The served application over HTTP on a real Ray Serve, against offline search and merge."""

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

import serving_apps
from cluster.artifact import Artifact
from cluster.errors import RecipeError, StepError
from cluster.storage import Place
from pipelines import recipe
from pipelines.indexes.base import SearchOptions
from pipelines.search import open_shards, pool, search
from serving.api import UnavailableError, build
from serving.app import Scale, ServeArgs, application, config
from serving.gateway import _gather
from serving.messages import Info, LanguageInfo, Limits

# Ray Data trips over its own deprecated settings when it is imported
pytestmark = pytest.mark.filterwarnings("ignore:.use_push_based_shuffle:DeprecationWarning")
ROOT = Path(__file__).parents[1]
JSON = {"content-type": "application/json"}


def client(served, name):
    return httpx.Client(base_url=served.url(name), timeout=60)


@pytest.fixture(scope="module", params=serving_apps.SYSTEMS)
def system(request, served):
    return served.systems[request.param]


@pytest.fixture(scope="module")
def http_of_each(system, served):
    """The server of ``system``."""
    (name,) = (name for name, one in served.systems.items() if one is system)
    with client(served, name) as opened:
        yield opened


@pytest.fixture(scope="module")
def http(served):
    """The server of the words: for what is the same whatever is served."""
    with client(served, "words") as opened:
        yield opened


@pytest.fixture(scope="module")
def lexical(served):
    with client(served, "lexical") as opened:
        yield opened


@cache
def encoder(directory):
    from pipelines.students import load_encoder

    return load_encoder(directory, "cpu")


def offline(system, query, k, langs=None, **options):
    """The pooled ranking by the offline code, in this process."""
    if system.student:
        query = encoder(system.student.place.path / system.checkpoint).encode_queries([query])[0]
    options = SearchOptions(k=k, **options)
    found = {lang: search(open_shards(system.index.place, lang), [query], options)[0] for lang in langs or system.docs}
    return pool(found, k)


def names(results):
    return [f"{r['lang']}:{r['doc_id']}" for r in results]


def replicas(app, name):
    """Process ids of the replicas of a deployment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"ServeReplica:{app}:{name}" in title:
            found.append(int(process.name))
    return found


@pytest.mark.parametrize("query", ["the currency of Russia", "Столица Ирана", "首都 伊朗", "x"])
@pytest.mark.parametrize(("k", "langs"), [(1, None), (3, None), (20, None), (5, ["fa", "en"]), (2, ["en"])])
def test_search_equals_offline_search_and_merge(http_of_each, system, query, k, langs):
    answer = http_of_each.post("/search", json={"query": query, "k": k, "languages": langs})
    assert answer.status_code == 200
    results = answer.json()["results"]
    expected = offline(system, query, k, langs)
    assert names(results) == [name for name, _ in expected]
    assert [r["score"] for r in results] == pytest.approx([score for _, score in expected], rel=1e-5)
    assert [r["rank"] for r in results] == list(range(1, len(results) + 1))


def test_search_returns_the_documents_own_texts(http_of_each, system):
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
    assert 0 < parts <= answer["took_ms"]["total"] + 0.05  # each is rounded


def calls(served, shard):
    """How many calls a shard of the words has had, as Serve reports to Prometheus."""
    text = httpx.get(served.metrics).text
    of = rf'\{{.*application="words".*deployment="{shard}".*\}}'
    return sum(map(float, re.findall(rf"^ray_serve_deployment_request_counter_total{of} (\S+)$", text, re.M)))


def test_texts_come_from_the_shard_that_found_them(served, http):
    """Ten searches of two shards, of which one has the document: it is called twice each time, the other once."""
    shards = ["shard-en-00000", "shard-en-00001"]
    before = [calls(served, shard) for shard in shards]
    for _ in range(10):
        answer = http.post("/search", json={"query": "Tehran rial", "languages": ["en"]}).json()
        assert names(answer["results"]) == ["en:d0"]
    deadline, grown = time.monotonic() + 30, [0, 0]
    while sum(grown) < 30:
        assert time.monotonic() < deadline, f"calls of {shards}: {grown}"
        grown = [calls(served, shard) - count for shard, count in zip(shards, before, strict=True)]
    assert grown[0] - grown[1] > 5  # 10, but for earlier calls that are reported late


def shared_batches(served):
    """How many batches of more than one query the encoders have done, as Serve reports to Prometheus."""
    text = httpx.get(served.metrics).text
    counts = [r"count\{.*\}", r'bucket\{.*le="1\.0".*\}']
    every, of_one = (re.findall(rf"^ray_serve_actual_batch_size_{count} (\S+)$", text, re.M) for count in counts)
    return sum(map(float, every)) - sum(map(float, of_one))


def test_requests_at_the_same_time_share_batches_and_get_their_own_answers(served):
    queries = [f"{word} {n}" for n in range(15) for word in ("currency", "Столица", "首都")]

    async def ask():
        async with httpx.AsyncClient(base_url=served.url("dense"), timeout=60) as several:
            return await asyncio.gather(*(several.post("/search", json={"query": q, "k": 3}) for q in queries))

    before = shared_batches(served)
    for query, answer in zip(queries, asyncio.run(ask()), strict=True):
        body = answer.json()
        assert body["query"] == query
        got = [(f"{r['lang']}:{r['doc_id']}", pytest.approx(r["score"], rel=1e-4)) for r in body["results"]]
        assert [(name, score) for name, score in offline(served.systems["dense"], query, 3)] == got
    deadline = time.monotonic() + 30
    while shared_batches(served) == before:
        assert time.monotonic() < deadline, "every query was encoded alone"


def test_probes_reach_the_index(served, lexical):
    """One cell per word finds less than all of them do, and exactly what it finds offline."""
    query = "currency"
    few, all_of_them = (offline(served.systems["lexical"], query, 20, probes=probes) for probes in (1, 10_000))
    assert len(few) < len(all_of_them)
    for probes, expected in ((1, few), (10_000, all_of_them)):
        answer = lexical.post("/search", json={"query": query, "k": 20, "probes": probes})
        assert names(answer.json()["results"]) == [name for name, _ in expected]


@pytest.mark.parametrize("query", ["…", "\u200b"])
def test_query_that_says_nothing_finds_nothing(lexical, http, query):
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
    "unknown field": (b'{"query": "x", "lang": "fa"}', "lang", "query, k, languages, probes"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_request_says_what_was_expected_and_what_came(http, case):
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
def test_body_that_the_parser_gives_up_on_is_refused_with_its_reason(http, case):
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
def test_wrong_address_says_which_there_are(http, path, status):
    answer = http.get(path)
    assert answer.status_code == status
    assert "POST /search, GET /health, GET /info, GET /openapi.json" in answer.json()["error"]


def test_every_character_reaches_the_index(http):
    for query in ("a\x00b", "\U0001f600", "‏ایران‎", "a" * 200):
        assert http.post("/search", json={"query": query}).status_code == 200


def test_info_tells_what_is_served(http_of_each, system):
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


def test_shard_reserves_memory_for_its_own_texts(http):
    """A language's texts are shared out among its shards by their documents."""
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
    assert set(api["paths"]) == {"/search", "/health", "/info"}


def test_shard_replicas_hold_no_torch(served):
    """What the process has mapped is the proof: no library of torch, while the encoder has them."""
    shards, encoders = replicas("lexical", "shard-"), replicas("lexical", "encoder")
    assert (len(shards), len(encoders)) == (5, 1)
    for pid in shards:
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    for pid in encoders:
        assert "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def ask(http):
    return http.post("/search", json={"query": "the currency of Russia", "k": 20})


def test_killed_shard_is_reported_and_comes_back(http):
    """No answer is ever a part of the truth: while a shard is gone it is named, and searches wait for it or fail."""
    assert http.get("/health").json()["status"] == "ok"
    whole = ask(http).json()["results"]
    (pid,) = replicas("words", "shard-fa-00000")
    os.kill(pid, signal.SIGKILL)
    seen, deadline = ["killed"], time.monotonic() + 90
    while seen[-1] != "ok" or "unavailable" not in seen:
        assert time.monotonic() < deadline, seen
        health = http.get("/health")
        seen.append(health.json()["status"])
        assert health.status_code == (503 if seen[-1] == "unavailable" else 200)
        assert health.json()["missing"] == (["shard-fa-00000"] if seen[-1] == "unavailable" else [])
    assert ask(http).json()["results"] == whole


@contextmanager
def stopped(pid):
    """A process that is there and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_shard_that_is_late_is_busy_and_not_gone(http):
    whole = ask(http).json()["results"]
    (pid,) = replicas("words", "shard-fa-00000")
    with stopped(pid):
        health, answer = http.get("/health"), ask(http)
    assert (health.status_code, health.json()["status"], health.json()["missing"]) == (200, "busy", [])
    assert [part for part, state in health.json()["parts"].items() if state != "ok"] == ["shard-fa-00000"]
    assert answer.status_code == 503
    assert answer.json()["missing"] == ["shard-fa-00000"]
    assert answer.json()["error"] == "no answer within 5 s from shard-fa-00000; try again"
    assert ask(http).json()["results"] == whole
    assert http.get("/health").json()["status"] == "ok"


def test_part_that_died_at_work_is_gone_and_one_that_works_on_is_late():
    async def wait():
        answered, works_on, died = (asyncio.get_running_loop().create_future() for _ in range(3))
        answered.set_result(1)
        died.set_exception(ActorDiedError())
        with pytest.raises(UnavailableError) as raised:
            await _gather({"a": answered, "b": works_on, "c": died}, deadline=0)
        assert works_on.cancelled()
        return raised.value

    error = asyncio.run(wait())
    assert (error.gone, error.late) == (["c"], ["b"])
    (answer,) = post_in_process(error, b'{"query": "x"}')
    assert (answer.status_code, answer.json()["missing"]) == (503, ["b", "c"])
    assert answer.json()["error"] == "c: gone, being restarted; no answer within 10 s from b; try again"


def post_in_process(error, *contents):
    """The answers to searches that end with ``error``, from the HTTP interface without Ray."""

    class Broken:
        async def answer(self, request):
            raise error

        async def parts(self):
            return {}

    english = LanguageInfo(code="en", name="English", autonym="English", dir="ltr", documents=1)
    facts = {"recipe": "r", "system": "s", "model": None, "index": "i", "kind": "exact", "dim": 1, "documents": 1}
    app = build(Broken(), Info(**facts, languages=[english], shards=[], limits=Limits(), versions={}))

    async def post():
        through = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=through, base_url="http://here", headers=JSON) as client:
            return [await client.post("/search", content=content) for content in contents]

    return asyncio.run(post())


def test_brackets_are_refused_at_every_depth():
    """Some are parsed and are too deep to be written again, as an error repeats what came."""
    answers = post_in_process(RuntimeError(), *(b"[" * depth + b"]" * depth for depth in range(700, 1000)))
    assert {answer.status_code for answer in answers} == {400, 422}


def test_fault_of_the_server_has_the_form_of_errors_and_is_told_in_the_log_alone(caplog):
    (answer,) = post_in_process(RuntimeError("a secret"), b'{"query": "x"}')
    assert (answer.status_code, set(answer.json())) == (500, {"error", "fields", "missing"})
    assert "secret" not in answer.text
    (record,) = caplog.records
    assert record.message == "POST /search failed"
    assert "a secret" in caplog.text


def test_incomplete_index_says_which_step_is_missing(served, tmp_path):
    with pytest.raises(StepError, match="index@1 is not complete"):
        application(replace(served.systems["words"], index=Artifact(Place.of(tmp_path / "index@1"))))


def test_language_without_documents_is_refused(served):
    system = served.systems["words"]
    with pytest.raises(RecipeError, match=r"got none for \['ru', 'zh'\]"):
        application(replace(system, docs={lang: system.docs[lang] for lang in ("en", "fa")}))


def test_config_file_has_only_keys_that_serve_knows():
    """Serve accepts unknown keys without a word, so the names are compared here."""
    from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

    made = config(ServeArgs(recipe="atlas", overrides=["root=runs"], scale=Scale(encoders=2)), "0.0.0.0", 8000)
    parsed = ServeDeploySchema.model_validate(made)
    assert set(made) <= set(ServeDeploySchema.model_fields)
    assert set(made["http_options"]) <= set(HTTPOptionsSchema.model_fields)
    for written, read in zip(made["applications"], parsed.applications, strict=True):
        assert set(written) <= set(ServeApplicationSchema.model_fields)
        assert ServeArgs.model_validate(read.args) == ServeArgs(
            recipe="atlas", overrides=["root=runs"], scale=Scale(encoders=2)
        )
        assert read.import_path == "serving.app:build"


def cli(*arguments, cwd=ROOT):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "serving", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env)
    return done.returncode, done.stdout, done.stderr


def test_print_config_prints_a_file_for_serve_deploy():
    code, out, _ = cli("atlas", "--set", "root=runs", "--port", "9001", "--print-config")
    assert code == 0
    made = yaml.safe_load(out)
    # a cluster's proxies are asked from other machines
    assert made["http_options"] == {"host": "0.0.0.0", "port": 9001}
    # a relative root means this directory, wherever the file is read
    assert made["applications"][0]["args"] == {"recipe": "atlas", "overrides": [f"root={ROOT / 'runs'}"]}


def test_printed_config_means_the_same_recipe_wherever_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text(
        'extends = "atlas"\nroot = "runs"\n[evaluate.mine.source]\nkind = "parallel"\npath = "data"\n'
    )
    own = ["evaluate.own.source.kind=parallel", "evaluate.own.source.path=more/data"]
    sets = [part for value in own for part in ("--set", value)]
    code, out, err = cli("mine.toml", *sets, "--host", "10.0.0.1", "--print-config", cwd=tmp_path)
    assert code == 0, err
    made = yaml.safe_load(out)
    assert made["http_options"]["host"] == "10.0.0.1"
    args = made["applications"][0]["args"]
    elsewhere = recipe.load(args["recipe"], args["overrides"])
    assert elsewhere.root == str(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    here = recipe.load("mine.toml", own)
    assert elsewhere == here.model_copy(update={"root": str(tmp_path / "runs")})


def test_address_is_that_of_the_serve_which_runs(served):
    """A cluster that runs Serve keeps its address, whatever is asked for."""
    code = "import ray; from serving.__main__ import _base; ray.init(logging_level='error'); print(_base(('::1', 1)))"
    env = os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": served.ray_address}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=ROOT)
    assert done.stdout.strip() == served.base, done.stderr
    assert f"Serve runs on this cluster already, on {served.base.removeprefix('http://')}" in done.stderr


def test_taken_port_is_refused_before_anything_is_started():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = cli("atlas", "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert "Choose another --port" in err


def test_recipe_that_was_not_run_says_what_to_run(tmp_path):
    code, _, err = cli("atlas", "--set", f"root={tmp_path}")
    assert code == 1
    assert "is not complete" in err
    assert "Traceback" not in err


def test_unknown_system_is_refused():
    code, _, err = cli("atlas", "--system", "studnet")
    assert code == 1
    assert "has the systems student, bm25, untrained, not 'studnet'" in err


def test_unknown_recipe_is_refused():
    code, _, err = cli("atlass", "--print-config")
    assert code == 1
    assert "did you mean 'atlas'" in err
