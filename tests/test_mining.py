"""Hard negatives against ``sentence_transformers.util.mine_hard_negatives`` on equal embeddings, and planted cases."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.util import cos_sim

from artifacts import table_artifact
from cluster.table import good
from pipelines.mining import Mine, MineConfig, MineNegatives
from pipelines.models import resolve
from pipelines.positives import PositivesConfig, WithPositives
from pipelines.tables import DOCS, QRELS, RANKINGS

pytestmark = pytest.mark.usefixtures("one_thread")

PASSAGES = 80  # of XQuAD's 240, five of an article
WINDOW = 60  # of the 240 passages, paraphrases and translations
LIBRARY = {"relative_margin": "none", "max_overlap": 1.0}  # what the library does by default

PARAMETERS = [
    {},
    {"num_negatives": 7},
    {"range_min": 4, "range_max": 30, "num_negatives": 5},
    {"max_score": 0.35},
    {"min_score": 0.25, "num_negatives": 10},
    {"min_score": 0.2, "max_score": 0.4, "range_max": 40, "num_negatives": 40},
    {"absolute_margin": 0.1},
    {"absolute_margin": 0.0, "range_min": 2},
    {"relative_margin": 0.05},
    {"relative_margin": 0.3, "absolute_margin": 0.05, "max_score": 0.5, "range_min": 3, "num_negatives": 6},
]


@dataclass
class Collection:
    """Passages and questions of XQuAD, and their embeddings by MiniLM, which the library reads from its cache."""

    docs: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, list[str]]
    model: Any
    cache: str

    @property
    def pairs(self) -> dict[str, list[str]]:
        found = [(q, doc) for q in self.queries for doc in self.relevant[q]]
        return {"query": [self.queries[q] for q, _ in found], "passage": [self.docs[doc] for _, doc in found]}


@pytest.fixture(scope="module")
def minilm():
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(resolve("minilm"), device="cpu")
    model.max_seq_length = 128  # half of the time
    return model


def read_tsv(path) -> dict[str, str]:
    return dict(line.rstrip("\n").split("\t", 1) for line in path.open(encoding="utf-8"))


@pytest.fixture(scope="module")
def xquad(minilm, shared_data, tmp_path_factory) -> Collection:
    """One question in seven has a second relevant passage: the next one."""
    folder = shared_data / "xquad"
    docs = dict(list(read_tsv(folder / "collection.en.tsv").items())[:PASSAGES])
    names = list(docs)
    judged = dict(line.split()[0:3:2] for line in (folder / "qrels.tsv").open())
    questions = {q: text for q, text in read_tsv(folder / "queries.en.tsv").items() if judged[q] in docs}
    queries = {q: text for text, q in {text: q for q, text in questions.items()}.items()}  # each text once
    relevant = {q: [judged[q]] for q in queries}
    for q in list(queries)[::7]:
        relevant[q].append(names[(names.index(judged[q]) + 1) % PASSAGES])
    return Collection(docs, queries, relevant, minilm, str(tmp_path_factory.mktemp("embeddings")))


def mine_by_library(xquad: Collection, **options: Any) -> dict[str, list[str]]:
    """Negatives by query, from the library's triplets."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm's
        triplets = mine_hard_negatives(
            Dataset.from_dict(xquad.pairs),
            xquad.model,
            corpus=list(xquad.docs.values()),
            output_format="triplet",
            cache_folder=xquad.cache,
            verbose=False,
            **options,
        )
    ids = {text: doc for doc, text in xquad.docs.items()}
    asked = {text: q for q, text in xquad.queries.items()}
    found: dict[str, dict[str, None]] = {}
    for row in triplets:
        found.setdefault(asked[row["query"]], {})[ids[row["negative"]]] = None
    return {q: list(negatives) for q, negatives in found.items()}


@dataclass
class Embeddings:
    """Those that the library computed and cached: of the questions [Q, D] and of the passages."""

    queries: np.ndarray
    docs: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """Similarities [Q, D], float32, computed as there."""
        return cos_sim(self.queries, self.docs).numpy()


@pytest.fixture(scope="module")
def embeddings(xquad) -> Embeddings:
    mine_by_library(xquad)
    found = {name: next(Path(xquad.cache).glob(f"{name}_*.npy")) for name in ("query_embeddings", "corpus_embeddings")}
    return Embeddings(*(np.load(file) for file in found.values()))


