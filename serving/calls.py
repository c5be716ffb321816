"""Calls to other deployments, several at once, until a deadline; and which of them had no answer."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from serving.backend import UnavailableError
from serving.catalog import ForeignError

log = logging.getLogger("ray.serve")


class Answers(NamedTuple):
    """What parts returned, and which of them did not: those without a running replica, and those that were late."""

    results: dict[str, Any]
    gone: list[str]
    late: list[str]


async def gather(calls: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    """Await calls to other deployments together until ``deadline``, a time of ``perf_counter`` in seconds.

    Returns the results by name. Calls that are late are cancelled.

    Raises:
        UnavailableError: deployments did not answer in time, or their replicas are gone.
        RayTaskError: the code of a deployment raised; that is a bug, and becomes status 500.
    """
    return (await gather_some(calls, deadline, allow_partial=False))[0]


async def gather_some(
    calls: Mapping[str, Any], deadline: float, allow_partial: bool
) -> tuple[dict[str, Any], list[str]]:
    """Await calls as ``gather``. Returns the results, and the names of those missing where some may be."""
    start = time.perf_counter()
    answers = await collect(calls, deadline)
    missing = [*answers.gone, *answers.late]
    if missing and not (allow_partial and answers.results):
        waited = time.perf_counter() - start
        raise UnavailableError(sorted(answers.gone), sorted(answers.late), waited)
    return answers.results, missing


async def collect(calls: Mapping[str, Any], deadline: float) -> Answers:
    """Await calls until ``deadline``; cancel those that are late. A part that serves something else is gone."""
    tasks = {name: asyncio.ensure_future(call) for name, call in calls.items()}
    if tasks:
        await asyncio.wait(tasks.values(), timeout=max(deadline - time.perf_counter(), 0))
    answers = Answers({}, [], [])
    for name, task in tasks.items():
        error = task.exception() if task.done() else None
        if not task.done():
            task.cancel()
            calls[name].cancel()
            answers.late.append(name)
        elif isinstance(error, ForeignError) or (
            isinstance(error, (RayError, RayServeException)) and not isinstance(error, RayTaskError)
        ):
            log.warning("%s is gone: %s", name, error)
            answers.gone.append(name)
        elif error:
            raise error
        else:
            answers.results[name] = task.result()
    return answers
