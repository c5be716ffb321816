"""What an encoder does for the HTTP interface besides searches: vectors of given texts, scores, matches of tokens.

Plain functions around an encoder, without Ray, called by the encoder deployment in a thread. torch is imported with
the encoder, not with this module. A text that is to be scored or matched is read in the same windows as a document of
the index, and counts by the best of them. Cost: that of encoding the texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipelines.indexes.maxsim import score_all
from pipelines.students.base import Similarity, Task

if TYPE_CHECKING:
    from pipelines.students.encoder import TextEncoder

__all__ = ["Encoded", "EncoderFacts", "Passages", "Scored", "Task", "TokenMatch"]

Passages = tuple[int, int]  # length and stride, in tokens, of the windows in which documents are read


@dataclass(frozen=True)
class EncoderFacts:
    """What a client may want to know of an encoder.

    Attributes:
        similarity: "maxsim" of a vector for each token, "dot" of one vector for each text.
        dim: of the vectors.
        dims: to which a text's vector may be cut (Matryoshka); ``dim`` is among them.
        pooling: how one vector is made of the tokens' ("mean", "cls"); None where it is not.
        max_tokens: that the encoder reads of a query and of a document.
    """

    similarity: Similarity
    dim: int
    dims: tuple[int, ...]
    pooling: str | None
    max_tokens: dict[Task, int]


class Encoded(NamedTuple):
    """Vectors of texts, each float32 [tokens, dim] ([1, dim] of a dense encoder); the tokens that each text has, the
    encoder's own among them, and how many of them it read."""

    vectors: list[np.ndarray]
    tokens: list[int]
    read: list[int]


class Scored(NamedTuple):
    """Scores of texts as a search gives them; the largest score that the query allows, that of its own vectors; and
    the tokens of query and texts."""

    scores: list[float]
    largest: float
    tokens: int


class TokenMatch(NamedTuple):
    """A token of a query, that of a text which it matched, each as (text, start, end) with -1 for a token that stands
    nowhere in it, and what the pair adds to the score."""

    query: tuple[str, int, int]
    text: tuple[str, int, int]
    score: float


def describe_encoder(model: "TextEncoder") -> EncoderFacts:
    """Describe an encoder."""
    from pipelines.students.tokens import Tokens

    dims = {int(dim) for dim in getattr(_config(model), "matryoshka_dimensions", None) or [] if 0 < dim < model.dim}
    modes = [getattr(module, "pooling_mode", None) for module in model.model]
    pooling = next((str(mode) for mode in modes if mode), None) if model.similarity == "dot" else None
    tasks: tuple[Task, Task] = ("query", "document")
    longest = {task: Tokens(model.model, task).longest for task in tasks}
    return EncoderFacts(model.similarity, model.dim, (*sorted(dims), model.dim), pooling, longest)


def _config(model: "TextEncoder") -> object:
    """The configuration of the encoder's transformer, where Matryoshka dimensions are named as other servers read
    them; None of a student without a transformer."""
    return getattr(getattr(model.model[0], "model", None), "config", None)


def encode_texts(model: "TextEncoder", texts: Sequence[str], task: Task) -> Encoded:
    """Encode texts as queries or as documents."""
    from pipelines.students.matches import count_tokens

    vectors = model.encode_queries(texts) if task == "query" else model.encode_docs(texts)
    read = [len(row["input_ids"]) for row in model.rows(texts, task)]
    return Encoded(vectors, [max(pair) for pair in zip(count_tokens(model, texts, task), read, strict=True)], read)


def score_texts(model: "TextEncoder", query: str, texts: Sequence[str], passages: Passages) -> Scored:
    """Score texts against a query: MaxSim, or the dot product of a dense encoder, of the best passage."""
    from pipelines.students.matches import count_tokens

    (query_QN,) = model.encode_queries([query])
    of_texts = list(model.encode_passages(texts, *passages))
    (scores_P,) = score_all([query_QN], [passage for found in of_texts for passage in found])
    starts = np.cumsum([0, *(len(found) for found in of_texts[:-1])])
    tokens = sum(count_tokens(model, [query], "query")) + sum(count_tokens(model, texts, "document"))
    largest = float(np.linalg.norm(query_QN, axis=1).sum())
    return Scored(np.maximum.reduceat(scores_P, starts).tolist(), largest, tokens)


def match_tokens(model: "TextEncoder", query: str, texts: Sequence[str], passages: Passages) -> list[list[TokenMatch]]:
    """Match the tokens of a query with those of each text, in its best passage."""
    from pipelines.students.matches import match

    found = match(model, query, texts, passages)
    return [[TokenMatch((*pair.query,), (*pair.text,), pair.score) for pair in pairs] for pairs in found]
