"""Queries made of a passage's own words, without a language model: for tests, laptops and a first look.

They are found easily (BM25 finds 99 to 100 % of XQuAD's paragraphs by the longest four words) and teach little.
"""

import unicodedata
from collections.abc import Sequence
from typing import Literal

from pipelines import languages
from pipelines.ids import hash_ids
from pipelines.synthesis.base import EMPTY, Passage, Wording, Writing, Written
from pipelines.synthesis.phrases import find_templates
from pipelines.tokenize import load_analyser
from pipelines.translators.nmt import WITHOUT_SPACES
from pipelines.translators.pieces import sentences

WORDS = 4  # in a query
TITLE = 60  # characters of a title that is made of a passage's beginning; a third where words have no spaces between


class Templates(Writing):
    """Fill a phrase with the longest words of a passage; or take its title, or its longest sentence."""

    kind: Literal["templates"] = "templates"

    def wording(self, lang: str) -> Wording:
        """The phrases to fill. Raises RecipeError where the language has none."""
        return find_templates(self.task, lang)

    def build(self, lang: str, wording: Wording) -> "TemplateWriter":
        """A writer of one language."""
        return TemplateWriter(lang, wording)


class TemplateWriter:
    """Writes a function of a passage alone: which of the phrases is used depends on its id."""

    def __init__(self, lang: str, wording: Wording) -> None:
        self._lang, self._wording = lang, wording
        self._has_spaces = languages.script(lang) not in WITHOUT_SPACES

    def write(self, passages: Sequence[Passage]) -> list[Written]:
        """See ``Writer``."""
        return [self._write(passage) for passage in passages]

    def _write(self, passage: Passage) -> Written:
        words = self._longest_words(passage.text)
        if not words:
            return Written(reject=EMPTY)
        phrases = self._wording.phrases
        phrase = phrases[int(hash_ids([passage.doc_id])[0]) % len(phrases)]
        parts = [sentence.strip() for sentence in sentences(passage.text)]
        title = passage.title.strip() or self._shorten(next(filter(None, parts)))
        return Written(
            phrase.format(words=self._wording.separator.join(words), title=title, sentence=max(parts, key=len))
        )

    def _longest_words(self, text: str) -> list[str]:
        """The longest words, each once, as they are written, in the order of the text."""
        places: dict[str, tuple[int, str]] = {}
        for place, word in enumerate(self._words(text)):
            places.setdefault(word.casefold(), (place, word))
        longest = sorted(places.values(), key=lambda found: (-len(found[1]), found[0]))[:WORDS]
        return [word for _, word in sorted(longest)]

    def _words(self, text: str) -> list[str]:
        if not self._has_spaces:  # the analyser folds: only words that are in the text as they are
            return [term for term in load_analyser(self._lang)(text) if len(term) > 1 and term in text]
        words = map(_strip, text.split())
        return [word for word in words if word and (word.isalpha() or not any(map(str.isdigit, word)))]

    def _shorten(self, sentence: str) -> str:
        if not self._has_spaces:
            return sentence[: TITLE // 3]
        if len(sentence) <= TITLE:
            return sentence
        return sentence[: TITLE + 1].rpartition(" ")[0] or sentence[:TITLE]


def _strip(word: str) -> str:
    """A word without the punctuation, symbols and control characters around it."""
    if word.isalpha():  # most are
        return word
    inside = [i for i, letter in enumerate(word) if unicodedata.category(letter)[0] not in "PSC"]
    return word[inside[0] : inside[-1] + 1] if inside else ""
