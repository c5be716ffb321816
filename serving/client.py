"""A client of the server: ``Client``, and ``AsyncClient`` for asyncio, with the same methods.

    from serving.client import Client

    with Client("http://127.0.0.1:8000") as client:
        for result in client.search("the currency of Iran", k=3).results:
            print(result.lang, result.title)

It loads httpx and pydantic, neither Ray nor a model. A server that is busy (429, or 503 while a part is restarted) is
asked again after the time that it names; any other error is raised as ``ServerError`` with the server's own sentence.
Fields that this version does not know are ignored, so a newer server can be asked.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar

import httpx
import numpy as np
from pydantic import BaseModel, ValidationError

from cluster.errors import BabelrayError
from serving.messages import Health, Info, Problem, SearchAnswer, SearchAnswers

TIMEOUT_S = 30.0
MAX_WAIT_S = 30.0  # before the next try, whatever the server names
BUSY = (429, 503)
Answer = TypeVar("Answer")
Body = TypeVar("Body", bound=BaseModel)


class ServerError(BabelrayError):
    """The server refused a request, or did not answer. ``status`` is None where there was no response."""

    def __init__(self, message: str, status: int | None = None, problem: Problem | None = None):
        super().__init__(message)
        self.status, self.problem = status, problem


@dataclass(frozen=True)
class Ranked:
    """A text that was given, by its position, and its score: a mean cosine."""

    index: int
    score: float


class _Call(NamedTuple, Generic[Answer]):
    """A request, and how its response is read. ``accepted`` are the statuses of an answer."""

    method: str
    path: str
    body: dict[str, Any] | None
    read: Callable[[httpx.Response], Answer]
    accepted: tuple[int, ...] = (200,)


def _read_as(kind: type[Body]) -> Callable[[httpx.Response], Body]:
    return lambda response: kind.model_validate_json(response.content, extra="ignore")


def _call_search(query: str, options: dict[str, Any]) -> _Call[SearchAnswer]:
    return _Call("POST", "search", {"query": query} | _write_options(options), _read_as(SearchAnswer))


def _call_search_all(queries: Sequence[str], options: dict[str, Any]) -> _Call[list[SearchAnswer]]:
    read = _read_as(SearchAnswers)
    body = {"queries": list(queries)} | _write_options(options)
    return _Call("POST", "search", body, lambda response: read(response).answers)


def _write_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a search as JSON; a filter that is a text is read first."""
    if not isinstance(options.get("filter"), str):
        return options
    from serving.subsets import write_filter  # loads pyarrow

    return options | {"filter": write_filter(options["filter"])}


def _call_encode(texts: Sequence[str], input_type: str) -> _Call[list[np.ndarray]]:
    body = {"input": list(texts), "input_type": input_type, "encoding_format": "base64"}

    def read(response: httpx.Response) -> list[np.ndarray]:
        answer = response.json()
        raw = (base64.b64decode(item["embedding"]) for item in answer["data"])
        return [np.frombuffer(item, "<f2").reshape(-1, answer["dim"]).astype(np.float32) for item in raw]

    return _Call("POST", "encode", body, read)


def _call_embed(texts: Sequence[str], input_type: str, dimensions: int | None) -> _Call[np.ndarray]:
    body = {"input": list(texts), "input_type": input_type, "encoding_format": "base64", "dimensions": dimensions}

    def read(response: httpx.Response) -> np.ndarray:
        raw = (base64.b64decode(item["embedding"]) for item in response.json()["data"])
        return np.stack([np.frombuffer(item, "<f4") for item in raw])

    return _Call("POST", "v1/embeddings", body, read)


def _call_rerank(query: str, texts: Sequence[str], top_n: int | None) -> _Call[list[Ranked]]:
    def read(response: httpx.Response) -> list[Ranked]:
        return [Ranked(item["index"], item["relevance_score"]) for item in response.json()["results"]]

    return _Call("POST", "v2/rerank", {"query": query, "documents": list(texts), "top_n": top_n}, read)


_INFO: _Call[Info] = _Call("GET", "info", None, _read_as(Info))
_HEALTH: _Call[Health] = _Call("GET", "health", None, _read_as(Health), accepted=(200, 503))


