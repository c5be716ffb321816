"""What an encoder is, and what a student is made from. Importing this loads no model library."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np

from cluster.artifact import Artifact
from pipelines.docstore import Docstore, JoinedDocstore

if TYPE_CHECKING:
    from torch import nn

    from pipelines.students.encoder import TextEncoder

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

    @classmethod
    def open(cls, data: Mapping[str, Mapping[str, Any]]) -> Self:
        """Open the texts of all data sets of a training, in the order of their names. ``data`` holds, by the name of
        the data set, the artifacts ``queries`` and ``docs`` by language; empty for a student that reads no corpus."""
        names = sorted(data)
        langs = sorted({lang for name in names for lang in data[name]["docs"]})
        docs = {lang: {name: data[name]["docs"].get(lang) for name in names} for lang in langs}
        queries = _open_joined({name: data[name]["queries"] for name in names})
        return cls(queries, {lang: _open_joined(of_lang) for lang, of_lang in docs.items()})

    def texts(self) -> Iterator[str]:
        """All documents of all languages, then the queries, in an order that never changes."""
        for store in [*(self.docs[lang] for lang in sorted(self.docs)), self.queries]:
            for position in range(len(store)):
                yield store.text_at(position)


def _open_joined(artifacts: Mapping[str, Artifact | None]) -> Docstore:
    """One docstore, with plain ids where there is one data set, else with ``<data set>:<id>``."""
    stores = {name: Docstore.open(artifact) for name, artifact in artifacts.items() if artifact}
    return next(iter(stores.values())) if len(artifacts) == 1 else JoinedDocstore(stores)


class Base(Protocol):
    """A component that makes the first module of a student: tokens in, a vector for each out."""

    reads_corpus: ClassVar[bool]  # whether ``module`` reads the training texts, or only weights trained elsewhere

    def module(self, corpus: Corpus, seed: int) -> "nn.Module":
        """A sentence-transformers input module, in float32. The same corpus and seed give the same weights."""


@runtime_checkable
class WarmUp(Protocol):
    """A student that learns from the corpus alone, before the first step of training."""

    def warm_up(self, encoder: "TextEncoder", corpus: Corpus, seed: int) -> dict[str, Any]:
        """Change the weights of ``encoder`` in place; returns facts for the manifest."""
