"""Clients over a socket: ours, those that docs/clients.md shows, OpenAI's and Cohere's, LangChain, LlamaIndex."""

import asyncio
import re
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn

from cluster.errors import RecipeError
from conftest import free_port
from serving.client import AsyncClient, Client, ServerError
from serving_here import make_minilm_server

pytestmark = pytest.mark.usefixtures("one_thread")
PAGE = Path(__file__).parents[1] / "docs" / "clients.md"
SHOWN = "http://127.0.0.1:8000"
QUESTION = "the currency of Iran"
TEXTS = ["the euro", "the rial of Iran"]


@contextmanager
def listen(app, lifespan="on"):
    """Serve an application on loopback, in a thread. Yields its address."""
    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan=lifespan)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return make_minilm_server(tmp_path_factory.mktemp("tokens"), per_token=True)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return make_minilm_server(tmp_path_factory.mktemp("dense"), per_token=False)


@pytest.fixture(scope="module")
def tokens_url(tokens):
    with listen(tokens.app) as address:
        yield address


@pytest.fixture(scope="module")
def dense_url(dense):
    with listen(dense.app) as address:
        yield address


# our own


class Waiting:
    """The asynchronous client, waited for: its methods as those of ``Client``."""

    def __init__(self, base, **options):
        self.runner = asyncio.Runner()
        self.client = AsyncClient(base, **options)

    def __getattr__(self, name):
        method = getattr(self.client, name)
        return lambda *arguments, **options: self.runner.run(method(*arguments, **options))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.runner.run(self.client.close())
        self.runner.close()


@pytest.fixture(params=[Client, Waiting])
def connect(request):
    return request.param


def test_searches_are_those_of_the_routes(connect, tokens, tokens_url):
    with connect(tokens_url) as client:
        answer = client.search(QUESTION, k=3, collapse=True, explain=True)
        expected = tokens.post("/search", {"query": QUESTION, "k": 3, "collapse": True, "explain": True}).json()
        assert answer.model_dump(exclude_none=True)["results"] == expected["results"]
        both = client.search_all([QUESTION, "Tehran"], k=2, languages=["en"])
        assert [len(one.results) for one in both] == [2, 2]
        assert {result.lang for one in both for result in one.results} == {"en"}


def test_vectors_and_scores_are_those_of_the_encoder(connect, dense, dense_url, tokens, tokens_url):
    with connect(tokens_url) as client:
        (found,) = client.encode([QUESTION], input_type="query")
        np.testing.assert_allclose(found, tokens.backend.encoder.encode_queries([QUESTION])[0], atol=1e-3)
        assert [ranked.index for ranked in client.rerank(QUESTION, TEXTS)] == [1, 0]
        assert client.info().recipe == "tiny"
        assert client.health().status == "ok"
    with connect(dense_url) as client:
        vectors = np.stack([vector[0] for vector in dense.backend.encoder.encode_docs(TEXTS)])
        np.testing.assert_allclose(client.embed(TEXTS), vectors, atol=1e-6)
        assert client.embed(TEXTS, dimensions=384).shape == (2, 384)


def test_an_error_has_the_sentence_of_the_server(connect, tokens_url):
    with connect(tokens_url) as client, pytest.raises(ServerError, match="k: expected an integer from 1 to") as raised:
        client.search("a", k=0)
    assert raised.value.status == 422
    assert [fault.field for fault in raised.value.problem.fields] == ["k"]


def test_a_search_is_limited_to_ids_and_by_a_filter_that_is_a_text(connect, tokens_url):
    with connect(tokens_url) as client:
        assert {result.doc_id for result in client.search(QUESTION, ids=["d1"]).results} == {"d1"}
        with pytest.raises(RecipeError, match="expected a number, true, false, or a string in quotes, got the end"):
            client.search(QUESTION, filter="year >=")
        with pytest.raises(ServerError, match="the documents of this index have no metadata to filter by") as caught:
            client.search(QUESTION, filter="year >= 2020 and not draft exists")
    assert caught.value.status == 422
    assert [fault.got for fault in caught.value.problem.fields] == [
        '{"and": [{"field": "year", "op": ">=", "value": 2020.0}, {"not": {"field": "draft", "op": "exists"}}]}'
    ]


def test_a_server_that_is_not_there_is_named(connect):
    port = free_port()
    with connect(f"http://127.0.0.1:{port}") as client, pytest.raises(ServerError, match=f"no answer from .*{port}"):
        client.search("a")


