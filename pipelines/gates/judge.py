"""Judging a translation by its text alone: pure functions of a source and a target.

The measures are shares between 0 and 1. They count characters, so they need no words and hold for every script.
"""

import re
from collections import Counter

from pipelines.gates.config import Gates
from pipelines.gates.lengths import Expected
from pipelines.gates.numbers import find_all_numbers, find_numbers

EMPTY, COPIED, REPETITION, MARKUP, NUMBERS, LENGTH, ENDING, LANGUAGE = (
    f"gate: {name}" for name in ("empty", "copied", "repetition", "markup", "numbers", "length", "ending", "language")
)
COPY_WINDOW = 8  # characters: longer than most names and cognates
COPY_SHORTEST = 20
LOOP_WINDOW = 10
FINAL = tuple(".!?…:;。．！？：；؟۔؛।॥։።᙮")  # marks that end a sentence, or what stands for one
CLOSING = " \t\r\n\"'”’»›“‘)]}）】」』》〉*_`"  # what may follow them
WITHOUT_MARKS = frozenset({"Thai", "Laoo", "Khmr", "Mymr"})  # scripts that end a sentence with a space, or rarely
LOOPS = 3  # times that a window must occur to be a loop
_MARKUP = re.compile(
    r"""
    https?://[!-~]+[\w/] | [\w.+-]+@[\w-]+\.[a-z]{2,}      # URLs, addresses
    | </?[a-zA-Z][\w:-]*                                   # tags: the name alone, attributes may be translated
    | \{\{?[\w.]*\}?\} | %\(\w+\)[sdif] | (?<![\d%])%[sdif]\b   # placeholders
    """,
    re.VERBOSE | re.ASCII,
)


def judge(source: str, target: str, gates: Gates, expected: Expected) -> str | None:
    """The reason why ``target`` is no translation of ``source``, or None. The language is judged by ``Detector``."""
    if gates.empty and not any(map(str.isalnum, target)):
        return EMPTY
    if gates.copied < 1 and measure_copied(source, target) > gates.copied:
        return COPIED
    if gates.repetition < 1 and measure_repetition(target) - measure_repetition(source) > gates.repetition:
        return REPETITION
    if gates.markup > 0 and measure_kept_markup(source, target) < gates.markup:
        return MARKUP
    if gates.numbers > 0 and measure_kept_numbers(source, target) < gates.numbers:
        return NUMBERS
    deviation = expected.deviation(source, target)
    if 0 < gates.length < abs(deviation):
        return LENGTH
    if 0 < gates.ending < -deviation and ends_sentence(source) and not ends_sentence(target):
        return ENDING
    return None


def ends_sentence(text: str) -> bool:
    """Whether the last sign, quotation marks and brackets apart, ends a sentence."""
    return text.rstrip(CLOSING).endswith(FINAL)


def measure_copied(source: str, target: str) -> float:
    """The share of the source's windows of 8 characters that are in the target; 0 for a source below 20 characters,
    which may be a name."""
    windows = _windows(source, COPY_WINDOW)
    if len(source) < COPY_SHORTEST:
        return 0.0
    there = set(_windows(target, COPY_WINDOW))
    return sum(window in there for window in windows) / len(windows)


def measure_repetition(text: str) -> float:
    """The share of a text's windows of 10 characters that occur at least three times in it: loops of any length.

    The share of repeated n-grams (Rae et al. 2021, "Scaling Language Models", appendix A.1.1), in characters.
    """
    counts = Counter(_windows(text, LOOP_WINDOW))
    return sum(n for n in counts.values() if n >= LOOPS) / max(1, counts.total())


def measure_kept_markup(source: str, target: str) -> float:
    """The share of the source's tags, placeholders, URLs and addresses that are in the target; 1 if it has none."""
    wanted = Counter(_MARKUP.findall(source))
    if not wanted:
        return 1.0
    return (wanted & Counter(_MARKUP.findall(target))).total() / wanted.total()


def measure_kept_numbers(source: str, target: str) -> float:
    """The share of the source's numbers that are in the target; 1 if it has less than two, as one may be a word."""
    wanted = find_numbers(source)
    if len(wanted) < 2:
        return 1.0
    return len(wanted & find_all_numbers(target)) / len(wanted)


def _windows(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(len(text) - size + 1)]
