"""From ids to vectors: the texts of a batch, tokenised once, and put through the student once each.

Rows of similar length go through the model together, which saves most of the padding. MaxSim is computed in float32
whatever the precision of the student.

Tensor names end in their shape: N entries, W ways, Q query tokens, T document tokens, D dimensions, U unique texts.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from pipelines.batching import by_length
from pipelines.docstore import Docstore
from pipelines.precision import Precision, autocast
from pipelines.students.base import Task
from pipelines.students.encoder import TextEncoder
from pipelines.students.tokens import Row
from pipelines.training.batches import Entry

CACHE_BYTES = 256 << 20  # of tokenised texts, for the next epoch; a small collection fits, a large one has no use of it
BYTES_PER_TENSOR = 700  # what an empty tensor takes in memory
TOKENS_AT_ONCE = {"cpu": 2_048, "cuda": 131_072}  # of one forward pass
MASKED = -9999.0  # PLAID-X's similarity of a token that does not count

Texts = tuple[Mapping[tuple[str, str], Row], Mapping[tuple[str, str], Row]]  # queries and docs, by (language, id)
Embedded = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]  # vectors and masks of queries, and of docs


class TokenRows:
    """Tokenised texts of a data set by id. Those used last are kept, up to ``CACHE_BYTES`` of them. ``prompts`` stand
    before the texts of a task in the place of the student's own."""

    def __init__(
        self,
        student: TextEncoder,
        queries: Mapping[str, Docstore],
        docs: Mapping[str, Docstore],
        prompts: Mapping[Task, str] | None = None,
    ):
        self._student, self._prompts = student, prompts or {}
        self._stores: dict[Task, Mapping[str, Docstore]] = {"query": queries, "document": docs}
        self._kept: dict[Any, Row] = {}
        self._bytes = 0

    def of_queries(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Row]:
        """The rows of these queries, by (language, id)."""
        return dict(zip(keys, self._rows(keys, "query"), strict=True))

    def of_docs(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Row]:
        """The rows of these documents, by (language, id)."""
        return dict(zip(keys, self._rows(keys, "document"), strict=True))

    def _rows(self, keys: Sequence[tuple[str, str]], task: Task) -> list[Row]:
        """Tokenise what is not kept, in one call."""
        named = [(task, key) for key in keys]
        rows = {name: self._kept.pop(name) for name in named if name in self._kept}  # put back below, as the newest
        new = [name for name in named if name not in rows]
        made = dict(zip(new, self._tokenise([key for _, key in new], task), strict=True)) if new else {}
        self._bytes += sum(_bytes(row) for row in made.values())
        rows |= made
        self._kept |= rows
        while self._bytes > CACHE_BYTES:
            self._bytes -= _bytes(self._kept.pop(next(iter(self._kept))))
        return [rows[name] for name in named]

    def _tokenise(self, keys: Sequence[tuple[str, str]], task: Task) -> list[Row]:
        return self._student.rows(self._texts(keys, task), task, self._prompts.get(task))

    def _texts(self, keys: Sequence[tuple[str, str]], task: Task) -> list[str]:
        """The texts of these keys, looked up together in each language."""
        found: dict[tuple[str, str], str] = {}
        for lang in dict.fromkeys(lang for lang, _ in keys):
            ids = [text_id for of, text_id in keys if of == lang]
            texts = self._stores[task][lang].texts(ids)
            found |= zip(((lang, text_id) for text_id in ids), texts, strict=True)
        return [found[key] for key in keys]


def _bytes(row: Row) -> int:
    return sum(value.nbytes + BYTES_PER_TENSOR for value in row.values() if isinstance(value, Tensor))


def embed(student: TextEncoder, rows: Sequence[Row], task: Task, precision: Precision) -> tuple[Tensor, Tensor]:
    """Vectors float32 [U, T, D] of tokenised texts, and which of them count, bool [U, T]."""
    # workers that hold the weights together must take the same number of passes: one
    is_divided = hasattr(student.model, "unshard")  # a method of FSDP2, whose import takes more than a second
    at_once = sys.maxsize if is_divided else TOKENS_AT_ONCE[student.device.type]
    lengths = [len(row["input_ids"]) for row in rows]
    # one batch, in the order that is asked for, where a batch may be of any size
    batches: list[np.ndarray] = [np.arange(len(rows))] if student.is_lookup else by_length(lengths, at_once)
    with autocast(student.device.type, precision):
        parts = [student.embed([rows[i] for i in batch], task) for batch in batches]
    longest = max(1, *(mask.shape[1] for _, mask in parts))  # a text may have no token at all
    if student.is_lookup and parts[0][1].shape[1] == longest:
        return parts[0][0].float(), parts[0][1]
    vectors = torch.cat([pad(v.float(), (0, 0, 0, longest - v.shape[1])) for v, _ in parts])
    mask = torch.cat([pad(m, (0, longest - m.shape[1])) for _, m in parts])
    back = torch.tensor([i for batch in batches for i in batch]).argsort().to(vectors.device)
    return take(vectors, back), take(mask, back)