def rank(docs: list[str], queries: list[str], scores_QD: np.ndarray, k: int | None = None) -> Any:
    """RANKINGS of the best k."""
    order = np.argsort(-scores_QD, axis=1, kind="stable")[:, :k]
    rows = zip(queries, order, scores_QD, strict=True)
    return RANKINGS.of(
        [{"query_id": q, "doc_ids": [docs[i] for i in best], "scores": row[best].tolist()} for q, best, row in rows]
    )


def qrels_of(tmp_path, relevant: dict[str, list[str]], lang: str = "en"):
    rows = [{"query_id": q, "doc_id": doc, "relevance": 1} for q, docs in relevant.items() for doc in docs]
    return table_artifact(tmp_path / f"qrels-{lang}", QRELS, rows)


def docs_of(tmp_path, docs: dict[str, str], lang: str = "en"):
    rows = [{"doc_id": doc, "lang": lang, "title": "", "text": text} for doc, text in docs.items()]
    return table_artifact(tmp_path / f"docs-{lang}", DOCS, rows)


def negatives_of(table) -> dict[str, list[str]]:
    return {row["query_id"]: row["doc_ids"] for row in good(RANKINGS.conform(table)).to_pylist()}


def miner(mine: dict[str, Any], **inputs: Any) -> MineNegatives:
    return MineNegatives(MineConfig(mine=Mine(**mine), query_lang="en", doc_lang="en"), inputs)


