"""The stages of a search after that of one index: fusion with an index of words, and a second scoring. Without Ray.

    student ┐
            ├ fusion → the first n are scored again → ties, quotas, translations, pages (``arrange``)
    words   ┘

Each index answers for itself, ``depth`` documents deep and with their texts, both at the same time and with one time
limit; what they found is fused by rank among all languages that are searched, or by score. A second scoring returns
the documents that it scored and no others, since its scores and those before it cannot be compared. Cost, beside the
search of both: reading the texts of ``depth`` documents of each instead of a page's.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipelines.fusion import Fusion, Hybrid, fuse
from serving.arrange import Placed, arrange
from serving.backend import Answering, Backend, UnavailableError
from serving.messages import MAX_K, Info, Result, SearchAnswer, SearchRequest, Stage, Translation
from serving.problems import Phrase, refuse
from serving.tracing import trace_stage

WITHOUT_ARRANGEMENT = {"offset": 0, "collapse": False, "min_score": None, "explain": False}


class Stages(NamedTuple):
    """What is done beyond the search of one index: how it is fused (None: not), and how many results are scored again
    (0: none)."""

    fusion: Fusion | None
    rerank: int


class Candidates(NamedTuple):
    """What the stages so far found: results by (language, id), their ranking, and what is known of the search."""

    results: Mapping[tuple[str, str], Result]
    ranking: Sequence[tuple[tuple[str, str], float]]
    answer: SearchAnswer


def choose_stages(request: SearchRequest, info: Info) -> Stages:
    """Choose the stages of a search: what the request says, else what the recipe says.

    Raises:
        RefusalError: it asks for a stage that is not served.
    """
    hybrid, rerank = info.hybrid, info.rerank
    if request.hybrid not in (None, False) and hybrid is None:
        raise refuse(
            422, "hybrid", f"false or null: {_name(info)} has no index of words beside it ([serve] hybrid)", True
        )
    if request.rerank and rerank is None:
        needed = f"0 or null: {_name(info)} has no scorer for results ([serve] rerank)"
        raise refuse(422, "rerank", needed, request.rerank)
    fusion = request.hybrid if isinstance(request.hybrid, Fusion) else None
    if fusion and fusion.weights is not None and len(fusion.weights) != 2:
        raise refuse(422, "hybrid.weights", "two numbers, of the student and of the words", list(fusion.weights))
    is_fused = hybrid is not None and ((request.hybrid is None and hybrid.default) or bool(request.hybrid))
    asked = request.rerank if request.rerank is not None else (rerank.candidates if rerank and rerank.default else 0)
    return Stages((fusion or hybrid) if is_fused else None, asked)


async def answer_in_stages(backend: Backend, request: SearchRequest, info: Info) -> SearchAnswer:
    """Answer a search by all its stages.

    Raises:
        RefusalError: it asks for a stage that is not served.
        UnavailableError: a part did not answer in time.
    """
    stages = choose_stages(request, info)
    if stages == (None, 0):
        return await backend.answer(request)
    start = time.perf_counter()
    found = await _search(backend, request, info, stages)
    if stages.rerank:
        with trace_stage("rerank"):
            found = await _rerank(backend, request, found, stages.rerank)
    by_lang: dict[str, list[tuple[str, float]]] = {}
    for (lang, doc_id), score in found.ranking:
        by_lang.setdefault(lang, []).append((doc_id, score))
    placed = arrange(by_lang, request)
    results = [
        _place(rank, one, found.results, request.collapse) for rank, one in enumerate(placed, request.offset + 1)
    ]
    total = round((time.perf_counter() - start) * 1000, 2)
    took_ms = {name: ms for name, ms in found.answer.took_ms.items() if name != "total"} | {"total": total}
    return found.answer.model_copy(update={"results": results, "took_ms": took_ms})


async def _search(backend: Backend, request: SearchRequest, info: Info, stages: Stages) -> Candidates:
    """Search as deep as the stages need: the student's index, and the index of words where they are fused."""
    hybrid = info.hybrid if stages.fusion else None
    per_document = len(request.languages or info.languages) if request.collapse else 1
    depth = max((request.offset + request.k) * per_document, stages.rerank, hybrid.depth if hybrid else 0)
    wide = request.model_copy(update={**WITHOUT_ARRANGEMENT, "k": min(depth, MAX_K)})
    if hybrid is None or stages.fusion is None:
        return _read(await backend.answer(wide))
    if backend.words is None:
        raise UnavailableError([hybrid.system], [], 0.0)
    answers = await _answer_both(backend, backend.words, wide, hybrid)
    with trace_stage("fusion"):
        return _fuse(answers, stages.fusion, info.system, hybrid)


