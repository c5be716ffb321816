"""Mining on small tables: positives that were not selected, rejects, and what training reads of it."""

from typing import Any

import pytest
from pydantic import ValidationError

from artifacts import table_artifact
from cluster.component import fingerprint
from pipelines.docstore import RowStore
from pipelines.mining import NO_SCORE, NONE_LEFT, Mine, MineConfig, MineNegatives
from pipelines.positives import NO_POSITIVE, PositivesConfig, WithPositives
from pipelines.tables import DOCS, QRELS, RANKINGS
from pipelines.training.data import LabelledPassages

TEXTS = {
    "a": "old stone bridge over the river",
    "b": "a market for salt and wool",
    "c": "the tower of the north",
    "d": "spring in the old town",
    "e": "Over the river, an old stone bridge!",
}


def rankings(**rows: dict[str, float] | str) -> Any:
    """RANKINGS by query: scores by document, or a reject."""
    return RANKINGS.of(
        [
            {"query_id": query, "reject": found}
            if isinstance(found, str)
            else {"query_id": query, "doc_ids": list(found), "scores": list(found.values())}
            for query, found in rows.items()
        ]
    )


def shown(table: Any) -> dict[str, Any]:
    """Documents by query, or the reject."""
    return {row["query_id"]: row["reject"] or row["doc_ids"] for row in RANKINGS.conform(table).to_pylist()}


@pytest.fixture
def docs(tmp_path):
    rows = [{"doc_id": doc, "lang": "en", "title": "", "text": text} for doc, text in TEXTS.items()]
    return table_artifact(tmp_path / "docs", DOCS, rows)


def qrels(tmp_path, *pairs: str, lang: str = "en"):
    rows = [{"query_id": pair[:-1], "doc_id": pair[-1], "relevance": 1} for pair in pairs]
    zero = {"query_id": "q1", "doc_id": "b", "relevance": 0}
    return {lang: table_artifact(tmp_path / f"qrels-{lang}", QRELS, [*rows, zero])}


def miner(inputs: dict[str, Any], **mine: Any) -> MineNegatives:
    return MineNegatives(MineConfig(mine=Mine(**mine), query_lang="en", doc_lang="en"), inputs)


def test_a_positive_that_was_not_selected_is_given_to_the_teacher(tmp_path):
    inputs = {"qrels": qrels(tmp_path, "q1a", "q2b", "q2c")}
    work = WithPositives(PositivesConfig(query_lang="en", depth=1), inputs)
    selected = {"d": 4.0, "e": 3.0, "a": 2.5, "x": 2.0, "b": 1.5, "y": 1.0}
    table = work(rankings(q1=selected, q2=selected, q3=selected, q4="no text", q2x={}))
    assert shown(table) == {
        "q1": ["d", "e", "a", "x", "b"],  # the first 1 + 2 · 2, since a query has at most two relevant passages
        "q2": ["d", "e", "a", "x", "b", "c"],
        "q3": NO_POSITIVE,
        "q4": "no text",
        "q2x": NO_POSITIVE,
    }
    assert table["scores"][1].as_py() == [4.0, 3.0, 2.5, 2.0, 1.5, 1.5]


def test_the_teachers_score_of_the_positive_decides_also_where_the_selector_missed_it(tmp_path, docs):
    inputs = {"qrels": qrels(tmp_path, "q1a"), "docs": docs}
    selection = rankings(q1={"b": 3.0, "c": 2.0, "d": 1.0})
    scores = rankings(q1={"c": 0.96, "a": 0.95, "d": 0.5, "b": 0.4})
    assert shown(miner(inputs)(selection, scores)) == {"q1": ["d", "b"]}
    assert shown(miner(inputs, relative_margin=0.5)(selection, scores)) == {"q1": ["b"]}
    assert shown(miner(inputs, relative_margin=0.6)(selection, scores)) == {"q1": NONE_LEFT}
    assert shown(miner(inputs)(selection)) == {"q1": NO_SCORE}
    assert shown(miner(inputs, relative_margin="none")(selection)) == {"q1": ["b", "c", "d"]}


