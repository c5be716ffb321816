"""Lexical vectors: a word as the sum of fixed random vectors of its letter n-grams, so that alike words lie close.

An n-gram's vector is a row of random signs, found by hashing (Weinberger et al. 2009, feature hashing; Bojanowski et
al. 2017, n-grams of a word between its bounds). Signs come from Philox's raw bits, whose stream is the same on every
machine and in every version of numpy: they need not be stored. Costs about 2 s per 100,000 new words on one core.

Tensor names end in their shape: N words, L letters, S letters of the skeleton, G n-grams, D dimensions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from pipelines.students.lexical.words import ALPHABET, romanised, skeleton

LETTERS, BONES = 24, 12  # what lies beyond in a longer word is not read
FIRST, LAST = len(ALPHABET) + 1, len(ALPHABET) + 2  # codes of a word's bounds; 0 pads
BASE = len(ALPHABET) + 3
DIGITS_FROM = ALPHABET.index("0") + 1
SKELETON_SIZES = (3, 4)
MULTIPLIER = -7046029254386353131  # 2⁶⁴/φ, odd (Knuth, The Art of Computer Programming 3, §6.4)
CODES = bytes(ALPHABET.index(chr(c)) + 1 if chr(c) in ALPHABET else 0 for c in range(256))
WORDS_AT_ONCE = 8192


def spelled(words: Sequence[str]) -> np.ndarray:
    """Letters and skeleton of each word as codes, uint8 [N, LETTERS + BONES]."""
    codes_NL = np.zeros((len(words), LETTERS + BONES), np.uint8)
    for row, word in zip(codes_NL, words, strict=True):
        for text, first, length in ((romanised(word), 0, LETTERS), (skeleton(word), LETTERS, BONES)):
            code = np.frombuffer(text[:length].encode().translate(CODES), np.uint8)
            row[first : first + len(code)] = code
    return codes_NL


class LetterVectors(nn.Module):
    """Codes in, unit vectors out. ``sizes`` are those of the letter n-grams, ``skeleton`` the weight of the skeleton's
    n-grams beside them. Nothing here is learned or stored."""

    signs: Tensor

    def __init__(self, dim: int, rows: int, sizes: Sequence[int], skeleton: float, seed: int):
        super().__init__()
        self.rows, self.sizes, self.skeleton = rows, tuple(sizes), skeleton
        raw = np.random.Philox(key=seed).random_raw(rows * -(-dim // 64))
        bits = np.unpackbits(raw.astype("<u8").view(np.uint8)).reshape(rows, -1)[:, :dim]
        self.register_buffer("signs", torch.from_numpy(bits.astype(np.float32) * 2 - 1), persistent=False)

    def forward(self, codes_NL: Tensor) -> Tensor:
        """[N, D] from ``spelled`` codes."""
        letters_NL, bones_NS = codes_NL[:, :LETTERS].long(), codes_NL[:, LETTERS:].long()
        vectors_ND = self._sum(letters_NL, self.sizes, salt=1)
        return normalize(vectors_ND + self.skeleton * self._sum(bones_NS, SKELETON_SIZES, salt=2), dim=-1)

    def _sum(self, letters_NL: Tensor, sizes: tuple[int, ...], salt: int) -> Tensor:
        """Unit sums of the vectors of the n-grams and of the whole word; zeros where there are no letters. A number has
        the whole only: 1990 is no nearer to 1991 than to any other."""
        keys, there = [self._whole(letters_NL)], [letters_NL[:, :1] > 0]
        bounded_NL = self._bounded(letters_NL)
        is_word = ((letters_NL > 0) & (letters_NL < DIGITS_FROM)).any(1, keepdim=True)
        for size in sizes:
            windows_NGn = bounded_NL.unfold(1, size, 1)
            keys.append((windows_NGn * self._powers(size, letters_NL)).sum(-1) * 8 + size)
            there.append((windows_NGn[..., -1] > 0) & is_word)
        keys_NG, there_NG = torch.cat(keys, 1) * 8 + salt, torch.cat(there, 1)
        rows_NG = ((keys_NG * MULTIPLIER >> 33) & 0x3FFFFFFF) % self.rows
        count_N = there_NG.sum(1)
        return normalize(embedding_bag(rows_NG[there_NG], self.signs, count_N.cumsum(0) - count_N, mode="sum"), dim=-1)

    def _whole(self, letters_NL: Tensor) -> Tensor:
        return (letters_NL * self._powers(letters_NL.shape[1], letters_NL)).sum(1, keepdim=True) * 8

    @staticmethod
    def _powers(count: int, like: Tensor) -> Tensor:
        powers = torch.full((count,), BASE, dtype=torch.long, device=like.device)
        powers[0] = 1
        return powers.cumprod(0)  # beyond 2⁶⁴ it wraps, as a hash may

    @staticmethod
    def _bounded(letters_NL: Tensor) -> Tensor:
        """^letters$, padded with 0."""
        padded_NL = nn.functional.pad(letters_NL, (1, 1))
        padded_NL[:, 0] = FIRST
        length_N1 = (letters_NL > 0).sum(1, keepdim=True)
        return padded_NL.scatter(1, length_N1 + 1, LAST) * (length_N1 > 0)