async def _answer_both(
    backend: Backend, words: Answering, request: SearchRequest, hybrid: Hybrid
) -> tuple[SearchAnswer, SearchAnswer]:
    """The answers of the student and of the index of words. Where a request allows partial answers, one that does not
    come is empty, with no coverage."""

    async def ask(answering: Answering, prefix: str) -> SearchAnswer:
        start = time.perf_counter()
        try:
            answer = await answering(request)
        except UnavailableError as error:
            late, gone = [prefix + name for name in error.late], [prefix + name for name in error.gone]
            if not request.allow_partial:
                raise UnavailableError(gone, late, error.waited_s) from error
            took_ms = {"total": (time.perf_counter() - start) * 1000}
            return SearchAnswer(query=request.query, results=[], took_ms=took_ms, coverage=0, missing=[*gone, *late])
        return answer.model_copy(update={"missing": [prefix + name for name in answer.missing]})

    student, of_words = await asyncio.gather(
        ask(backend.answer, ""), ask(words, f"{hybrid.system}/"), return_exceptions=True
    )
    for answer in (student, of_words):
        if isinstance(answer, BaseException):
            raise answer
    if not student.coverage and not of_words.coverage and student.missing:  # type: ignore[union-attr]
        raise UnavailableError([], [*student.missing, *of_words.missing], 0.0)  # type: ignore[union-attr]
    return student, of_words  # type: ignore[return-value]


def _fuse(answers: tuple[SearchAnswer, SearchAnswer], fusion: Fusion, system: str, hybrid: Hybrid) -> Candidates:
    """Fuse two answers. A document's ``ranks`` say where each of the systems had it."""
    start = time.perf_counter()
    student, words = (_read(answer) for answer in answers)
    ranking = fuse([student.ranking, words.ranking], fusion)
    ranks: dict[tuple[str, str], dict[str, int]] = {}
    for name, found in ((system, student), (hybrid.system, words)):
        for key, result in found.results.items():
            ranks.setdefault(key, {})[name] = result.rank
    texts = {**words.results, **student.results}
    results = {key: texts[key].model_copy(update={"ranks": ranks[key]}) for key in texts}
    took_ms = student.answer.took_ms | {
        "words": words.answer.took_ms["total"],
        "fusion": round((time.perf_counter() - start) * 1000, 2),
    }
    update = {
        "took_ms": took_ms,
        "coverage": (student.answer.coverage + words.answer.coverage) / 2,
        "missing": [*student.answer.missing, *words.answer.missing],
        "scored_by": "fusion",
    }
    return Candidates(results, ranking, student.answer.model_copy(update=update))


async def _rerank(backend: Backend, request: SearchRequest, found: Candidates, count: int) -> Candidates:
    """Score the first documents again; the others are left out."""
    start = time.perf_counter()
    first = [key for key, _ in found.ranking[:count]]
    scores = await backend.score_again(request.query, [found.results[key] for key in first]) if first else []
    ranking = sorted(zip(first, scores, strict=True), key=lambda hit: (-hit[1], hit[0]))
    took_ms = found.answer.took_ms | {"rerank": round((time.perf_counter() - start) * 1000, 2)}
    stage: Stage = "rerank"
    return Candidates(found.results, ranking, found.answer.model_copy(update={"took_ms": took_ms, "scored_by": stage}))


def _read(answer: SearchAnswer) -> Candidates:
    results = {(result.lang, result.doc_id): result for result in answer.results}
    return Candidates(results, [(key, result.score) for key, result in results.items()], answer)


def _place(rank: int, placed: Placed, results: Mapping[tuple[str, str], Result], is_collapsed: bool) -> Result:
    """The result at a place of the page, with the score that the last stage gave."""
    best, others = placed
    translations = None
    if is_collapsed:
        read = [(hit, results[hit.lang, hit.doc_id]) for hit in others]
        translations = [Translation(lang=hit.lang, score=hit.score, title=of.title, text=of.text) for hit, of in read]
    update = {"rank": rank, "score": best.score, "translations": translations}
    return results[best.lang, best.doc_id].model_copy(update=update)


def _name(info: Info) -> Phrase:
    return Phrase(f"{info.recipe}/{info.system}")
