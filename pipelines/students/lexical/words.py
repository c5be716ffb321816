"""Words of any script: where they begin and end, how they sound in Latin letters, and what is left without vowels.

Scripts that put no spaces between words give overlapping pairs of characters. Two names for one thing are often the
same word in two scripts: romanised (Шопен → shopen) they share letters, and without vowels and fine distinctions of
consonants (Chopin, Шопен → sbn) they share most of what is left. Costs about 8 µs per new word.
"""

import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

# Han, kana, Thai, Lao, Burmese, Khmer
UNSPACED = "\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
ARTICLES = ("وال", "بال", "فال", "كال", "لل", "ال")  # Arabic: "and the", "in the", …, written onto the word
REMEMBERED = 1 << 17  # words whose spelling is kept at hand, about 100 bytes each
_unspaced = re.compile(f"[{UNSPACED}]")
_not_latin = re.compile(r"[^a-z0-9]")
_vowels = re.compile(r"[aeiouyh]")
_doubled = re.compile(r"(.)\1+")
# spellings of similar sounds, longest first; applied in this order
SOUNDS = (
    *(("ph", "f"), ("sch", "s"), ("sh", "s"), ("ch", "s"), ("th", "t"), ("kh", "k"), ("gh", "g"), ("dh", "d")),
    *(("ck", "k"), ("x", "ks"), ("qu", "kf"), ("q", "k"), ("c", "k"), ("p", "b"), ("v", "f"), ("w", "f")),
    *(("z", "s"), ("j", "g")),
)
FIRST_VOWEL = str.maketrans("aeiouyh", "aaaaaaa")


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str]:
    """Runs of an unspaced script, numbers, and words: letters with the marks that belong to them."""
    marks = "".join(chr(c) for c in range(sys.maxunicode >> 4) if unicodedata.category(chr(c))[0] == "M")
    letters = rf"(?:(?![{UNSPACED}\d_])[\w{re.escape(marks)}])+"
    return re.compile(rf"[{UNSPACED}]+|\d+(?:[.,]\d+)*|{letters}")


def words(text: str) -> list[str]:
    """The words of a text in order, in lower case and Unicode's NFKC form."""
    text = unicodedata.normalize("NFKC", text).lower()
    return [text[first:last] for first, last in spans(text)]


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Where each word stands in the text as it is: [first, last)."""
    for match in _pattern().finditer(text):
        first, last = match.span()
        if last - first > 2 and is_unspaced(match[0]):
            yield from ((at, at + 2) for at in range(first, last - 1))
        else:
            yield first, last


def words_and_characters(text: str) -> list[str]:
    """The words, and each character of the unspaced ones besides: pairs are sparse, and characters have meanings."""
    found = words(text)
    return found + [c for word in found if is_unspaced(word) and len(word) > 1 for c in word]


def is_unspaced(word: str) -> bool:
    """Whether it is in a script without spaces."""
    return _unspaced.match(word) is not None


@lru_cache(REMEMBERED)
def romanised(word: str) -> str:
    """Its sound in a-z and 0-9, never empty: a word without any gets arbitrary letters of its own."""
    from anyascii import anyascii

    latin = _not_latin.sub("", anyascii(word).lower())
    return latin or "".join(ALPHABET[ord(c) % 36] + ALPHABET[ord(c) // 36 % 36] for c in word)


@lru_cache(REMEMBERED)
def skeleton(word: str) -> str:
    """Its consonants, similar ones written alike; "" for numbers, unspaced scripts, and where one is left."""
    sound = romanised(word)
    if sound.isdigit() or is_unspaced(word):
        return ""
    for spelling, sounds_like in SOUNDS:
        sound = sound.replace(spelling, sounds_like)
    sound = sound[0].translate(FIRST_VOWEL) + _vowels.sub("", sound[1:])
    bones = _doubled.sub(r"\1", sound).lstrip("a")
    return bones if len(bones) > 1 else ""


def without_article(word: str) -> str:
    """The word without an Arabic article, where at least three letters remain."""
    article = next((a for a in ARTICLES if word.startswith(a) and len(word) - len(a) >= 3), "")
    return word[len(article) :]
