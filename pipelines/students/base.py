"""Interfaces of encoders and base models, and the corpus that students are built from. Loads no model library."""

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
    """Encodes texts as vectors of dimension ``dim``, to be compared by ``similarity``.

    ``maxsim`` sums, over the query's vectors, the largest dot product with any vector of the document (Khattab and
    Zaharia 2020, §3.3); ``dot`` is the dot product of one vector on each side.
    """

    dim: int
    similarity: Similarity

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode queries: a float32 array [tokens, dim] for each ([1, dim] for a dense encoder), in the order given."""

    def encode_docs(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode documents, in the same form. Text beyond the encoder's document length is cut off: see ``windows``."""

    def windows(self, text: str, length: int = 180, stride: int = 90) -> list[str]:
        """Split a long document into overlapping passages of at most ``length`` of this encoder's tokens.

        Passages start every ``stride`` tokens; one that would lie wholly within the one before is left out. A text of
        at most ``length`` tokens is its own only passage.
        """


@dataclass(frozen=True)
class Corpus:
    """The training texts that a student is built from: they give it a tokenizer or a vocabulary.

    ``docs`` holds the documents by language; documents with the same id are translations of each other.
    """

    queries: Docstore
    docs: Mapping[str, Docstore]

    def iterate_texts(self) -> Iterator[str]:
        """Yield the documents by language, in alphabetical order of the codes, then the queries."""
        for store in [*(self.docs[lang] for lang in sorted(self.docs)), self.queries]:
            for position in range(len(store)):
                yield store.text_at(position)


class Base(Protocol):
    """A component that builds the first module of a student, which maps tokens to contextual vectors."""

    def build_module(self, corpus: Corpus, seed: int) -> "nn.Module":
        """Build a sentence-transformers input module, in float32. The same corpus and seed give the same weights."""
