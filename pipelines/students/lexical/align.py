"""Alignment: the rows of foreign words become those of their translations, learned from translated passages.

Sentences are paired by length (``bitext``), words by IBM's model 1 in both directions (``ibm1``), which starts from
what the letters say: names look alike. Then row(f) = gain · Σ_e √(p(e|f) p(f|e)) · vector(e). Costs about 1 ms per
sentence pair of 25 words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.docstore import Docstore
from pipelines.students.base import Corpus
from pipelines.students.lexical.bitext import aligned, sentences
from pipelines.students.lexical.ibm1 import Cooccurrence, both_directions, cooccurrence
from pipelines.students.lexical.vectors import WordVectors
from pipelines.students.lexical.words import words, words_and_characters

MOST_SENTENCES = 100  # of one passage; longer ones are passed over, since pairing takes time with the square
MOST_WORDS = 80  # of one side of a pair; longer ones say little about their words
ALIKE = 0.3  # cosine of letters beyond which words count as look-alikes
CELLS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Alignment:
    """How to align. ``pairs`` bounds the sentence pairs of a language, ``boost`` is what a perfect look-alike gains."""

    pairs: int
    iterations: int
    gain: float
    boost: float


def align(module: WordVectors, corpus: Corpus, pivot: str, how: Alignment, seed: int) -> dict[str, dict[str, int]]:
    """Set the rows of words that the pivot lacks. Returns, by language, sentence pairs and words aligned."""
    ours = _words_of(corpus, pivot)
    rows_VD = torch.zeros_like(module.word_rows)
    facts = {}
    for lang in sorted(set(corpus.docs) - {pivot}):
        pairs = list(sentence_pairs(corpus.docs[pivot], corpus.docs[lang], how.pairs, seed))
        found = cooccurrence([(words_and_characters(foreign), words(ours)) for ours, foreign in pairs])
        if not len(found.cell_one):
            facts[lang] = {"sentence_pairs": len(pairs), "words": 0}
            continue
        vectors_ND = _translated(module, found, how)
        kept = [n for n, word in enumerate(found.one) if word in module.ids and word not in ours]
        ids = torch.tensor([module.ids[found.one[n]] for n in kept], dtype=torch.long)
        rows_VD[ids] += how.gain * vectors_ND[kept]
        facts[lang] = {"sentence_pairs": len(pairs), "words": len(kept)}
    learned_V = rows_VD.any(1)
    module.word_rows.data[learned_V] = rows_VD[learned_V]
    return facts


def sentence_pairs(ours: Docstore, theirs: Docstore, most: int, seed: int) -> Iterator[tuple[str, str]]:
    """At most ``most`` pairs of translated sentences, of passages in an order that the seed decides."""
    count = 0
    for position in np.random.Generator(np.random.Philox(key=seed)).permutation(len(ours)).tolist():
        doc_id = ours.id_at(position)
        if doc_id not in theirs:
            continue
        one, other = sentences(ours.text_at(position)), sentences(theirs.text(doc_id))
        if max(len(one), len(other)) > MOST_SENTENCES:
            continue
        for pair in aligned(one, other):
            if count == most:
                return
            yield pair
            count += 1


def _words_of(corpus: Corpus, lang: str) -> set[str]:
    stores = [corpus.docs[lang], corpus.queries]
    return {word for store in stores for at in range(len(store)) for word in words(store.text_at(at))}


def _translated(module: WordVectors, found: Cooccurrence, how: Alignment) -> torch.Tensor:
    """Σ_e √(p(e|f) p(f|e)) · vector(e) for each foreign word f: [N, D]."""
    from scipy.sparse import csr_array

    theirs_ND, ours_MD = (vectors_of(module, some).numpy() for some in (found.one, found.other))

    def boost(cells: Cooccurrence) -> np.ndarray:
        cosine_C = np.empty(len(cells.cell_one))
        for at in range(0, len(cosine_C), CELLS_AT_ONCE):
            part = slice(at, at + CELLS_AT_ONCE)
            cosine_C[part] = np.einsum("cd,cd->c", theirs_ND[cells.cell_one[part]], ours_MD[cells.cell_other[part]])
        return 1 + how.boost * np.clip(cosine_C - ALIKE, 0, 1)

    ours_given, theirs_given = both_directions(found, how.iterations, boost)
    shape = (len(found.one), len(found.other))
    table = csr_array((np.sqrt(ours_given * theirs_given), (found.cell_one, found.cell_other)), shape=shape)
    return torch.from_numpy((table @ ours_MD.astype(np.float64)).astype(np.float32))


@torch.no_grad()
def vectors_of(module: WordVectors, some: Sequence[str]) -> torch.Tensor:
    """Unit vectors of words, known or not: [N, D]."""
    rows_ND = torch.nn.functional.embedding(torch.tensor([module.ids.get(word, 0) for word in some]), module.word_rows)
    return torch.nn.functional.normalize(module.letter_vectors(some) + rows_ND, dim=-1)
