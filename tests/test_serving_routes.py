"""The routes in this process, around MiniLM, with one vector for each text or for each token, and an index of words."""

import asyncio
import base64

import numpy as np
import pytest
from openapi_spec_validator import validate as validate_openapi

import serving_apps
from pipelines.indexes.maxsim import score_all
from pipelines.text import join_title
from serving.api import build_app
from serving.backend import UnavailableError
from serving.messages import Limits
from serving.routes import MAX_TEXTS
from serving_here import HereBackend, ServerHere, make_minilm_server

pytestmark = pytest.mark.usefixtures("one_thread")
QUESTION = "the currency of Russia"
TEXTS = ["Paris is the capital of France.", "The ruble is the currency of Russia.", "", "Iran is in Asia. " * 40]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return make_minilm_server(tmp_path_factory.mktemp("dense"), per_token=False)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return make_minilm_server(tmp_path_factory.mktemp("tokens"), per_token=True)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return ServerHere(serving_apps.make_words_system(tmp_path_factory.mktemp("words")))


def ask(server, path, **body):
    answer = server.post(path, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(server, path, status, **body):
    answer = server.post(path, body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "fields", "missing"}
    return answer.json()


def list_names(answer):
    return [f"{result['lang']}:{result['doc_id']}" for result in answer["results"]]


# search


def test_a_batch_has_the_answers_of_its_queries(tokens):
    queries = [QUESTION, "Столица Ирана", "首都"]
    batch = ask(tokens, "/search", queries=queries, k=3, languages=["en", "fa"])
    alone = [ask(tokens, "/search", query=query, k=3, languages=["en", "fa"]) for query in queries]
    assert [answer["query"] for answer in batch["answers"]] == queries
    assert [answer["results"] for answer in batch["answers"]] == [answer["results"] for answer in alone]
    assert batch["took_ms"]["total"] > 0


def test_pages_make_up_the_whole_answer(words):
    whole = ask(words, "/search", query=QUESTION, k=20)
    pages = [ask(words, "/search", query=QUESTION, k=2, offset=offset) for offset in range(0, 20, 2)]
    assert len(whole["results"]) > 2
    assert [result for page in pages for result in page["results"]] == whole["results"]


def test_quota_and_least_score_are_kept(tokens):
    whole = ask(tokens, "/search", query=QUESTION, k=20)
    one_each = ask(tokens, "/search", query=QUESTION, k=20, per_language=1)
    assert sorted(result["lang"] for result in one_each["results"]) == ["en", "fa", "ru", "zh"]
    least = whole["results"][2]["score"]
    kept = ask(tokens, "/search", query=QUESTION, k=20, min_score=least)
    assert kept["results"] == [result for result in whole["results"] if result["score"] >= least]


def test_collapsed_results_hold_their_translations(tokens):
    answer = ask(tokens, "/search", query=QUESTION, k=20, collapse=True)
    whole = ask(tokens, "/search", query=QUESTION, k=20)
    ids = [result["doc_id"] for result in answer["results"]]
    assert sorted(ids) == sorted({result["doc_id"] for result in whole["results"]})
    parts = ("lang", "score", "title", "text")
    found = [
        (result["doc_id"], *(text[part] for part in parts))
        for result in answer["results"]
        for text in [result, *result["translations"]]
    ]
    assert sorted(found) == sorted((r["doc_id"], *(r[part] for part in parts)) for r in whole["results"])
    for result in answer["results"]:
        assert all(text["score"] <= result["score"] for text in result["translations"])


def test_results_of_plain_searches_have_no_extra_fields(words):
    (first, *_) = ask(words, "/search", query=QUESTION)["results"]
    assert set(first) == {"rank", "doc_id", "lang", "score", "title", "text"}


def test_equal_texts_of_two_languages_take_turns(tokens):
    """en:d2, en:d3 and fa:d1 have the same text; which language begins depends on the query."""
    firsts = set()
    for query in (f"{word} of Russia" for word in ("currency", "ruble", "money", "The ruble", "a ruble", "rubles")):
        names = list_names(ask(tokens, "/search", query=query, k=3))
        assert names in (["en:d2", "fa:d1", "en:d3"], ["fa:d1", "en:d2", "en:d3"])
        firsts.add(names[0])
    assert firsts == {"en:d2", "fa:d1"}


def test_matches_add_up_to_the_score(tokens):
    answer = ask(tokens, "/search", query=QUESTION, k=20, explain=True)
    assert answer["took_ms"]["explain"] > 0
    for result in answer["results"]:
        scores = [match["score"] for match in result["matches"]]
        assert sum(scores) == pytest.approx(result["score"], abs=0.01)  # the index holds float16


def test_matches_stand_in_query_title_and_text(tokens):
    answer = ask(tokens, "/search", query="Iran currency Tehran", k=20, explain=True)
    fields = set()
    for result in answer["results"]:
        for match in result["matches"]:
            for token in (match["query"], match["passage"]):
                if "field" in token:
                    whole = answer["query"] if token["field"] == "query" else result[token["field"]]
                    assert whole[token["start"] : token["end"]] == token["text"]
                    fields.add(token["field"])
    assert fields == {"query", "title", "text"}


def test_a_batch_is_explained(tokens):
    batch = ask(tokens, "/search", queries=[QUESTION, "Tehran"], k=2, explain=True)
    assert all(result["matches"] for answer in batch["answers"] for result in answer["results"])


class Interrupted(HereBackend):
    """A backend whose answer to "gone" is that a part is gone, and to "late" none."""

    async def answer(self, request):
        if request.query == "gone":
            raise UnavailableError(["shard-fa-00000"], [], 0.0)
        if request.query == "late":
            await asyncio.sleep(60)
        return await super().answer(request)


@pytest.mark.parametrize(
    ("query", "missing", "sentence"),
    [
        ("gone", ["shard-fa-00000"], "shard-fa-00000: gone, being restarted; try again"),
        ("late", ["3 searches"], "no answer within 0.5 s from 3 searches; try again"),
    ],
)
def test_a_batch_is_whole_or_an_error(words, query, missing, sentence):
    info = words.info.model_copy(update={"limits": Limits(timeout_s=0.5)})
    server = ServerHere(words.served)
    server.app = build_app(Interrupted(words.served), info)
    problem = refused(server, "/search", 503, queries=["a", query, "b"])
    assert (problem["missing"], problem["error"]) == (missing, sentence)


BAD_SEARCHES = {
    "nothing": ({}, "query", "1 to 2000 characters"),
    "both": ({"query": "a", "queries": ["b"]}, "queries", "in place of query"),
    "no queries": ({"queries": []}, "queries", "a list of 1 to 64"),
    "65 queries": ({"queries": ["a"] * 65}, "queries", "a list of 1 to 64"),
    "blank among queries": ({"queries": ["a", " "]}, "queries.1", "not blank"),
    "page beyond the last": ({"query": "a", "offset": 995}, "offset", "offset + k is at most 1000"),
    "negative offset": ({"query": "a", "offset": -1}, "offset", "an integer from 0"),
    "score as text": ({"query": "a", "min_score": "high"}, "min_score", "a number"),
    "collapse on a field": ({"query": "a", "collapse": "author"}, "collapse", "true or false"),
    "quota of 0": ({"query": "a", "per_language": 0}, "per_language", "an integer from 1"),
    "too much to explain": ({"query": "a", "k": 101, "explain": True}, "k", "at most 100 results to explain"),
    "unknown field": ({"query": "a", "where": {}}, "where", "one of the fields query, queries, k"),
}


@pytest.mark.parametrize("case", BAD_SEARCHES)
def test_bad_search_names_field_and_expectation(tokens, case):
    body, field, expected = BAD_SEARCHES[case]
    problem = refused(tokens, "/search", 422, **body)
    assert [fault["field"] for fault in problem["fields"]] == [field]
    assert expected in problem["fields"][0]["expected"]


def test_not_a_number_is_no_score(words):
    answer = words.post(
        "/search", content=b'{"query": "x", "min_score": NaN}', headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422


def test_explaining_needs_a_vector_for_each_token(dense, words):
    assert "a vector for each token" in refused(dense, "/search", 422, query="a", explain=True)["error"]
    assert "has no encoder" in refused(words, "/search", 404, query="a", explain=True)["error"]


# vectors of given texts


def test_embeddings_are_those_of_the_encoder(dense):
    answer = ask(dense, "/v1/embeddings", input=["one", "two words"], model="tiny")
    expected = dense.backend.encoder.encode_docs(["one", "two words"])
    assert (answer["object"], answer["model"]) == ("list", "tiny")
    assert [item["index"] for item in answer["data"]] == [0, 1]
    for item, vector in zip(answer["data"], expected, strict=True):
        np.testing.assert_allclose(item["embedding"], vector[0], atol=1e-7)
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}  # with [CLS] and [SEP] of each


def test_embeddings_of_one_text_and_in_base64(dense):
    plain, packed = (
        ask(dense, "/v1/embeddings", input="one", encoding_format=form, input_type="query")["data"][0]["embedding"]
        for form in ("float", "base64")
    )
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(packed), "<f4"), plain, atol=1e-7)
    np.testing.assert_allclose(plain, dense.backend.encoder.encode_queries(["one"])[0][0], atol=1e-7)


