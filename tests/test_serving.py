"""The served application over HTTP on a real Ray Serve, against offline search and merge."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import yaml
from openapi_spec_validator import validate as validate_openapi

import serving_apps
from cluster.artifact import Artifact
from cluster.errors import RecipeError, StepError
from cluster.storage import Place
from pipelines.indexes.base import SearchOptions
from pipelines.search import open_shards, pool, search
from serving.api import Limits
from serving.app import Scale, ServeArgs, application, config

# Ray Data trips over its own deprecated settings when it is imported
pytestmark = pytest.mark.filterwarnings("ignore:.use_push_based_shuffle:DeprecationWarning")
LIMITS = Limits(max_query_chars=200, timeout_s=20)


@pytest.fixture(scope="module", params=["student", "words"])
def system(request, tmp_path_factory):
    return getattr(serving_apps, request.param)(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def http(system):
    with serving_apps.running(system, LIMITS) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def offline(system, query, k, langs=tuple(serving_apps.TEXTS)):
    """The pooled ranking by the offline code, in this process."""
    if system.student:
        from pipelines.students import load_encoder

        query = load_encoder(system.student.place.path / system.checkpoint).encode_queries([query])[0]
    options = SearchOptions(k=k)
    by_lang = {lang: search(open_shards(system.index.place, lang), [query], options)[0] for lang in langs}
    return pool(by_lang, k)


def replicas(name):
    """Process ids of the replicas of a deployment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"ServeReplica:babelray:{name}" in title:
            found.append(int(process.name))
    return found


@pytest.mark.parametrize("query", ["the currency of Russia", "Столица Ирана", "首都 伊朗", "x"])
@pytest.mark.parametrize(("k", "langs"), [(1, None), (3, None), (20, None), (5, ["fa", "ru"]), (2, ["en"])])
def test_search_equals_offline_search_and_merge(http, system, query, k, langs):
    answer = http.post("/search", json={"query": query, "k": k, "languages": langs})
    assert answer.status_code == 200
    results = answer.json()["results"]
    expected = offline(system, query, k, langs or tuple(serving_apps.TEXTS))
    assert [f"{r['lang']}:{r['doc_id']}" for r in results] == [name for name, _ in expected]
    assert [r["score"] for r in results] == pytest.approx([score for _, score in expected], rel=1e-5)
    assert [r["rank"] for r in results] == list(range(1, len(results) + 1))


def test_search_returns_the_documents_own_texts(http, system):
    answer = http.post("/search", json={"query": "the currency of Russia", "k": 20}).json()
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


