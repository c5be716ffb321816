"""What an encoder is, and what a student is made from. Importing this loads no model library."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from pipelines.docstore import Docstore

if TYPE_CHECKING:
    from torch import nn

Similarity = Literal["maxsim", "dot"]
Task = Literal["query", "document"]


class Encoder(Protocol):
    """Turns texts into vectors, to be compared by ``similarity``: MaxSim sums, over the query's vectors, the largest
    dot product with any vector of the document; ``dot`` is the same with one vector on each side."""

    dim: int
    similarity: Similarity

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One float32 array [tokens, dim] per query ([1, dim] for a dense encoder), in the order of ``texts``."""

    def encode_docs(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The same for documents. What lies beyond the encoder's document length is not read: see ``windows``."""

    def windows(self, texts: Sequence[str], length: int = 180, stride: int = 90) -> list[list[str]]:
        """The passages of each document, each at most ``length`` of this encoder's tokens, beginning every ``stride``
        tokens. None lies wholly within the one before. A short text is its own only passage."""

    def encode_passages(self, texts: Sequence[str], length: int, stride: int) -> Iterator[list[np.ndarray]]:
        """For each document the vectors of its ``windows``, one array as of ``encode_docs`` per passage. Memory holds
        those of a thousand documents at a time."""


@dataclass(frozen=True)
class Corpus:
    """The training collection, for students that learn from it before the first step (a tokenizer, word vectors).

    ``docs`` holds it by language; the same id in two languages is a translation.
    """

    queries: Docstore
    docs: Mapping[str, Docstore]

    def texts(self) -> Iterator[str]:
        """All documents of all languages, then the queries, in an order that never changes."""
        for store in [*(self.docs[lang] for lang in sorted(self.docs)), self.queries]:
            for position in range(len(store)):
                yield store.text_at(position)


class Base(Protocol):
    """A component that makes the first module of a student: tokens in, a vector for each out."""

    def module(self, corpus: Corpus, seed: int) -> "nn.Module":
        """A sentence-transformers input module, in float32. The same corpus and seed give the same weights."""
