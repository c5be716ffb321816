"""The texts of a batch, embedded in pieces that hold a number of tokens, whatever the size of the batch (GradCache, Gao
et al. 2021). Imports torch.

A loss over a whole batch cannot be cut into pieces, and its gradient can. Each piece is embedded without a graph; the
loss is taken of all vectors; then each piece is embedded again, under the same dropout, and brings the gradients of its
vectors to the weights. Some pieces, which together are no larger than one, keep their graph and are embedded once: so a
small batch costs what it would cost without pieces.

Memory holds the activations of one piece, and the vectors of the batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipelines.batching import by_length
from pipelines.students.base import Task
from pipelines.students.encoder import TextEncoder
from pipelines.students.tokens import Row
from pipelines.training.objectives.base import Pass
from pipelines.training.objectives.texts import embed

RandomState = tuple[Tensor, Tensor | None]


@dataclass
class Piece:
    """Texts of one task: where they are among the texts of that task, and their tokens, padding included."""

    task: Task
    at: Tensor
    rows: Sequence[Row]
    tokens: int
    random: RandomState | None = None  # before it was embedded
    vectors: Tensor | None = None  # [U, T, D] with their graph, where it is kept


class EmbeddedTexts:
    """Vectors without a graph, which can take their gradients to the weights.

    Pieces hold at most ``step.piece_tokens`` tokens, padding included, and are at least about ``step.pieces``. Where
    all workers must take the same passes, each has as many pieces as the one that has most, and none keeps its graph.

    Attributes:
        vectors: by task float32 [U, T, D], in the order of the rows.
        masks: which of them count, by task bool [U, T].
    """

    def __init__(self, student: TextEncoder, rows: Mapping[Task, Sequence[Row]], step: Pass):
        self._student, self._step = student, step
        lengths = {task: [len(row["input_ids"]) for row in of_task] for task, of_task in rows.items()}
        budget = step.tokens_per_piece(sum(map(sum, lengths.values())))
        pieces = [
            Piece(task, torch.from_numpy(at), [of_task[i] for i in at], len(at) * lengths[task][at[0]])
            for task, of_task in rows.items()
            for at in by_length(lengths[task], budget)
        ]
        if step.takes_same_passes:
            pieces = _fill_up(pieces, max(step.workers.gather(len(pieces))))
            self._pieces, first_kept = pieces, len(pieces)
        else:
            self._pieces, first_kept = _put_kept_last(pieces, budget)
        self.vectors: dict[Task, Tensor] = {}
        self.masks: dict[Task, Tensor] = {}
        parts: dict[Task, list[tuple[Tensor, Tensor, Tensor]]] = {task: [] for task in rows}
        for number, piece in enumerate(self._pieces):
            piece.random = _read_random_state(student.device)
            with torch.set_grad_enabled(number >= first_kept):
                vectors, mask = embed(student, piece.rows, piece.task, step.precision)
            if number >= first_kept:
                piece.vectors = vectors
            if len(piece.at):
                parts[piece.task].append((piece.at, vectors.detach(), mask))
        for task, of_task in parts.items():
            order = torch.cat([at for at, _, _ in of_task]).argsort().to(student.device)
            self.vectors[task] = _stack([vectors for _, vectors, _ in of_task]).index_select(0, order)
            self.masks[task] = _stack([mask for _, _, mask in of_task]).index_select(0, order)

    def backward(self, gradients: Mapping[Task, Tensor]) -> None:
        """Add the gradients of the weights, given those of the vectors (scaled already), by task [U, T, D]."""
        kept = [piece for piece in self._pieces if piece.vectors is not None]
        # the longest first: the memory that it frees is large enough for the others
        others = [piece for piece in self._pieces if piece.vectors is None]
        for number, piece in enumerate([*kept, *others], 1):
            vectors, piece.vectors = piece.vectors, None
            if vectors is None:
                vectors = self._embed_again(piece)
            if len(piece.at):
                gradient = gradients[piece.task].index_select(0, piece.at.to(vectors.device))[:, : vectors.shape[1]]
            else:
                gradient = torch.zeros_like(vectors)
            self._step.backward([vectors], [gradient], last=number == len(self._pieces))

    def _embed_again(self, piece: Piece) -> Tensor:
        assert piece.random is not None
        _set_random_state(piece.random, self._student.device)
        vectors, _ = embed(self._student, piece.rows, piece.task, self._step.precision)
        return vectors


def _fill_up(pieces: Sequence[Piece], count: int) -> list[Piece]:
    """The pieces, and as many more as are missing. These pass the shortest text through the student once more, and
    bring no gradient: they stand for no text."""
    shortest = min(pieces, key=lambda piece: piece.tokens / len(piece.rows))
    empty = torch.zeros(0, dtype=torch.long)
    added = [Piece(shortest.task, empty, shortest.rows[:1], 0) for _ in range(count - len(pieces))]
    return [*pieces, *added]


def _put_kept_last(pieces: Sequence[Piece], budget: int) -> tuple[list[Piece], int]:
    """The pieces in the order in which they are embedded, and the number of the first whose graph is kept. The graphs
    that are kept are those of the largest pieces that together hold no more tokens than one piece may."""
    kept: dict[int, Piece] = {}
    tokens = 0
    for number, piece in sorted(enumerate(pieces), key=lambda pair: -pair[1].tokens):
        if not kept or tokens + piece.tokens <= budget:
            kept[number] = piece
            tokens += piece.tokens
    others = [piece for number, piece in enumerate(pieces) if number not in kept]
    return [*others, *kept.values()], len(others)


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """[U, T, …] tensors joined along U, padded with zeros to the largest T."""
    longest = max(tensor.shape[1] for tensor in tensors)
    return torch.cat([pad(t, [0, 0] * (t.ndim - 2) + [0, longest - t.shape[1]]) for t in tensors])


def _read_random_state(device: torch.device) -> RandomState:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: RandomState, device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
