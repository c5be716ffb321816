"""Words, roughly: runs of letters, Latin ones apart from others (``React应用`` is two words). In scripts without spaces
a run is a clause; what two languages share are names and terms, which are Latin there."""

import re

_WORD = re.compile(r"[A-Za-zÀ-ɏ]+|[^\W\d_A-Za-zÀ-ɏ]+")
_LATIN = re.compile(r"[A-Za-zÀ-ɏ]+")


def find_words(text: str) -> list[str]:
    """The words of a text, in order."""
    return _WORD.findall(text)


def leave_out_shared(source: str, target: str) -> str:
    """The target without the words that the source has too."""
    shared = set(find_words(source))
    return _WORD.sub(lambda word: "" if word.group() in shared else word.group(), target)


def leave_out_latin(text: str) -> str:
    """A text without its words in Latin letters, or with them where they are more than three quarters of it."""
    rest = _LATIN.sub("", text)
    return rest if 4 * count_letters(rest) >= count_letters(text) else text


def count_letters(text: str) -> int:
    """The number of letters."""
    return sum(map(str.isalpha, text))