def test_requests_at_the_same_time_get_their_own_answers(http, system):
    """More than one batch of the encoder in the air at once."""
    queries = [f"{word} {n}" for n in range(15) for word in ("currency", "Столица", "首都")]

    async def ask():
        async with httpx.AsyncClient(base_url=http.base_url, timeout=60) as client:
            return await asyncio.gather(*(client.post("/search", json={"query": q, "k": 3}) for q in queries))

    for query, answer in zip(queries, asyncio.run(ask()), strict=True):
        body = answer.json()
        assert body["query"] == query
        got = [(f"{r['lang']}:{r['doc_id']}", pytest.approx(r["score"], rel=1e-4)) for r in body["results"]]
        assert [(name, score) for name, score in offline(system, query, 3)] == got


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
    answer = http.post("/search", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    body = answer.json()
    assert [f["field"] for f in body["fields"]] == [field]
    assert expected in body["fields"][0]["expected"]
    assert body["fields"][0]["got"]
    assert expected in body["error"]


def test_bytes_that_are_no_text_are_refused(http):
    answer = http.post("/search", content=b'{"query": "\xff\xfe"}', headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "UTF-8" in answer.json()["error"]


def test_body_of_another_type_is_refused(http):
    answer = http.post("/search", content=b'{"query": "x"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 422
    assert "application/json" in answer.json()["error"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/search", 405), ("GET", "/nothing", 404)])
def test_wrong_address_says_which_there_are(http, method, path, status):
    answer = http.request(method, path)
    assert answer.status_code == status
    assert "POST /search" in answer.json()["error"]


def test_every_character_reaches_the_index(http):
    for query in ("a\x00b", "\U0001f600", "‏ایران‎", "a" * 200):
        assert http.post("/search", json={"query": query}).status_code == 200


def test_info_tells_what_is_served(http, system):
    info = http.get("/info").json()
    assert (info["recipe"], info["system"], info["index"]) == ("tiny", system.system, system.index.name)
    assert info["model"] == (system.student.name if system.student else None)
    assert {lang["code"]: (lang["name"], lang["dir"], lang["documents"]) for lang in info["languages"]} == {
        "en": ("English", "ltr", 5),
        "fa": ("Persian", "rtl", 2),
        "ru": ("Russian", "ltr", 2),
        "zh": ("Chinese", "ltr", 2),
    }
    assert info["documents"] == 11
    assert [shard["lang"] for shard in info["shards"]] == ["en", "en", "fa", "ru", "zh"]
    assert info["limits"] == {"max_query_chars": 200, "timeout_s": 20.0}


def test_openapi_is_valid_and_names_the_limits(http):
    api = http.get("/openapi.json").json()
    validate_openapi(api)
    request = api["components"]["schemas"]["SearchRequest"]
    assert request["additionalProperties"] is False
    assert request["properties"]["query"]["maxLength"] == 200
    assert (request["properties"]["k"]["minimum"], request["properties"]["k"]["maximum"]) == (1, 1000)
    assert '"enum": ["en", "fa", "ru", "zh"]' in json.dumps(request["properties"]["languages"])
    assert set(api["paths"]) == {"/search", "/health", "/info"}
    assert http.get("/docs").status_code == 200


def test_shard_replicas_hold_no_torch(http):
    """What the process has mapped is the proof: no library of torch, while the encoder has them."""
    shards = replicas("shard-")
    assert len(shards) == 5
    for pid in shards:
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    for pid in replicas("encoder"):
        assert "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def test_killed_shard_is_reported_and_comes_back(http):
    """No answer is ever a part of the truth: while a shard is gone there is a 503 that names it."""
    assert http.get("/health").json()["status"] == "ok"
    whole = http.post("/search", json={"query": "the currency of Russia", "k": 20}).json()["results"]
    for pid in replicas("shard-fa-00000"):
        os.kill(pid, signal.SIGKILL)
    seen, deadline = [], time.monotonic() + 90
    while time.monotonic() < deadline:
        answer = http.post("/search", json={"query": "the currency of Russia", "k": 20})
        seen.append(answer.status_code)
        if answer.status_code == 200:
            assert answer.json()["results"] == whole
            break
        assert answer.status_code == 503
        assert answer.json()["missing"] == ["shard-fa-00000"]
        health = http.get("/health")
        assert health.status_code == (503 if health.json()["missing"] else 200)
        assert set(health.json()["missing"]) <= {"shard-fa-00000"}
    assert seen[-1] == 200
    assert http.get("/health").json() == {
        "status": "ok",
        "parts": dict.fromkeys(http.get("/health").json()["parts"], True),
        "missing": [],
    }


def test_incomplete_index_says_which_step_is_missing(system, tmp_path):
    with pytest.raises(StepError, match="index@1 is not complete"):
        application(replace(system, index=Artifact(Place.of(tmp_path / "index@1"))))


def test_language_without_documents_is_refused(system):
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


def cli(*arguments):
    done = subprocess.run([sys.executable, "-m", "serving", *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_print_config_prints_a_file_for_serve_deploy():
    code, out, _ = cli("atlas", "--set", "root=runs", "--port", "9001", "--print-config")
    assert code == 0
    made = yaml.safe_load(out)
    assert made["http_options"]["port"] == 9001
    # a relative root means this directory, wherever the file is read
    assert made["applications"][0]["args"] == {
        "recipe": "atlas",
        "overrides": ["root=runs", f"root={Path('runs').absolute()}"],
    }


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
