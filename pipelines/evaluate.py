"""The step *evaluate*: the measures of one system on one evaluation set, per language and pooled.

    measures.json       {"<language or all>": {"nDCG@20": …, "AP": …, "R@100": …, "RR@10": …}}
    per_query.parquet   lang, query_id, measure, value: what a significance test compares
    fairness.json       of the pool: each language's share of what was found, and PEER (see ``pipelines.fairness``)
    run.<lang>.trec     the rankings, and qrels.<lang>.trec the judgements, as trec_eval reads them

"all" is the pool: the documents of every language in one list, named ``<lang>:<doc_id>``, as a user of all languages at
once sees them. Its rankings are the merged ones of the languages, as deep as the deepest.

A query counts in a language when a document of that language is relevant to it (relevance 1 or more), or, with
``topics_in = "every"``, when each language has such a document; a query for which the system found nothing has the
value 0. Measures are those of ir_measures, which calls trec_eval's code.

Ties: trec_eval orders equal scores by falling doc id and never reads ranks, so a system's own order would be lost. It
is given, and the run files hold, strictly falling scores: an equal score is lowered by one unit in the last place of
float32. Our order (score, then doc id rising) is thus the one that counts, here and in any other tool.

Cost: queries are measured 1024 at a time; memory holds the rankings, as Arrow tables, and the judgements.

Legend: K documents in a ranking.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

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
from pipelines.fairness import DEPTH, measure_fairness
from pipelines.search import pool
from pipelines.tables import QRELS, RANKINGS

POOL = "all"
MONO, CROSS = "mono", "cross"  # of sentence pairs: the means over one language, and over two different ones
OVER_LANGUAGES = (POOL, MONO, CROSS)
QUERIES_PER_BATCH = 1024
MEASURES = ("nDCG@20", "AP", "R@100", "RR@10")
PER_QUERY = pa.schema(
    [("lang", pa.string()), ("query_id", pa.string()), ("measure", pa.string()), ("value", pa.float64())]
)

_BLANK = re.compile(r"\s")

Qrels = dict[str, dict[str, int]]  # query_id → doc_id → relevance
Run = list[pa.Table]  # RANKINGS
RankingOf = Callable[[str], tuple[list[str], list[float]]]  # query_id → doc_ids, scores


class EvaluateConfig(Component):
    """How a set is evaluated.

    Attributes:
        name: of the evaluation set.
        measures: by their names in ir_measures.
        topics_in: which queries count. any: in each language those with a relevant document of that language. every:
            everywhere those with a relevant document in each language, as the 41 topics of NeuCLIR 2022.
    """

    name: str
    measures: tuple[str, ...] = MEASURES
    topics_in: Literal["any", "every"] = "any"

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
    """Measure ``rankings`` against ``qrels``, both by language, and write the files above (a DirectoryWork).

    Returns:
        ``{"set": name, "queries": {lang: queries that count}, "left_out": queries with a relevant document that do not
        count (see ``topics_in``), "measures": the content of measures.json, "fairness": that of fairness.json}``.

    Raises:
        StepError: a language has qrels and no rankings, or no query counts.
    """
    if missing := [lang for lang in inputs["qrels"] if lang not in inputs["rankings"]]:
        raise StepError(f"evaluate {config.name}: expected rankings for each language with qrels, none for {missing}")
    runs = {lang: list(inputs["rankings"][lang].tables()) for lang in inputs["qrels"]}
    judgements = {lang: read_qrels(judged) for lang, judged in inputs["qrels"].items()}
    qrels = keep_shared_topics(judgements) if config.topics_in == "every" else judgements
    left_out = _topics(pool_qrels(judgements)) - _topics(pool_qrels(qrels))
    runs, qrels = {**runs, POOL: pool_runs(runs)}, {**qrels, POOL: pool_qrels(qrels)}
    if not _topics(qrels[POOL]):
        where = "" if config.topics_in == "any" else " in every language (topics_in)"
        raise StepError(
            f"evaluate {config.name}: no query has a relevant document{where}: check the qrels and the split"
        )

    rows: list[dict[str, Any]] = []
    for lang, run in runs.items():
        run = [break_ties(rows) for rows in run]
        export.write_trec_run(map(_without_blanks, run), out / f"run.{lang}.trec")
        export.write_trec_qrels(map(_without_blanks, _tables(qrels[lang])), out / f"qrels.{lang}.trec")
        rows += [{"lang": lang, **row} for row in measure(config.measures, run, qrels[lang])]
    write_part(out / "per_query.parquet", pa.Table.from_pylist(rows, schema=PER_QUERY))
    measures = summarise(rows, config.measures)
    (out / "measures.json").write(json.dumps(measures, indent=2, ensure_ascii=False).encode())
    counts = {lang: len(_topics(qrels[lang])) for lang in runs}
    k, ranked = find_depth(config.measures), _by_query(runs[POOL])
    fairness = measure_fairness({query: ranked(query)[0][:k] for query in _topics(qrels[POOL])}, qrels[POOL], k)
    (out / "fairness.json").write(json.dumps(fairness, indent=2).encode())
    facts = {"set": config.name, "queries": counts, "left_out": len(left_out)}
    return {**facts, "measures": measures, "fairness": fairness}


evaluate.version = 2  # type: ignore[attr-defined]  # 2: fairness.json


def find_depth(names: tuple[str, ...]) -> int:
    """At which depth the pool is looked at: that of the first measure that has one."""
    import ir_measures

    depths = (ir_measures.parse_measure(name).params.get("cutoff") for name in names)
    return int(next(filter(None, depths), DEPTH))


def read_fairness(evaluation: Artifact) -> dict[str, Any]:
    """The content of an evaluation's fairness.json."""
    fairness: dict[str, Any] = json.loads((evaluation.place / "fairness.json").read())
    return fairness


