"""Serving something else on a cluster, and ending it, so that no request is lost or answered by a mixture.

    start   parts beside those that run → the gateways change to them → nothing is in flight at the old ones → they go
    end     the gateways answer what has begun, and nothing new → they go → their parts go

Nothing that runs is replaced unless that was asked for, and ``end`` leaves what another process serves by now.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.schema import APIType

from cluster.errors import RecipeError, StepError
from serving.access import OPEN_TO_ALL, Access
from serving.app import NAME, Scale, Served, application, gateway_application
from serving.catalog import name_parts
from serving.gateway import Report
from serving.messages import Limits

ASK_S = 60.0  # how long a replica may take to answer this process
POLL_S = 0.2


@dataclass(frozen=True)
class Server:
    """A server on a cluster: the name of its gateways' application, the path that it answers under, and its size."""

    name: str = NAME
    route: str = "/"
    scale: Scale = Scale()
    limits: Limits = Limits()
    access: Access = OPEN_TO_ALL
    check_s: float = 60.0  # how long gateways may take to change to parts that run


def start(server: Server, served: Served, replace: bool, tell: Callable[[str], None]) -> str:
    """Serve ``served``. Returns the name of the application of its parts. ``tell`` is told of progress.

    Raises:
        RecipeError: something else has this name or route, and ``replace`` is false or cannot be obeyed.
        StepError: the parts did not start, or did not pass their check; what ran before goes on.
    """
    before = check_free(server, replace)
    new = name_parts(server.name, served.fingerprint(server.limits))
    parts = application(served, server.scale, server.limits)  # what is missing is said before anything starts
    if before and before.serves == new:
        tell(f"{new} is served already")
        return new
    old = [before.serves] if before and before.serves else []
    try:
        tell(f"{new} starts: {len(served.docs)} languages, {served.index.name}")
        gateways = gateway_application(server.scale, [new, *old], server.access)
        targets = [serve.RunTarget(parts, new, None), serve.RunTarget(gateways, server.name, server.route)]
        if old:  # the gateways that run are not told of parts that may never start
            _run(targets[0])
            targets = targets[1:]
        _run(*targets)
        tell(f"{new} runs; it answers the example queries")
        _wait_until_served(server, new)
    except (StepError, KeyboardInterrupt):
        if old:
            _change(server, old)
        else:
            serve.delete(server.name)
        serve.delete(new)
        raise
    for name in old:
        tell(f"{server.name} serves {new}; {name} ends")
        _change(server, [new])
        _finish(server, name)
        serve.delete(name)
    return new


def end(server: Server, parts: str) -> bool:
    """End what this process made: ``parts``, and the gateways if they serve these. Returns whether they did."""
    reports = ask_gateways(server.name)
    is_ours = any(report.serves == parts for report in reports)
    if is_ours:
        serve.get_app_handle(server.name).broadcast("end").results(timeout_s=ASK_S)
        _finish(server, parts)
        serve.delete(server.name)
    if is_ours or not reports:
        serve.delete(parts)
    return is_ours


def check_free(server: Server, replace: bool) -> Report | None:
    """What runs under this name now, or None.

    Raises:
        RecipeError: something has this name or route, and may not be replaced.
    """
    for name, app in _list_applications().items():
        if name != server.name and app["route_prefix"] == server.route:
            raise RecipeError(
                f"application {name} answers under {server.route} on this cluster, and is not babelray's: end it first"
            )
        if name == server.name and app["source"] == APIType.DECLARATIVE:
            raise RecipeError(
                f"{name} was deployed on this cluster by `serve deploy`: change its config file and deploy that, see "
                "`babelray serve --print-config --replace`"
            )
    reports = ask_gateways(server.name)
    if not reports:
        return None
    runs = next((report for report in reports if report.serves), reports[0])
    if not replace:
        raise RecipeError(
            f"{server.name} runs on this cluster and serves {describe(runs)}: add --replace to serve something else "
            "in its place, or use another cluster"
        )
    return runs


def describe(report: Report) -> str:
    """What a gateway serves, in words."""
    if report.serves is None:
        return "nothing yet"
    try:
        catalog = serve.get_app_handle(report.serves).describe.remote().result(timeout_s=ASK_S)
    except (RayServeException, TimeoutError):
        return f"{report.serves}, which does not answer"
    info = catalog.info
    return f"{report.serves}: recipe {info.recipe}, system {info.system}, index {info.index}"


def ask_gateways(name: str) -> list[Report]:
    """The report of every gateway of a server; empty where there is no such server."""
    if name not in serve.status().applications:
        return []
    return list(serve.get_app_handle(name).broadcast("report").results(timeout_s=ASK_S))


def _finish(server: Server, parts: str) -> None:
    """Wait until no gateway has a request that ``parts`` are to answer, or all of them have passed their time limit."""
    _wait(
        lambda: not any(report.in_flight.get(parts) for report in ask_gateways(server.name)),
        server.limits.timeout_s + 1,
    )


def _wait_until_served(server: Server, parts: str) -> None:
    """Wait until every gateway serves ``parts``. Raises StepError, with a gateway's reason, when one does not."""
    reports: Sequence[Report] = ()

    def is_served() -> bool:
        nonlocal reports
        reports = ask_gateways(server.name)
        return bool(reports) and all(report.serves == parts for report in reports)

    if not _wait(is_served, server.check_s):
        reasons = [report.failures[parts] for report in reports if parts in report.failures]
        raise StepError(
            f"{parts} did not pass its check within {server.check_s:g} s, and is not served: "
            f"{reasons[0] if reasons else 'a gateway did not answer'}"
        )


def _change(server: Server, serves: list[str]) -> None:
    """Tell the gateways what to serve."""
    _run(serve.RunTarget(gateway_application(server.scale, serves, server.access), server.name, server.route))


def _run(*targets: serve.RunTarget) -> None:
    """Start or change applications together and wait until they run. Raises StepError with Serve's reason when one does
    not."""
    try:
        serve.run_many(targets)
    except (RuntimeError, RayServeException) as error:
        raise StepError(f"{', '.join(target.name for target in targets)} did not start: {error}") from error


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait at most so long until ``condition`` holds. Returns whether it does."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return holds


def _list_applications() -> dict[str, dict[str, Any]]:
    """Serve's applications by name, with route and source, which ``serve.status`` does not tell."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    return dict(client.get_serve_details()["applications"]) if client else {}
