"""PLAID searched by torch on a device (``search.device``): the stages of ``pipelines.indexes.plaid.search``.

    1  a product of all centroids with the query; its nearest filled cells are probed
    2  the first score of a passage from the cells of all of its tokens, in the place of lists: for each query token the
       highest gain of a probed cell, 0 for others
    3  MaxSim with a centroid in the place of each token; 4 MaxSim with decoded vectors

Each stage keeps what the compiled loops keep, so that rankings are the same but for ties and the order of sums. Codes
and residuals of a group are copied to the device once: ``bits / 8`` bytes per component and 4 per token. A query takes
memory for ``TOKENS`` rows of scores. Queries of a batch follow one another. That it is faster than a processor was not
measured. Legend: Q query tokens, C centroids, K probes, P passages, T tokens, N dim.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.errors import StepError
from pipelines.indexes.files import blocks, offsets, ranges
from pipelines.indexes.plaid.depth import Depth
from pipelines.vectors import FloatArray, IntArray

if TYPE_CHECKING:
    from pipelines.indexes.plaid.search import Findable, PlaidGroup

TOKENS = 1 << 20  # whose scores are held at a time


class DeviceShards:
    """The shards of a group on a device. Raises StepError where there is no such device."""

    def __init__(self, group: "PlaidGroup", device: str):
        import torch

        if device != "cpu" and not torch.cuda.is_available():
            raise StepError(
                f'search.device = "{device}": this process sees no GPU; give its step one (resources.search.gpus = 1), '
                "or leave search.device out"
            )
        self._torch, self._group, self._device = torch, group, device
        self._codes_T = self._put(np.concatenate([codes for codes, *_ in group.files]).astype(np.int32))
        self._residuals_TW = self._put(np.concatenate([residuals for _, residuals, *_ in group.files]))
        self._centroids_CN = self._put(group.codec.centroids_CN)
        self._weights_BH = self._put(group.codec.weights_of_byte)
        self._starts_P1 = group.docs.token_starts_P1

    def rank(self, query_QN: FloatArray, depth: Depth, findable: "Findable") -> tuple[IntArray, FloatArray]:
        """The passages that are decoded for a query, ascending, and their scores."""
        query = self._put(query_QN)
        scores_CQ = self._centroids_CN @ query.T
        if depth.scores_all(findable.passages):
            passages = findable.list_all()
        else:
            passages = self._find(scores_CQ, query_QN, depth, findable)
        if len(passages) > depth.decoded:
            scores_P = self._max_sim(passages, partial(self._of_cells, scores_CQ)).sum(dim=1)
            passages = passages[self._highest(scores_P, depth.decoded)]
        scores_P = self._max_sim(passages, lambda tokens: self._decode(tokens) @ query.T).sum(dim=1)
        return passages, scores_P.cpu().numpy()

    def _find(self, scores_CQ: Any, query_QN: FloatArray, depth: Depth, findable: "Findable") -> IntArray:
        """The candidates by their probed cells; more cells are probed until there are enough."""
        torch, group = self._torch, self._group
        filled = int(group.is_filled_C.sum())
        probes = min(depth.probes, filled)
        of_filled_CQ = scores_CQ.masked_fill(~self._put(group.is_filled_C)[:, None], -torch.inf)
        least_Q = depth.threshold * self._put(np.linalg.norm(query_QN, axis=1))
        every = findable.list_all()
        while True:
            best_KQ, cells_KQ = of_filled_CQ.topk(probes, dim=0)
            gains_KQ = torch.where(best_KQ >= least_Q, best_KQ - best_KQ[-1], 0.0)
            gains_CQ = torch.full_like(scores_CQ, -1.0).scatter(0, cells_KQ, gains_KQ)  # −1: not probed
            gains_PQ = self._max_sim(every, partial(self._of_cells, gains_CQ))
            found = (gains_PQ >= 0).any(dim=1).nonzero()[:, 0]
            if len(found) >= depth.enough or probes == filled:
                scores_P = gains_PQ[found].clamp(min=0).sum(dim=1)
                return every[found.cpu().numpy()[self._highest(scores_P, depth.candidates)]]
            probes = min(2 * probes, filled)

    def _max_sim(self, passages: IntArray, score: Any) -> Any:
        """Of each passage and query token the highest score (P, Q) of ``score``, which is given tokens."""
        firsts = self._starts_P1[passages]
        lengths = self._starts_P1[passages + 1] - firsts
        made = []
        for first, last in blocks(offsets(lengths), TOKENS):
            some = lengths[first:last]
            scores_TQ = score(self._put(ranges(firsts[first:last], some)))
            made.append(self._torch.segment_reduce(scores_TQ, "max", lengths=self._put(some), axis=0))
        return self._torch.cat(made)

    def _of_cells(self, scores_CQ: Any, tokens: Any) -> Any:
        """The scores (T, Q) of the cells of these tokens."""
        return scores_CQ[self._codes_T[tokens].long()]

    def _decode(self, tokens: Any) -> Any:
        """The unit vectors (T, N) that these tokens stand for."""
        vectors_TN = self._weights_BH[self._residuals_TW[tokens].long()].reshape(len(tokens), -1)
        vectors_TN = vectors_TN + self._centroids_CN[self._codes_T[tokens].long()]
        return vectors_TN / vectors_TN.norm(dim=1, keepdim=True).clamp(min=1e-12)

    def _highest(self, scores_P: Any, count: int) -> IntArray:
        """Where the ``count`` highest scores are, ascending."""
        if len(scores_P) <= count:
            return np.arange(len(scores_P))
        return np.sort(scores_P.topk(count).indices.cpu().numpy())

    def _put(self, array: np.ndarray) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