def read_measures(evaluation: Artifact) -> dict[str, dict[str, float]]:
    """The content of an evaluation's measures.json: language or "all" → measure → value."""
    measures: dict[str, dict[str, float]] = json.loads((evaluation.place / "measures.json").read())
    return measures


def measure(names: tuple[str, ...], run: Run, qrels: Qrels) -> list[dict[str, Any]]:
    """Measure each query that has a relevant document: rows of ``query_id, measure, value``, sorted.

    The scores of ``run`` must fall strictly: see ``break_ties``.
    """
    import ir_measures

    measures = {ir_measures.parse_measure(name): name for name in names}
    judged = {query_id: docs for query_id, docs in sorted(qrels.items()) if _has_relevant(docs)}
    ranked = _by_query(run)
    rows = []
    for query_ids in chunk(judged, QUERIES_PER_BATCH):
        found = {q: dict(zip(*ranked(q), strict=True)) for q in query_ids}
        values = ir_measures.evaluator(list(measures), {q: judged[q] for q in query_ids}).iter_calc(
            {q: docs for q, docs in found.items() if docs}  # ir_measures gives 0 to a query that is missing
        )
        rows += [{"query_id": v.query_id, "measure": measures[v.measure], "value": float(v.value)} for v in values]
    return sorted(rows, key=lambda row: (row["query_id"], names.index(row["measure"])))


def summarise(rows: Iterable[Mapping[str, Any]], names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Aggregate each measure over the queries of each language: the mean, or the sum for counts."""
    import ir_measures

    totals: dict[str, dict[str, Any]] = {}
    for row in rows:
        lang = row["lang"]
        if lang not in totals:
            totals[lang] = {name: ir_measures.parse_measure(name).aggregator() for name in names}
        totals[lang][row["measure"]].add(row["value"])
    return {lang: {n: float(total.result()) for n, total in by_name.items()} for lang, by_name in totals.items()}


def break_ties(rankings: pa.Table) -> pa.Table:
    """Make the scores of each ranking fall strictly; the order stays."""
    scores = [lower_ties(scores_K) for scores_K in rankings["scores"].to_pylist()]
    place = rankings.schema.get_field_index("scores")
    return rankings.set_column(
        place, rankings.schema.field(place), pa.array(scores, RANKINGS.schema.field("scores").type)
    )


def lower_ties(scores_K: Any) -> np.ndarray:
    """Lower each score that is not below the one before it to the next float32 below that one."""
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
    return [
        RANKINGS.of([_pool_query(query_id, ranked) for query_id in batch])
        for batch in chunk(query_ids, QUERIES_PER_BATCH)
    ]


def _pool_query(query_id: str, ranked: Mapping[str, RankingOf]) -> dict[str, Any]:
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


def keep_shared_topics(qrels: Mapping[str, Qrels]) -> dict[str, Qrels]:
    """The judgements of the queries that have a relevant document in each language."""
    shared = set.intersection(*map(_topics, qrels.values()))
    return {lang: {q: docs for q, docs in judged.items() if q in shared} for lang, judged in qrels.items()}


def pool_qrels(qrels: Mapping[str, Qrels]) -> Qrels:
    """The judgements of all languages, with documents named ``<lang>:<doc_id>``."""
    pooled: Qrels = {}
    for lang, judged in qrels.items():
        for query_id, docs in judged.items():
            pooled.setdefault(query_id, {}).update({f"{lang}:{doc_id}": grade for doc_id, grade in docs.items()})
    return pooled


def _by_query(run: Run) -> RankingOf:
    """Make a function from a query id to its documents and scores: both empty where the run lacks the query."""
    place = {q: (rows, i) for rows in run for i, q in enumerate(rows["query_id"].to_pylist())}

    def ranking(query_id: str) -> tuple[list[str], list[float]]:
        if query_id not in place:
            return [], []
        rows, i = place[query_id]
        return rows["doc_ids"][i].as_py(), rows["scores"][i].as_py()

    return ranking


def _topics(qrels: Qrels) -> set[str]:
    """The queries with a relevant document."""
    return {query_id for query_id, docs in qrels.items() if _has_relevant(docs)}


def _has_relevant(docs: Mapping[str, int]) -> bool:
    return any(grade > 0 for grade in docs.values())


def _tables(qrels: Qrels) -> Iterator[pa.Table]:
    for query_ids in chunk(sorted(qrels), QUERIES_PER_BATCH):
        judged = ((q, d, grade) for q in query_ids for d, grade in sorted(qrels[q].items()))
        yield QRELS.of([{"query_id": q, "doc_id": d, "relevance": grade} for q, d, grade in judged])


def _without_blanks(rows: pa.Table) -> pa.Table:
    """Percent-encode white space in ids, since a blank ends a field of a TREC file."""
    if not any(_BLANK.search(text) for text in _ids(rows)):
        return rows
    encoded = [{key: _encode_blanks(value) for key, value in row.items()} for row in rows.to_pylist()]
    return pa.Table.from_pylist(encoded, rows.schema)


def _ids(rows: pa.Table) -> Iterator[str]:
    yield from rows["query_id"].to_pylist()
    column = rows["doc_ids"].combine_chunks().flatten() if "doc_ids" in rows.column_names else rows["doc_id"]
    yield from column.to_pylist()


def _encode_blanks(value: Any) -> Any:
    if isinstance(value, list):
        return [_encode_blanks(v) for v in value]
    if not isinstance(value, str):
        return value
    return _BLANK.sub(lambda blank: "".join(f"%{byte:02X}" for byte in blank[0].encode()), value)