async def respond(send, status, body, headers=()):
    head = [(b"content-type", b"application/json"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


def test_a_busy_server_is_asked_again(connect):
    """It is busy twice, then answers; asked for good after as many tries as were allowed."""
    asked = []

    async def busy_server(scope, receive, send):
        asked.append(scope["path"])
        if len(asked) < 3:
            return await respond(send, 429 if len(asked) == 1 else 503, b'{"error": "busy"}', [(b"retry-after", b"0")])
        return await respond(send, 200, b'{"query": "a", "results": [], "took_ms": {}, "new": 1}')

    with listen(busy_server, lifespan="off") as address:
        with connect(address, retries=1) as client, pytest.raises(ServerError, match="busy") as raised:
            client.search("a")
        assert (raised.value.status, len(asked)) == (503, 2)
        asked.clear()
        with connect(address, retries=2) as client:
            assert client.search("a").results == []
        assert asked == ["/search"] * 3


def test_another_server_is_told_from_ours(connect):
    async def other_server(scope, receive, send):
        await respond(send, 200, b"[]")

    with listen(other_server, lifespan="off") as address, connect(address) as client:
        with pytest.raises(ServerError, match="expected the answer of a babelray server"):
            client.search("a")
        with pytest.raises(ServerError, match="expected the answer of a babelray server"):
            client.rerank("a", ["b"])


# those of docs/clients.md


def run_example(heading, address, **replaced):
    """Run the Python block under a heading of the page, with the address of a server. Returns its names."""
    section = PAGE.read_text("utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    (block,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert SHOWN in block
    for shown, used in {SHOWN: address, **replaced}.items():
        block = block.replace(shown, used)
    names = {"__name__": "example"}
    exec(compile(block, f"docs/clients.md: {heading}", "exec"), names)
    return names


def test_the_example_of_our_client_runs(tokens_url, capsys):
    names = run_example("Python", tokens_url)
    assert len(names["answers"]) == 2
    assert names["best"].index == 1
    assert names["vectors"][0].shape[1] == 384
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.filterwarnings("default")  # they are not ours
def test_openai_client_gets_the_vectors_of_the_encoder(dense, dense_url):
    pytest.importorskip("openai")
    names = run_example("OpenAI's client", dense_url)
    assert names["model"] == "tiny"
    (passage,) = dense.backend.encoder.encode_docs(["The rial is the currency of Iran."])
    (question,) = dense.backend.encoder.encode_queries([QUESTION])
    np.testing.assert_allclose(names["passages"].data[0].embedding, passage[0], atol=1e-6)
    np.testing.assert_allclose(names["question"].data[0].embedding, question[0], atol=1e-6)
    assert names["question"].usage.total_tokens > 0
    client = names["client"]
    plain = client.embeddings.create(model="tiny", input=TEXTS, encoding_format="float")
    assert [len(item.embedding) for item in plain.data] == [384, 384]


@pytest.mark.filterwarnings("default")
def test_openai_client_raises_its_own_errors(dense_url, tokens_url):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{dense_url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert "one that is served: tiny" in missing.value.body
    with pytest.raises(openai.UnprocessableEntityError) as cut:
        client.embeddings.create(model="tiny", input="a", dimensions=7)
    assert "dimensions: expected one of 384" in cut.value.body
    other = openai.OpenAI(base_url=f"{tokens_url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.UnprocessableEntityError) as of_tokens:
        other.embeddings.create(model="tiny", input="a")
    assert "a vector for each token" in of_tokens.value.body


@pytest.mark.filterwarnings("default")
def test_cohere_client_gets_an_order(tokens_url):
    cohere = pytest.importorskip("cohere")
    names = run_example("Cohere's client", tokens_url, MODEL="tiny")
    (best,) = names["ranking"].results
    assert best.index == 1
    assert 0 < best.relevance_score <= 1
    first = cohere.Client(api_key="none", base_url=tokens_url)
    ranking = first.rerank(model="tiny", query=QUESTION, documents=TEXTS, return_documents=True)
    assert [(item.index, item.document.text) for item in ranking.results] == [(1, TEXTS[1]), (0, TEXTS[0])]
    with pytest.raises(cohere.NotFoundError):
        first.rerank(model="rerank-v3.5", query=QUESTION, documents=TEXTS)


@pytest.mark.filterwarnings("default")
def test_langchain_retriever_finds_documents(tokens_url):
    pytest.importorskip("langchain_core")
    documents = run_example("LangChain", tokens_url)["documents"]
    assert len(documents) == 3
    with Client(tokens_url) as client:
        results = client.search(QUESTION, k=3, collapse=True).results
    assert [(d.id, d.page_content, d.metadata["lang"]) for d in documents] == [
        (r.doc_id, r.text, r.lang) for r in results
    ]


@pytest.mark.filterwarnings("default")
def test_llama_index_retriever_finds_nodes(tokens_url):
    pytest.importorskip("llama_index.core")
    nodes = run_example("LlamaIndex", tokens_url)["nodes"]
    with Client(tokens_url) as client:
        results = client.search(QUESTION, k=3).results
    assert [(node.node.id_, node.text, node.score) for node in nodes] == [
        (f"{r.lang}:{r.doc_id}", r.text, r.score) for r in results
    ]


def test_long_answers_are_compressed(tokens_url):
    body = {"query": QUESTION, "k": 20}
    plain = httpx.post(f"{tokens_url}/search", json=body, headers={"accept-encoding": "identity"})
    packed = httpx.post(f"{tokens_url}/search", json=body, headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.json()["results"] == plain.json()["results"]
    assert int(packed.headers["content-length"]) < len(plain.content)
