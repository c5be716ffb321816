"""Which queries are in another language than their passages.

A query is short, and names are in no language: it is taken to be in its own unless another is much more likely, and
where its language is not written in Latin letters those do not count. Of XQuAD's 1,190 questions of each of
11 languages at most 5 are taken for another (0 to 0.4 %); of those in another one that it knows 0.3 % are let through.
"""

import re
from collections.abc import Sequence

from cluster.errors import RecipeError
from pipelines.gates.config import LINGUA, require_lingua
from pipelines.gates.detector import Detector, find_detectable

LATIN = re.compile(r"[a-z\u00c0-\u024f\u1e00-\u1eff]+", re.IGNORECASE)
# those that models fall into, and neighbours by script; a detector that knows few languages errs less on short texts
OTHERS = ("ar", "de", "en", "es", "fa", "fr", "ru", "zh")
LEAST = 0.15  # probability of the query's own language below which it is taken to be in another


def check_detectable(lang: str) -> str:
    """A language that lingua knows, in whatever script. Raises RecipeError where it does not, or is not installed."""
    require_lingua("[synthesis]")
    if find_detectable(lang) is None:
        raise RecipeError(
            f"[synthesis] checks the language of queries, and lingua knows no {lang!r}; it knows "
            f"{', '.join(sorted(LINGUA))}. Choose another languages.original"
        )
    return lang


def find_foreign(detector: Detector, queries: Sequence[str]) -> list[bool]:
    """For each query, whether it is in another language than the detector's target."""
    read = queries if detector.is_latin else [LATIN.sub(" ", text) for text in queries]
    return [confidence < LEAST for confidence in detector.measure(read)]


def open_detector(lang: str) -> Detector:
    """A detector for queries in this language."""
    return Detector(check_detectable(lang), OTHERS)
