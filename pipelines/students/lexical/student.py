"""Lexical: a student for languages that no pretrained model covers. Words are vectors; there is no context.

It begins from letters alone (names and numbers match across scripts), learns foreign words from the translated training
passages by word alignment, before the first step, and then everything from the teacher, as any student does.
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
    """Static word vectors under MaxSim. What is learned: a row for each word of the training texts, how much each word
    matters in a query, and one scale of all scores; ``lr_groups`` names them word_rows, query_weights and score_scale.

    ``words`` is a sentence encoder, best the teacher, whose vectors of single words are the first rows of the queries'
    language; None begins from zero. Defaults were chosen on dev questions of XQuAD and of the built-in atlas.
    """

    reads_corpus: ClassVar[bool] = True
    kind: Literal["lexical"] = "lexical"
    dim: int = Field(128, ge=8)
    words: OptionalModel = Pretrained(model=MINILM)
    more_words: int = Field(30_000, ge=0)  # most words that get rows because that encoder's vocabulary has them
    vocabulary: int = Field(200_000, ge=1)  # most words with rows, 2 KB each in training; rarer ones borrow from kin
    query_length: int = Field(64, ge=1)  # words
    doc_length: int = Field(300, ge=1)  # words
    ngram_rows: int = Field(65_536, ge=1024)  # vectors that n-grams are hashed to
    ngram_sizes: tuple[int, ...] = (3, 4, 5)  # letters
    skeleton: float = Field(0.8, ge=0)  # weight of a word's consonants beside all its letters
    beginning: float = Field(0.4, ge=0)  # weight of the rows of words with the same beginning, for a word without one
    ending: float = Field(0.2, ge=0)  # and with the same ending
    align_pairs: int = Field(20_000, ge=0)  # most sentence pairs per language, 20 KB of memory each; 0: no alignment
    align_iterations: int = Field(8, ge=1)  # of EM
    look_alike: float = Field(10.0, ge=0)  # what the start of EM gains where two words look the same
    gain: float = Field(20.0, gt=0)  # length of an aligned row over that of the letters' vector

    def build(self, corpus: Corpus, seed: int) -> "TextEncoder":
        """The untrained student. Reads every text once; ``words`` costs about 1 ms a word on two cores."""
        from sentence_transformers import MultiVectorEncoder

        from pipelines.students.encoder import TextEncoder
        from pipelines.students.lexical.start import Statistics, learn_words, teacher_vocabulary, weigh_queries
        from pipelines.students.lexical.vectors import WordVectors

        found = Statistics.of(corpus)
        chosen = found.vocabulary(self.vocabulary)
        ours = [word for word in chosen if found.is_pivot(word)]
        model = resolve(self.words) if self.words else None
        if model:
            ours = list(dict.fromkeys([*ours, *teacher_vocabulary(model, self.more_words)]))
            chosen = list(dict.fromkeys([*chosen, *ours]))
        module = WordVectors(
            chosen,
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
        weigh_queries(module, found)
        if model:
            learn_words(module, ours, model)
        return TextEncoder(MultiVectorEncoder(modules=[module], device="cpu"))

    def warm_up(self, encoder: "TextEncoder", corpus: Corpus, seed: int) -> dict[str, Any]:
        """Learn foreign words from translations, in place, before the first step. A corpus of one language, or without
        that of the queries, teaches nothing. Returns sentence pairs and words aligned by language, and seconds."""
        from pipelines.students.lexical.align import Alignment, align
        from pipelines.students.lexical.start import pivot_of

        began, pivot = time.monotonic(), pivot_of(corpus)
        if pivot not in corpus.docs or not self.align_pairs:
            return {"aligned": {}, "seconds": 0.0}
        how = Alignment(self.align_pairs, self.align_iterations, self.gain, self.look_alike)
        module: Any = encoder.model[0]
        facts = align(module, corpus, pivot, how, seed)
        return {"aligned": facts, "seconds": round(time.monotonic() - began, 1)}
