"""Which language a text is in, by lingua (n-grams of characters, and rules for scripts)."""

import os
from collections.abc import Sequence
from typing import Any

from pipelines import languages
from pipelines.gates.config import find_lingua_code
from pipelines.gates.words import count_letters, leave_out_latin, leave_out_shared

PREFIX = 1000  # characters of a translation that are read: lingua is certain long before
LETTERS = 3  # a text with fewer says nothing


def find_detectable(lang: str) -> str | None:
    """Lingua's code of a language, also of one in another script than its usual one; None where it does not know it."""
    return find_lingua_code(lang) or find_lingua_code(lang.partition("-")[0])


class Detector:
    """Finds how sure it is that texts are in ``target``, when they might be in one of ``others``. Loading its models
    takes a second and about 100 MB for each language.

    Attributes:
        is_latin: whether the target language is written in Latin letters.
    """

    def __init__(self, target: str, others: Sequence[str]) -> None:
        if cpus := os.environ.get("OMP_NUM_THREADS"):  # Ray sets it to the CPUs of the actor
            os.environ.setdefault("RAYON_NUM_THREADS", cpus)
        from lingua import LanguageDetectorBuilder

        known = {_find_language(lang) for lang in (target, *others)}
        self.is_latin = languages.script(target) == "Latn"
        self._target = _find_language(target)
        self._detector = LanguageDetectorBuilder.from_languages(*known).build()

    def measure(self, texts: Sequence[str]) -> list[float]:
        """The confidence, 0 to 1, that each text is in the target language."""
        found: list[float] = self._detector.compute_language_confidence_in_parallel(list(texts), self._target)
        return found

    def measure_translations(self, sources: Sequence[str], targets: Sequence[str], least: float) -> list[float]:
        """The same of translations, which have words of their source.

        A target below ``least`` is read once more without the words that it shares with its source and, in another
        script, without Latin ones: a name is no fault of a Chinese sentence. What then says nothing has 1: whether too
        much of the source was copied is for another gate.
        """
        confidences = self.measure([text[:PREFIX] for text in targets])
        doubtful = [i for i, confidence in enumerate(confidences) if confidence < least]
        own = [leave_out_shared(sources[i], targets[i])[:PREFIX] for i in doubtful]
        if not self.is_latin:
            own = [leave_out_latin(text) for text in own]
        for i, text, confidence in zip(doubtful, own, self.measure(own), strict=True):
            confidences[i] = confidence if count_letters(text) >= LETTERS else 1.0
        return confidences


def _find_language(lang: str) -> Any:
    from lingua import IsoCode639_1, Language

    code = find_detectable(lang)
    assert code is not None  # the configs have checked
    return Language.from_iso_code_639_1(getattr(IsoCode639_1, code.upper()))
