"""Contrast: a query's relevant passage against passages that are not relevant to it. Imports torch.

With in-batch negatives the loss is that of the whole batch: the passages of all queries of all workers are candidates.
The texts are embedded in pieces (see ``pieces``), so that the size of a batch costs hardly any memory.

Tensor names end in their shape: N entries of this worker, W ways, M candidates of the batch, U unique texts, Q query
tokens, T document tokens, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pipelines.precision import Precision
from pipelines.students.base import Task
from pipelines.students.encoder import TextEncoder
from pipelines.students.tokens import Row
from pipelines.training.batches import Entry
from pipelines.training.config import TrainConfig
from pipelines.training.losses import ContrastiveLoss, FalseNegatives
from pipelines.training.objectives.base import Pass, Sampler, Share
from pipelines.training.objectives.distil import backward_by_query
from pipelines.training.objectives.pieces import EmbeddedTexts
from pipelines.training.objectives.texts import MASKED, Distinct, cut, score_cuts, take
from pipelines.training.workers import Workers

SIMILARITIES_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 26}  # of query with document tokens: 1 MB, 256 MB


@dataclass(frozen=True)
class Queries:
    """The distinct queries of this worker, and which of them is that of each entry."""

    vectors: Tensor  # [U, Q, D]
    mask: Tensor  # [U, Q]
    query_N: Tensor


@dataclass(frozen=True)
class BatchPassages:
    """What the entries of this worker are compared with: the distinct passages of all workers, and for each of the M
    candidates of the batch which of them it is and its id. This worker's begin at ``first``."""

    vectors: Tensor  # [U, T, D]
    mask: Tensor  # [U, T]
    own: slice  # this worker's among them
    doc_M: Tensor
    ids: Sequence[str]
    first: int


class Contrast:
    """Reads labels; see ``pipelines.training.objectives.base.Objective``."""

    def __init__(self, loss: ContrastiveLoss, config: TrainConfig, student: TextEncoder, sampler: Sampler):
        self._loss, self.config, self.student, self.sampler = loss, config, student, sampler
        self._by_teacher = loss.false_negatives if loss.reads_teacher else None

    def share(self, number: int, rank: int, world: int) -> Share:
        """See ``Objective``."""
        return self.sampler.share(number, rank, world)

    def backward(self, share: Share, step: Pass) -> Tensor:
        """See ``Objective``."""
        if not self._loss.in_batch:
            return backward_by_query(self.loss, self.config.batch, share, step)
        return self._backward_in_batch(share, step)

    def loss(self, groups: Sequence[Sequence[Entry]], share: Share, precision: Precision = "fp32") -> Tensor:
        """The sum over queries of the mean loss of a query's entries, each among its own passages."""
        entries = [entry for group in groups for entry in group]
        left_out = [_find_excluded_ids(entry, self._by_teacher) for entry in entries]
        excluded = [[doc in out for doc in e.doc_ids] for e, out in zip(entries, left_out, strict=True)]
        excluded_NW = torch.tensor(excluded, device=self.student.device)
        positive_N = torch.zeros(len(entries), dtype=torch.long, device=self.student.device)
        excluded_NW[:, 0] = False  # the entry's own relevant passage
        total, rows = torch.zeros((), device=self.student.device), (share.queries, share.docs)
        for weight, scores_NW in score_cuts(self.student, entries, rows, self._loss.cuts, precision):
            scores_NW = scores_NW.masked_fill(excluded_NW, -torch.inf)
            total = total + weight * self._loss.per_entry(scores_NW, positive_N).sum()
        return total / len(groups[0])

    def _backward_in_batch(self, share: Share, step: Pass) -> Tensor:
        entries = [entry for group in share.groups for entry in group]
        texts = Distinct.of(entries, self.student.device)
        rows: dict[Task, list[Row]] = {
            "document": [share.docs[key] for key in texts.docs],
            "query": [share.queries[key] for key in texts.queries],
        }
        embedded = EmbeddedTexts(self.student, rows, step)
        own = Queries(embedded.vectors["query"], embedded.masks["query"], texts.query_N)
        candidates = _gather(embedded, texts, entries, step.workers)
        mean_over = self.config.batch * len(share.groups[0])
        loss, query_gradients, doc_gradients = self._gradients_of_vectors(own, candidates, entries, mean_over, step)
        embedded.backward({"query": query_gradients, "document": doc_gradients})
        return loss

    def _gradients_of_vectors(
        self, own: Queries, candidates: BatchPassages, entries: Sequence[Entry], mean_over: int, step: Pass
    ) -> tuple[Tensor, Tensor, Tensor]:
        """This worker's part of the loss [1], and the whole batch's gradients of this worker's queries and passages."""
        queries, docs = own.vectors.requires_grad_(), candidates.vectors.requires_grad_()
        positive_N = candidates.first + torch.arange(len(entries), device=docs.device) * len(entries[0].doc_ids)
        excluded_NM = _exclude(entries, candidates.ids, positive_N.tolist(), self._by_teacher).to(docs.device)
        total = torch.zeros(1, device=docs.device)
        for dim, weight in self._loss.cuts:
            cut_queries, cut_docs = (cut(vectors, dim, self.student.normalizes) for vectors in (queries, docs))
            leaf = cut_queries.detach().requires_grad_()
            blocks, size = _cut_blocks(cut_docs.detach(), queries.shape[1])
            for part in (slice(start, start + size) for start in range(0, len(entries), size)):
                query_P = own.query_N[part]
                scores_PU = _score_blocks(take(leaf, query_P), take(own.mask, query_P), blocks, candidates.mask)
                scores_PM = scores_PU.index_select(1, candidates.doc_M).masked_fill(excluded_NM[part], -torch.inf)
                loss = weight * self._loss.per_entry(scores_PM, positive_N[part]).sum() / mean_over
                step.scaler.scale(loss).backward()
                total += loss.detach()
            of_docs = torch.cat([block.grad for block in blocks if block.grad is not None])
            torch.autograd.backward([cut_queries, cut_docs], [leaf.grad, of_docs])
        assert queries.grad is not None
        assert docs.grad is not None
        step.workers.sum(docs.grad)
        return total, queries.grad, docs.grad[candidates.own]


