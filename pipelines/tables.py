"""The tables of the system, and the contract of each: its columns, its key, and what is checked where rows are written.

DOCS      passages or documents of one language. ``origin`` says which stage made a translation ("1 nmt", "2 llm",
          "1 parallel"); null where the text is as it was ingested. Where the recipe names fields to keep, ``metadata``
          holds them (``pipelines.filters.fields``)
QUERIES   questions of one language, with the same ``origin``
QRELS     relevance judgements (TREC: 0 is judged and not relevant)
RANKINGS  for each query its documents and their scores, best first: a selection, a teacher's, or a search result
VECTORS   the encoder's output for a document or a query. ``tokens`` lists the vectors of each of its passages (one
          passage for a query or a short document, one vector per passage for a single-vector encoder); ``vectors``
          holds sum(tokens) rows of float16, passage after passage
PAIRS     two sentences of one language and how alike they are, from 0 to 5 (STS). A pair has the same id and score in
          every language, so one across languages has its left sentence from one table and its right one from another
"""

from itertools import pairwise
from math import isfinite

import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import TableError
from cluster.table import Table
from pipelines.filters.fields import METADATA

ORIGIN = frozenset({"origin"})
BEST_SCORE = 5.0  # of PAIRS: two sentences that mean the same; 0: they have nothing in common


def _check_texts(rows: pa.Table) -> None:
    blank = pc.sum(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(rows["text"])), 0)).as_py() or 0
    if blank or rows["text"].null_count:
        raise TableError(f"{blank + rows['text'].null_count} rows have no text: give each a reason in `reject`")


def _check_pairs(rows: pa.Table) -> None:
    for side in ("left", "right"):
        blank = pc.sum(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(rows[side])), 0)).as_py() or 0
        if blank or rows[side].null_count:
            raise TableError(f"table pairs: {blank + rows[side].null_count} rows have no {side} sentence")
    scores = rows["score"].to_pylist()
    if wrong := [score for score in scores if score is None or not 0 <= score <= BEST_SCORE]:
        raise TableError(f"table pairs: expected scores from 0 to {BEST_SCORE:g}, got {wrong[:5]}")


def _check_rankings(rows: pa.Table) -> None:
    lengths, scored = pc.list_value_length(rows["doc_ids"]), pc.list_value_length(rows["scores"])
    if not pc.all(pc.equal(lengths, scored)).as_py() and len(rows):
        raise TableError("table rankings: doc_ids and scores of a row must have the same length")
    for ids, scores in zip(rows["doc_ids"].to_pylist(), rows["scores"].to_pylist(), strict=True):
        if any(b > a for a, b in pairwise(scores)) or not all(map(isfinite, scores)):
            raise TableError(f"table rankings: scores must fall and be finite numbers, got {scores[:5]}…")
        if len(set(ids)) != len(ids):
            raise TableError(f"table rankings: a document is ranked twice in {ids[:10]}…")


def _check_vectors(rows: pa.Table) -> None:
    sizes = pc.binary_length(rows["vectors"]).to_pylist()
    for tokens, size in zip(rows["tokens"].to_pylist(), sizes, strict=True):
        if not tokens or min(tokens) < 1 or size == 0 or size % (2 * sum(tokens)):
            raise TableError(f"table vectors: {size} bytes are not {tokens} rows of float16")


DOCS = Table(
    "docs",
    pa.schema([(name, pa.string()) for name in ("doc_id", "lang", "title", "text", "origin")]),
    optional=ORIGIN,
    free=frozenset({METADATA}),
    key=("doc_id",),
    check=_check_texts,
)
QUERIES = Table(
    "queries",
    pa.schema([(name, pa.string()) for name in ("query_id", "lang", "text", "origin")]),
    optional=ORIGIN,
    key=("query_id",),
    check=_check_texts,
)
QRELS = Table(
    "qrels",
    pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("relevance", pa.int32())]),
    key=("query_id", "doc_id"),
)
RANKINGS = Table(
    "rankings",
    pa.schema(
        [("query_id", pa.string()), ("doc_ids", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))],
    ),
    key=("query_id",),
    check=_check_rankings,
)
VECTORS = Table(
    "vectors",
    pa.schema([("id", pa.string()), ("tokens", pa.list_(pa.int32())), ("vectors", pa.binary())]),
    key=("id",),
    check=_check_vectors,
)
PAIRS = Table(
    "pairs",
    pa.schema(
        [
            ("pair_id", pa.string()),
            ("lang", pa.string()),
            ("left", pa.string()),
            ("right", pa.string()),
            ("score", pa.float32()),
        ]
    ),
    key=("pair_id",),
    check=_check_pairs,
)
