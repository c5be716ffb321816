"""Which language a query is written in, by lingua.

A query is short, and names are in no language: it is taken to be in its own unless another is much more likely, and
where its language is not written in Latin letters those do not count. Of XQuAD's 1,190 questions of each of
11 languages at most 5 are taken for another (0 to 0.4 %); of those in another one that it knows 0.3 % are let through.
"""

import re
from collections.abc import Sequence
from typing import Any

from cluster.errors import RecipeError
from pipelines import languages

LATIN = re.compile(r"[a-z\u00c0-\u024f\u1e00-\u1eff]+", re.IGNORECASE)
# those that models fall into, and neighbours by script; a detector that knows few languages errs less on short texts
OTHERS = ("ar", "de", "en", "es", "fa", "fr", "ru", "zh")
LEAST = 0.15  # probability of the query's own language below which it is taken to be in another


def check_detectable(lang: str) -> str:
    """A language that lingua knows. Raises RecipeError where it does not."""
    _find(lang)
    return lang


class LanguageCheck:
    """Tells whether texts are in one language. Loading its models takes a second and about 100 MB for each language."""

    def __init__(self, lang: str) -> None:
        from lingua import LanguageDetectorBuilder

        self._lang, self._is_latin = _find(lang), languages.script(lang) == "Latn"
        others = {_find(other) for other in OTHERS}
        self._detector = LanguageDetectorBuilder.from_languages(*others, self._lang).build()

    def find_others(self, texts: Sequence[str]) -> list[bool]:
        """For each text, whether it is in another language."""
        read = texts if self._is_latin else [LATIN.sub(" ", text) for text in texts]
        return [self._detector.compute_language_confidence(text, self._lang) < LEAST for text in read]


def _find(lang: str) -> Any:
    """lingua's name of a language."""
    try:
        from lingua import IsoCode639_1, Language
    except ImportError as error:
        raise RecipeError("[synthesis] checks languages with lingua: pip install 'babelray[gates]'") from error

    code = getattr(IsoCode639_1, lang.partition("-")[0].upper(), None)  # a script does not matter
    if code is None:
        known = sorted(language.iso_code_639_1.name.lower() for language in Language.all())
        raise RecipeError(
            f"[synthesis] checks the language of queries, and lingua knows no {lang!r}; it knows {', '.join(known)}. "
            "Choose another languages.original"
        )
    return Language.from_iso_code_639_1(code)
