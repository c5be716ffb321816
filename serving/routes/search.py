"""``POST /search`` for one query or several, and ``GET /info``."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from pipelines.text import join_title
from serving.backend import Backend, UnavailableError
from serving.encoding import TokenMatch
from serving.messages import (
    MAX_EXPLAINED,
    MAX_K,
    MAX_QUERIES,
    MAX_RERANKED_RESULTS,
    Info,
    Match,
    Result,
    SearchAnswer,
    SearchAnswers,
    SearchRequest,
    Token,
)
from serving.problems import Phrase, refuse
from serving.routes import ERRORS, MODEL, NOT_SERVED, check_encoder, check_model, refuse_model
from serving.search_body import SearchBody, build_request_model
from serving.stages import answer_in_stages
from serving.subsets import check_filter, describe_filter

AT_ONCE = 16  # searches of a request that run beside each other: half of what the encoder takes into one batch


def add_routes(app: FastAPI, backend: Backend, info: Info) -> dict[str, Mapping[str, str]]:
    """Add the routes."""

    async def search(request: Any) -> SearchAnswer | SearchAnswers:
        """Find the best passages for a query, or for each of several, in the languages asked for, ranked together."""
        await _check(request, backend, info)
        if request.queries is None:
            return await _answer(backend, request.list_requests()[0], info)
        start = time.perf_counter()
        answers = await _answer_all(backend, request.list_requests(), info)
        total = round((time.perf_counter() - start) * 1000, 2)
        return SearchAnswers(answers=answers, took_ms={"total": total})

    search.__annotations__["request"] = build_request_model(info)
    app.post(
        "/search",
        response_model=SearchAnswer | SearchAnswers,
        response_model_exclude_none=True,
        responses=ERRORS | {404: NOT_SERVED},
        operation_id="search",
    )(search)
    return {"/search": describe_fields(info)}


def describe_fields(info: Info) -> dict[str, str]:
    """Describe the valid values of each field of a search, as phrases for error messages."""
    codes = ", ".join(language.code for language in info.languages)
    text = f"1 to {info.limits.max_query_chars} characters"
    return {
        "query": f"a text of {text} that is not blank",
        "queries": f"a list of 1 to {MAX_QUERIES} texts of {text} that are not blank, in place of query; or null",
        "k": f"an integer from 1 to {MAX_K}",
        "languages": f"a list of one or more of {codes}; or null, for all",
        "probes": "an integer of at least 1; or null, for the recipe's own number",
        "ids": "a list of document ids; or null, for all",
        "filter": describe_filter(info),
        "offset": f"an integer from 0; offset + k is at most {MAX_K}",
        "min_score": "a number; or null, for no limit",
        "per_language": f"an integer from 1 to {MAX_K}; or null, for no limit",
        "collapse": "true or false",
        "explain": "true or false",
        "hybrid": 'true, false, or {"kind": "ranks" or "scores", "k": a number, "weights": two numbers}; or null',
        "rerank": f"an integer from 0 to {MAX_RERANKED_RESULTS}; or null",
        "model": MODEL,
        "allow_partial": "true or false",
    }


async def _check(body: SearchBody, backend: Backend, info: Info) -> None:
    """Refuse what the schema cannot."""
    expected = describe_fields(info)
    check_model(info, body.model)
    if body.query is None and body.queries is None:
        raise RequestValidationError([{"type": "missing", "loc": ("body", "query"), "input": None}])
    if body.query is not None and body.queries is not None:
        raise refuse(422, "queries", expected["queries"], Phrase("both"))
    check_filter(body, info)
    if body.offset + body.k > MAX_K:
        raise refuse(422, "offset", expected["offset"], Phrase(f"{body.offset} + {body.k}"))
    if body.explain:
        check_encoder(info)
        if (wanted := body.k * len(body.queries or [body.query])) > MAX_EXPLAINED:
            raise refuse(422, "k", f"at most {MAX_EXPLAINED} results to explain", Phrase(f"{wanted}"))
        if (await backend.describe_encoder()).similarity != "maxsim":
            raise refuse_model(info, "one with a vector for each token, to explain", "with one vector for each text")


async def _answer(backend: Backend, request: SearchRequest, info: Info) -> SearchAnswer:
    """Answer one search, with its explanation where one is wanted."""
    answer = await answer_in_stages(backend, request, info)
    if not request.explain or not answer.results:
        return answer
    start = time.perf_counter()
    texts = [join_title(result.title, result.text) for result in answer.results]
    found = await backend.match_tokens(request.query, texts)
    results = [_explain(result, matches) for result, matches in zip(answer.results, found, strict=True)]
    took = (time.perf_counter() - start) * 1000
    took_ms = answer.took_ms | {"explain": round(took, 2), "total": round(answer.took_ms["total"] + took, 2)}
    return answer.model_copy(update={"results": results, "took_ms": took_ms})


async def _answer_all(backend: Backend, requests: Sequence[SearchRequest], info: Info) -> list[SearchAnswer]:
    """Answer several searches, ``AT_ONCE`` of them at a time. Raises UnavailableError beyond the time limit of one."""
    timeout_s = info.limits.timeout_s
    free = asyncio.Semaphore(AT_ONCE)

    async def answer(request: SearchRequest) -> SearchAnswer:
        async with free:
            return await _answer(backend, request, info)

    try:
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(request)) for request in requests]
    except TimeoutError as error:
        raise UnavailableError([], [f"{len(requests)} searches"], timeout_s) from error
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]


def _explain(result: Result, matches: Sequence[TokenMatch]) -> Result:
    """Add the matches to a result, their places in its title or its text."""
    joined = f"{result.title} {result.text}"
    before = len(joined) - len(joined.lstrip())
    named = [
        Match(
            query=_name_token(match.query, "query"),
            passage=_place_token(match.text, result, before),
            score=match.score,
        )
        for match in matches
    ]
    return result.model_copy(update={"matches": named})


def _name_token(token: tuple[str, int, int], field: Any) -> Token:
    text, start, end = token
    return Token(text=text) if start < 0 else Token(text=text, start=start, end=end, field=field)


def _place_token(token: tuple[str, int, int], result: Result, before: int) -> Token:
    """The token at a place of the joined title and text, at its place in one of them."""
    text, start, end = token
    at = start + before
    if start < 0 or at < len(result.title):
        return _name_token((text, at if start >= 0 else -1, end + before), "title")
    gone = len(result.title) + 1
    return _name_token((text, at - gone, end + before - gone), "text")
