"""An index that grows and forgets: the results of an index built at once, whatever was added, replaced and deleted."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.storage import Place
from pipelines.index import BuildShard, plan_shards
from pipelines.indexes import open_group
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.bm25 import Bm25
from pipelines.indexes.exact import Exact
from pipelines.indexes.plaid import Plaid
from pipelines.segments.lists import newest_list
from tests.growing import build_at_once, encode_text, make_growing, make_texts, rank, rank_at_once, write_parts
from tests.shards import build, make_docs, make_queries, vectors_artifact

KINDS = [Exact(), Bm25(), Plaid(bits=2, centroids=64), Plaid(bits=4, centroids=64)]
DEPTHS = [{"k": 10}, {"k": 5, "probes": 2, "candidates": 12}, {"k": 400}]


def name(index: object) -> str:
    return f"{index.kind}{getattr(index, 'bits', '')}"


@pytest.mark.parametrize("index", KINDS, ids=name)
def test_what_was_added_and_deleted_ranks_as_an_index_built_at_once(index: object, tmp_path: Path) -> None:
    base = make_texts(90)
    growing = make_growing(tmp_path, index, {"en": base}, shard_rows=40)
    later = {f"n{i}": text for i, text in enumerate(make_texts(60, seed=1).values())}
    changed = dict(zip(list(base)[10:30], make_texts(20, seed=2).values(), strict=True))
    growing.add(write_parts(tmp_path, later))
    change = growing.add(write_parts(tmp_path, {**changed, "d0": base["d0"], "new": "w1 w2 unheard"}))
    assert (change.added, change.replaced, change.unchanged) == (1, 20, 1)
    assert growing.delete([*list(base)[50:60], "n3", "never"]).absent == ["never"]
    dead = {*list(base)[50:60], "n3"}
    texts = {n: t for n, t in (base | later).items() if n not in changed and n not in dead}
    texts |= changed | {"new": "w1 w2 unheard"}  # in the order in which they were added
    queries = list(make_texts(12, seed=3).values()) + ["unheard w5", "w1 w2"]
    questions = queries if index.kind == "bm25" else [encode_text(query).astype(np.float32) for query in queries]
    at_once = build_at_once(growing, index, texts, tmp_path / "once")
    for depth in DEPTHS:
        options = SearchOptions(**depth)
        expected = rank_at_once(at_once, questions, options)
        assert rank(growing.snapshot(), questions, options) == expected
        assert any(expected)
    assert growing.compact().merged == 3
    assert [segment.dead for segment in newest_list(growing.index).segments] == [{}]
    for depth in DEPTHS:
        options = SearchOptions(**depth)
        assert rank(growing.snapshot(), questions, options) == rank_at_once(at_once, questions, options)
    docs = growing.snapshot().open_docs("en")
    assert {n: docs.row(n)["text"] for n in texts} == texts


@pytest.mark.parametrize("seed", [0, 1])
def test_hidden_documents_take_no_share_of_the_depth(seed: int, tmp_path: Path) -> None:
    docs = make_docs(400, seed=seed, tokens=6, passages=4)
    shown = [doc for doc in docs if len(doc[1]) < 3]  # those with many passages are hidden
    index = Plaid(centroids=256)
    place = build(tmp_path / "all", index, {"vectors": {"en": vectors_artifact(tmp_path / "v", docs)}})
    (Place.of(tmp_path / "shown") / "codec").put((place / "codec").path)
    plans = plan_shards({"vectors": {"en": vectors_artifact(tmp_path / "w", shown)}}, "vectors", 10**6)
    BuildShard(index, plans, Place.of(tmp_path / "shown"))(0)
    hiding, alone = (open_group([tmp_path / name / "shards" / "en-00000"]) for name in ("all", "shown"))
    hiding.hide([pa.array([name for name, passages in docs if len(passages) > 2])])
    queries = make_queries(docs, 30, tokens=2)
    for depth in (
        {"k": 5, "candidates": 20},
        {"k": 60, "candidates": 90},
        {"k": 3, "probes": 2},
        {"k": 80, "probes": 3},
    ):
        options = SearchOptions(**depth)
        assert hiding.search(queries, options) == alone.search(queries, options)
    everything = open_group([tmp_path / "all" / "shards" / "en-00000"])
    assert everything.search(queries, SearchOptions(k=5)) != alone.search(queries, SearchOptions(k=5))
