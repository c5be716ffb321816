"""Who may ask: keys, their limits, the Host header, CORS; and who must set keys."""

import subprocess
import sys
from pathlib import Path

import pytest

import serving_apps
from cluster.errors import RecipeError
from serving.access import LOOPBACK, Access, read_access
from serving.app import GatewayArgs
from serving.keys import Key, KeyRing, hash_key, read_keys
from serving_here import ServerHere

ROOT = Path(__file__).parents[1]
BODY = {"query": "the currency of Russia"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return serving_apps.make_words_system(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def guarded(served):
    """A server with two keys, "a-key" and "b-key", the second for two requests a minute."""
    keys = (Key(name="a", sha256=hash_key("a-key")), Key(name="b", sha256=hash_key("b-key"), per_minute=2))
    return ServerHere(served, Access(keys=keys, hosts=("*",), origins=("https://example.org",)))


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer a-key"}, {"Authorization": "bearer  a-key"}, {"X-API-Key": "a-key"}]
)
def test_a_known_key_is_answered(guarded, headers):
    assert guarded.post("/search", BODY, headers=headers).status_code == 200


WRONG = {
    "none": {},
    "another": {"Authorization": "Bearer c-key"},
    "its hash": {"Authorization": f"Bearer {hash_key('a-key')}"},
    "basic": {"Authorization": "Basic a-key"},
    "empty": {"Authorization": "Bearer "},
    "not ASCII": {"Authorization": "Bearer ключ".encode()},
    "not UTF-8": {"Authorization": b"Bearer \xff\xfe"},
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("path", ["/search", "/v1/embeddings", "/rerank", "/nothing", "/info", "/openapi.json"])
def test_any_other_key_is_refused(guarded, case, path):
    method = "GET" if path in ("/info", "/openapi.json") else "POST"
    answer = guarded.send(method, path, headers=WRONG[case])
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert set(answer.json()) == {"error", "fields", "missing"}
    assert answer.json()["error"].startswith("Authorization: expected an API key")
    assert "key'" not in answer.text


@pytest.mark.parametrize("path", ["/", "/health", "/page/search.js"])
def test_page_and_health_need_no_key(guarded, path):
    assert guarded.send("GET", path).status_code == 200


def test_a_key_beyond_its_limit_waits(guarded):
    headers = {"Authorization": "Bearer b-key"}
    answers = [guarded.post("/search", BODY, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    assert "key b: expected at most 2 requests a minute" in answers[2].json()["error"]
    assert guarded.post("/search", BODY, headers={"X-API-Key": "a-key"}).status_code == 200


def test_a_limit_fills_up_with_time():
    now = [0.0]
    ring = KeyRing((), clock=lambda: now[0])
    key = Key(name="a", sha256=hash_key("a"), per_minute=60)
    allowed = [ring.spend(key) == 0 for _ in range(61)]
    assert allowed == [True] * 60 + [False]
    assert ring.spend(key) == pytest.approx(1.0)
    now[0] = 1.0
    assert (ring.spend(key), ring.spend(key) > 0) == (0, True)
    now[0] = 1e6  # and holds no more than a minute's
    assert [ring.spend(key) == 0 for _ in range(61)] == [True] * 60 + [False]


def test_pages_of_other_sites_may_ask_where_they_are_listed(guarded, served):
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    good = guarded.send("OPTIONS", "/search", headers={"Origin": "https://example.org", **ask})
    assert good.headers["access-control-allow-origin"] == "https://example.org"
    other = guarded.send("OPTIONS", "/search", headers={"Origin": "https://evil.example", **ask})
    assert "access-control-allow-origin" not in other.headers
    refused = guarded.post("/search", BODY, headers={"Origin": "https://example.org"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://example.org")
    closed = ServerHere(served, Access()).post("/search", BODY, headers={"Origin": "https://example.org"})
    assert "access-control-allow-origin" not in closed.headers


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:80", "[::1]:8000", "[::1]"])
def test_loopback_has_these_names(served, host):
    assert ServerHere(served, Access()).post("/search", BODY, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8000", "", "localhost.evil", "[::2]", "10.0.0.1"]
)
def test_other_names_are_refused_on_loopback(served, host):
    for path in ("/search", "/health", "/"):
        answer = ServerHere(served, Access()).send("GET", path, headers={"Host": host})
        assert answer.status_code == 421
        assert answer.json()["error"].startswith("Host: expected 127.0.0.1 or localhost or ::1")


# what is read


def test_keys_are_read_from_file_and_environment(tmp_path):
    file = tmp_path / "keys.txt"
    file.write_text(f"# who may ask\n\nanna:{'a' * 64}:60  # a colleague\nbob:{'B' * 64}\n")
    found = read_keys({"BABELRAY_API_KEYS_FILE": str(file), "BABELRAY_API_KEYS": f"carl:{'c' * 64}:1 dora:{'d' * 64}"})
    assert {(key.name, key.sha256[0], key.per_minute) for key in found} == {
        ("anna", "a", 60),
        ("bob", "b", None),
        ("carl", "c", 1),
        ("dora", "d", None),
    }


@pytest.mark.parametrize("line", ["anna", "anna:secret", f":{'a' * 64}", f"anna:{'a' * 64}:0", f"anna:{'a' * 64}:x"])
def test_a_line_that_is_no_key_is_refused_without_repeating_it(tmp_path, line):
    file = tmp_path / "keys.txt"
    file.write_text(f"\n{line}\n")
    with pytest.raises(RecipeError, match="line 2: expected name:sha256 or name:sha256:per_minute") as raised:
        read_keys({"BABELRAY_API_KEYS_FILE": str(file)})
    assert "secret" not in str(raised.value)


def test_a_file_that_is_not_there_and_a_name_given_twice_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="cannot read the API keys"):
        read_keys({"BABELRAY_API_KEYS_FILE": str(tmp_path / "absent")})
    with pytest.raises(RecipeError, match="got a more than once"):
        read_keys({"BABELRAY_API_KEYS": f"a:{'a' * 64} a:{'b' * 64}"})


def test_keys_are_needed_beyond_loopback():
    for host in LOOPBACK:
        assert read_access(host, {}) == Access()
    for host in ("0.0.0.0", "::", "10.0.0.1"):
        with pytest.raises(RecipeError, match="needs API keys: make one with `python -m serving.keys NAME`"):
            read_access(host, {})
        assert read_access(host, {"BABELRAY_API_KEYS": "none"}) == Access(hosts=("*",))
        access = read_access(host, {"BABELRAY_API_KEYS": f"a:{'a' * 64}", "BABELRAY_ALLOW_ORIGINS": "https://a.b *"})
        assert ([key.name for key in access.keys], access.hosts, access.origins) == (
            ["a"],
            ("*",),
            ("https://a.b", "*"),
        )


@pytest.mark.parametrize("origins", ["example.org", "https://a.b/", "ftp://a.b", "https://"])
def test_an_origin_that_is_none_is_refused(origins):
    with pytest.raises(RecipeError, match="expected sites such as https://example.org"):
        read_access("127.0.0.1", {"BABELRAY_ALLOW_ORIGINS": origins})


def test_a_config_that_says_nothing_is_open_to_loopback_alone():
    assert GatewayArgs().access == Access(keys=(), hosts=LOOPBACK, origins=())


def test_the_command_makes_a_key_whose_line_is_read():
    command = [sys.executable, "-m", "serving.keys", "anna", "--per-minute", "7"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    (key,) = read_keys({"BABELRAY_API_KEYS": shown["line"]})
    assert (key.name, key.per_minute) == ("anna", 7)
    assert KeyRing((key,)).find(shown["key"]) == key
    assert shown["key"] not in shown["line"]
    assert len(shown["key"]) > 40


def test_the_command_refuses_a_name_with_a_colon():
    done = subprocess.run([sys.executable, "-m", "serving.keys", "a:b"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "without blanks and colons" in done.stderr
