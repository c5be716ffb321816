"""Interfaces of encoders and base models, and the corpus that students are built from. Loads no model library."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np

from cluster.artifact import Artifact
from pipelines.docstore import Docstore, JoinedDocstore
from pipelines.pairs import LeftSentences, RightSentences

if TYPE_CHECKING:
    from torch import nn

    from pipelines.students.encoder import TextEncoder

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

    def windows(self, texts: Sequence[str], length: int = 180, stride: int = 90) -> list[list[str]]:
        """Split each document into overlapping passages of at most ``length`` of this encoder's tokens.

        Passages start every ``stride`` tokens; one that would lie wholly within the one before is left out. A text of
        at most ``length`` tokens is its own only passage.
        """

    def encode_passages(self, texts: Sequence[str], length: int, stride: int) -> Iterator[list[np.ndarray]]:
        """Encode the ``windows`` of each document: one array per passage, in the form of ``encode_docs``. Memory holds
        the vectors of a thousand documents at a time."""


@dataclass(frozen=True)
class Corpus:
    """The training texts that a student is built from: they give it a tokenizer or a vocabulary.

    ``docs`` holds the documents by language; documents with the same id are translations of each other. In their place
    may be sentence pairs, both sentences of each; then there are no queries.
    ``translated_queries`` holds the queries of the other languages in which the student is asked.
    """

    queries: Docstore
    docs: Mapping[str, Docstore]
    translated_queries: Mapping[str, Docstore] = field(default_factory=dict)

    @classmethod
    def open(cls, data: Mapping[str, Mapping[str, Any]]) -> Self:
        """Open the texts of all data sets of a training, in the order of their names. ``data`` holds, by the name of
        the data set, the artifacts ``queries``, and ``docs`` and perhaps ``translated_queries`` by language, or
        ``docs`` alone, sentence pairs by language; empty for a student that reads no corpus."""
        queries = _open_joined({name: data[name].get("queries") for name in sorted(data)})
        return cls(queries, _open_by_language(data, "docs"), _open_by_language(data, "translated_queries"))

    def iterate_texts(self) -> Iterator[str]:
        """Yield the documents by language, in alphabetical order of the codes, then the queries, then those of other
        languages."""
        by_language = [[stores[lang] for lang in sorted(stores)] for stores in (self.docs, self.translated_queries)]
        for store in [*by_language[0], self.queries, *by_language[1]]:
            for position in range(len(store)):
                yield store.text_at(position)


def _open_by_language(data: Mapping[str, Mapping[str, Any]], role: str) -> dict[str, Docstore]:
    """The texts of a role of all data sets, by language."""
    found = {name: data[name].get(role, {}) for name in sorted(data)}
    langs = sorted({lang for artifacts in found.values() for lang in artifacts})
    return {lang: _open_joined({name: artifacts.get(lang) for name, artifacts in found.items()}) for lang in langs}


def _open_joined(artifacts: Mapping[str, Artifact | None]) -> Docstore:
    """One docstore, with plain ids where there is one data set, else with ``<data set>:<id>``."""
    stores = {name: _open_texts(artifact) for name, artifact in artifacts.items() if artifact}
    return next(iter(stores.values())) if len(artifacts) == len(stores) == 1 else JoinedDocstore(stores)


def _open_texts(artifact: Artifact) -> Docstore:
    """The texts of an artifact; of PAIRS the left sentences and then the right ones."""
    if artifact.manifest.table != "pairs":
        return Docstore.open(artifact)
    return JoinedDocstore({"left": LeftSentences.open(artifact), "right": RightSentences.open(artifact)})


class Base(Protocol):
    """A component that builds the first module of a student, which maps tokens to contextual vectors."""

    reads_corpus: ClassVar[bool]  # whether ``build_module`` reads the training texts, or only weights trained elsewhere

    def build_module(self, corpus: Corpus, seed: int) -> "nn.Module":
        """Build a sentence-transformers input module, in float32. The same corpus and seed give the same weights."""


@runtime_checkable
class WarmUp(Protocol):
    """A student that learns from the corpus alone, before the first step of training."""

    def warm_up(self, encoder: "TextEncoder", corpus: Corpus, seed: int) -> dict[str, Any]:
        """Change the weights of ``encoder`` in place; returns facts for the manifest."""
