"""Damage to translations, at a rate: for experiments that ask how good a translation must be (MTD, section 6).

    replace   a word becomes a word of another passage of the same language: a wrong translation
    shuffle   the words that are chosen change places among one another: a wrong order
    drop      a word is missing

Each word is chosen with the probability of its kind, in this order; words are chosen apart for each kind. Dropping and
shuffling are the noise of Lample et al. (arXiv 1711.00043, section 2.3), who shuffle within three places. Where a
script writes no spaces between words (Chinese, Japanese, Thai), a character stands for a word.

What happens to a text is a function of its id, its language and ``seed`` alone. A word that a low rate damages, a
higher rate damages too, in the same way: so texts of two rates differ in no more than the rate asks for.
"""

from typing import NamedTuple

import numpy as np
from pydantic import Field

from cluster.component import Component
from pipelines import languages
from pipelines.ids import hash_ids
from pipelines.translators.nmt import WITHOUT_SPACES


class Damage(Component):
    """The share of words that are damaged in each way. All 0: the text stays as it is."""

    replace: float = Field(0.0, ge=0, le=1)
    shuffle: float = Field(0.0, ge=0, le=1)
    drop: float = Field(0.0, ge=0, le=1)
    seed: int = Field(0, ge=0, lt=2**63)

    @property
    def is_none(self) -> bool:
        """Whether texts stay as they are."""
        return not (self.replace or self.shuffle or self.drop)

    def draw(self, row_id: str, lang: str) -> "Drawn":
        """The random numbers of one row."""
        key = np.array([self.seed, hash_ids([f"{lang}\t{row_id}"])[0]], np.uint64)
        return Drawn(self, np.random.Generator(np.random.Philox(key=key)), languages.script(lang) in WITHOUT_SPACES)


class Drawn(NamedTuple):
    """The random numbers of a row, which damage its texts in the order in which they are given."""

    damage: Damage
    random: np.random.Generator
    is_written_without_spaces: bool

    def choose_other(self, position: int, count: int) -> int:
        """One of ``count`` positions, and not ``position`` where there is another."""
        return (position + 1 + int(self.random.integers(max(1, count - 1)))) % count

    def apply(self, text: str, other: str) -> str:
        """``text`` with damage; ``other`` is the text whose words take the place of those that are replaced. A text
        keeps at least one of its words."""
        words, others = self._split(text), self._split(other)
        if not words:
            return text
        damage, random = self.damage, self.random
        replaced_W, shuffled_W, dropped_W, taken_W, place_W = random.random((5, len(words)))
        if others:
            taken = (taken_W * len(others)).astype(int).tolist()
            words = [others[at] if chance < damage.replace else word
                     for word, at, chance in zip(words, taken, replaced_W, strict=True)]  # fmt: skip
        places = np.flatnonzero(shuffled_W < damage.shuffle)
        order = places[np.argsort(place_W[places])]
        moved = dict(zip(places.tolist(), order.tolist(), strict=True))
        words = [words[moved.get(at, at)] for at in range(len(words))]
        kept = [word for word, chance in zip(words, dropped_W, strict=True) if chance >= damage.drop]
        return ("" if self.is_written_without_spaces else " ").join(kept or words[:1])

    def _split(self, text: str) -> list[str]:
        return list("".join(text.split())) if self.is_written_without_spaces else text.split()
