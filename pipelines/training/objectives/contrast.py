"""Contrast: a query's relevant passage against passages that are not relevant to it. Imports torch.

With in-batch negatives the loss is that of the whole batch: the passages of all queries of all workers are candidates.
It cannot be cut into pieces, and its gradient can (Gao et al. 2021, GradCache): each piece is embedded without a graph,
the vectors of all are put together, the loss is taken of them, and each piece is embedded again, under the same
dropout, to bring the gradients of its vectors to the weights. A share of one piece keeps its graph and is embedded
once.

Tensor names end in their shape: N entries of this worker, W ways, M candidates of the batch, U unique texts, Q query
tokens, T document tokens, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipelines.precision import Precision
from pipelines.students.encoder import TextEncoder
from pipelines.training.batches import Entry
from pipelines.training.config import TrainConfig
from pipelines.training.data import NEEDS
from pipelines.training.losses import InfoNce
from pipelines.training.objectives.base import Pass, Sampler, Share
from pipelines.training.objectives.distil import backward_by_query
from pipelines.training.objectives.texts import MASKED, embed_entries, score_entries, take
from pipelines.training.workers import Workers

SIMILARITIES_AT_ONCE = 1 << 26  # of query tokens with document tokens: 256 MB


@dataclass(frozen=True)
class Vectors:
    """The vectors of some entries: queries [U, Q, D] with mask [U, Q], passages [U, T, D] with mask [U, T], and where
    those of each entry are (``query_N``, ``doc_NW``)."""

    queries: Tensor
    query_mask: Tensor
    docs: Tensor
    doc_mask: Tensor
    query_N: Tensor
    doc_NW: Tensor


@dataclass(frozen=True)
class Candidates:
    """What the entries of this worker are compared with: the distinct passages of all workers, and for each of the M
    candidates of the batch which of them it is and its id. This worker's begin at ``first``."""

    docs: Tensor  # [U, T, D]
    mask: Tensor  # [U, T]
    own: slice  # this worker's among them
    doc_M: Tensor
    ids: Sequence[str]
    first: int


