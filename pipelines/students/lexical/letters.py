"""Letter vectors: a word as the sum of fixed random vectors of its letter n-grams, so similar words get close vectors.

An n-gram's vector is a row of random signs, chosen by a hash (Weinberger et al. 2009, feature hashing; Bojanowski et
al. 2017, n-grams of a word between boundary marks). The signs are raw bits of Philox, whose stream is the same on every
machine and in every version of numpy, so they need not be stored. Costs about 2 s per 100,000 new words on one core.

Tensor names end in their shape: N words, L letters, S letters of the skeleton, G n-grams, D dimensions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from pipelines.students.lexical.words import ALPHABET, build_skeleton, romanise

MAX_LETTERS, MAX_SKELETON = 24, 12  # the rest of a longer word is not read
FIRST, LAST = len(ALPHABET) + 1, len(ALPHABET) + 2  # codes of the marks before and behind a word; 0 pads
BASE = len(ALPHABET) + 3
FIRST_DIGIT = ALPHABET.index("0") + 1
SKELETON_SIZES = (3, 4)
MULTIPLIER = -7046029254386353131  # 2⁶⁴/φ, odd (Knuth, The Art of Computer Programming 3, §6.4)
CODES = bytes(ALPHABET.index(chr(c)) + 1 if chr(c) in ALPHABET else 0 for c in range(256))
WORDS_PER_CHUNK = 8192


def encode_letters(words: Sequence[str]) -> np.ndarray:
    """Encode the letters and the skeleton of each word as codes, uint8 [N, MAX_LETTERS + MAX_SKELETON]."""
    codes_NL = np.zeros((len(words), MAX_LETTERS + MAX_SKELETON), np.uint8)
    for row, word in zip(codes_NL, words, strict=True):
        for text, first, length in (
            (romanise(word), 0, MAX_LETTERS),
            (build_skeleton(word), MAX_LETTERS, MAX_SKELETON),
        ):
            code = np.frombuffer(text[:length].encode().translate(CODES), np.uint8)
            row[first : first + len(code)] = code
    return codes_NL


class LetterVectors(nn.Module):
    """Maps letter codes to unit vectors. It has no parameters, and nothing of it is saved.

    ``rows`` is the number of n-gram vectors, ``sizes`` the lengths of the letter n-grams, ``skeleton`` the weight of
    the skeleton's n-grams relative to them.
    """

    signs: Tensor

    def __init__(self, dim: int, rows: int, sizes: Sequence[int], skeleton: float, seed: int):
        super().__init__()
        self.rows, self.sizes, self.skeleton = rows, tuple(sizes), skeleton
        raw = np.random.Philox(key=seed).random_raw(rows * -(-dim // 64))
        bits = np.unpackbits(raw.astype("<u8").view(np.uint8)).reshape(rows, -1)[:, :dim]
        self.register_buffer("signs", torch.from_numpy(bits.astype(np.float32) * 2 - 1), persistent=False)

    def forward(self, codes_NL: Tensor) -> Tensor:
        """Compute float32 unit vectors [N, D] from codes of ``encode_letters``."""
        letters_NL, skeleton_NS = codes_NL[:, :MAX_LETTERS].long(), codes_NL[:, MAX_LETTERS:].long()
        vectors_ND = self._sum_ngrams(letters_NL, self.sizes, salt=1)
        skeleton_ND = self._sum_ngrams(skeleton_NS, SKELETON_SIZES, salt=2)
        return normalize(vectors_ND + self.skeleton * skeleton_ND, dim=-1)

    def _sum_ngrams(self, letters_NL: Tensor, sizes: tuple[int, ...], salt: int) -> Tensor:
        """Sum the vectors of the n-grams and of the whole word, to unit length; zeros where there are no letters.

        A number counts as a whole only, so that 1990 is no closer to 1991 than to any other number.
        """
        keys, is_present = [self._compute_word_keys(letters_NL)], [letters_NL[:, :1] > 0]
        bounded_NL = self._add_bounds(letters_NL)
        is_word_N1 = ((letters_NL > 0) & (letters_NL < FIRST_DIGIT)).any(1, keepdim=True)
        for size in sizes:
            windows_NGn = bounded_NL.unfold(1, size, 1)
            keys.append((windows_NGn * self._compute_powers(size, letters_NL)).sum(-1) * 8 + size)
            is_present.append((windows_NGn[..., -1] > 0) & is_word_N1)
        keys_NG, is_present_NG = torch.cat(keys, 1) * 8 + salt, torch.cat(is_present, 1)
        rows_NG = ((keys_NG * MULTIPLIER >> 33) & 0x3FFFFFFF) % self.rows
        count_N = is_present_NG.sum(1)
        first_N = count_N.cumsum(0) - count_N
        return normalize(embedding_bag(rows_NG[is_present_NG], self.signs, first_N, mode="sum"), dim=-1)

    def _compute_word_keys(self, letters_NL: Tensor) -> Tensor:
        """Compute the hash keys of whole words, int64 [N, 1]."""
        return (letters_NL * self._compute_powers(letters_NL.shape[1], letters_NL)).sum(1, keepdim=True) * 8

    @staticmethod
    def _compute_powers(count: int, like: Tensor) -> Tensor:
        powers = torch.full((count,), BASE, dtype=torch.long, device=like.device)
        powers[0] = 1
        return powers.cumprod(0)  # overflow beyond 2⁶⁴ wraps, which is harmless in a hash

    @staticmethod
    def _add_bounds(letters_NL: Tensor) -> Tensor:
        """Put FIRST before and LAST behind the letters of each word: [N, L + 2], padded with 0."""
        padded_NL = nn.functional.pad(letters_NL, (1, 1))
        padded_NL[:, 0] = FIRST
        length_N1 = (letters_NL > 0).sum(1, keepdim=True)
        return padded_NL.scatter(1, length_N1 + 1, LAST) * (length_N1 > 0)
