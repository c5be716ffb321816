"""Learns vectors of foreign words from translated passages, by sentence and word alignment.

Sentences are paired by length (``bitext``), words by IBM model 1 in both directions (``ibm1``), whose EM starts from
the similarity of the letters: names look alike in two languages. Then row(f) = gain · Σ_e √(p(e|f) p(f|e)) · vector(e).
Costs about 1 ms per sentence pair of 25 words.

Array and tensor names end in their shape: V words that have rows, N foreign words, M pivot words, C cells (see
``ibm1``), D dimensions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from pipelines.docstore import Docstore
from pipelines.students.base import Corpus
from pipelines.students.lexical.bitext import align_sentences, split_sentences
from pipelines.students.lexical.ibm1 import Cooccurrence, estimate_translations, find_cooccurrence
from pipelines.students.lexical.vectors import WordVectors
from pipelines.students.lexical.words import split_words, split_words_and_characters

LOOKED_UP = 1024  # ids at once: one by one they took most of the time of a large corpus
MAX_SENTENCES = 100  # of a passage; longer ones are skipped, since alignment takes time with the square
MIN_COSINE = 0.3  # of the letters' vectors; only words more similar than this get a higher start in EM
CELLS_PER_CHUNK = 100_000


@dataclass(frozen=True)
class AlignmentConfig:
    """Settings of the alignment.

    ``max_pairs`` bounds the sentence pairs per language; ``iterations`` are those of EM; ``gain`` is the factor of the
    learned rows. EM starts from the weight 1 + ``boost`` · max(0, cosine − MIN_COSINE) of each pair of words.
    ``questions`` are aligned too, where they are asked in several languages.
    """

    max_pairs: int
    iterations: int
    gain: float
    boost: float
    questions: bool = False


def align(
    module: WordVectors, corpus: Corpus, pivot: str, config: AlignmentConfig, seed: int
) -> dict[str, dict[str, int]]:
    """Set the rows of the words that the pivot language lacks, in place.

    Returns, by language, the numbers of ``sentence_pairs`` and of aligned ``words``.
    """
    pivot_words = _collect_words(corpus, pivot)
    rows_VD = torch.zeros_like(module.word_rows)
    facts = {}
    asked = corpus.translated_queries if config.questions else {}
    for lang in sorted({*corpus.docs, *asked} - {pivot}):
        texts = [(corpus.queries, asked[lang])] if lang in asked else []
        if pivot in corpus.docs and lang in corpus.docs:
            texts.append((corpus.docs[pivot], corpus.docs[lang]))
        drawn = (pair for own, other in texts for pair in draw_sentence_pairs(own, other, config.max_pairs, seed))
        pairs = list(islice(drawn, config.max_pairs))
        cells = find_cooccurrence(
            [(split_words_and_characters(target), split_words(source)) for source, target in pairs]
        )
        if not len(cells.cell_one):
            facts[lang] = {"sentence_pairs": len(pairs), "words": 0}
            continue
        vectors_ND = _translate_vectors(module, cells, config)
        kept = [n for n, word in enumerate(cells.one) if word in module.ids and word not in pivot_words]
        ids = torch.tensor([module.ids[cells.one[n]] for n in kept], dtype=torch.long)
        rows_VD[ids] += config.gain * vectors_ND[kept]
        facts[lang] = {"sentence_pairs": len(pairs), "words": len(kept)}
    learned_V = rows_VD.any(1)
    module.word_rows.data[learned_V] = rows_VD[learned_V]
    return facts


def draw_sentence_pairs(pivot: Docstore, foreign: Docstore, limit: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yield at most ``limit`` aligned sentence pairs (pivot, foreign), of passages in an order drawn from the seed.

    Passages that ``foreign`` lacks, and those of more than MAX_SENTENCES on a side, are skipped.
    """
    count = 0
    for position, other in _draw_translated(pivot, foreign, seed):
        source, target = split_sentences(pivot.text_at(position)), split_sentences(foreign.text_at(other))
        if max(len(source), len(target)) > MAX_SENTENCES:
            continue
        for pair in align_sentences(source, target):
            if count == limit:
                return
            yield pair
            count += 1


def _draw_translated(pivot: Docstore, foreign: Docstore, seed: int) -> Iterator[tuple[int, int]]:
    """Yield where passages of ``pivot`` stand, in an order drawn from the seed, and where ``foreign`` has their ids.
    Those that it lacks are left out."""
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(pivot))
    for begin in range(0, len(order), LOOKED_UP):
        positions = order[begin : begin + LOOKED_UP]
        found = foreign.positions(pivot.ids_at(positions))
        there = found >= 0
        yield from zip(positions[there].tolist(), found[there].tolist(), strict=True)


def _collect_words(corpus: Corpus, lang: str) -> set[str]:
    """Collect every word of the queries and of a language's documents, where there are any."""
    stores = [corpus.queries, *([corpus.docs[lang]] if lang in corpus.docs else [])]
    return {word for store in stores for at in range(len(store)) for word in split_words(store.text_at(at))}


def _translate_vectors(module: WordVectors, cells: Cooccurrence[str], config: AlignmentConfig) -> torch.Tensor:
    """Compute Σ_e √(p(e|f) p(f|e)) · vector(e) for each foreign word f: float32 [N, D]."""
    from scipy.sparse import csr_array

    foreign_ND, pivot_MD = (compute_vectors(module, vocabulary).numpy() for vocabulary in (cells.one, cells.other))

    def weigh_cells(cells: Cooccurrence[str]) -> np.ndarray:
        """Compute the start of EM [C] from the cosine of each cell's two words."""
        cosine_C = np.empty(len(cells.cell_one))
        for at in range(0, len(cosine_C), CELLS_PER_CHUNK):
            part = slice(at, at + CELLS_PER_CHUNK)
            cosine_C[part] = np.einsum("cd,cd->c", foreign_ND[cells.cell_one[part]], pivot_MD[cells.cell_other[part]])
        return 1 + config.boost * np.clip(cosine_C - MIN_COSINE, 0, 1)

    pivot_given_foreign_C, foreign_given_pivot_C = estimate_translations(cells, config.iterations, weigh_cells)
    weights_C = np.sqrt(pivot_given_foreign_C * foreign_given_pivot_C)
    weights_NM = csr_array((weights_C, (cells.cell_one, cells.cell_other)), shape=(len(cells.one), len(cells.other)))
    return torch.from_numpy((weights_NM @ pivot_MD.astype(np.float64)).astype(np.float32))


@torch.no_grad()
def compute_vectors(module: WordVectors, vocabulary: Sequence[str]) -> torch.Tensor:
    """Compute the unit vectors [N, D] of words from their letters and, where they have one, their row.

    Unlike the module's own ``forward``, a word without a row borrows from no other word here.
    """
    ids_N = torch.tensor([module.ids.get(word, 0) for word in vocabulary])
    rows_ND = torch.nn.functional.embedding(ids_N, module.word_rows)
    return torch.nn.functional.normalize(module.compute_letter_vectors(vocabulary) + rows_ND, dim=-1)
