"""Text to terms for BM25, one analyser per language.

Every language: NFKC, lower case, decimal digits as ASCII, Arabic-script variants folded, then Unicode words (letters,
digits and the marks on them; a single digit is a word). Scripts written without spaces are cut further:

    zh           jieba's search mode (words, and the dictionary words inside them)
    th           pythainlp's newmm (maximal matching)
    elsewhere    bigrams of characters: Han, kana, Hangul, Thai, Lao, Khmer, Burmese, Tibetan

so a Japanese name in a German text is still found (Hangul has spaces, but its particles stick to the words). No stop
words and no stemming: both hurt as often as they help across languages. The analyser of a shard reads its queries too,
so the two always agree.
Cost: about 1 s and 100 MB when zh is first used, 1 s for th; then 0.15 million characters per second (zh), 0.7 (th),
1.4 and more (others).
"""

import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise

Analyser = Callable[[str], list[str]]

_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_THAI = "\u0e01-\u0e3a\u0e40-\u0e4e"
_SOUTH_EAST = "\u0e81-\u0ecd\u0edc-\u0edf\u0f40-\u0fbc\u1000-\u103f\u1050-\u109d\u1780-\u17d3\u17dc"
_BIGRAMS = f"{_HAN}{_KANA}\uac00-\ud7a3{_THAI}{_SOUTH_EAST}"

# Lucene's Arabic and Persian normalisers do the same: one yeh, one kaf, one heh, one alef, no harakat, no tatweel.
_ARABIC = {
    **dict.fromkeys("ىيۍې", "ی"),
    "ك": "ک",
    **dict.fromkeys("ةۀەہ", "ه"),
    **dict.fromkeys("أإآٱ", "ا"),
    "ؤ": "و",
    "ئ": "ی",
    **dict.fromkeys([chr(c) for c in (0x640, *range(0x64B, 0x660), 0x670)]),
    "\u200c": " ",  # the zero-width non-joiner parts a Persian word from its affixes
    **dict.fromkeys("\u200b\u200d\u200e\u200f\u00ad\ufeff"),
}


@lru_cache(maxsize=64)
def load_analyser(lang: str) -> Analyser:
    """Return the function that cuts a text of ``lang`` (ISO 639-1, maybe with a script: ``zh-Hant``) into terms."""
    if lang in ("zh", "zh-Hans"):
        return _build_segmented(re.compile(f"([{_HAN}]+)"), _load_jieba())
    if lang.partition("-")[0] == "th":
        return _build_segmented(re.compile(f"([{_THAI}]+)"), _load_newmm())
    return lambda text: list(_cut_words(_normalise(text)))


def _build_segmented(script: re.Pattern[str], cut: Callable[[str], list[str]]) -> Analyser:
    """An analyser that gives the runs of ``script`` to ``cut`` and all else to the general rules."""

    def analyse(text: str) -> list[str]:
        terms: list[str] = []
        for i, piece in enumerate(script.split(_normalise(text))):
            terms += cut(piece) if i % 2 else _cut_words(piece)
        return terms

    return analyse


def _normalise(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower().translate(_build_folding()))


def _cut_words(text: str) -> Iterator[str]:
    """Words; runs of a script without spaces as bigrams of characters with their marks, a lone character as itself."""
    word, spaceless, cluster = _build_patterns()
    for run in word.findall(text):
        if not spaceless.search(run):
            yield run
            continue
        for i, piece in enumerate(spaceless.split(run)):
            if i % 2 == 0:
                if piece:
                    yield piece
                continue
            letters = cluster.findall(piece)
            yield from letters if len(letters) == 1 else map("".join, pairwise(letters))


@lru_cache(maxsize=1)
def _build_folding() -> dict[int, str | None]:
    """Every decimal digit to ASCII, and the Arabic-script table. 0.1 s, once."""
    digits = {c: str(unicodedata.digit(chr(c))) for c in range(0x80, sys.maxunicode) if chr(c).isdecimal()}
    return {**digits, **{ord(c): to for c, to in _ARABIC.items()}}


@lru_cache(maxsize=1)
def _build_patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Words, spaceless runs, and characters with their marks. ``\\w`` alone would cut Hindi words at vowel signs."""
    marks = "".join(chr(c) for c in range(0x300, 0x20000) if unicodedata.category(chr(c)) in ("Mn", "Mc"))
    return (
        re.compile(f"[^\\W_]+(?:[{marks}]+[^\\W_]*)*"),
        re.compile(f"([{_BIGRAMS}]+)"),
        re.compile(f".[{marks}]*"),
    )


def _load_jieba() -> Callable[[str], list[str]]:
    import jieba

    segmenter = jieba.Tokenizer()
    # its own initialize() logs to stderr and keeps a cache in the shared temporary directory
    segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
    segmenter.initialized = True
    return lambda text: list(segmenter.cut_for_search(text))


def _load_newmm() -> Callable[[str], list[str]]:
    os.environ.setdefault("PYTHAINLP_READ_ONLY", "1")  # or importing it makes a directory in the user's home
    from pythainlp.tokenize import word_tokenize

    return lambda text: word_tokenize(text, engine="newmm", keep_whitespace=False)
