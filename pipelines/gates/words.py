"""Words, roughly: runs of letters, Latin ones apart from others (``React应用`` is two words). In scripts without spaces
a run is a clause; what two languages share are names and terms, which are Latin there."""

import re

_WORD = re.compile(r"[A-Za-zÀ-ɏ]+|[^\W\d_A-Za-zÀ-ɏ]+")


def find_words(text: str) -> list[str]:
    """The words of a text, in order."""
    return _WORD.findall(text)


def leave_out_shared(source: str, target: str) -> str:
    """The target without the words that the source has too."""
    shared = set(find_words(source))
    return _WORD.sub(lambda word: "" if word.group() in shared else word.group(), target)
