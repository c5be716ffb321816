"""From passages to training data: synth, search, keep, cap, select, positives, score, mine."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.artifact import Artifact, read_part
from cluster.component import Component, Resources
from cluster.step import Step
from cluster.storage import Place
from local_executor import run_here
from pipelines.index import IndexConfig, build_index
from pipelines.indexes import Bm25
from pipelines.indexes.base import SearchOptions
from pipelines.ingest import IngestConfig, IngestDocs
from pipelines.mining import Mine, MineConfig, MineNegatives
from pipelines.positives import PositivesConfig, WithPositives
from pipelines.scorers import Bm25Scorer
from pipelines.scoring import Score, ScoreConfig
from pipelines.search import Search, SearchConfig
from pipelines.sources.jsonl import Jsonl
from pipelines.synthesis.templates import Templates
from pipelines.synthesis.works import BEYOND, DUPLICATE, Cap, CapConfig, Keep, KeepConfig, Synthesise, SynthesiseConfig
from pipelines.tables import DOCS, QUERIES, RANKINGS, Table

TOWNS = ["Altdorf", "Bergheim", "Castelnuovo", "Drachenfels", "Eisenach", "Fontainebleau", "Grenoble", "Heidelberg"]
GOODS = ["cinnamon", "gunpowder", "porcelain", "tapestries"]
SYNTHESIS = Templates(task="keywords", keep=1, most=20)
MINE = Mine(range_max=12, num_negatives=3)


def texts() -> dict[str, str]:
    """32 passages about a town and a kind of goods; a copy of one of them, later; and one whose words another says in
    fewer words."""
    found = {
        f"{town}-{goods}": f"The merchants of {town} sold {goods} at the market below the {town} castle every spring."
        for goods in GOODS
        for town in TOWNS
    }
    found["again"] = found["Altdorf-cinnamon"]
    found["short"] = "Thunderstorms, shipwrecks, lighthouses, navigators: circumnavigation."
    found["long"] = (
        "Once, long ago, in the far north of the land, men did not yet know a thing of thunderstorms, nor of the many "
        "shipwrecks that the sea had seen, nor of lighthouses. Nor did the old navigators of the time."
    )
    return found


def write_collection(folder: Path) -> None:
    lines = [json.dumps({"doc_id": doc_id, "text": text}) for doc_id, text in texts().items()]
    (folder / "docs.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def run_steps(folder: Path, root: Path) -> dict[str, Artifact]:
    """Make all tables below ``root``."""
    steps = plan_steps(folder, rows_per_part=4)
    return dict(zip(steps, run_here(list(steps.values()), Place.of(root)), strict=True))


def table_step(name: str, work: Any, config: Component, table: Table, over: str, **inputs: Any) -> Step:
    """A row step on a third of a CPU; it may reject."""
    small = Resources(cpus=0.3, actors=1)
    return Step(name, work, config, inputs, table, tuple(over.split()), resources=small, max_rejects=1.0)


def search(name: str, index: Step, queries: Step, k: int) -> Step:
    config = SearchConfig(lang="en", options=SearchOptions(k=k))
    return table_step(name, Search, config, RANKINGS, "rows", rows=queries, index=index)


def plan_steps(folder: Path, rows_per_part: int) -> dict[str, Step]:
    """The steps of a recipe with [synthesis], [select], [score] and [mine], as the plan makes them."""
    source = Jsonl(docs_path=str(folder / "docs.jsonl"))
    docs = Step("docs-en", IngestDocs, IngestConfig.of(source, "en", "all", rows_per_part, "docs"), table=DOCS)
    index = Step("index", build_index, IndexConfig(index=Bm25(), shard_rows=1000), {"docs": {"en": docs}})
    synth = table_step("synth-en", Synthesise, SynthesiseConfig.of(SYNTHESIS, "en"), QUERIES, "docs", docs=docs)
    found = search("found-en", index, synth, SYNTHESIS.keep)
    keep = KeepConfig(lang="en", keep=SYNTHESIS.keep)
    kept = table_step("keep-en", Keep, keep, QUERIES, "queries found", queries=synth, found=found, all=synth)
    cap = table_step("cap-en", Cap, CapConfig(most=SYNTHESIS.most), QUERIES, "queries", queries=kept, all=kept)
    select = search("select", index, cap, 30)
    positives = PositivesConfig(query_lang="en", depth=MINE.depth)
    to_score = table_step("positives", WithPositives, positives, RANKINGS, "rankings", rankings=select)
    score = ScoreConfig(scorer=Bm25Scorer(), query_lang="en", doc_lang="en")
    scores = table_step("score", Score, score, RANKINGS, "rankings", rankings=to_score, queries=cap, docs=docs)
    mine = MineConfig(mine=MINE, query_lang="en", doc_lang="en")
    mined = table_step(
        "mine", MineNegatives, mine, RANKINGS, "rankings scores", rankings=select, scores=scores, docs=docs
    )
    return {step.name: step for step in (docs, synth, found, kept, cap, select, scores, mined)}


def rows_of(artifact: Artifact) -> dict[str, dict[str, Any]]:
    """All rows by id, rejected ones too."""
    rows = [row for part in artifact.parts for row in read_part(part).to_pylist()]
    return {row.get("query_id") or row["doc_id"]: row for row in rows}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("collection")
    write_collection(folder)
    return run_steps(folder, folder / "artifacts")


def whole(artifact: Artifact) -> pa.Table:
    """All parts as one."""
    return pa.concat_tables([read_part(part) for part in artifact.parts])


def test_queries_are_kept_capped_and_rejected_by_reason(made):
    kept = {query: row["reject"] for query, row in rows_of(made["keep-en"]).items()}
    assert list(kept) == list(texts())
    bad = {"again": DUPLICATE, "long": "not found among the first 1"}
    assert {query: reject for query, reject in kept.items() if reject} == bad
    counts = {reason: rejected.count for reason, rejected in made["keep-en"].manifest.rejects.items()}
    assert counts == dict.fromkeys(bad.values(), 1)
    capped = rows_of(made["cap-en"])
    assert sum(row["reject"] is None for row in capped.values()) == SYNTHESIS.most
    assert sum(row["reject"] == BEYOND for row in capped.values()) == len(texts()) - len(bad) - SYNTHESIS.most


def test_each_kept_query_has_negatives_and_none_is_its_passage_or_a_copy(made):
    capped, mined, scores = (rows_of(made[name]) for name in ("cap-en", "mine", "score"))
    assert list(mined) == list(texts())
    for query, row in mined.items():
        if capped[query]["reject"]:
            assert row["reject"] == capped[query]["reject"]
            continue
        assert query in scores[query]["doc_ids"], "the positive is always scored"
        assert query not in (row["doc_ids"] or [])
    good = {query: row for query, row in mined.items() if row["reject"] is None}
    assert len(good) >= SYNTHESIS.most - 1, "the one whose words only one other passage has may have none"
    assert all(1 <= len(row["doc_ids"]) <= MINE.num_negatives for row in good.values())
    if "Altdorf-cinnamon" in good:
        assert "again" not in good["Altdorf-cinnamon"]["doc_ids"]


def test_the_cut_into_parts_decides_nothing(made):
    """Each part was done without a look at the rows of others; all rows at once give the same."""
    assert len(made["mine"].parts) == 9
    synth, keep = made["synth-en"], Keep(KeepConfig(lang="en", keep=1), {"all": made["synth-en"]})
    assert QUERIES.conform(keep(whole(synth), whole(made["found-en"]))) == whole(made["keep-en"])
    cap = Cap(CapConfig(most=SYNTHESIS.most), {"all": made["keep-en"]})
    assert QUERIES.conform(cap(whole(made["keep-en"]))) == whole(made["cap-en"])
    mine = MineNegatives(MineConfig(mine=MINE, query_lang="en", doc_lang="en"), {"docs": made["docs-en"]})
    assert RANKINGS.conform(mine(whole(made["select"]), whole(made["score"]))) == whole(made["mine"])
