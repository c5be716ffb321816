"""Models behind an endpoint: a real HTTP server on loopback that fails on a schedule and counts what it is asked."""

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError

from cluster.component import fingerprint
from cluster.errors import RecipeError, StepError
from pipelines.engines.endpoint import EndpointGenerator, Rate
from pipelines.generation import Generated
from pipelines.tables import DOCS
from pipelines.translate import Translate, TranslateConfig
from pipelines.translators import OpenAi

KEY = "sk-very-secret"


class Server(ThreadingHTTPServer):
    """Answers a prompt with its last word in capitals. ``plan[word]`` lists what it does first for prompts that end
    with this word: a status, (status, headers), a finish_reason, or "hang"; "*" stands for all."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: dict[str, list] = defaultdict(list)
        self.asked: Counter[str] = Counter()
        self.times: dict[str, list[float]] = defaultdict(list)
        self.requests: list[tuple[dict, dict]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        word = body["messages"][0]["content"].split()[-1]
        with self.server.lock:
            self.server.asked[word] += 1
            self.server.times[word].append(time.monotonic())
            self.server.requests.append((dict(self.headers), body))
            plan = self.server.plan[word] or self.server.plan["*"]
            what = plan.pop(0) if plan else 200
        status, headers = what if isinstance(what, tuple) else (what, {})
        if what == "hang":
            time.sleep(1.5)
            status = 200
        reason = status if isinstance(status, str) else "stop"
        answer = {"choices": [{"message": {"content": f" {word.upper()}\n"}, "finish_reason": reason}]}
        data = json.dumps(answer if reason != "stop" or status == 200 else {"error": f"key {KEY}"}).encode()
        self.send_response(200 if isinstance(status, str) else status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def own_answers(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BABELRAY_CACHE", str(tmp_path / "cache"))


def build(server: Server, **options) -> OpenAi:
    options = {"model": "m", "timeout_s": 0.8, "total_s": 6, **options}
    return OpenAi(url=server.url, **options)


def ask(server: Server, words: str, **options) -> list[Generated]:
    config = build(server, **options)
    return EndpointGenerator(config).generate([f"say {w}" for w in words.split()], [20] * len(words.split()))


def test_failures_that_pass_are_waited_out(server):
    server.plan |= {"b": [500, 503], "c": ["hang"], "d": [429, (429, {"Retry-After": "1"})]}
    answers = ask(server, "a b c d a")
    assert answers == [Generated(f" {w}\n") for w in "ABCDA"]
    assert server.asked == {"a": 1, "b": 3, "c": 2, "d": 3}  # the same question once


def test_retry_after_is_honoured_as_seconds_and_as_a_date(server):
    soon = formatdate(time.time() + 3, usegmt=True)  # whole seconds: 2 to 3 from now
    server.plan |= {"a": [(429, {"Retry-After": "2"})], "b": [(503, {"Retry-After": soon})]}
    assert ask(server, "a b") == [Generated(" A\n"), Generated(" B\n")]
    for word, least in (("a", 2.0), ("b", 1.8)):
        first, second = server.times[word]
        assert least <= second - first < 4.5


def test_a_row_that_fails_for_good_has_a_reason_and_the_others_have_answers(server):
    server.plan |= {"b": [400] * 9, "c": [500] * 99, "d": ["length"], "e": ["content_filter"]}
    assert ask(server, "a b c d e", total_s=2) == [
        Generated(" A\n"),
        Generated("", False, "endpoint: HTTP 400"),
        Generated("", False, "endpoint: HTTP 500"),
        Generated(" D\n", ended=False),
        Generated("", False, "endpoint: content_filter"),
    ]
    assert server.asked["b"] == 1
    assert server.asked["c"] > 1


@pytest.mark.parametrize("status", [500, 429, 400])
def test_an_endpoint_that_answers_nothing_ends_the_run(server, status):
    server.plan["*"] = [status] * 999
    with pytest.raises(StepError, match=rf"answers nothing as model 'm': endpoint: HTTP {status}"):
        ask(server, "a b", total_s=1)


def test_an_endpoint_that_is_not_there_ends_the_run(server):
    with pytest.raises(StepError, match=r"no connection \(ConnectError\)"):
        EndpointGenerator(OpenAi(url="http://127.0.0.1:9/v1", model="m", total_s=1)).generate(["a"], [1])


@pytest.mark.parametrize(("status", "message"), [(401, "TEST_KEY"), (403, "TEST_KEY"), (404, "url and model")])
def test_a_refused_key_ends_the_run_at_once_and_names_the_key(server, monkeypatch, status, message):
    monkeypatch.setenv("TEST_KEY", KEY)
    server.plan["*"] = [status] * 999
    begin = time.monotonic()
    with pytest.raises(RecipeError, match=message) as error:
        ask(server, " ".join(f"w{n}" for n in range(200)), api_key_env="TEST_KEY", concurrency=4, total_s=60)
    assert KEY not in str(error.value)
    assert time.monotonic() - begin < 30  # of the 60 that it may try
    assert server.asked.total() < 20
    assert server.requests[0][0]["Authorization"] == f"Bearer {KEY}"


def test_a_key_that_is_not_set_is_an_error_that_names_it(server, monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(RecipeError, match="api_key_env = 'TEST_KEY': this environment variable is not set"):
        build(server, api_key_env="TEST_KEY").build("en", "de")


def test_a_part_that_is_done_again_pays_only_for_what_has_no_answer(server):
    words = [f"w{n}" for n in range(40)]
    server.plan["w30"] = [403]
    with pytest.raises(RecipeError):
        ask(server, " ".join(words), concurrency=4)
    answered = {w for w in words if server.asked[w]} - {"w30"}
    assert len(answered) > 20
    assert ask(server, " ".join(words), concurrency=4) == [Generated(f" {w.upper()}\n") for w in words]
    assert {w: n for w, n in server.asked.items() if n > 1} == {"w30": 2}  # another process than the first might be


def test_answers_go_when_the_next_part_begins_and_stay_while_theirs_fails(server, tmp_path):
    folder = tmp_path / "cache" / "answers"
    generator = EndpointGenerator(build(server))
    server.plan["b"] = [403]
    with pytest.raises(RecipeError):
        generator.generate(["say a", "say b"], [9, 9])
    generator.generate(["say c"], [9])
    assert len(list(folder.iterdir())) == 2  # the first part is not done
    generator.generate(["say a", "say b"], [9, 9])
    generator.generate(["say d"], [9])
    assert len(list(folder.iterdir())) == 1
    assert server.asked == {"a": 1, "b": 2, "c": 1, "d": 1}


def test_a_line_that_was_cut_short_by_a_kill_is_asked_again(server, tmp_path):
    ask(server, "a b", concurrency=1)
    (file,) = (tmp_path / "cache" / "answers").iterdir()
    file.write_text(file.read_text()[:-5])
    assert ask(server, "a b", concurrency=1) == [Generated(" A\n"), Generated(" B\n")]
    assert server.asked.total() == 3
    ask(server, "a b")
    assert server.asked.total() == 3


def test_an_actor_begins_no_more_requests_a_second_than_it_may(server):
    ask(server, "a b c d e f g h i j k", requests_per_s=10)
    times = sorted(t for each in server.times.values() for t in each)
    assert 0.95 <= times[-1] - times[0] < 10


def test_a_rate_without_a_limit_does_not_wait():
    begin = time.monotonic()
    rate = Rate(None, threading.Event())
    for _ in range(1000):
        rate.wait()
    assert time.monotonic() - begin < 5


def test_where_the_endpoint_is_and_how_fast_it_is_asked_is_in_no_fingerprint():
    one = OpenAi(url="http://a/v1", model="m")
    other = OpenAi(
        url="https://b/v1", model="m", api_key_env="K", concurrency=2, requests_per_s=1, timeout_s=1, total_s=1
    )
    assert fingerprint(one) == fingerprint(other)
    assert len({fingerprint(OpenAi(url="http://a/v1", model="m", **o)) for o in ({}, {"body": {"seed": 1}})}) == 2
    assert fingerprint(OpenAi(url="http://a/v1", model="n")) != fingerprint(one)
    with pytest.raises(ValidationError, match="url"):
        OpenAi(url="a/v1", model="m")


def test_the_step_translates_and_rejects(server, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    server.plan |= {"cut": ["length"], "bad": [400], "rude": ["content_filter"]}
    translator = build(server, api_key_env="TEST_KEY", body={"seed": 3}, max_ratio=2.0, max_ratios={"en-th": 5.0})
    config = TranslateConfig(source_lang="en", target_lang="th", translator=translator)
    texts = ["the river", "it was cut", "it was bad", "it was rude"]
    rows = [{"doc_id": str(n), "lang": "en", "title": "a title", "text": text} for n, text in enumerate(texts)]
    out = DOCS.conform(Translate(config, {})(DOCS.of(rows))).to_pylist()
    assert [(r["title"], r["text"], r["origin"], r["reject"]) for r in out] == [
        ("TITLE", "RIVER", "1 openai", None),
        (None, None, None, "translation did not end"),
        (None, None, None, "endpoint: HTTP 400"),
        (None, None, None, "endpoint: content_filter"),
    ]
    headers, body = next(r for r in server.requests if r[1]["messages"][0]["content"].endswith("the river"))
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert "from English to Thai" in body["messages"][0]["content"]
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == ("m", 0, 3, 3 * 5 + 32)
