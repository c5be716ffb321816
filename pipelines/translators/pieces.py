"""Cutting a long text into pieces that a translation model can read, at sentences where there are any.

The cut nearest the middle is taken, again and again, until every piece is short enough: pieces come out about equally
long, which suits models trained on sentences better than one full piece and a rest. No character is lost. A text of n
tokens is counted about log2(n / limit) times.
"""

import re
import unicodedata
from collections.abc import Callable
from itertools import pairwise

_CLOSERS = "\"'»”’)\\]」』）】"
# A full stop ends a sentence before a space; the stops of scripts written without spaces, and line breaks, always do.
_SENTENCE_END = re.compile(rf"[.!?…]+[{_CLOSERS}]*\s+|[。！？｡؟۔।॥።៕။༎]+[{_CLOSERS}]*\s*|\n+")
_SPACE = re.compile(r"\s+")
_JOINER = "\u200d"


def sentences(text: str) -> list[str]:
    """Cut ``text`` after every sentence; joined with nothing between, they are ``text`` again. An abbreviation cuts a
    sentence in two."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    cut = [text[start:end] for start, end in pairwise([0, *ends, len(text)])]
    return [sentence for sentence in cut if sentence] or [text]


def pieces(text: str, limit: int, count: Callable[[str], int]) -> list[str]:
    """Cut ``text`` into pieces with ``count(piece) <= limit``; joined with nothing between, they are ``text`` again.

    The cut is at a sentence's end where there is one, else at a space, else between two characters. A single character
    longer than ``limit`` stays whole.
    """
    if count(text) <= limit:
        return [text]
    cut = _cut(text)
    if cut is None:
        return [text]
    return pieces(text[:cut], limit, count) + pieces(text[cut:], limit, count)


def _cut(text: str) -> int | None:
    """Where to cut ``text`` so that both sides hold something to read; None when it cannot be cut."""
    middle = len(text) / 2
    for boundary in (_SENTENCE_END, _SPACE):
        ends = [m.end() for m in boundary.finditer(text)]
        inner = [e for e in ends if text[:e].strip() and text[e:].strip()]
        if inner:
            return min(inner, key=lambda e: abs(e - middle))
    cut = (len(text) + 1) // 2
    while cut < len(text) and (unicodedata.combining(text[cut]) or _JOINER in text[cut - 1 : cut + 1]):
        cut += 1  # an accent or a joined emoji stays with the character before it
    return cut if 0 < cut < len(text) else None