class Contrast:
    """Reads ``qrels`` and ``rankings``; see ``pipelines.training.objectives.base.Objective``."""

    needs: ClassVar[frozenset[str]] = NEEDS["labels"]

    def __init__(self, loss: InfoNce, config: TrainConfig, student: TextEncoder, sampler: Sampler):
        self._loss, self.config, self.student, self.sampler = loss, config, student, sampler

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
        scores_NW = score_entries(self.student, entries, (share.queries, share.docs), precision)
        return self._loss.per_entry(scores_NW).sum() / len(groups[0])

    def _backward_in_batch(self, share: Share, step: Pass) -> Tensor:
        pieces = [[entry for group in groups for entry in group] for groups in share.cut(step.pieces)]
        states, embedded = [], []
        for entries in pieces:
            states.append(_random_state(self.student.device))
            with torch.set_grad_enabled(len(pieces) == 1):
                embedded.append(self._embed(entries, share, step.precision))
        entries = [entry for piece in pieces for entry in piece]
        own = _join_pieces(embedded)
        candidates = _gather(own, entries, step.workers)
        mean_over = self.config.batch * len(share.groups[0])
        loss, query_gradients, doc_gradients = self._gradients_of_vectors(own, candidates, entries, mean_over, step)
        for at, (state, vectors) in enumerate(zip(states, embedded, strict=True)):
            if len(pieces) > 1:
                _set_random_state(state, self.student.device)
                vectors = self._embed(pieces[at], share, step.precision)
            gradients = []
            for tensor, rest in ((vectors.queries, query_gradients), (vectors.docs, doc_gradients)):
                gradients.append(rest[: len(tensor), : tensor.shape[1]])
            query_gradients, doc_gradients = query_gradients[len(vectors.queries) :], doc_gradients[len(vectors.docs) :]
            step.backward([vectors.queries, vectors.docs], gradients, last=at == len(pieces) - 1)
        return loss

    def _embed(self, entries: Sequence[Entry], share: Share, precision: Precision) -> Vectors:
        return Vectors(*embed_entries(self.student, entries, (share.queries, share.docs), precision))

    def _gradients_of_vectors(
        self, own: Vectors, candidates: Candidates, entries: Sequence[Entry], mean_over: int, step: Pass
    ) -> tuple[Tensor, Tensor, Tensor]:
        """This worker's part of the loss [1], and the whole batch's gradients of this worker's queries and passages."""
        queries, docs = own.queries.detach().requires_grad_(), candidates.docs.requires_grad_()
        ways = own.doc_NW.shape[1]
        positive_N = candidates.first + torch.arange(len(entries), device=docs.device) * ways
        excluded_NM = _known_relevant(entries, candidates.ids, positive_N.tolist()).to(docs.device)
        size = max(1, SIMILARITIES_AT_ONCE // (queries.shape[1] * docs.shape[0] * docs.shape[1]))
        total = torch.zeros(1, device=docs.device)
        for start in range(0, len(entries), size):
            part = slice(start, start + size)
            query_P = own.query_N[part]
            scores_PU = maxsim_all(take(queries, query_P), take(own.query_mask, query_P), docs, candidates.mask)
            scores_PM = scores_PU.index_select(1, candidates.doc_M).masked_fill(excluded_NM[part], -torch.inf)
            loss = self._loss.among(scores_PM, positive_N[part]).sum() / mean_over
            step.scaler.scale(loss).backward()
            total += loss.detach()
        assert queries.grad is not None
        assert docs.grad is not None
        step.workers.sum(docs.grad)
        return total, queries.grad, docs.grad[candidates.own]


def maxsim_all(queries_NQD: Tensor, query_mask_NQ: Tensor, docs_UTD: Tensor, doc_mask_UT: Tensor) -> Tensor:
    """MaxSim of every query with every document, float32 [N, U]."""
    similar_NUQT = torch.einsum("nqd,utd->nuqt", queries_NQD, docs_UTD)
    similar_NUQT = similar_NUQT.masked_fill(~doc_mask_UT[None, :, None], MASKED)
    return (similar_NUQT.amax(-1) * query_mask_NQ[:, None]).sum(-1)


def _known_relevant(entries: Sequence[Entry], ids: Sequence[str], positives: Sequence[int]) -> Tensor:
    """Which candidates are no negatives of which entry, bool [N, M]: those known to be relevant, in any language, but
    for the entry's own positive."""
    places: dict[str, list[int]] = {}
    for at, doc_id in enumerate(ids):
        places.setdefault(doc_id, []).append(at)
    excluded_NM = torch.zeros(len(entries), len(ids), dtype=torch.bool)
    for n, (entry, own) in enumerate(zip(entries, positives, strict=True)):
        excluded_NM[n, [at for doc_id in entry.relevant for at in places.get(doc_id, ()) if at != own]] = True
    return excluded_NM


def _join_pieces(pieces: Sequence[Vectors]) -> Vectors:
    """The vectors of all pieces of this worker, one after another, padded to the longest."""
    query_starts, doc_starts = [0], [0]
    for piece in pieces:
        query_starts.append(query_starts[-1] + len(piece.queries))
        doc_starts.append(doc_starts[-1] + len(piece.docs))
    return Vectors(
        _stack([p.queries.detach() for p in pieces]),
        _stack([p.query_mask for p in pieces]),
        _stack([p.docs.detach() for p in pieces]),
        _stack([p.doc_mask for p in pieces]),
        torch.cat([p.query_N + start for p, start in zip(pieces, query_starts, strict=False)]),
        torch.cat([p.doc_NW + start for p, start in zip(pieces, doc_starts, strict=False)]),
    )


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """[U, T, …] tensors joined along U, padded with zeros to the largest T."""
    longest = max(tensor.shape[1] for tensor in tensors)
    return torch.cat([pad(t, [0, 0] * (t.ndim - 2) + [0, longest - t.shape[1]]) for t in tensors])


def _gather(own: Vectors, entries: Sequence[Entry], workers: Workers) -> Candidates:
    docs, where = workers.join(own.docs)
    mask, _ = workers.join(own.doc_mask.to(torch.uint8))
    doc_M = own.doc_NW.flatten() + where.start
    all_doc_M, mine = workers.join(doc_M)
    ids = workers.gather([doc_id for entry in entries for doc_id in entry.doc_ids])
    return Candidates(docs, mask.bool(), where, all_doc_M, [i for part in ids for i in part], mine.start)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
