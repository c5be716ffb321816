"""The distillation objective: from entries to a loss. Imports torch.

Each text of a batch goes through the student once, however many entries it is in; rows of similar length go together,
which saves most of the padding. MaxSim and softmax are computed in float32 whatever the precision of the student.

Tensor names end in their shape: N entries, W ways, Q query tokens, T document tokens, D dimensions, U unique texts.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipelines.batching import by_length
from pipelines.docstore import Docstore
from pipelines.precision import autocast, on_device
from pipelines.students.base import Task
from pipelines.students.encoder import TextEncoder
from pipelines.students.tokens import Row
from pipelines.training.batches import Entry
from pipelines.training.losses import AnyLoss, language_consistency

CACHED_TEXTS = 100_000  # about 1 KB each
TOKENS_AT_ONCE = {"cpu": 2_048, "cuda": 131_072}  # of one forward pass
MASKED = -9999.0  # PLAID-X's similarity of a token that does not count


class Distillation:
    """The loss of a batch's entries for a student, summed over queries. Keeps tokenised texts for the next epoch."""

    def __init__(
        self,
        student: TextEncoder,
        queries: Docstore,
        docs: Mapping[str, Docstore],
        loss: AnyLoss,
        consistency: float = 0,
    ):
        self.student, self.loss, self.consistency = student, loss, consistency
        self.queries, self.docs = queries, docs
        self._rows: dict[tuple[str | None, str], Row] = {}

    def __call__(self, groups: Sequence[Sequence[Entry]], precision: str = "auto") -> Tensor:
        """The sum over queries of the mean loss of a query's entries, which are one of ``groups``."""
        entries = [entry for group in groups for entry in group]
        scores_NW = self.scores(entries, precision)
        teacher_NW = torch.tensor([entry.scores.tolist() for entry in entries], device=scores_NW.device)
        each = len(groups[0])
        loss = self.loss.per_entry(scores_NW, teacher_NW).sum() / each
        if self.consistency:
            scores_QLW = scores_NW.unflatten(0, (len(groups), each))
            loss = loss + self.consistency * language_consistency(scores_QLW).sum()
        return loss

    def scores(self, entries: Sequence[Entry], precision: str = "auto") -> Tensor:
        """The student's scores of the entries' passages, float32 [N, W]."""
        queries = {entry.query_id: None for entry in entries}
        docs = {(lang, doc) for entry in entries for lang, doc in zip(entry.langs, entry.doc_ids, strict=True)}
        query_at = {query: at for at, query in enumerate(queries)}
        doc_at = {doc: at for at, doc in enumerate(sorted(docs))}
        query_N = torch.tensor([query_at[entry.query_id] for entry in entries])
        doc_NW = torch.tensor([[doc_at[key] for key in zip(e.langs, e.doc_ids, strict=True)] for e in entries])
        queries_UQD, query_mask_UQ = self._embed([(None, query) for query in query_at], "query", precision)
        docs_UTD, doc_mask_UT = self._embed(list(doc_at), "document", precision)
        query_N, doc_NW = query_N.to(docs_UTD.device), doc_NW.to(docs_UTD.device)
        docs_NWTD, doc_mask_NWT = take(docs_UTD, doc_NW), take(doc_mask_UT, doc_NW)
        return maxsim(take(queries_UQD, query_N), take(query_mask_UQ, query_N), docs_NWTD, doc_mask_NWT)

    def _embed(self, keys: Sequence[tuple[str | None, str]], task: Task, precision: str) -> tuple[Tensor, Tensor]:
        """Vectors float32 [U, T, D] and mask [U, T] of the texts named (language, id)."""
        rows = self._tokenised(keys, task)
        batches = by_length([len(row["input_ids"]) for row in rows], TOKENS_AT_ONCE[self.student.device.type])
        with autocast(self.student.device.type, on_device(precision, self.student.device)):
            parts = [self.student.embed([rows[i] for i in batch], task) for batch in batches]
        longest = max(1, *(mask.shape[1] for _, mask in parts))  # a text may have no token at all
        vectors = torch.cat([pad(v.float(), (0, 0, 0, longest - v.shape[1])) for v, _ in parts])
        mask = torch.cat([pad(m, (0, longest - m.shape[1])) for _, m in parts])
        back = torch.tensor([i for batch in batches for i in batch]).argsort().to(vectors.device)
        return take(vectors, back), take(mask, back)

    def _tokenised(self, keys: Sequence[tuple[str | None, str]], task: Task) -> list[Row]:
        new = [key for key in keys if key not in self._rows]
        if new:
            if len(self._rows) + len(new) > CACHED_TEXTS:
                self._rows.clear()
                new = list(keys)
            texts = [(self.docs[lang] if lang is not None else self.queries).text(text_id) for lang, text_id in new]
            self._rows.update(zip(new, self.student.rows(texts, task), strict=True))
        return [self._rows[key] for key in keys]


def take(rows: Tensor, at: Tensor) -> Tensor:
    """``rows[at]``, with a gradient that adds up in the same order every time: that of indexing does not on threads."""
    return rows.index_select(0, at.flatten()).unflatten(0, at.shape)


def maxsim(queries_NQD: Tensor, query_mask_NQ: Tensor, docs_NWTD: Tensor, doc_mask_NWT: Tensor) -> Tensor:
    """Σ over query tokens of the largest dot product with a token of the document: float32 [N, W]."""
    similar_NWQT = torch.einsum("nqd,nwtd->nwqt", queries_NQD.float(), docs_NWTD.float())
    similar_NWQT = similar_NWQT.masked_fill(~doc_mask_NWT[:, :, None], MASKED)
    return (similar_NWQT.amax(-1) * query_mask_NQ[:, None]).sum(-1)
