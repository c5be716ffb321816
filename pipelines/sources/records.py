"""Records: from a line of a file to an ``Entry`` with a row, or with the reason to reject it.

The reasons are part of the interface: manifests count them, and users look for them.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pipelines.chunks import chunk
from pipelines.ids import IdSet
from pipelines.sources.base import Entry
from pipelines.sources.files import File

MALFORMED = "malformed line"
NOT_UTF8 = "invalid UTF-8"
EMPTY = "empty text"
DUPLICATE = "duplicate id"
UNKNOWN_QUERY = "unknown query id"
UNKNOWN_DOC = "unknown doc id"
NOT_RELEVANCE = "invalid relevance"

BATCH = 8192  # ids looked up at a time: enough to hide numpy's overhead per call
SHOWN = 80  # characters of a rejected record

_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")  # fits the column's int32
_BLANKS = re.compile(r"[ \t]+")


def read_docs(file: File, lang: str, columns: tuple[int, ...] = (2,), with_last: bool = False) -> Iterator[Entry]:
    """Documents of ``doc_id<TAB>text``; further columns, where ``columns`` allows them, are added to the text
    ``with_last``, behind a blank, else left out."""
    for where, cells in read_cells(file, columns):
        if isinstance(cells, list):
            text = " ".join(cells[1:]) if with_last and cells[1].strip() else cells[1]
            yield make_doc(where, cells[0], text, lang)
        else:
            yield cells


def read_queries(file: File, lang: str) -> Iterator[Entry]:
    """Queries of ``query_id<TAB>text``."""
    for where, cells in read_cells(file, (2,)):
        yield make_query(where, cells[0], cells[1], lang) if isinstance(cells, list) else cells


def read_qrels(file: File) -> Iterator[Entry]:
    """Judgements: ``query_id 0 doc_id relevance`` between tabs or blanks (TREC, MS MARCO), or the three columns of BEIR
    below their header."""
    for at, (where, line) in enumerate(file.lines()):
        if line is None:
            yield Entry(where, None, NOT_UTF8)
            continue
        cells = line.split("\t") if "\t" in line else _BLANKS.split(line.strip())
        if at == 0 and cells[0] == "query-id":
            continue
        if len(cells) not in (3, 4):
            yield _reject(where, MALFORMED, line)
            continue
        yield make_judgement(where, cells[0], cells[-2], cells[-1])


def keep_judged(entries: Iterable[Entry], qrels: Iterable[Entry]) -> Iterator[Entry]:
    """Keep the queries that have a judgement, and all rejects. Holds 8 bytes for each judged query."""
    judged = IdSet()
    for batch in chunk((entry.row["query_id"] for entry in qrels if entry.row), BATCH):
        judged.add(batch)
    for batch in chunk(entries, BATCH):
        kept = judged.has([entry.row["query_id"] if entry.row else "" for entry in batch])
        yield from (entry for entry, keep in zip(batch, kept, strict=True) if keep or not entry.row)


def read_json_lines(file: File) -> Iterator[tuple[str, dict[str, Any] | Entry]]:
    """Each line as (``name:number``, its JSON object), with a reject in place of a line that holds none."""
    for where, line in file.lines():
        if line is None:
            yield where, Entry(where, None, NOT_UTF8)
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # RecursionError: brackets a thousand deep
            record = None
        yield where, record if isinstance(record, dict) else _reject(where, MALFORMED, line)


def make_doc(where: str, doc_id: Any, text: Any, lang: str, title: Any = "") -> Entry:
    """Make an entry of DOCS, or a reject where id or text are missing or blank. A title alone becomes the text."""
    title = "" if title is None else title
    if not isinstance(title, str):
        return _reject(where, MALFORMED, doc_id, title, text)
    if title.strip() and isinstance(text, str) and not text.strip():
        title, text = "", title
    if reject := _find_fault(doc_id, text) or _find_fault(doc_id, f"{title}."):  # a title may be empty
        return _reject(where, reject, doc_id, title, text)
    return Entry(where, {"doc_id": str(doc_id), "lang": lang, "title": title, "text": text})


def read_id(key: Any) -> str | None:
    """The id as a row would hold it, whatever else the record holds; None where it is not an id."""
    return None if _find_fault(key, ".") else str(key)


def make_query(where: str, query_id: Any, text: Any, lang: str) -> Entry:
    """Make an entry of QUERIES, or a reject where id or text are missing or blank."""
    if reject := _find_fault(query_id, text):
        return _reject(where, reject, query_id, text)
    return Entry(where, {"query_id": str(query_id), "lang": lang, "text": text})


def make_judgement(where: str, query_id: Any, doc_id: Any, relevance: Any) -> Entry:
    """Make an entry of QRELS, or a reject. Relevance is a whole number, or a string that writes one."""
    if reject := _find_fault(query_id, ".") or _find_fault(doc_id, "."):
        return _reject(where, reject, query_id, doc_id, relevance)
    if isinstance(relevance, bool) or not _INTEGER.fullmatch(str(relevance)):
        return _reject(where, NOT_RELEVANCE, query_id, doc_id, relevance)
    return Entry(where, {"query_id": str(query_id), "doc_id": str(doc_id), "relevance": int(relevance)})


def read_cells(file: File, columns: tuple[int, ...]) -> Iterator[tuple[str, list[str] | Entry]]:
    """Each line as (``name:number``, its cells), with a reject in place of a line of another number of columns."""
    for where, line in file.lines():
        if line is None:
            yield where, Entry(where, None, NOT_UTF8)
            continue
        cells = line.split("\t")
        yield where, cells if len(cells) in columns else _reject(where, MALFORMED, line)


def _reject(where: str, reason: str, *parts: Any) -> Entry:
    """Make a reject that shows how the record begins, in characters that a terminal and a JSON file can hold."""
    text = " ".join(str(part) for part in parts if part not in (None, ""))[:SHOWN]
    return Entry(where, None, reason, text.encode(errors="replace").decode())


def _find_fault(key: Any, text: Any) -> str:
    """Reason to reject the record, or "". An id is a string with something in it, or a whole number."""
    whole = isinstance(key, int) and not isinstance(key, bool)
    if not (whole or (isinstance(key, str) and key.strip())) or not isinstance(text, str):
        return MALFORMED
    try:
        f"{key}{text}".encode()
    except UnicodeEncodeError:  # JSON can write half a surrogate pair, which no UTF-8 file can hold
        return NOT_UTF8
    return "" if text.strip() else EMPTY
