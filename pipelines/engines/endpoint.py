"""A language model behind an OpenAI-compatible endpoint (``POST …/chat/completions``): a service, or ``vllm serve``.

What an endpoint answers decides what happens:

    200                          an answer; cut off where ``finish_reason`` is "length"
    408, 409, 425, 429, 5xx,     asked again after a pause with jitter, and not before ``Retry-After``, until
    no answer, no connection     ``total_s`` are over; then the row fails
    401, 403, 404                the key, or the address or model's name is wrong: the run ends at once
    other 4xx                    the row fails

When a row fails that way although nothing else was answered meanwhile, a question of one token tells whether it is the
row or the endpoint; an endpoint that does not answer that one either ends the run. What was answered is kept
(``pipelines.engines.answers``), so that the same command pays only for the rest.
"""

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import uniform
from typing import Annotated, Any, Literal

from pydantic import Field
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_before_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from cluster.component import NOT_CONTENT, Component, Speed, fingerprint
from cluster.errors import RecipeError, StepError
from pipelines.engines.answers import Answers, Question
from pipelines.generation import Generated

TRANSIENT = frozenset({408, 409, 425, 429})  # and 5xx
WRONG = {401: "api_key_env", 403: "api_key_env", 404: "url and model"}  # status → the keys of the recipe to correct
BYTES_PER_TOKEN = 3  # UTF-8: English has 4 and more, Chinese and Thai 3 a character; fewer only give more room
PAUSE = wait_random_exponential(multiplier=0.5, max=60)  # seconds


class Endpoint(Component):
    """Where the model is and how often it is asked.

    ``model`` is the name by which the endpoint knows the model, and all that identifies it: an endpoint that puts other
    weights under the same name gives other answers under the same fingerprint.

    Attributes:
        url: up to the version: ``https://host/v1``.
        model: the endpoint's name of the model.
        api_key_env: the environment variable, on the workers, that holds the key; "" asks without one.
        body: more fields of each request: ``{reasoning_effort = "low"}``.
        limit_field: the request's field for the limit of tokens.
        concurrency: requests of one actor at a time.
        requests_per_s: the most that one actor begins in a second; None is no limit.
        timeout_s: how long one answer may take.
        total_s: how long one row may take, with all that is asked again.
    """

    url: Annotated[str, NOT_CONTENT, Field(pattern=r"^https?://")]
    model: str = Field(min_length=1)
    api_key_env: Annotated[str, NOT_CONTENT] = ""
    body: dict[str, Any] = {}
    limit_field: Annotated[Literal["max_tokens", "max_completion_tokens"], NOT_CONTENT] = "max_tokens"
    concurrency: Speed = Speed(16)
    requests_per_s: Annotated[float | None, NOT_CONTENT, Field(gt=0)] = None
    timeout_s: Annotated[float, NOT_CONTENT, Field(gt=0)] = 120.0
    total_s: Annotated[float, NOT_CONTENT, Field(gt=0)] = 600.0