def test_dimensions_are_those_that_the_model_was_trained_for(dense, monkeypatch):
    problem = refused(dense, "/v1/embeddings", 422, input="one", dimensions=128)
    assert problem["error"] == "dimensions: expected one of 384; or null, got 128"
    whole = ask(dense, "/v1/embeddings", input="one", dimensions=384)["data"][0]["embedding"]
    config = dense.backend.encoder.model[0].model.config
    monkeypatch.setattr(config, "matryoshka_dimensions", [128, 256], raising=False)
    cut = ask(dense, "/v1/embeddings", input="one", dimensions=128)["data"][0]["embedding"]
    assert np.linalg.norm(cut) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(cut, np.array(whole[:128]) / np.linalg.norm(whole[:128]), atol=1e-6)
    assert ask(dense, "/embed", inputs="one", dimensions=128) == [cut]


def test_token_vectors_are_those_of_the_encoder(tokens):
    texts = ["capital of Iran", "Paris."]
    for task, encode in (
        ("query", tokens.backend.encoder.encode_queries),
        ("document", tokens.backend.encoder.encode_docs),
    ):
        plain = ask(tokens, "/encode", input=texts, input_type=task)
        packed = ask(tokens, "/encode", input=texts, input_type=task, encoding_format="base64")
        assert (plain["dim"], plain["similarity"]) == (384, "maxsim")
        for item, short, expected in zip(plain["data"], packed["data"], encode(texts), strict=True):
            assert item["vectors"] == short["vectors"] == len(expected)
            np.testing.assert_allclose(item["embedding"], expected, atol=1e-7)
            halves = np.frombuffer(base64.b64decode(short["embedding"]), "<f2").reshape(-1, 384)
            np.testing.assert_allclose(halves, expected, atol=1e-3)


