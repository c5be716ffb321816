"""Language fairness of a pooled ranking: whether documents of one language stand before equally good ones of another.

Two views of the pool of all languages, in which a document is named ``<lang>:<doc_id>``:

Shares. Of the first ``k`` documents of a query, which part is of each language, beside the language's part of the
query's relevant documents; both are means over queries. Their ratio is 1 where a language has in the ranking what it
has among the relevant, above 1 where the ranking prefers it. Its 95 % interval is that of a ratio of means (the delta
method, with the t distribution). A ranking in random order has the ratio 1 where the languages' collections are in the
proportion of their relevant documents, as translations of one collection are.

PEER, the Probability of Equal Expected Rank (Yang, Jänich, Mayfield and Lawrie, "Language Fairness in Multilingual
Information Retrieval", SIGIR 2024, arXiv 2405.00978): of the documents of one relevance, the p-value of a
Kruskal-Wallis test of their ranks, by language. Rankings in random order have a mean of about 0.5, biased ones one
near 0. Followed is the authors' package (github.com/hltcoe/peer_measure), since of the paper only the abstract was at
hand: relevant documents that are not among the first ``k`` stand behind all others, tied; where only one language has
documents of a relevance, or none was found, the value is 1. Three things are our own:

* the ranks are those among the documents of this relevance, as the test has them; the package takes the places in the
  whole ranking, and another place for what was not found;
* the levels of relevance of a query weigh alike and documents that are not relevant nothing; the package leaves the
  weights to its user;
* where no language has two documents of a relevance the test gives the same value for every ranking, so this level is
  left out. A collection with one relevant document a language, as XQuAD is, has no PEER.

Cost: about a millisecond for each query and level of relevance.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DEPTH = 20  # documents that are looked at where no measure names a depth
LEVEL = 0.95

Judged = Mapping[str, int]  # pooled doc_id → relevance


def measure_fairness(found: Mapping[str, Sequence[str]], qrels: Mapping[str, Judged], k: int) -> dict[str, Any]:
    """Measure the first ``k`` documents of each query. ``found`` and ``qrels`` are by query, documents by pooled id.

    Returns:
        ``{"k", "queries", "languages": {lang: {"relevant", "found", "ratio", "low", "high"}}, "peer",
        "peer_queries"}``. Queries without a relevant document, and without any document found, are left out.
        ``low`` and ``high`` are None for a single query, ``peer`` where no query can tell.
    """
    judged = {query: docs for query, docs in qrels.items() if found.get(query) and any(g > 0 for g in docs.values())}
    langs = sorted({language_of(doc) for query, docs in judged.items() for doc in [*docs, *found[query][:k]]})
    relevant_QL = np.array([_shares([d for d, g in docs.items() if g > 0], langs) for docs in judged.values()])
    found_QL = np.array([_shares(found[query][:k], langs) for query in judged])
    values = [peer(found[query][:k], docs) for query, docs in judged.items()]
    told = [value for value in values if value is not None]
    return {
        "k": k,
        "queries": len(judged),
        "languages": {lang: _describe(found_QL[:, n], relevant_QL[:, n]) for n, lang in enumerate(langs)},
        "peer": float(np.mean(told)) if told else None,
        "peer_queries": len(told),
    }


def language_of(pooled_id: str) -> str:
    """The language in a pooled id."""
    return pooled_id.partition(":")[0]


def peer(found: Sequence[str], judged: Judged) -> float | None:
    """PEER of one ranking: the mean over the levels of relevance above 0. None where no level can tell."""
    places = {doc_id: place for place, doc_id in enumerate(found)}
    values = []
    for level in sorted({grade for grade in judged.values() if grade > 0}):
        ranks: dict[str, list[int]] = {}
        for doc_id in (doc_id for doc_id, grade in judged.items() if grade == level):
            ranks.setdefault(language_of(doc_id), []).append(places.get(doc_id, len(found)))
        if (value := _same_ranks(list(ranks.values()))) is not None:
            values.append(value)
    return float(np.mean(values)) if values else None


def _same_ranks(groups: Sequence[Sequence[int]]) -> float | None:
    """The p-value of the Kruskal-Wallis test; 1 of a single group, and where all ranks tie; None of groups of one."""
    from scipy.stats import kruskal

    if len(groups) > 1 and max(map(len, groups)) == 1:
        return None
    if len(groups) < 2 or len({rank for ranks in groups for rank in ranks}) == 1:
        return 1.0
    return float(kruskal(*groups).pvalue)


def _shares(doc_ids: Sequence[str], langs: Sequence[str]) -> list[float]:
    """The part of each language in these documents [L]."""
    of = [language_of(doc_id) for doc_id in doc_ids]
    return [of.count(lang) / len(of) for lang in langs]


def _describe(found_Q: np.ndarray, relevant_Q: np.ndarray) -> dict[str, float | None]:
    """The mean shares of one language, and their ratio with its interval."""
    from scipy.stats import t

    found, relevant = float(found_Q.mean()), float(relevant_Q.mean())
    if not relevant:
        return {"relevant": relevant, "found": found, "ratio": None, "low": None, "high": None}
    ratio, n = found / relevant, len(found_Q)
    low = high = None
    if n > 1:
        error = float(np.std(found_Q - ratio * relevant_Q, ddof=1)) / (relevant * n**0.5)
        width = float(t.ppf((1 + LEVEL) / 2, n - 1)) * error
        low, high = ratio - width, ratio + width
    return {"relevant": relevant, "found": found, "ratio": ratio, "low": low, "high": high}
