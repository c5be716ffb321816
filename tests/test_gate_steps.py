"""Gates as a step: rejected rows on real tables, the reasons that are counted, and what is shown of them."""

from collections import Counter

import pyarrow as pa

from artifacts import table_artifact
from cluster.artifact import read_part
from cluster.step import Step
from cluster.storage import Place
from local_executor import run_here
from pipelines.gates import Gate, GateConfig
from pipelines.ingest import IngestConfig, IngestDocs
from pipelines.sources import Jsonl
from pipelines.tables import DOCS, QUERIES
from test_gates import ENGLISH, GERMAN, SPANISH

ROWS = [
    {"doc_id": "good", "title": "The bridge", "text": ENGLISH},
    {"doc_id": "copy", "title": None, "text": ENGLISH},
    {"doc_id": "gone", "reject": "no text"},
    {"doc_id": "stop", "title": "The bridge", "text": ENGLISH},
    {"doc_id": "wrong", "title": "The bridge", "text": ENGLISH},
]
TRANSLATED = [
    {"doc_id": "good", "lang": "de", "title": "Die Brücke", "text": GERMAN},
    {"doc_id": "copy", "lang": "de", "title": None, "text": ENGLISH},
    {"doc_id": "gone", "lang": "de", "reject": "no text"},
    {"doc_id": "stop", "lang": "de", "reject": "translation did not end"},
    {"doc_id": "wrong", "lang": "de", "title": None, "text": SPANISH},
]
REASONS = [None, "gate: copied", "no text", "translation did not end", "gate: language"]


def test_rejected_rows_keep_their_reason_and_judged_rows_their_columns():
    gate = Gate(GateConfig(source_lang="en", target_lang="de"), {})
    translated = DOCS.of(TRANSLATED).append_column("origin", pa.array(["1 nmt"] * 5))
    judged = gate(DOCS.of(ROWS), translated)
    assert judged.schema == translated.schema
    assert judged["reject"].to_pylist() == REASONS
    assert judged.drop_columns("reject") == translated.drop_columns("reject")
    assert gate.facts == {
        "samples": {
            "gate: copied": [("copy", ENGLISH, ENGLISH)],
            "gate: language": [("wrong", ENGLISH, SPANISH)],
        }
    }
    assert gate(DOCS.of(ROWS[:1]), translated.slice(0, 1))["reject"].to_pylist() == [None]
    assert gate.facts == {}


def test_questions_are_judged_too():
    gate = Gate(GateConfig(source_lang="en", target_lang="de"), {})
    rows = QUERIES.of([{"query_id": q, "lang": "en", "text": "Who built the old bridge in the town?"} for q in "ab"])
    texts = ["Wer baute die alte Brücke in der Stadt?", "Qui a construit le vieux pont de la ville ?"]
    made = QUERIES.of([{"query_id": q, "lang": "de", "text": t} for q, t in zip("ab", texts, strict=True)])
    assert gate(rows, made)["reject"].to_pylist() == [None, "gate: language"]


def test_the_step_counts_its_own_rejects_by_reason(tmp_path):
    root = Place.of(tmp_path)
    config = IngestConfig.of(Jsonl(docs_path=str(tmp_path / "none.jsonl")), "en", "all", 3, "docs")
    docs = Step("docs-en", IngestDocs, config, table=DOCS)
    made = Step("translate-de", IngestDocs, config.model_copy(update={"lang": "de"}), table=DOCS)
    for step, rows in ((docs, ROWS), (made, TRANSLATED)):
        table_artifact(tmp_path / step.id, DOCS, rows[:3], rows[3:])
    inputs, judged_by = {"docs": docs, "translation": made}, GateConfig(source_lang="en", target_lang="de")
    gate = Step("gate-de", Gate, judged_by, inputs, table=DOCS, rows=("docs", "translation"), max_rejects=1)
    (artifact,) = run_here([gate], root)
    written = [row for part in artifact.parts for row in read_part(part)["reject"].to_pylist()]
    assert Counter(written) == Counter(REASONS)
    counts = {reason: rejected.count for reason, rejected in artifact.manifest.rejects.items()}
    assert {reason: n for reason, n in counts.items() if reason.startswith("gate")} == {
        "gate: copied": 1,
        "gate: language": 1,
    }