@dataclass(frozen=True)
class Distinct:
    """The distinct texts of some entries, and where those of each entry are among them: ``query_N``, ``doc_NW``."""

    queries: Sequence[tuple[str, str]]
    docs: Sequence[tuple[str, str]]
    query_N: Tensor
    doc_NW: Tensor

    @classmethod
    def of(cls, entries: Sequence[Entry], device: torch.device) -> "Distinct":
        """Find them."""
        queries = list(dict.fromkeys((entry.query_lang, entry.query_id) for entry in entries))
        docs = sorted({key for entry in entries for key in zip(entry.langs, entry.doc_ids, strict=True)})
        query_at, doc_at = ({key: at for at, key in enumerate(keys)} for keys in (queries, docs))
        query_N = torch.tensor([query_at[entry.query_lang, entry.query_id] for entry in entries], device=device)
        doc_NW = torch.tensor(
            [[doc_at[key] for key in zip(e.langs, e.doc_ids, strict=True)] for e in entries], device=device
        )
        return cls(queries, docs, query_N, doc_NW)


def score_cuts(
    student: TextEncoder,
    entries: Sequence[Entry],
    rows: Texts,
    cuts: Sequence[tuple[int | None, float]],
    precision: Precision = "fp32",
) -> Iterator[tuple[float, Tensor]]:
    """For each cut (see ``Loss.cuts``) its weight and the student's scores of the entries' passages, float32 [N, W].
    ``rows`` are tokenised queries and docs."""
    embed_entries = _embed_each if student.is_lookup else _embed_distinct
    (queries_NQD, query_mask_NQ), (docs_NWTD, doc_mask_NWT) = embed_entries(student, entries, rows, precision)
    for dim, weight in cuts:
        queries, docs = (cut(vectors, dim, student.normalizes) for vectors in (queries_NQD, docs_NWTD))
        yield weight, maxsim(queries, query_mask_NQ, docs, doc_mask_NWT)


def _embed_distinct(student: TextEncoder, entries: Sequence[Entry], rows: Texts, precision: Precision) -> Embedded:
    """The vectors and masks of the entries' queries, [N, Q, D] and [N, Q], and passages, [N, W, T, D] and [N, W, T].
    Each distinct text goes through the student once, and its vectors are copied to where it stands."""
    texts = Distinct.of(entries, student.device)
    queries_UQD, query_mask_UQ = embed(student, [rows[0][key] for key in texts.queries], "query", precision)
    docs_UTD, doc_mask_UT = embed(student, [rows[1][key] for key in texts.docs], "document", precision)
    return (
        (take(queries_UQD, texts.query_N), take(query_mask_UQ, texts.query_N)),
        (take(docs_UTD, texts.doc_NW), take(doc_mask_UT, texts.doc_NW)),
    )


def _embed_each(student: TextEncoder, entries: Sequence[Entry], rows: Texts, precision: Precision) -> Embedded:
    """The same vectors and masks, of a student that looks its vectors up. A text that stands several times is embedded
    as often: a lookup costs less than copying its vectors."""
    keys = [key for entry in entries for key in zip(entry.langs, entry.doc_ids, strict=True)]
    queries = embed(student, [rows[0][entry.query_lang, entry.query_id] for entry in entries], "query", precision)
    docs, doc_mask = embed(student, [rows[1][key] for key in keys], "document", precision)
    return queries, (docs.unflatten(0, (len(entries), -1)), doc_mask.unflatten(0, (len(entries), -1)))


def cut(vectors: Tensor, dim: int | None, normalized: bool) -> Tensor:
    """The first ``dim`` dimensions of vectors [..., D], unit vectors again where the whole ones are; None: all."""
    if dim is None:
        return vectors
    return normalize(vectors[..., :dim], dim=-1) if normalized else vectors[..., :dim]


def take(rows: Tensor, at: Tensor) -> Tensor:
    """``rows[at]``, with a gradient that adds up in the same order every time: that of indexing does not on threads."""
    return rows.index_select(0, at.flatten()).unflatten(0, at.shape)


def maxsim(queries_NQD: Tensor, query_mask_NQ: Tensor, docs_NWTD: Tensor, doc_mask_NWT: Tensor) -> Tensor:
    """Σ over query tokens of the largest dot product with a token of the document: float32 [N, W]."""
    similar_NWQT = torch.einsum("nqd,nwtd->nwqt", queries_NQD.float(), docs_NWTD.float())
    similar_NWQT = similar_NWQT.masked_fill(~doc_mask_NWT[:, :, None], MASKED)
    return (similar_NWQT.amax(-1) * query_mask_NQ[:, None]).sum(-1)