def test_one_vector_is_asked_for_of_an_encoder_of_tokens(tokens):
    for path, field in (("/v1/embeddings", "input"), ("/embed", "inputs")):
        problem = refused(tokens, path, 422, **{field: "a"})
        assert "which has a vector for each token: POST /encode gives those" in problem["error"]


def test_encoder_routes_say_that_there_is_no_encoder(words):
    bodies = {
        "/v1/embeddings": {"input": "a"},
        "/encode": {"input": "a", "input_type": "query"},
        "/v1/rerank": {"query": "a", "documents": ["b"]},
        "/v2/rerank": {"query": "a", "documents": ["b"]},
        "/embed": {"inputs": "a"},
        "/rerank": {"query": "a", "texts": ["b"]},
    }
    for path, body in bodies.items():
        assert "is an index of words and has no encoder" in refused(words, path, 404, **body)["error"]


def test_a_model_that_is_not_served_is_refused_with_those_that_are(dense):
    names = [model["id"] for model in dense.send("GET", "/v1/models").json()["data"]]
    assert names[:2] == ["tiny", "tiny/student"]
    for path, body in (("/v1/embeddings", {"input": "a"}), ("/v2/rerank", {"query": "a", "documents": ["b"]})):
        problem = refused(dense, path, 404, model="text-embedding-3-small", **body)
        assert problem["error"] == (
            f'model: expected one that is served: {", ".join(names)}, got "text-embedding-3-small"'
        )
        for name in names:
            assert ask(dense, path, model=name, **body)["model"] == name


# order of given texts


@pytest.mark.parametrize("kind", ["dense", "tokens"])
def test_texts_are_ordered_by_their_best_window(request, kind):
    server = request.getfixturevalue(kind)
    encoder = server.backend.encoder
    (asked,) = encoder.encode_queries([QUESTION])
    raw = [float(score_all([asked], found).max()) for found in encoder.encode_passages(TEXTS, 40, 20)]
    answer = ask(server, "/rerank", query=QUESTION, texts=TEXTS, raw_scores=True, return_text=True)
    best_first = sorted(range(len(TEXTS)), key=lambda at: -raw[at])
    assert [item["index"] for item in answer] == best_first
    assert best_first[0] == 1
    for item in answer:
        assert item["score"] == pytest.approx(raw[item["index"]], abs=1e-4)
        assert item["text"] == TEXTS[item["index"]]
    largest = float(np.linalg.norm(asked, axis=1).sum())
    for path in ("/v1/rerank", "/v2/rerank"):
        results = ask(server, path, query=QUESTION, documents=TEXTS, top_n=2, return_documents=True)["results"]
        assert [item["index"] for item in results] == best_first[:2]
        assert [item["relevance_score"] for item in results] == pytest.approx(
            [raw[at] / largest for at in best_first[:2]], abs=1e-5
        )
        assert results[0]["document"] == {"text": TEXTS[1]}


def test_scores_of_given_texts_are_those_of_a_search(tokens):
    found = ask(tokens, "/search", query=QUESTION, k=20)["results"]
    texts = [join_title(result["title"], result["text"]) for result in found]
    ordered = ask(tokens, "/rerank", query=QUESTION, texts=texts, raw_scores=True)
    scores = {item["index"]: item["score"] for item in ordered}
    assert [scores[at] for at in range(len(found))] == pytest.approx([r["score"] for r in found], abs=0.01)


