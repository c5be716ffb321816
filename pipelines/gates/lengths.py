"""How long a translation should be: the logarithm of target / source characters, and how far it strays.

Per language, relative to English: the mean of log(characters / characters in English), and its standard deviation at
100 English characters. A pair of languages is compared by way of English. Long texts stray less; on the human
translations that this was learnt from, by the cube root of the length rather than by the square root of Gale and
Church (1993, "A Program for Aligning Sentences in Bilingual Corpora"), as neighbouring sentences are alike.

Words that both texts have are left out of both: names and code are as long in every language.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from pipelines import languages
from pipelines.gates.words import find_words

# learnt by tests/benchmarks/bench_gates.py --learn from Tatoeba, TICO-19 and the training part of LibreOffice's help
LEARNT = {
    "en": (0.0, 0.0),
    "ar": (-0.145, 0.188),
    "de": (0.147, 0.152),
    "el": (0.206, 0.136),
    "es": (0.116, 0.142),
    "fa": (-0.082, 0.169),
    "fr": (0.162, 0.169),
    "pt": (0.100, 0.129),
    "ru": (0.065, 0.181),
    "tr": (0.000, 0.201),
    "zh": (-1.196, 0.229),
}
# by script, for other languages: what such languages have in common, with room for what they do not
_BY_SCRIPT = {"Hans": -1.2, "Hant": -1.2, "Jpan": -0.8, "Kore": -0.7, "Arab": -0.1, "Hebr": -0.2}
_OTHER_MEAN, _OTHER_SPREAD = 0.05, 0.2
_SHORTEST, _LONGEST = 10, 400  # English characters: outside, texts stray as these do
_TYPICAL = 100


@dataclass(frozen=True)
class Expected:
    """The lengths to expect between two languages: ``mean`` of log(target / source), ``spread`` at 100 English
    characters, and ``scale``, English characters per character of the source."""

    mean: float
    spread: float
    scale: float = 1.0

    @classmethod
    def between(cls, source_lang: str, target_lang: str) -> "Expected":
        """What is known of this pair."""
        (source, source_spread), (target, target_spread) = _find(source_lang), _find(target_lang)
        return cls(target - source, math.hypot(source_spread, target_spread), math.exp(-source))

    def deviation(self, source: str, target: str) -> float:
        """How many standard deviations the target is too long; negative where it is too short."""
        given, made = measure_own(source, target)
        if not self.spread or not given or not made:
            return 0.0
        return (math.log(made / given) - self.mean) / (self.spread * _stray(given * self.scale))


def measure_own(source: str, target: str) -> tuple[int, int]:
    """The characters of each text that are not in words which the other has too; at least 1 of a text with any."""
    ours, theirs = find_words(source), find_words(target)
    shared = set(ours).intersection(theirs)
    return _count_own(source, ours, shared), _count_own(target, theirs, shared)


def _count_own(text: str, words: list[str], shared: set[str]) -> int:
    return max(min(len(text), 1), len(text) - sum(len(word) for word in words if word in shared))


def learn(pairs: Iterable[tuple[str, str]]) -> tuple[float, float]:
    """Mean and spread of a language from (English, translation) pairs.

    Both are robust, since corpora hold misaligned pairs: the median from texts of 40 characters on, and the spread of a
    normal distribution that leaves as much outside (2 %).
    """
    counts = [measure_own(english, other) for english, other in pairs if english and other]
    lengths = [(english, math.log(other / english)) for english, other in counts]
    mean = median(ratio for length, ratio in lengths if length >= 40)
    strays = sorted(abs(ratio - mean) / _stray(length) for length, ratio in lengths)
    return mean, strays[int(0.98 * len(strays))] / 2.326


def _find(lang: str) -> tuple[float, float]:
    base = lang.partition("-")[0]
    if base in LEARNT:
        return LEARNT[base]
    return _BY_SCRIPT.get(languages.script(lang), _OTHER_MEAN), _OTHER_SPREAD


def _stray(length: float) -> float:
    """The standard deviation at this length, relative to that at 100 English characters."""
    return float((_TYPICAL / min(max(length, _SHORTEST), _LONGEST)) ** (1 / 3))
