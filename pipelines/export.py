"""Exporters: write tables in the formats of other tools. One pass, a batch of rows in memory.

    TREC run      query_id Q0 doc_id rank score tag       ranks from 1, blanks between the fields
    TREC qrels    query_id 0 doc_id relevance
    ColBERT       ["q",["d",score],["d",score],…]         one JSON list per query, best first: a score file, which
                                                          ``pipelines.score_file`` reads
    MS MARCO      collection and queries id<TAB>text, qrels query_id<TAB>0<TAB>doc_id<TAB>relevance,
                  run query_id<TAB>doc_id<TAB>rank

trec_eval ignores the rank and orders ties by doc id, the greatest first: a run with ties may measure differently there.
Each function takes tables as ``Artifact.tables()`` gives them and returns the number of lines written. A file whose
name ends with ``.gz`` is compressed.
"""

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.artifact import Artifact
from cluster.errors import TableError
from cluster.storage import Place
from cluster.table import good
from pipelines.tables import RANKINGS
from pipelines.text import join_title

TAB = "\t"
_BREAKS = re.compile(r"[\t\r\n]+")
_NUMBER = re.compile(r"0|[1-9][0-9]*")


def write_trec_run(rankings: Iterable[pa.Table], file: Place, tag: str = "babelray") -> int:
    """Write RANKINGS as a TREC run. Scores have the fewest digits that give the same float32 again.

    Raises:
        TableError: an id or the tag is empty or holds a blank, which would shift the fields.
    """
    _check_field(tag, " ")
    return _write(
        file,
        (
            f"{_check_field(query, ' ')} Q0 {_check_field(doc, ' ')} {rank} {np.float32(score)!s} {tag}"
            for query, docs, scores in _read_rankings(rankings)
            for rank, (doc, score) in enumerate(zip(docs, scores, strict=True), 1)
        ),
    )


def write_trec_qrels(qrels: Iterable[pa.Table], file: Place) -> int:
    """Write QRELS as TREC judgements. Raises TableError for an id that is empty or holds a blank."""
    return _write(file, _format_judgements(qrels, " "))


def export_scores(scores: Artifact, file: Place) -> int:
    """Write a teacher's RANKINGS as a score file (``babelray export RECIPE score FILE``).

    Raises:
        TableError: the artifact is another table.
    """
    if scores.manifest.table != RANKINGS.name:
        raise TableError(f"{scores.name}: expected a table of {RANKINGS.name}, got {scores.manifest.table}")
    return write_colbert_examples(scores.tables(), file)


def write_colbert_examples(rankings: Iterable[pa.Table], file: Place) -> int:
    """Write RANKINGS as ColBERT's scored examples. Ids that are whole numbers are written as such, as ColBERT reads
    them; a query without documents has no example."""
    return _write(file, (_format_example(*ranking) for ranking in _read_rankings(rankings) if ranking[1]))


def _format_example(query: str, docs: list[str], scores: list[float]) -> str:
    scored = ([_read_id(doc), float(str(np.float32(score)))] for doc, score in zip(docs, scores, strict=True))
    return json.dumps([_read_id(query), *scored], ensure_ascii=False, separators=(",", ":"))


def write_msmarco_collection(docs: Iterable[pa.Table], file: Place) -> int:
    """Write DOCS as ``doc_id<TAB>text``, the title before the text; tabs and line breaks in a text become a blank."""
    rows = _read_rows(docs, "doc_id", "title", "text")
    return _write(file, (f"{_check_field(d, TAB)}{TAB}{_join_lines(join_title(t, x))}" for d, t, x in rows))


def write_msmarco_queries(queries: Iterable[pa.Table], file: Place) -> int:
    """Write QUERIES as ``query_id<TAB>text``; tabs and line breaks in a text become a blank."""
    rows = _read_rows(queries, "query_id", "text")
    return _write(file, (f"{_check_field(q, TAB)}{TAB}{_join_lines(x)}" for q, x in rows))


def write_msmarco_qrels(qrels: Iterable[pa.Table], file: Place) -> int:
    """Write QRELS as ``query_id<TAB>0<TAB>doc_id<TAB>relevance``."""
    return _write(file, _format_judgements(qrels, TAB))


def write_msmarco_run(rankings: Iterable[pa.Table], file: Place) -> int:
    """Write RANKINGS as ``query_id<TAB>doc_id<TAB>rank``, ranks from 1."""
    return _write(
        file,
        (
            f"{_check_field(query, TAB)}{TAB}{_check_field(doc, TAB)}{TAB}{rank}"
            for query, docs, _ in _read_rankings(rankings)
            for rank, doc in enumerate(docs, 1)
        ),
    )


def _format_judgements(qrels: Iterable[pa.Table], between: str) -> Iterator[str]:
    for query, doc, relevance in _read_rows(qrels, "query_id", "doc_id", "relevance"):
        yield between.join([_check_field(query, between), "0", _check_field(doc, between), str(relevance)])


def _read_rankings(tables: Iterable[pa.Table]) -> Iterator[tuple[str, list[str], list[float]]]:
    return _read_rows(tables, "query_id", "doc_ids", "scores")


def _read_rows(tables: Iterable[pa.Table], *columns: str) -> Iterator[Any]:
    for table in tables:
        for batch in good(table).select(list(columns)).to_batches(max_chunksize=1024):
            yield from zip(*(batch[name].to_pylist() for name in columns), strict=True)


def _check_field(value: str, between: str) -> str:
    """Check a value that stands between separators. Raises TableError when it is empty or contains one."""
    parts = value.split() if between == " " else _BREAKS.split(value)
    if parts != [value]:
        kind = "blanks" if between == " " else "tabs and line breaks"
        raise TableError(f"cannot export {value!r}: expected an id without {kind}; map such ids to others first")
    return value


def _join_lines(text: str) -> str:
    return _BREAKS.sub(" ", text)


def _read_id(value: str) -> int | str:
    return int(value) if _NUMBER.fullmatch(value) else value


def _write(file: Place, lines: Iterable[str]) -> int:
    count = 0
    with file.writing() as draft, _compress(draft, file.name) as out:
        for line in lines:
            out.write(f"{line}\n".encode())
            count += 1
    return count


def _compress(draft: Any, name: str) -> AbstractContextManager[Any]:
    """What to write into: the file, or gzip around it, without the time, so that equal tables give equal bytes."""
    if name.endswith(".gz"):
        return gzip.GzipFile(filename="", mode="wb", fileobj=draft, mtime=0)
    return nullcontext(draft)