def test_documents_may_be_objects_with_a_text(dense):
    plain, objects = (
        ask(dense, "/v1/rerank", query="a", documents=documents)["results"]
        for documents in (["b", "c"], [{"text": "b"}, {"text": "c"}])
    )
    assert plain == objects
    problem = refused(dense, "/v1/rerank", 422, query="a", documents=["b", {"title": "c"}])
    assert [fault["field"] for fault in problem["fields"]] == ["documents.1"]


# text-embeddings-inference


def test_embed_gives_a_list_of_vectors(dense):
    expected = dense.backend.encoder.encode_docs(["one", "two"])
    np.testing.assert_allclose(ask(dense, "/embed", inputs=["one", "two"]), [v[0] for v in expected], atol=1e-7)


def test_long_texts_are_cut_only_when_told_to(dense):
    long = "word " * 600
    problem = refused(dense, "/embed", 413, inputs=["a", long])
    limit = dense.send("GET", "/info").json()["max_input_length"]
    assert problem["error"] == f"inputs.1: expected texts of at most {limit} tokens, or truncate: true, got 602 tokens"
    assert len(ask(dense, "/embed", inputs=["a", long], truncate=True)) == 2


def test_info_has_the_fields_of_text_embeddings_inference(dense, tokens, words):
    kinds = [server.send("GET", "/info").json() for server in (dense, tokens, words)]
    assert [kind["model_type"] and list(kind["model_type"]) for kind in kinds] == [["embedding"], ["reranker"], None]
    assert kinds[0]["model_type"] == {"embedding": {"pooling": "mean"}}
    assert all(kind["recipe"] == "tiny" and kind["max_client_batch_size"] == MAX_TEXTS for kind in kinds)
    assert (kinds[0]["passage_length"], kinds[0]["passage_stride"]) == (40, 20)


BAD_TEXTS = {
    "no input": ("/v1/embeddings", {}, "input", "a text that is not empty"),
    "empty text": ("/v1/embeddings", {"input": ""}, "input.0", "a text that is not empty"),
    "no text": ("/v1/embeddings", {"input": []}, "input", "a list of 1 to 256"),
    "numbers of tokens": ("/v1/embeddings", {"input": [1]}, "input.0", "a text that is not empty"),
    "lists of numbers": ("/v1/embeddings", {"input": [[1]]}, "input.0", "a text that is not empty"),
    "257 texts": ("/v1/embeddings", {"input": ["a"] * 257}, "input", "a list of 1 to 256"),
    "unknown format": ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, "encoding_format", "base64"),
    "0 dimensions": ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions", "a number of dimensions"),
    "no input type": ("/encode", {"input": "a"}, "input_type", '"query" or "document"'),
    "no documents": ("/v2/rerank", {"query": "a", "documents": []}, "documents", "a list of 1 to 1000"),
    "no query": ("/v2/rerank", {"documents": ["a"]}, "query", "a text that is not empty"),
    "top 0": ("/v2/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, "top_n", "at least 1"),
    "unknown prompt": ("/embed", {"inputs": "a", "prompt_name": "title"}, "prompt_name", '"query" or "document"'),
    "cut on the left": ("/embed", {"inputs": "a", "truncation_direction": "Left"}, "truncation_direction", '"Right"'),
    "texts of another type": ("/rerank", {"query": "a", "texts": "b"}, "texts", "a list of 1 to 1000 texts"),
    "unknown field": ("/rerank", {"query": "a", "texts": ["b"], "top": 1}, "top", "one of the fields query, texts"),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_bad_request_names_field_and_expectation(dense, case):
    path, body, field, expected = BAD_TEXTS[case]
    problem = refused(dense, path, 422, **body)
    assert [fault["field"] for fault in problem["fields"]] == [field]
    assert expected in problem["fields"][0]["expected"]


def test_bodies_with_texts_may_be_longer_than_searches(dense):
    long = {"query": "a", "documents": ["b" * 80_000]}
    assert dense.post("/v2/rerank", long).status_code == 200
    answer = dense.post("/v2/rerank", {"query": "a", "documents": ["b" * (2 << 20)]})
    assert (answer.status_code, answer.json()["error"]) == (413, "body: expected at most 2,097,152 bytes, got more")


def test_openapi_describes_every_route(dense):
    api = dense.send("GET", "/openapi.json").json()
    validate_openapi(api)
    operations = [operation for methods in api["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations) == 10
    for operation in operations:
        for status, response in operation["responses"].items():
            if status.startswith("4") or status == "500":
                (content,) = response["content"].values()
                assert content["schema"]["$ref"].endswith("/Problem")
