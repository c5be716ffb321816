"""Hostile requests to every route, in this process: no status of 500 or more, and every error in one form."""

import json
import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import serving_apps
from serving.access import Access
from serving.keys import Key, hash_key
from serving_here import ServerHere

EXAMPLES = int(os.environ.get("BABELRAY_FUZZ_EXAMPLES", "25"))  # of each test; a longer run asks for more
FUZZ = settings(
    max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
PATHS = ["/search", "/v1/embeddings", "/encode", "/v1/rerank", "/v2/rerank", "/embed", "/rerank"]
FIELDS = [
    *("query", "queries", "k", "offset", "languages", "probes", "min_score", "per_language", "collapse", "explain"),
    *("input", "inputs", "input_type", "model", "encoding_format", "dimensions", "user", "documents", "top_n"),
    *("return_documents", "max_tokens_per_doc", "texts", "raw_scores", "return_text", "truncate", "prompt_name"),
    *("truncation_direction", "normalize", "priority"),
]
numbers = st.integers(-3, 1100) | st.floats() | st.integers(10**18, 10**25)
words = st.text(max_size=20) | st.sampled_from(
    ["en", "fa", "query", "document", "float", "base64", "tiny", "Right", "the currency", "", "…", "\u0000", "\ud800"]
)
scalars = st.none() | st.booleans() | numbers | words
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=3), max_leaves=8
)
GOOD = {
    "query": words,
    "queries": st.lists(words, max_size=3),
    "k": st.integers(1, 12),
    "input": words | st.lists(words, min_size=1, max_size=3),
    "inputs": words | st.lists(words, min_size=1, max_size=3),
    "documents": st.lists(words, min_size=1, max_size=3),
    "texts": st.lists(words, min_size=1, max_size=3),
    "input_type": st.sampled_from(["query", "document"]),
    "offset": st.integers(0, 20),
    "explain": st.booleans(),
}
RIGHT = {"query": "a", "input": "a", "inputs": "a", "input_type": "query", "documents": ["a"], "texts": ["a"]}
NEEDED = {
    "/search": ["query"],
    "/v1/embeddings": ["input"],
    "/encode": ["input", "input_type"],
    "/v1/rerank": ["query", "documents"],
    "/v2/rerank": ["query", "documents"],
    "/embed": ["inputs"],
    "/rerank": ["query", "texts"],
}


@st.composite
def bodies(draw, path):
    """A body that is nearly right: the fields that the route needs, most of them good, and some others."""
    fields = [*NEEDED[path], *draw(st.lists(st.sampled_from(FIELDS), max_size=3, unique=True))]
    return {field: draw(GOOD[field] if field in GOOD and draw(st.integers(0, 9)) else values) for field in fields}


@pytest.fixture(scope="module", params=["words", "lexical", "dense"])
def server(request, tmp_path_factory):
    return ServerHere(serving_apps.SYSTEMS[request.param](tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def lexical(tmp_path_factory):
    return ServerHere(serving_apps.make_lexical_system(tmp_path_factory.mktemp("anything")))


def check(answer):
    assert answer.status_code < 500, answer.text
    if answer.status_code != 200:
        problem = answer.json()
        assert set(problem) == {"error", "fields", "missing"}
        assert problem["error"]
        assert all(fault["field"] and fault["expected"] and fault["got"] for fault in problem["fields"])
    return answer.status_code


def write_json(value):
    """JSON of any value: a lone surrogate is escaped, NaN is written as Python's parser reads it."""
    return json.dumps(value).encode()


@pytest.mark.parametrize("path", PATHS)
def test_bodies_that_are_nearly_right(server, path):
    statuses = set()

    @FUZZ
    @given(bodies(path))
    @example({field: RIGHT[field] for field in NEEDED[path]})
    @example({})
    def send(body):
        statuses.add(check(server.post(path, content=write_json(body), headers={"content-type": "application/json"})))

    send()
    assert 422 in statuses
    has_answers = server.backend.encoder is not None or path == "/search"
    asks_for_others = server.served.system == "lexical" and path in ("/v1/embeddings", "/embed")
    assert (200 in statuses) == (has_answers and not asks_for_others), statuses


@pytest.mark.parametrize("path", PATHS)
def test_bodies_that_are_anything(lexical, path):
    @FUZZ
    @given(values | st.binary(max_size=200))
    def send(body):
        content = body if isinstance(body, bytes) else write_json(body)
        check(lexical.post(path, content=content, headers={"content-type": "application/json"}))

    send()


@FUZZ
@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]),
    st.sampled_from(
        [*PATHS, "/", "/info", "/health", "/v1/models", "/openapi.json", "/page/x", "//", "/v1", "/search/"]
    ),
    st.dictionaries(
        st.sampled_from(["Authorization", "X-API-Key", "Host", "Origin", "Content-Type", "Accept-Encoding"]),
        st.binary(max_size=30).map(lambda raw: bytes(byte for byte in raw if byte not in b"\r\n\0")),
    ),
)
def test_methods_paths_and_headers(guarded, method, path, headers):
    answer = guarded.send(method, path, headers=headers)
    assert answer.status_code < 500
    if answer.status_code >= 400 and method != "HEAD":
        assert set(answer.json()) == {"error", "fields", "missing"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    keys = (Key(name="a", sha256=hash_key("key")),)
    system = serving_apps.make_words_system(tmp_path_factory.mktemp("guarded"))
    return ServerHere(system, Access(keys=keys, origins=("https://example.org",)))
