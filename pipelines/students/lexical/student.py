"""The lexical student: static word vectors, without context, for languages that no pretrained model covers.

Untrained, it compares words by their letters, so names and numbers match across scripts. Before the first training
step, word alignment of the translated passages gives foreign words the vectors of their translations. Then it is
trained on the teacher's scores like every other student.
"""

import time
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from cluster.component import Component
from pipelines.models import MINILM, OptionalModel, Pretrained, resolve
from pipelines.students.base import Corpus

if TYPE_CHECKING:
    from pipelines.students.encoder import TextEncoder


class Lexical(Component):
    """Static word vectors compared by MaxSim.

    The parameters are a row for each word of the training texts, a weight for each word in queries, and one scale of
    all scores; ``lr_groups`` of the training calls them word_rows, query_weights and score_scale. ``words`` is a
    sentence encoder, preferably the teacher, whose vectors of single words initialise the rows of the queries'
    language; None initialises them with zeros. Defaults were chosen on dev questions of XQuAD and of the
    built-in atlas.
    """

    version: ClassVar[int] = 2  # words are encoded as documents are, in batches of one length
    reads_corpus: ClassVar[bool] = True
    kind: Literal["lexical"] = "lexical"
    dim: int = Field(128, ge=8)
    words: OptionalModel = Pretrained(model=MINILM)
    more_words: int = Field(30_000, ge=0)  # upper bound of the words that get rows from that encoder's vocabulary
    vocabulary: int = Field(200_000, ge=1)  # upper bound of the words with rows, 2 KB each in training
    query_length: int = Field(64, ge=1)  # in words
    doc_length: int = Field(300, ge=1)  # in words
    ngram_rows: int = Field(65_536, ge=1024)  # number of vectors that n-grams are hashed to
    ngram_sizes: tuple[int, ...] = (3, 4, 5)  # in letters
    skeleton: float = Field(0.8, ge=0)  # weight of a word's consonants relative to all its letters
    beginning: float = Field(0.4, ge=0)  # weight, in a word without a row, of the rows of words with its prefix
    ending: float = Field(0.2, ge=0)  # the same for words with its suffix
    align_pairs: int = Field(20_000, ge=0)  # upper bound per language, 20 KB of memory each; 0: no alignment
    align_questions: bool = False  # questions of several languages are translations of each other too
    align_iterations: int = Field(8, ge=1)  # of EM
    look_alike: float = Field(10.0, ge=0)  # how much more EM's start weighs pairs of words with similar letters
    gain: float = Field(20.0, gt=0)  # length of an aligned row relative to the letters' vector

    def build(self, corpus: Corpus, seed: int) -> "TextEncoder":
        """Build the untrained student, in float32 on the CPU. The same corpus and seed give the same weights.

        Reads every text once; ``words`` costs about 1 ms per word on two cores.
        """
        from pipelines.students.encoder import TextEncoder
        from pipelines.students.lexical.model import LexicalModel
        from pipelines.students.lexical.start import (
            CorpusStatistics,
            list_teacher_words,
            set_query_weights,
            set_teacher_rows,
        )
        from pipelines.students.lexical.vectors import WordVectors

        statistics = CorpusStatistics.count(corpus)
        vocabulary = statistics.list_words(self.vocabulary)
        pivot_words = [word for word in vocabulary if statistics.is_pivot(word)]
        model = resolve(self.words) if self.words else None
        if model:
            pivot_words = list(dict.fromkeys([*pivot_words, *list_teacher_words(model, self.more_words)]))
            vocabulary = list(dict.fromkeys([*vocabulary, *pivot_words]))
        module = WordVectors(
            vocabulary,
            dim=self.dim,
            ngram_rows=self.ngram_rows,
            ngram_sizes=list(self.ngram_sizes),
            skeleton=self.skeleton,
            beginning=self.beginning,
            ending=self.ending,
            query_length=self.query_length,
            document_length=self.doc_length,
            seed=seed,
        )
        set_query_weights(module, statistics)
        if model:
            set_teacher_rows(module, pivot_words, model)
        return TextEncoder(LexicalModel(module), "maxsim")

    def warm_up(self, encoder: "TextEncoder", corpus: Corpus, seed: int) -> dict[str, Any]:
        """Learn foreign words from translations, in place, before the first training step.

        Does nothing for a corpus of one language, or without documents in the language of the queries unless questions
        are aligned. Returns
        ``aligned`` (by language, the numbers of sentence pairs and of aligned words) and ``seconds``.
        """
        from pipelines.students.lexical.align import AlignmentConfig, align
        from pipelines.students.lexical.start import find_pivot

        start, pivot = time.monotonic(), find_pivot(corpus)
        if not self.align_pairs or (pivot not in corpus.docs and not self.align_questions):
            return {"aligned": {}, "seconds": 0.0}
        config = AlignmentConfig(
            max_pairs=self.align_pairs,
            iterations=self.align_iterations,
            gain=self.gain,
            boost=self.look_alike,
            questions=self.align_questions,
        )
        module: Any = encoder.model[0]
        facts = align(module, corpus, pivot, config, seed)
        return {"aligned": facts, "seconds": round(time.monotonic() - start, 1)}