class TransientError(Exception):
    """No answer this time. ``retry_after_s`` is how long the endpoint asks to be left alone."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class EndpointGenerator:
    """A ``pipelines.generation.Generator`` that asks an endpoint."""

    def __init__(self, config: Endpoint) -> None:
        import httpx

        key = _read_key(config.api_key_env)
        self._config = config
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=config.timeout_s,
            # The threads of a call bound its connections. A pool that bounds them too was seen to keep the places of
            # requests that had failed on a machine that had too much to do (encode/httpcore, issue 550).
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )
        self._halt = threading.Event()  # set when the call has failed: nothing is waited for any more
        self._rate = Rate(config.requests_per_s, self._halt)
        self._last_answer = 0.0
        self._done: Answers | None = None

    def generate(self, prompts: Sequence[str], limits: Sequence[int]) -> list[Generated]:
        """See ``Generator``. Equal questions are asked once.

        Raises:
            RecipeError: the endpoint refuses the key, or knows neither the address nor the model.
            StepError: the endpoint does not answer at all.
        """
        questions = list(zip(prompts, limits, strict=True))
        answers = self._open_answers(questions)
        todo = [question for question in dict.fromkeys(questions) if answers.get(question) is None]
        failed: dict[Question, Generated] = {}
        self._halt.clear()
        with ThreadPoolExecutor(int(self._config.concurrency)) as threads:
            futures = {threads.submit(self._ask_and_keep, question, answers): question for question in todo}
            try:
                for future in as_completed(futures):
                    if (answer := future.result()).failure:
                        failed[futures[future]] = answer
            except BaseException:
                self._halt.set()
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        self._done = answers
        return [failed.get(question) or answers.get(question) or Generated("") for question in questions]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """About the number of tokens of each text: the endpoint's tokenizer is not known."""
        return [-(-len(text.encode()) // BYTES_PER_TOKEN) for text in texts]

    def _open_answers(self, questions: list[Question]) -> Answers:
        """The answers to these questions so far. Those of the part before are dropped: when the next begins, a part
        that was answered whole is written."""
        answers = Answers(fingerprint(self._config), questions)
        if self._done and not self._done.is_of(answers):
            self._done.drop()
        return answers

    def _ask_and_keep(self, question: Question, answers: Answers) -> Generated:
        answer = self._ask(question)
        if not answer.failure:
            answers.keep(question, answer)
        return answer

    def _ask(self, question: Question) -> Generated:
        """Ask until there is an answer; see the module."""
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            wait=_pause,
            stop=stop_before_delay(self._config.total_s) | stop_when_event_set(self._halt),
            sleep=sleep_using_event(self._halt),
            reraise=True,
        )
        begin = time.monotonic()
        try:
            answer: Generated = retrying(self._post, question)
        except TransientError as error:
            if self._halt.is_set():
                raise
            answer = Generated("", False, f"endpoint: {error}")
        if answer.failure and self._last_answer < begin:
            self._require_answer(answer.failure)
        return answer

    def _require_answer(self, failure: str) -> None:
        """Raise StepError unless the endpoint answers a question of one token."""
        try:
            answer = self._post(("Hello", 1))
        except TransientError as error:
            answer = Generated("", False, f"endpoint: {error}")
        if answer.failure:
            raise StepError(
                f"{self._config.url} answers nothing as model {self._config.model!r}: {failure}, and to a question of "
                f"one token {answer.failure}. Look whether it runs and takes `body`, or give it more time (total_s)"
            )

    def _post(self, question: Question) -> Generated:
        """One request. Raises TransientError where it may be tried again."""
        import httpx

        prompt, limit = question
        request = {"model": self._config.model, "temperature": 0, self._config.limit_field: limit}
        message = {"role": "user", "content": prompt}
        self._rate.wait()
        try:
            response = self._client.post(
                f"{self._config.url.rstrip('/')}/chat/completions",
                json={**request, **self._config.body, "messages": [message]},
            )
        except httpx.TimeoutException as error:
            raise TransientError("no answer in time") from error
        except httpx.TransportError as error:
            raise TransientError(f"no connection ({type(error).__name__})") from error
        status = response.status_code
        if status in WRONG:
            raise RecipeError(self._describe_wrong(status))
        if status in TRANSIENT or status >= 500:
            raise TransientError(f"HTTP {status}", _retry_after(response.headers.get("Retry-After", "")))
        if status != 200:
            return Generated("", False, f"endpoint: HTTP {status}")
        self._last_answer = time.monotonic()
        return _read_answer(response)

    def _describe_wrong(self, status: int) -> str:
        named = self._config.api_key_env
        key = f"the key in the environment variable {named}" if named else "requests without a key"
        what = f"refuses {key}" if status != 404 else f"has no model {self._config.model!r}, or no chat/completions"
        return f"{self._config.url} {what} (HTTP {status}): correct {WRONG[status]}"


class Rate:
    """Lets through at most ``per_s`` callers a second, evenly; all where it is None."""

    def __init__(self, per_s: float | None, halt: threading.Event) -> None:
        self._gap_s = 1 / per_s if per_s else 0.0
        self._halt = halt
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for this caller's turn, or until ``halt`` is set."""
        if not self._gap_s:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap_s
        self._halt.wait(turn - now)


def _pause(state: RetryCallState) -> float:
    """Seconds before the next attempt: exponential with full jitter, or what the endpoint asks for and a little."""
    error = state.outcome.exception() if state.outcome else None
    wanted_s = error.retry_after_s if isinstance(error, TransientError) else 0.0
    return wanted_s + uniform(0, 1) if wanted_s else PAUSE(state)


def _retry_after(header: str) -> float:
    """Seconds that ``Retry-After`` asks for (RFC 9110, section 10.2.3: seconds or a date); 0 where it says nothing."""
    if header.strip().isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _read_answer(response: Any) -> Generated:
    try:
        choice = response.json()["choices"][0]
        text, reason = choice["message"]["content"] or "", choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise TransientError("not a chat completion") from error
    if reason == "content_filter":
        return Generated("", False, "endpoint: content_filter")
    return Generated(text, ended=reason != "length")


def _read_key(variable: str) -> str:
    if not variable:
        return ""
    if not (key := os.environ.get(variable)):
        raise RecipeError(
            f"api_key_env = {variable!r}: this environment variable is not set where the step runs. Set it on the nodes"
        )
    return key