def maxsim_all(queries_NQD: Tensor, query_mask_NQ: Tensor, docs_UTD: Tensor, doc_mask_UT: Tensor) -> Tensor:
    """MaxSim of every query with every document, float32 [N, U]."""
    one_each = queries_NQD.shape[1] == docs_UTD.shape[1] == 1
    if one_each and query_mask_NQ.all() and doc_mask_UT.all():  # a vector for each text
        return queries_NQD[:, 0] @ docs_UTD[:, 0].T
    similar_NUQT = torch.einsum("nqd,utd->nuqt", queries_NQD, docs_UTD)
    similar_NUQT = similar_NUQT.masked_fill(~doc_mask_UT[None, :, None], MASKED)
    return (similar_NUQT.amax(-1) * query_mask_NQ[:, None]).sum(-1)


def _cut_blocks(docs_UTD: Tensor, query_tokens: int) -> tuple[list[Tensor], int]:
    """Blocks of documents, and how many queries at once are compared with all: so that a number of similarities is in
    memory at once."""
    most = SIMILARITIES_AT_ONCE[docs_UTD.device.type]
    of_a_pair = query_tokens * docs_UTD.shape[1]
    block = max(1, min(len(docs_UTD), most // of_a_pair))
    queries = max(1, most // (of_a_pair * len(docs_UTD)))
    return [part.detach().requires_grad_() for part in docs_UTD.split(block)], queries


def _score_blocks(queries_PQD: Tensor, query_mask_PQ: Tensor, blocks: Sequence[Tensor], doc_mask_UT: Tensor) -> Tensor:
    """MaxSim of some queries with all documents, float32 [P, U]; of several blocks it is computed anew when gradients
    are, so that the similarities of one block are in memory."""
    masks = doc_mask_UT.split(len(blocks[0]))
    if len(blocks) == 1:
        return maxsim_all(queries_PQD, query_mask_PQ, blocks[0], masks[0])
    scores = [
        checkpoint(maxsim_all, queries_PQD, query_mask_PQ, block, mask, use_reentrant=False, preserve_rng_state=False)
        for block, mask in zip(blocks, masks, strict=True)
    ]
    return torch.cat(scores, dim=1)


def _find_excluded_ids(entry: Entry, by_teacher: FalseNegatives | None) -> frozenset[str]:
    """The ids that are no negatives of an entry, in any language: of passages known to be relevant, and of those that a
    teacher finds about as relevant."""
    return entry.relevant.union(by_teacher.find(entry.teacher, entry.doc_ids[0]) if by_teacher else ())


def _exclude(
    entries: Sequence[Entry], ids: Sequence[str], positives: Sequence[int], by_teacher: FalseNegatives | None
) -> Tensor:
    """Which candidates are no negatives of which entry, bool [N, M]; the entry's own positive is not among them."""
    places: dict[str, list[int]] = {}
    for at, doc_id in enumerate(ids):
        places.setdefault(doc_id, []).append(at)
    excluded_NM = torch.zeros(len(entries), len(ids), dtype=torch.bool)
    for n, (entry, own) in enumerate(zip(entries, positives, strict=True)):
        left_out = _find_excluded_ids(entry, by_teacher)
        excluded_NM[n, [at for doc_id in left_out for at in places.get(doc_id, ()) if at != own]] = True
    return excluded_NM


def _gather(embedded: EmbeddedTexts, texts: Distinct, entries: Sequence[Entry], workers: Workers) -> BatchPassages:
    docs, where = workers.join(embedded.vectors["document"])
    mask, _ = workers.join(embedded.masks["document"].to(torch.uint8))
    all_doc_M, mine = workers.join(texts.doc_NW.flatten() + where.start)
    ids = workers.gather([doc_id for entry in entries for doc_id in entry.doc_ids])
    return BatchPassages(docs, mask.bool(), where, all_doc_M, [i for part in ids for i in part], mine.start)