def test_a_copy_of_the_positive_is_no_negative(tmp_path, docs):
    inputs = {"qrels": qrels(tmp_path, "q1a"), "docs": docs}
    selection = rankings(q1={"a": 3.0, "e": 2.0, "b": 1.0})
    work = miner(inputs)
    assert shown(work(selection)) == {"q1": ["b"]}
    assert work.facts["removed by max_overlap"] == 1
    assert shown(miner(inputs, max_overlap=1.0)(selection)) == {"q1": ["e", "b"]}


def test_facts_count_what_each_filter_removed(tmp_path, docs):
    inputs = {"qrels": qrels(tmp_path, "q1a", "q2a"), "docs": docs}
    work = miner(inputs, max_score=2.0, num_negatives=2)
    row = {"a": 3.0, "c": 2.9, "d": 2.5, "b": 1.0}
    assert shown(work(rankings(q1=row, q2=row))) == {"q1": ["b"], "q2": ["b"]}
    assert work.facts == {
        "removed by relative_margin": 2,
        "removed by max_score": 2,
        "negatives": 2,
        "queries with fewer than num_negatives": 2,
    }
    work(rankings(q1="no text"))
    assert work.facts == {}, "facts are those of one part"


def test_a_synthetic_query_has_the_passage_of_its_id_as_positive(docs):
    selection = rankings(a={"a": 3.0, "c": 2.0, "b": 1.0}, b={"a": 3.0, "b": 2.9, "c": 1.0})
    assert shown(miner({"docs": docs})(selection)) == {"a": ["c", "b"], "b": ["c"]}
    completed = WithPositives(PositivesConfig(query_lang="en", depth=1), {})(rankings(d={"a": 1.0}))
    assert shown(completed) == {"d": ["a", "d"]}


def test_training_reads_the_negatives_as_they_are(tmp_path, docs):
    """They stand in RANKINGS, so that a loss with labels takes them in place of a selection."""
    labels = qrels(tmp_path, "q1a", "q2b", "q3c")
    selection = rankings(q1={"a": 3.0, "c": 2.0, "b": 1.0}, q2={"d": 3.0, "b": 2.0}, q3={"c": 2.0, "d": 1.0})
    mined = miner({"docs": docs, "qrels": labels})(selection).to_pylist()
    passages = LabelledPassages(labels, RowStore.open(table_artifact(tmp_path / "mine", RANKINGS, mined)))
    found = [passages.candidates(row, 5) for row in range(len(passages))]
    assert [(c.query_id, list(c.doc_ids), c.positives) for c in found] == [
        ("q1", ["a", "c", "b"], 1),
        ("q3", ["c", "d"], 1),
    ], "a query without a negative is not drawn"


def test_rejects_stay_rejected(tmp_path, docs):
    inputs = {"qrels": qrels(tmp_path, "q1a", "q2a"), "docs": docs}
    selection = rankings(q1="no text", q2={"b": 1.0}, q3={"b": 1.0})
    scores = rankings(q1="no text", q2="no selected document has a text", q3={"b": 1.0})
    assert shown(miner(inputs)(selection, scores)) == {
        "q1": "no text",
        "q2": "no selected document has a text",
        "q3": NO_POSITIVE,
    }


def test_impossible_settings_are_refused_with_their_keys():
    with pytest.raises(ValidationError, match="mine.num_negatives = 5 cannot be taken from ranks 10 to 12"):
        Mine(range_min=10, range_max=12, num_negatives=5)
    with pytest.raises(ValidationError, match="sampling_strategy"):
        Mine(sampling_strategy="worst")


def test_defaults_are_left_out_of_the_fingerprint_and_none_is_not():
    assert fingerprint(Mine(relative_margin=0.05)) == fingerprint(Mine())
    assert fingerprint(Mine(relative_margin="none")) != fingerprint(Mine())
    assert Mine(relative_margin="none") == Mine(relative_margin=None)
