"""What is nearest to a question under the student that training begins with, against distances computed one by one."""

import numpy as np
import pytest

from artifacts import directory_artifact
from cluster.storage import Place
from pipelines.nearest import Nearest, NearestConfig
from pipelines.sources.parallel import Parallel
from pipelines.students import load_encoder
from pipelines.tables import RANKINGS
from pipelines.training.start import BuildStudent, StartConfig
from test_meta_episodes import read_tables, write_collection
from test_meta_loop import STUDENT

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    root = tmp_path_factory.mktemp("lareqa")
    write_collection(root)
    return read_tables(Parallel(path=str(root)), tmp_path_factory.mktemp("tables"), ("ar", "el"))


@pytest.fixture(scope="module")
def start(tables, tmp_path_factory):
    root = tmp_path_factory.mktemp("start") / "start@0"
    data = {"main": {"queries": tables["queries"]["el"], "docs": tables["docs"]}}
    BuildStudent(StartConfig(student=STUDENT), data, Place.of(root))("student")
    return directory_artifact(root)


def rank(config, inputs, rows):
    table = Nearest(config, inputs)(rows)
    RANKINGS.conform(table)
    return table.to_pylist()


def test_passages_are_ranked_by_distance_and_relevant_ones_are_never_left_out(tables, start):
    queries = tables["queries"]["el"].read()
    inputs = {"student": start, "texts": tables["docs"]["ar"], "qrels": tables["qrels"]["ar"]}
    found = rank(NearestConfig(depth=4, role="document"), inputs, queries)
    student, docs = load_encoder(start.place.fetch() / "start", "cpu"), tables["docs"]["ar"].read().to_pylist()
    docs_ND = np.concatenate(student.encode_docs([doc["text"] for doc in docs]))
    for row, ranked in zip(queries.to_pylist(), found, strict=True):
        (query_1D,) = student.encode_queries([row["text"]])
        distances = np.linalg.norm(docs_ND - query_1D, axis=1)
        answer = next(
            n for n, doc in enumerate(docs) if doc["doc_id"] == f"ar-p{row['query_id'][1:].replace('-', '-s')}"
        )
        nearest = np.argsort(distances)[:4].tolist()
        expected = [*nearest, *([answer] if answer not in nearest else [])]
        assert ranked["query_id"] == row["query_id"]
        np.testing.assert_allclose(ranked["scores"], -distances[expected], atol=1e-3)
        assert docs[answer]["doc_id"] in ranked["doc_ids"]


def test_a_question_is_not_near_to_itself(tables, start):
    queries = tables["queries"]["el"]
    inputs = {"student": start, "texts": queries}
    found = rank(NearestConfig(depth=3, role="query"), inputs, queries.read())
    assert all(row["query_id"] not in row["doc_ids"] for row in found)
    assert {len(row["doc_ids"]) for row in found} == {3}


def test_a_rejected_question_stays_rejected(tables, start):
    rows = tables["queries"]["el"].read().to_pylist()[:2]
    rows[0] = {**rows[0], "text": None, "reject": "no translation"}
    inputs = {"student": start, "texts": tables["queries"]["ar"]}
    table = tables["queries"]["el"].read().schema
    import pyarrow as pa

    found = rank(NearestConfig(depth=3, role="query"), inputs, pa.Table.from_pylist(rows, schema=table))
    assert found[0]["reject"] == "no translation"
    assert found[0]["doc_ids"] is None
    assert len(found[1]["doc_ids"]) == 3
