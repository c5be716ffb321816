"""Serving something else on a cluster, and ending it, so that no request is lost or answered by a mixture.

    start   parts beside those that run → the gateways change to them → nothing is in flight at the old ones → they go;
            where nothing runs, parts and gateways start together
    end     the gateways answer what has begun, and nothing new → they go → their parts go

Nothing that runs is replaced unless that was asked for, and ``end`` leaves what another process serves by now.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import APIType

from cluster.errors import RecipeError, StepError
from serving.access import OPEN_TO_ALL, Access
from serving.app import NAME, Scale, Served, application, gateway_application
from serving.catalog import Serving, name_parts, plan_change
from serving.messages import Limits
from serving.slots import Report

ASK_S = 60.0  # how long a replica may take to answer this process
POLL_S = 0.2
LOST = (RayError, RayServeException, TimeoutError)  # a gateway has just ended, and Serve starts another


@dataclass(frozen=True)
class Server:
    """A server on a cluster: the name of its gateways' application, the path that it answers under, and its size."""

    name: str = NAME
    route: str = "/"
    scale: Scale = Scale()
    limits: Limits = Limits()
    access: Access = OPEN_TO_ALL
    check_s: float = 60.0  # how long gateways may take to change to parts that run


def start(server: Server, served: Sequence[Served], replace: bool, tell: Callable[[str], None]) -> list[str]:
    """Serve all of ``served``, the first by default. Returns the names of the applications of their parts. ``tell`` is
    told of progress. What the gateways serve of other recipes goes on (``catalog.plan_change``).

    Raises:
        RecipeError: something else has this name or route, and ``replace`` is false or cannot be obeyed.
        StepError: the parts did not start, or did not pass their check; what ran before goes on.
    """
    before = check_free(server, replace)
    new = [Serving(name_parts(server.name, s.fingerprint(server.limits)), s.recipe, s.system) for s in served]
    running = {one.name for one in before}
    starting = {one.name: s for one, s in zip(new, served, strict=True) if one.name not in running}
    # what is missing is said before anything starts
    parts = [serve.RunTarget(application(s, server.scale, server.limits), name, None) for name, s in starting.items()]
    change = plan_change(before, new)
    if not starting and not change.ended:
        _change_gateways(server, change.after)  # who may ask may have changed; otherwise this changes nothing
        tell(f"{', '.join(one.name for one in new)} is served already")
        return [one.name for one in new]
    try:
        for name, one in starting.items():
            tell(f"{name} starts: {one.recipe}, {one.system}, {len(one.docs)} languages, {one.index.name}")
        if before and parts:  # the gateways that run are not told of parts that may never start
            _run(*parts)
            parts = []
        _change_gateways(server, change.during, parts)
        tell(f"{', '.join(one.name for one in new)} runs; it answers the example queries")
        _wait_until_served(server, [one.name for one in new])
    except BaseException:
        if before:
            _change_gateways(server, [[one.name] for one in before])
        else:
            serve.delete(server.name)
        for name in starting:
            serve.delete(name)
        raise
    if change.during != change.after:
        _change_gateways(server, change.after)
    for name in change.ended:
        tell(f"{name} ends: {server.name} serves {', '.join(one.name for one in new)}")
        _finish(server, name)
        serve.delete(name)
    return [one.name for one in new]


def end(server: Server, parts: Sequence[str]) -> bool:
    """End what this process made: ``parts``, and the gateways if they serve nothing else. Returns whether the gateways
    served any of these."""
    reports = ask_gateways(server.name)
    serves = {one.name for report in reports for one in report.serves}
    ours = [name for name in parts if name in serves]
    if ours and serves <= set(parts):
        serve.get_app_handle(server.name).broadcast("end").results(timeout_s=ASK_S)
    elif ours:
        others = next(report for report in reports if report.serves).serves
        _change_gateways(server, [[one.name] for one in others if one.name not in parts])
    for name in ours:
        _finish(server, name)
    if ours and serves <= set(parts):
        serve.delete(server.name)
    for name in parts if not reports else ours:
        serve.delete(name)
    return bool(ours)


def check_free(server: Server, replace: bool) -> list[Serving]:
    """What runs under this name now.

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
        return []
    runs = max((report.serves for report in reports), key=len)
    if not replace:
        raise RecipeError(
            f"{server.name} runs on this cluster and serves {describe(runs)}: add --replace to serve something else "
            "in its place, or use another cluster"
        )
    return list(runs)


def describe(serves: Sequence[Serving]) -> str:
    """What gateways serve, in words."""
    return "; ".join(map(_describe, serves)) or "nothing yet"


def _describe(one: Serving) -> str:
    try:
        catalog = serve.get_app_handle(one.name).describe.remote().result(timeout_s=ASK_S)
    except LOST:
        return f"{one.name}, which does not answer"
    info = catalog.info
    return f"{one.name}: recipe {info.recipe}, system {info.system}, index {info.index}"


def can_answer() -> bool:
    """Whether Serve's controller answers within 5 s. Any other call hangs for a minute when the cluster has ended."""
    from ray.serve.context import _check_cached_client_alive

    return _check_cached_client_alive()[0] is not None


def ask_gateways(name: str) -> list[Report]:
    """The report of every gateway of a server; empty where there is no such server."""
    if name not in serve.status().applications:
        return []
    return list(serve.get_app_handle(name).broadcast("report").results(timeout_s=ASK_S))


def _change_gateways(server: Server, slots: Sequence[Sequence[str]], parts: Sequence[serve.RunTarget] = ()) -> None:
    """Start the gateways, together with ``parts``, or tell those that run what to serve."""
    gateways = gateway_application(server.scale, slots, server.access)
    _run(*parts, serve.RunTarget(gateways, server.name, server.route))


def _finish(server: Server, parts: str) -> None:
    """Wait until no gateway has a request that ``parts`` are to answer, or all of them have passed their time limit."""

    def is_idle() -> bool:
        try:
            return not any(report.in_flight.get(parts) for report in ask_gateways(server.name))
        except LOST:
            return False

    _wait(is_idle, server.limits.timeout_s + 1)


def _wait_until_served(server: Server, parts: Sequence[str]) -> None:
    """Wait until every gateway serves all of ``parts``. Raises StepError with a gateway's reason when one does not."""
    reports: Sequence[Report] = ()

    def is_served() -> bool:
        nonlocal reports
        try:
            reports = ask_gateways(server.name)
        except LOST:
            return False
        return bool(reports) and all(set(parts) <= {one.name for one in report.serves} for report in reports)

    if not _wait(is_served, server.check_s):
        reasons = [report.failures[name] for report in reports for name in parts if name in report.failures]
        raise StepError(
            f"{', '.join(parts)} did not pass its check within {server.check_s:g} s, and is not served: "
            f"{reasons[0] if reasons else 'a gateway did not answer'}"
        )


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
