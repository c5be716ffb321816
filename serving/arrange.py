"""Which documents an answer holds, and in which order: ties, quotas, translations, pages. Pure functions.

Rankings of several languages become one list, by score. Equal scores are shared out: each language gives one document
in turn, in an order of languages that depends on the query, so that no language comes first in every answer. Then

    min_score     leaves out what scores less
    per_language  leaves out what is beyond so many documents of its own language
    collapse      keeps one result for each document id: the language in which it scores best
    offset, k     cut a page

The first ``n`` of the list come from the first ``n`` of each language, so searching each language for ``offset + k``
documents is deep enough. Cost: one sort of the documents found.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from serving.messages import SearchRequest


class Hit(NamedTuple):
    """A document in one language, and its score."""

    lang: str
    doc_id: str
    score: float


class Placed(NamedTuple):
    """A document of an answer, and the same document in other languages in which it was found, best first."""

    best: Hit
    others: tuple[Hit, ...] = ()


def arrange(rankings: Mapping[str, Sequence[tuple[str, float]]], request: SearchRequest) -> list[Placed]:
    """Arrange the page that ``request`` asks for. ``rankings`` holds (doc id, score) by language, best first."""
    found = share_ties(rankings, request.query)
    if request.min_score is not None:
        found = [hit for hit in found if hit.score >= request.min_score]
    if request.per_language is not None:
        found = _limit_languages(found, request.per_language)
    placed = _collapse(found) if request.collapse else [Placed(hit) for hit in found]
    return placed[request.offset : request.offset + request.k]


def share_ties(rankings: Mapping[str, Sequence[tuple[str, float]]], query: str) -> list[Hit]:
    """All documents of all languages by score. Of equal scores, each language gives one document in turn; ``query``
    decides which language begins."""
    order = {lang: blake2b(f"{lang}\n{query}".encode(errors="surrogatepass")).digest() for lang in rankings}
    sortable = []
    for lang, ranking in rankings.items():
        turns: Counter[float] = Counter()
        for doc_id, score in ranking:
            sortable.append(((-score, turns[score], order[lang], doc_id), Hit(lang, doc_id, float(score))))
            turns[score] += 1
    return [hit for _, hit in sorted(sortable)]


def _limit_languages(found: Sequence[Hit], limit: int) -> list[Hit]:
    counts: Counter[str] = Counter()
    kept = []
    for hit in found:
        counts[hit.lang] += 1
        if counts[hit.lang] <= limit:
            kept.append(hit)
    return kept


def _collapse(found: Sequence[Hit]) -> list[Placed]:
    by_id: dict[str, list[Hit]] = {}
    for hit in found:
        by_id.setdefault(hit.doc_id, []).append(hit)
    return [Placed(hits[0], tuple(hits[1:])) for hits in by_id.values()]
