"""The steps of a system that fuses others: rankings of every language and system in, rankings of one language out.

    learn_weights  which weights of a grid rank the dev questions best               (a directory)
    Fuse           rankings of each system and language → those of one language      (rankings)

The documents of a language stand in the order that they have among those of all languages, so that pooling the results
gives the same ranking as fusing the pools.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pyarrow as pa
from pydantic import Field

from cluster.artifact import Artifact
from cluster.component import Component
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.evaluate import POOL, break_ties, measure, pool_qrels, read_qrels, summarise
from pipelines.fusion import Fusion, fuse
from pipelines.indexes.base import Ranking
from pipelines.search import pool
from pipelines.tables import RANKINGS

STEPS_OF_GRID = 10  # weights are tenths


class FuseConfig(Component):
    """The language of the documents that are kept, how deep, which system and language each table is of, and how they
    are fused."""

    lang: str
    tables: tuple[tuple[str, str], ...]  # (system, language) of each table, in the order of the step's ``rows``
    fusion: Fusion = Fusion()
    k: int = Field(100, ge=1)


class Fuse:
    """RowWork: RANKINGS of each system and language, aligned, → RANKINGS of one language.

    ``inputs["weights"]`` is the artifact of ``learn_weights``, where weights were learnt.
    """

    def __init__(self, config: FuseConfig, inputs: Mapping[str, Any]) -> None:
        self.config = config
        learnt = inputs.get("weights")
        self.fusion = with_learnt(config.fusion, learnt) if learnt else config.fusion

    def __call__(self, *tables: pa.Table) -> pa.Table:
        """Fuse a part."""
        return RANKINGS.of([self._fuse(rows) for rows in zip(*(t.to_pylist() for t in tables), strict=True)])

    def _fuse(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        query_id = rows[0]["query_id"]
        if reject := next((row["reject"] for row in rows if row["reject"] is not None), None):
            return {"query_id": query_id, "reject": reject}
        fused = fuse(pool_systems(self.config.tables, rows), self.fusion)
        start = f"{self.config.lang}:"
        kept = [(name.removeprefix(start), score) for name, score in fused if name.startswith(start)][: self.config.k]
        return {"query_id": query_id, "doc_ids": [name for name, _ in kept], "scores": [score for _, score in kept]}


def pool_systems(tables: Sequence[tuple[str, str]], rows: Sequence[Mapping[str, Any]]) -> list[Ranking]:
    """The ranking of all languages by each system, in the order of the systems, from rows of RANKINGS of one query."""
    found: dict[str, dict[str, Ranking]] = {}
    for (system, lang), row in zip(tables, rows, strict=True):
        found.setdefault(system, {})[lang] = list(zip(row["doc_ids"] or [], row["scores"] or [], strict=True))
    return [pool(by_lang, sum(map(len, by_lang.values()))) for by_lang in found.values()]


class LearnConfig(Component):
    """Which weights are tried: those of ``fusion`` with each tuple of tenths that add up to 1. ``measure`` is that of
    the ranking of all languages which chooses; of equal ones the most even weights are taken."""

    tables: tuple[tuple[str, str], ...]
    fusion: Fusion = Fusion()
    measure: str = "nDCG@20"


def learn_weights(config: LearnConfig, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """Choose the weights by the dev questions (a DirectoryWork).

    Inputs: ``rankings`` by system and language, and ``qrels`` by language. Writes ``weights.json`` and returns what it
    holds: ``weights``, and under ``tried`` the measure of each of the grid.
    """
    rankings = inputs["rankings"]
    columns = [_read_rows(rankings[system][lang]) for system, lang in config.tables]
    pooled = {
        rows[0]["query_id"]: pool_systems(config.tables, rows)
        for rows in zip(*columns, strict=True)
        if all(row["reject"] is None for row in rows)
    }
    qrels = pool_qrels({lang: read_qrels(judged) for lang, judged in inputs["qrels"].items()})
    count = len(dict(config.tables))
    tried = {}
    for weights in list_weights(count):
        fusion = config.fusion.model_copy(update={"weights": weights})
        rows = [_to_row(query_id, fuse(systems, fusion)) for query_id, systems in pooled.items()]
        values = measure((config.measure,), [break_ties(RANKINGS.of(rows))], qrels)
        tried[weights] = summarise([{"lang": POOL, **value} for value in values], (config.measure,))[POOL][
            config.measure
        ]
    best = min(tried, key=lambda weights: (-tried[weights], max(weights) - min(weights), weights))
    facts = {
        "weights": list(best),
        "measure": config.measure,
        "queries": len(pooled),
        "tried": [{"weights": list(weights), "value": value} for weights, value in tried.items()],
    }
    (out / "weights.json").write(json.dumps(facts, indent=1).encode())
    return facts


def list_weights(count: int) -> list[tuple[float, ...]]:
    """All weights of ``count`` systems in tenths that add up to 1."""
    tenths = product(range(STEPS_OF_GRID + 1), repeat=count)
    return [tuple(n / STEPS_OF_GRID for n in chosen) for chosen in tenths if sum(chosen) == STEPS_OF_GRID]


def with_learnt(fusion: Fusion, learnt: Artifact) -> Fusion:
    """The fusion with the weights that ``learn_weights`` chose."""
    return fusion.model_copy(update={"weights": tuple(learnt.manifest.facts["weights"])})


def _read_rows(rankings: Artifact) -> list[dict[str, Any]]:
    return [row for table in rankings.tables() for row in table.to_pylist()]


def _to_row(query_id: str, ranking: Ranking) -> dict[str, Any]:
    return {
        "query_id": query_id,
        "doc_ids": [name for name, _ in ranking],
        "scores": [score for _, score in ranking],
    }
