"""The step *evaluate*: the measures of one system on one evaluation set, per language and pooled.

    measures.json       {"<language or all>": {"nDCG@20": …, "AP": …, "R@100": …, "RR@10": …}}
    per_query.parquet   lang, query_id, measure, value: what a significance test compares
    run.<lang>.trec     the rankings, and qrels.<lang>.trec the judgements, as trec_eval reads them

"all" is the pool: the documents of every language in one list, named ``<lang>:<doc_id>``, as a user of all languages at
once sees them. Its rankings are the merged ones of the languages, as deep as the deepest.

A query counts in a language when a document of that language is relevant to it (relevance 1 or more); when the system
found nothing for it, it counts as 0. Measures are those of ir_measures, which calls trec_eval's code.

Ties: trec_eval orders equal scores by doc id *falling* and never reads ranks, so a system's own order would be lost.
What it is given, and what the run files hold, are scores that fall strictly: an equal score is lowered by one unit in
the last place of float32. Our order (score, then doc id rising) is the one that counts, here and in any other tool.

Cost: queries are measured 1024 at a time; memory holds the rankings, as Arrow tables, and the judgements.

Legend: K documents in a ranking.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import field_validator

from cluster.artifact import Artifact, write_part
from cluster.component import Component
from cluster.errors import RecipeError, StepError
from cluster.step import FanOut
from cluster.storage import Place
from pipelines import export
from pipelines.chunks import chunk
from pipelines.search import pool
from pipelines.tables import QRELS, RANKINGS

POOL = "all"
QUERIES_AT_ONCE = 1024
MEASURES = ("nDCG@20", "AP", "R@100", "RR@10")
PER_QUERY = pa.schema(
    [("lang", pa.string()), ("query_id", pa.string()), ("measure", pa.string()), ("value", pa.float64())]
)

_BLANK = re.compile(r"\s")

Qrels = dict[str, dict[str, int]]  # query_id → doc_id → relevance
Run = list[pa.Table]  # RANKINGS
RankingOf = Callable[[str], tuple[list[str], list[float]]]  # query_id → doc_ids, scores


class EvaluateConfig(Component):
    """The evaluation set's name, and the measures by their names in ir_measures."""

    name: str
    measures: tuple[str, ...] = MEASURES

    @field_validator("measures")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        import ir_measures

        for name in names:
            try:
                ir_measures.parse_measure(name)
            except (NameError, ValueError) as error:
                raise RecipeError(
                    f"unknown measure {name!r} ({error}); expected names of ir_measures, as nDCG@20"
                ) from error
        return names