@pytest.mark.parametrize("options", PARAMETERS, ids=str)
@pytest.mark.parametrize("is_deep", [True, False])
def test_the_negatives_are_those_of_the_library(xquad, embeddings, tmp_path, options, is_deep):
    """Also where the selection is just as deep as is mined, and misses relevant passages."""
    inputs = {"qrels": {"en": qrels_of(tmp_path, xquad.relevant)}, "docs": docs_of(tmp_path, xquad.docs)}
    work = miner(LIBRARY | options, **inputs)
    depth = None if is_deep else Mine(**LIBRARY | options).last_rank(2, has_teacher=False) + 2
    mined = negatives_of(work(rank(list(xquad.docs), list(xquad.queries), embeddings.scores, depth)))
    expected = mine_by_library(xquad, **options)
    assert mined == expected
    assert len(expected) > 50


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    """A teacher with random weights: its order has nothing to do with the selection's."""
    from sentence_transformers import CrossEncoder
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("cross")
    tokenizer = AutoTokenizer.from_pretrained(resolve("minilm"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(tokenizer), **sizes, num_labels=1, initializer_range=0.8)
    BertForSequenceClassification(config).save_pretrained(folder)
    return CrossEncoder(str(folder), max_length=64, device="cpu")


@pytest.mark.parametrize(
    "options",
    [
        {"relative_margin": 0.05},
        {"absolute_margin": 0.1, "range_min": 2, "num_negatives": 4},
        {"min_score": 0.4, "max_score": 0.9, "range_max": 12, "num_negatives": 12},
    ],
    ids=str,
)
def test_a_teacher_decides_as_the_librarys_cross_encoder(xquad, embeddings, cross_encoder, tmp_path, options):
    few = Collection(xquad.docs, dict(list(xquad.queries.items())[:20]), xquad.relevant, xquad.model, xquad.cache)
    expected = mine_by_library(few, cross_encoder=cross_encoder, **options)
    inputs = {"qrels": {"en": qrels_of(tmp_path, {q: xquad.relevant[q] for q in few.queries})}}
    mine = Mine(**LIBRARY | options)
    selection = rank(list(xquad.docs), list(few.queries), embeddings.scores[:20])
    to_score = WithPositives(PositivesConfig(query_lang="en", depth=mine.depth), inputs)(selection)
    scored = []
    for row in to_score.to_pylist():
        pairs = [(few.queries[row["query_id"]], few.docs[doc]) for doc in row["doc_ids"]]
        scores = cross_encoder.predict(pairs, batch_size=32)
        order = np.argsort(-scores, kind="stable")
        best = {"doc_ids": [row["doc_ids"][i] for i in order], "scores": scores[order].tolist()}
        scored.append({"query_id": row["query_id"], **best})
    work = miner(LIBRARY | options, **inputs)
    assert negatives_of(work(selection, RANKINGS.of(scored))) == expected
    assert expected


def test_a_random_choice_is_of_the_same_options_and_a_function_of_seed_and_query(xquad, embeddings, tmp_path):
    options = {"range_min": 3, "range_max": 20, "relative_margin": 0.05}
    inputs = {"qrels": {"en": qrels_of(tmp_path, xquad.relevant)}}
    selection = rank(list(xquad.docs), list(xquad.queries), embeddings.scores)
    every = mine_by_library(xquad, **options, num_negatives=17)
    draw = {**LIBRARY, **options, "num_negatives": 4, "sampling_strategy": "random"}
    first = negatives_of(miner(draw, **inputs)(selection))
    assert first.keys() == every.keys()
    for query, drawn in first.items():
        assert len(drawn) == min(4, len(every[query]))
        assert drawn == [doc for doc in every[query] if doc in drawn], "best first, and of the options alone"
    assert first != {q: docs[:4] for q, docs in every.items()}
    backwards = selection.take(list(range(len(selection)))[::-1])
    assert negatives_of(miner(draw, **inputs)(backwards)) == first
    assert negatives_of(miner({**draw, "seed": 1}, **inputs)(selection)) != first
    query = selection["query_id"][0].as_py()
    draws = [negatives_of(miner({**draw, "seed": seed}, **inputs)(selection[:1])) for seed in range(60)]
    assert {doc for drawn in draws for doc in drawn[query]} == set(every[query]), "each is drawn sooner or later"


SYNONYMS = {
    "was": "had been",
    "were": "had been",
    "also": "as well",
    "many": "numerous",
    "large": "big",
    "first": "initial",
    "used": "employed",
    "however": "nevertheless",
    "because": "since",
    "began": "started",
    "called": "named",
    "important": "significant",
    "several": "a number of",
    "after": "following",
    "before": "prior to",
    "but": "yet",
    "often": "frequently",
    "part": "portion",
    "made": "produced",
}


def paraphrase(text: str) -> str:
    """The second half of the sentences before the first, and other words for some."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    turned = " ".join(sentences[len(sentences) // 2 :] + sentences[: len(sentences) // 2])
    return re.sub(r"\w+", lambda word: SYNONYMS.get(word[0].lower(), word[0]), turned)


def test_planted_false_negatives_are_removed_and_true_ones_stay(xquad, embeddings, tmp_path):
    """Each passage has a paraphrase under another id."""
    relevant = {q: docs[:1] for q, docs in xquad.relevant.items()}
    again = {f"{doc}-again": paraphrase(text) for doc, text in xquad.docs.items()}
    docs = xquad.docs | again
    of_again = xquad.model.encode(list(again.values()), normalize_embeddings=True)
    every = Embeddings(embeddings.queries, np.concatenate([embeddings.docs, of_again]))
    selection = rank(list(docs), list(xquad.queries), every.scores, WINDOW)
    inputs = {"docs": docs_of(tmp_path, docs), "qrels": {"en": qrels_of(tmp_path, relevant)}}

    def mine(**options: Any) -> set[tuple[str, str]]:
        """Pairs of query and negative: all that the filter leaves of the window."""
        every = Mine(range_max=WINDOW, num_negatives=WINDOW, **options)
        work = MineNegatives(MineConfig(mine=every, query_lang="en", doc_lang="en"), inputs)
        return {(query, name) for query, found in negatives_of(work(selection)).items() for name in found}

    selected = {(row["query_id"], name) for row in selection.to_pylist() for name in row["doc_ids"]}
    same = {(q, name) for q, name in selected if name.removesuffix("-again") == relevant[q][0]}
    false = {(q, name) for q, name in same if name != relevant[q][0]}
    true = selected - same
    assert len(false) > 0.95 * len(xquad.queries), "for nearly every question the paraphrase is in the window"
    default, margin_alone, overlap_alone = mine(), mine(max_overlap=1.0), mine(relative_margin="none")
    kept = {name: len(found & false) / len(false) for name, found in (("all", default), ("margin", margin_alone))}
    print(f"{len(false)} false negatives, kept: {kept}; {len(true)} true ones, lost: {len(true - default) / len(true)}")
    assert kept["all"] <= 0.01
    assert kept["margin"] > 0.01, "a margin alone leaves paraphrases: max_overlap is needed"
    assert len(true - default) <= 0.02 * len(true)
    assert not true - overlap_alone
