"""The untrained lexical student: which words have rows, what a query word weighs, and where English words begin."""

import math
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch

from pipelines.docstore import Docstore
from pipelines.students.base import Corpus
from pipelines.students.lexical.vectors import UNKNOWN, WordVectors
from pipelines.students.lexical.words import words, words_and_characters

COMMONEST, RAREST = 0.99, 0.5  # document frequencies beyond which idf is cut; the latter in documents
FLOOR = 0.05  # the least weight of a word, in nats
WHOLE_WORD = re.compile(r"[a-z]+|[0-9]+")  # of a vocabulary of word pieces
WORDS_PER_BATCH = 512


@dataclass
class Counts:
    """In how many of ``size`` texts each word is."""

    size: int = 0
    texts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, store: Docstore, parts: bool = False) -> "Counts":
        """Count a collection; with the characters of unspaced words where ``parts``."""
        counts = cls(len(store))
        for position in range(len(store)):
            text = store.text_at(position)
            counts.texts.update(set(words_and_characters(text) if parts else words(text)))
        return counts

    def share(self, word: str) -> float:
        """The part of the texts that have this word, smoothed; 0 where there are no texts."""
        return (self.texts[word] + RAREST) / (self.size + 1) if self.size else 0.0


@dataclass
class Statistics:
    """Word counts of a corpus. ``pivot`` is the language of the queries: the one that others are translated from."""

    pivot: str
    queries: Counts
    docs: dict[str, Counts]

    @classmethod
    def of(cls, corpus: Corpus) -> "Statistics":
        """Read every text once."""
        docs = {lang: Counts.of(corpus.docs[lang], parts=True) for lang in sorted(corpus.docs)}
        return cls(pivot_of(corpus), Counts.of(corpus.queries), docs)

    def is_pivot(self, word: str) -> bool:
        """Whether the pivot language has this word."""
        return word in self.queries.texts or (self.pivot in self.docs and word in self.docs[self.pivot].texts)

    def vocabulary(self, most: int) -> list[str]:
        """The most frequent words, all languages together; ties in alphabetical order."""
        total: Counter[str] = Counter()
        for counts in (self.queries, *self.docs.values()):
            total.update(counts.texts)
        return sorted(total, key=lambda word: (-total[word], word))[:most]

    def idf(self, word: str) -> float:
        """−log of the part of the texts that have the word, in the language where it is commonest. A word of the pivot
        language is judged by that language, and by the queries: "what" is rare in documents."""
        pivot = [self.docs[self.pivot]] if self.pivot in self.docs else []
        where = [self.queries, *pivot] if self.is_pivot(word) else self.docs.values()
        return FLOOR - math.log(min(COMMONEST, max((c.share(word) for c in where), default=COMMONEST)))


def pivot_of(corpus: Corpus) -> str:
    """The language of the queries."""
    return str(corpus.queries.row_at(0)["lang"])


def weigh_queries(module: WordVectors, found: Statistics) -> None:
    """Set the logarithms of query weights to those of idf; an unknown word has that of a word never seen."""
    weights = torch.tensor([math.log(found.idf(word)) for word in module.vocabulary])
    seen = [found.queries] + ([found.docs[found.pivot]] if found.pivot in found.docs else [])
    module.query_weights.data[1:] = weights
    module.query_weights.data[UNKNOWN] = math.log(FLOOR - math.log(max(RAREST / (c.size + 1) for c in seen)))


def teacher_vocabulary(model: str, most: int) -> list[str]:
    """The whole words, in Latin letters, of a checkpoint's tokenizer: the first ``most`` of its vocabulary, which
    tokenizers list by falling frequency."""
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(model).get_vocab()
    return sorted(filter(WHOLE_WORD.fullmatch, ids), key=ids.__getitem__)[:most]


def learn_words(module: WordVectors, some: list[str], model: str) -> None:
    """Give these words the sentence encoder's vectors as rows: centred, turned to their main axes, unit length."""
    from sentence_transformers import SentenceTransformer

    some = [word for word in some if word in module.ids]
    if not some:
        return
    encoder = SentenceTransformer(model, device="cpu")
    vectors = encoder.encode(some, batch_size=WORDS_PER_BATCH, normalize_embeddings=True, show_progress_bar=False)
    vectors = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    axes = np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1][:, : module.dim]
    turned = vectors @ (axes * np.sign(axes.sum(0)))
    turned /= np.linalg.norm(turned, axis=1, keepdims=True).clip(1e-9)
    ids = torch.tensor([module.ids[word] for word in some])
    module.word_rows.data[ids, : turned.shape[1]] = torch.from_numpy(turned).float()