def evaluate(config: EvaluateConfig, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """DirectoryWork: from ``rankings`` and ``qrels`` by language to the files above.

    Returns:
        ``{"set": name, "queries": {lang: queries that count}, "measures": the content of measures.json}``.

    Raises:
        StepError: a language has qrels and no rankings, or no query of the set has a relevant document.
    """
    if missing := [lang for lang in inputs["qrels"] if lang not in inputs["rankings"]]:
        raise StepError(f"evaluate {config.name}: expected rankings for each language with qrels, none for {missing}")
    runs = {lang: list(inputs["rankings"][lang].tables()) for lang in inputs["qrels"]}
    qrels = {lang: read_qrels(judged) for lang, judged in inputs["qrels"].items()}
    runs, qrels = {**runs, POOL: pool_runs(runs)}, {**qrels, POOL: pool_qrels(qrels)}
    if not any(map(_relevant, qrels[POOL].values())):
        raise StepError(f"evaluate {config.name}: no query has a relevant document: check the qrels and the split")

    rows: list[dict[str, Any]] = []
    for lang, run in runs.items():
        run = [strictly(rows) for rows in run]
        export.trec_run(map(_without_blanks, run), out / f"run.{lang}.trec")
        export.trec_qrels(map(_without_blanks, _tables(qrels[lang])), out / f"qrels.{lang}.trec")
        rows += [{"lang": lang, **row} for row in measure(config.measures, run, qrels[lang])]
    write_part(out / "per_query.parquet", pa.Table.from_pylist(rows, schema=PER_QUERY))
    measures = summary(rows, config.measures)
    (out / "measures.json").write(json.dumps(measures, indent=2, ensure_ascii=False).encode())
    judged = {lang: sum(map(_relevant, qrels[lang].values())) for lang in runs}
    return {"set": config.name, "queries": judged, "measures": measures}


def read_measures(evaluation: Artifact) -> dict[str, dict[str, float]]:
    """The content of an evaluation's measures.json: language or "all" → measure → value."""
    measures: dict[str, dict[str, float]] = json.loads((evaluation.place / "measures.json").read())
    return measures


def measure(names: tuple[str, ...], run: Run, qrels: Qrels) -> list[dict[str, Any]]:
    """The value of each measure for each query with a relevant document: rows of ``query_id, measure, value``, sorted.

    The scores of ``run`` must fall strictly: see ``strictly``.
    """
    import ir_measures

    measures = {ir_measures.parse_measure(name): name for name in names}
    judged = {query_id: docs for query_id, docs in sorted(qrels.items()) if _relevant(docs)}
    ranked = _by_query(run)
    rows = []
    for query_ids in chunk(judged, QUERIES_AT_ONCE):
        found = {q: dict(zip(*ranked(q), strict=True)) for q in query_ids}
        values = ir_measures.evaluator(list(measures), {q: judged[q] for q in query_ids}).iter_calc(
            {q: docs for q, docs in found.items() if docs}  # ir_measures gives 0 to a query that is missing
        )
        rows += [{"query_id": v.query_id, "measure": measures[v.measure], "value": float(v.value)} for v in values]
    return sorted(rows, key=lambda row: (row["query_id"], names.index(row["measure"])))


def summary(rows: Iterable[Mapping[str, Any]], names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Each measure over all queries of each language, by its own aggregate (the mean, but for counts)."""
    import ir_measures

    totals: dict[str, dict[str, Any]] = {}
    for row in rows:
        lang = row["lang"]
        if lang not in totals:
            totals[lang] = {name: ir_measures.parse_measure(name).aggregator() for name in names}
        totals[lang][row["measure"]].add(row["value"])
    return {lang: {name: float(total.result()) for name, total in of.items()} for lang, of in totals.items()}


def strictly(rankings: pa.Table) -> pa.Table:
    """RANKINGS with scores that fall strictly, in the same order."""
    scores = [falling(scores_K) for scores_K in rankings["scores"].to_pylist()]
    place = rankings.schema.get_field_index("scores")
    return rankings.set_column(
        place, rankings.schema.field(place), pa.array(scores, RANKINGS.schema.field("scores").type)
    )


def falling(scores_K: Any) -> np.ndarray:
    """The scores, float32, with each that is not below the one before lowered to the next number below that."""
    scores_K = np.array(scores_K, np.float32)
    for i in np.flatnonzero(np.diff(scores_K) >= 0) + 1:
        while i < len(scores_K) and scores_K[i] >= scores_K[i - 1]:
            scores_K[i] = np.nextafter(scores_K[i - 1], np.float32(-np.inf))
            i += 1
    return scores_K


def pool_runs(runs: Mapping[str, Run]) -> Run:
    """The rankings of all languages merged: scores falling, ties by pooled id, as deep as the deepest ranking of a
    language for that query."""
    ranked = {lang: _by_query(run) for lang, run in runs.items()}
    query_ids = sorted({q for run in runs.values() for rows in run for q in rows["query_id"].to_pylist()})
    return [RANKINGS.of([_pooled(query_id, ranked) for query_id in some]) for some in chunk(query_ids, QUERIES_AT_ONCE)]


def _pooled(query_id: str, ranked: Mapping[str, RankingOf]) -> dict[str, Any]:
    found = {lang: list(zip(*ranking_of(query_id), strict=True)) for lang, ranking_of in ranked.items()}
    best = pool(found, max(map(len, found.values())))
    return {"query_id": query_id, "doc_ids": [name for name, _ in best], "scores": [score for _, score in best]}


def read_qrels(artifact: Artifact) -> Qrels:
    """Judgements by query. A relevance below 0 is not relevant, as in trec_eval, and becomes 0: a gain is never
    negative."""
    qrels: Qrels = {}
    for rows in artifact.tables():
        for row in rows.to_pylist():
            qrels.setdefault(row["query_id"], {})[row["doc_id"]] = max(0, row["relevance"])
    return qrels


def pool_qrels(qrels: Mapping[str, Qrels]) -> Qrels:
    """The judgements of all languages, with documents named ``<lang>:<doc_id>``."""
    pooled: Qrels = {}
    for lang, judged in qrels.items():
        for query_id, docs in judged.items():
            pooled.setdefault(query_id, {}).update({f"{lang}:{doc_id}": grade for doc_id, grade in docs.items()})
    return pooled


def _by_query(run: Run) -> RankingOf:
    """A function from a query id to its documents and scores; both are empty when the run does not know it."""
    place = {q: (rows, i) for rows in run for i, q in enumerate(rows["query_id"].to_pylist())}

    def ranking(query_id: str) -> tuple[list[str], list[float]]:
        if query_id not in place:
            return [], []
        rows, i = place[query_id]
        return rows["doc_ids"][i].as_py(), rows["scores"][i].as_py()

    return ranking


def _relevant(docs: Mapping[str, int]) -> bool:
    return any(grade > 0 for grade in docs.values())


def _tables(qrels: Qrels) -> Iterator[pa.Table]:
    for query_ids in chunk(sorted(qrels), QUERIES_AT_ONCE):
        judged = ((q, d, grade) for q in query_ids for d, grade in sorted(qrels[q].items()))
        yield QRELS.of([{"query_id": q, "doc_id": d, "relevance": grade} for q, d, grade in judged])


def _without_blanks(rows: pa.Table) -> pa.Table:
    """The rows with white space in ids percent-encoded, since a blank ends a field of a TREC file."""
    if not any(_BLANK.search(text) for text in _ids(rows)):
        return rows
    return pa.Table.from_pylist([{k: _encoded(v) for k, v in row.items()} for row in rows.to_pylist()], rows.schema)


def _ids(rows: pa.Table) -> Iterator[str]:
    yield from rows["query_id"].to_pylist()
    column = rows["doc_ids"].combine_chunks().flatten() if "doc_ids" in rows.column_names else rows["doc_id"]
    yield from column.to_pylist()


def _encoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_encoded(v) for v in value]
    if not isinstance(value, str):
        return value
    return _BLANK.sub(lambda blank: "".join(f"%{byte:02X}" for byte in blank[0].encode()), value)