def _settings(base: str, key: str | None, model: str | None) -> dict[str, Any]:
    """What an httpx client of this server takes. The server looks for a model in the address of any request."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {"base_url": f"{base.rstrip('/')}/", "headers": headers, "params": {"model": model} if model else {}}


def _read(call: _Call[Answer], response: httpx.Response) -> Answer:
    """The answer of a response. Raises ServerError for any other status or body."""
    if response.status_code not in call.accepted:
        raise _explain(response)
    try:
        return call.read(response)
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        if response.status_code != 200:  # 503 is the health of the parts, or a problem of the server
            raise _explain(response) from error
        raise ServerError(
            f"{response.url}: expected the answer of a babelray server, got {response.text[:200]!r}: check the address",
            response.status_code,
        ) from error


def _explain(response: httpx.Response) -> ServerError:
    try:
        problem = Problem.model_validate_json(response.content, extra="ignore")
    except ValidationError:
        return ServerError(f"{response.url}: status {response.status_code}", response.status_code)
    return ServerError(f"{response.url}: {problem.error}", response.status_code, problem)


def _waits(call: _Call[Any], response: httpx.Response) -> float | None:
    """The seconds after which a busy server may be asked again; None where it need not be."""
    if response.status_code not in BUSY or response.status_code in call.accepted:
        return None
    try:
        return min(float(response.headers.get("retry-after", "1")), MAX_WAIT_S)
    except ValueError:  # a date
        return 1.0


class Client:
    """A client of one server. Threads may share it.

    ``base`` is the address of the server, ``key`` an API key, ``timeout_s`` the seconds for one response, ``retries``
    how often a busy server is asked again, ``model`` which of several served ones answers. Options of a search are the
    fields of ``SearchRequest``; ``filter`` may also be a text, as ``"year >= 2020"`` (``pipelines.filters.text``), and
    raises RecipeError where it is none.
    """

    def __init__(
        self,
        base: str,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = 2,
        model: str | None = None,
    ):
        self._http = httpx.Client(**_settings(base, key, model), timeout=timeout_s)
        self._retries = retries

    def search(self, query: str, **options: Any) -> SearchAnswer:
        """Find the best passages for a query."""
        return self._send(_call_search(query, options))

    def search_all(self, queries: Sequence[str], **options: Any) -> list[SearchAnswer]:
        """Find the best passages for each of several queries, in one request."""
        return self._send(_call_search_all(queries, options))

    def encode(self, texts: Sequence[str], input_type: Literal["query", "document"]) -> list[np.ndarray]:
        """Encode texts: float32 [tokens, dim] each, in the precision of float16."""
        return self._send(_call_encode(texts, input_type))

    def embed(
        self,
        texts: Sequence[str],
        input_type: Literal["query", "document"] = "document",
        dimensions: int | None = None,
    ) -> np.ndarray:
        """Encode texts with a dense encoder: float32 [texts, dim]."""
        return self._send(_call_embed(texts, input_type, dimensions))

    def rerank(self, query: str, texts: Sequence[str], top_n: int | None = None) -> list[Ranked]:
        """Order texts by how well they answer a query, best first."""
        return self._send(_call_rerank(query, texts, top_n))

    def info(self) -> Info:
        """Describe the served system."""
        return self._send(_INFO)

    def health(self) -> Health:
        """The status of each part."""
        return self._send(_HEALTH)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, call: _Call[Answer]) -> Answer:
        for left in range(self._retries, -1, -1):
            try:
                response = self._http.request(call.method, call.path, json=call.body)
            except httpx.TransportError as error:
                raise ServerError(f"no answer from {self._http.base_url}: {error!r}; is the server up?") from error
            wait = _waits(call, response)
            if wait is None or not left:
                break
            time.sleep(wait)
        return _read(call, response)


class AsyncClient:
    """A client of one server for asyncio. See ``Client``."""

    def __init__(
        self,
        base: str,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = 2,
        model: str | None = None,
    ):
        self._http = httpx.AsyncClient(**_settings(base, key, model), timeout=timeout_s)
        self._retries = retries

    async def search(self, query: str, **options: Any) -> SearchAnswer:
        """Find the best passages for a query."""
        return await self._send(_call_search(query, options))

    async def search_all(self, queries: Sequence[str], **options: Any) -> list[SearchAnswer]:
        """Find the best passages for each of several queries, in one request."""
        return await self._send(_call_search_all(queries, options))

    async def encode(self, texts: Sequence[str], input_type: Literal["query", "document"]) -> list[np.ndarray]:
        """Encode texts: float32 [tokens, dim] each, in the precision of float16."""
        return await self._send(_call_encode(texts, input_type))

    async def embed(
        self,
        texts: Sequence[str],
        input_type: Literal["query", "document"] = "document",
        dimensions: int | None = None,
    ) -> np.ndarray:
        """Encode texts with a dense encoder: float32 [texts, dim]."""
        return await self._send(_call_embed(texts, input_type, dimensions))

    async def rerank(self, query: str, texts: Sequence[str], top_n: int | None = None) -> list[Ranked]:
        """Order texts by how well they answer a query, best first."""
        return await self._send(_call_rerank(query, texts, top_n))

    async def info(self) -> Info:
        """Describe the served system."""
        return await self._send(_INFO)

    async def health(self) -> Health:
        """The status of each part."""
        return await self._send(_HEALTH)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, call: _Call[Answer]) -> Answer:
        for left in range(self._retries, -1, -1):
            try:
                response = await self._http.request(call.method, call.path, json=call.body)
            except httpx.TransportError as error:
                raise ServerError(f"no answer from {self._http.base_url}: {error!r}; is the server up?") from error
            wait = _waits(call, response)
            if wait is None or not left:
                break
            await asyncio.sleep(wait)
        return _read(call, response)
