"""Initial state of the lexical student: which words have rows, the weights of query words, and the teacher's vectors.

Everything here is computed from word counts of the corpus, except the vectors of English words, which a sentence
encoder gives.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch

from pipelines.docstore import Docstore
from pipelines.students.base import Corpus
from pipelines.students.lexical.vectors import UNKNOWN, WordVectors
from pipelines.students.lexical.words import split_words, split_words_and_characters

MAX_SHARE = 0.99  # a word in more of the texts than this counts as in this share, so that idf stays positive
SMOOTHING = 0.5  # texts added to the count of every word, so that one never seen has a finite idf
MIN_WEIGHT = 0.05  # the least weight of a query word, in nats
WHOLE_WORD = re.compile(r"[a-z]+|[0-9]+")  # entries of a word-piece vocabulary that are whole words


@dataclass
class DocumentFrequencies:
    """The number of texts in a collection, and in how many of them each word occurs."""

    size: int = 0
    texts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def count(cls, store: Docstore, with_characters: bool = False) -> "DocumentFrequencies":
        """Count the words of a collection; ``with_characters`` also counts the characters of unspaced words."""
        split = split_words_and_characters if with_characters else split_words
        frequencies = cls(len(store))
        for position in range(len(store)):
            frequencies.texts.update(set(split(store.text_at(position))))
        return frequencies

    def compute_share(self, word: str) -> float:
        """Compute the smoothed share of the texts in which a word occurs; 0 for an empty collection."""
        return (self.texts[word] + SMOOTHING) / (self.size + 1) if self.size else 0.0


@dataclass
class CorpusStatistics:
    """Document frequencies of the queries and of each language's documents.

    ``pivot`` is the language of the queries, from which the other languages are translated; ``translated_queries`` are
    those of the other languages in which the student is asked.
    """

    pivot: str
    queries: DocumentFrequencies
    docs: dict[str, DocumentFrequencies]
    translated_queries: dict[str, DocumentFrequencies] = field(default_factory=dict)

    @classmethod
    def count(cls, corpus: Corpus) -> "CorpusStatistics":
        """Count the words of a corpus. Reads every text once."""
        docs = {
            lang: DocumentFrequencies.count(corpus.docs[lang], with_characters=True) for lang in sorted(corpus.docs)
        }
        translated = {
            lang: DocumentFrequencies.count(store) for lang, store in sorted(corpus.translated_queries.items())
        }
        return cls(find_pivot(corpus), DocumentFrequencies.count(corpus.queries), docs, translated)

    def is_pivot(self, word: str) -> bool:
        """Whether the word occurs in the pivot language, in queries or in documents."""
        return any(word in frequencies.texts for frequencies in self.list_pivot_frequencies())

    def list_pivot_frequencies(self) -> list[DocumentFrequencies]:
        """List the counts in the pivot language: of the queries, and of its documents if the corpus has any."""
        return [self.queries, *([self.docs[self.pivot]] if self.pivot in self.docs else [])]

    def list_words(self, limit: int) -> list[str]:
        """List the ``limit`` most frequent words of all languages together; ties in alphabetical order."""
        total: Counter[str] = Counter()
        for frequencies in (self.queries, *self.docs.values(), *self.translated_queries.values()):
            total.update(frequencies.texts)
        return sorted(total, key=lambda word: (-total[word], word))[:limit]

    def compute_idf(self, word: str) -> float:
        """Compute the weight of a query word: MIN_WEIGHT − log of its share of the texts, in nats.

        The share is that of the language where the word is most common. For a word of the pivot language, only that
        language and the queries count: "what" is rare in documents and yet says little. For any other word the
        documents of all languages and the questions in other languages count.
        """
        foreign = [*self.docs.values(), *self.translated_queries.values()]
        collections = self.list_pivot_frequencies() if self.is_pivot(word) else foreign
        share = max((frequencies.compute_share(word) for frequencies in collections), default=MAX_SHARE)
        return MIN_WEIGHT - math.log(min(MAX_SHARE, share))


def find_pivot(corpus: Corpus) -> str:
    """Return the language of the queries."""
    return str(corpus.queries.row_at(0)["lang"])


def set_query_weights(module: WordVectors, statistics: CorpusStatistics) -> None:
    """Set the query weights, in logarithms, to idf. An unknown word gets the idf of a word that was never seen."""
    module.query_weights.data[1:] = torch.tensor([math.log(statistics.compute_idf(w)) for w in module.vocabulary])
    unseen = max(SMOOTHING / (frequencies.size + 1) for frequencies in statistics.list_pivot_frequencies())
    module.query_weights.data[UNKNOWN] = math.log(MIN_WEIGHT - math.log(unseen))


def list_teacher_words(model: str, limit: int) -> list[str]:
    """List the first ``limit`` whole words in Latin letters of a checkpoint's vocabulary.

    Tokenizers list their vocabulary by falling frequency, so these are the most frequent ones.
    """
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(model).get_vocab()
    return sorted(filter(WHOLE_WORD.fullmatch, ids), key=ids.__getitem__)[:limit]


def set_teacher_rows(module: WordVectors, words: list[str], model: str) -> None:
    """Set the rows of these words to a sentence encoder's vectors: centred, turned to their principal axes, of unit
    length. Words that have no row are skipped."""
    from pipelines.students import load_encoder

    words = [word for word in words if word in module.ids]
    if not words:
        return
    vectors = np.concatenate(load_encoder(model, "cpu").encode_docs(words)).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
    vectors -= vectors.mean(0)
    axes = np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1][:, : module.dim]
    turned = vectors @ (axes * np.sign(axes.sum(0)))  # an eigenvector has no sign of its own: take that of its sum
    turned /= np.linalg.norm(turned, axis=1, keepdims=True).clip(1e-9)
    ids = torch.tensor([module.ids[word] for word in words])
    module.word_rows.data[ids, : turned.shape[1]] = torch.from_numpy(turned).float()
