"""``python -m serving RECIPE``: serve a finished recipe over HTTP, with a search page on /."""

import logging
import os
import shlex
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.component import Component, Location
from cluster.errors import BabelrayError, RecipeError
from cluster.storage import Place

if TYPE_CHECKING:
    from serving.access import Access
    from serving.app import Scale, ServeArgs, Served
    from serving.messages import Limits

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)

CONFIG_HEADER = """\
# A config file of Ray Serve: serve deploy FILE (with RAY_DASHBOARD_ADDRESS naming the cluster's dashboard).
# Every node needs babelray installed; the recipe's file and its paths must be places that all of them reach.
# args may also hold  scale: {gateways: 2, encoders: 2, encoder_gpus: 1, shard_replicas: 2, shard_gb: 8, cpus: 1}
#                and  limits: {max_query_chars: 2000, timeout_s: 10}.
# access says who may ask: hosts, names under which the server answers ("*" for all), keys (their SHA-256), origins.
# A group of shards is sized under  deployments: [{name: shards-0, num_replicas: 3}] ; GET /info names it as their part.
# To serve something else later without losing a request: babelray serve OTHER --print-config --replace < this file,
# deploy what it prints, and when GET /readyz names the new application deploy babelray serve OTHER --print-config.
"""


@app.command()
def serve(
    recipe: Annotated[
        list[str],
        typer.Argument(help="Recipes, each by its name or the path of its TOML file; the first answers by default."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of each recipe, as it was changed for the run."),
    ] = None,
    system: Annotated[
        str, typer.Option(help="Which system of each recipe to serve: student, bm25, untrained, or one of [systems].")
    ] = "student",
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on.", show_default="127.0.0.1; with --print-config 0.0.0.0"),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print a config file for `serve deploy` and end.")
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Take the place of the systems of the same recipes on the cluster or, where none of these is served, "
            "of all. Those go on until the new ones answer. With --print-config: read the config file that is "
            "deployed now from standard input, and keep its applications until the new ones answer.",
        ),
    ] = False,
) -> None:
    """Serve finished recipes: a search page on /, `POST /search`, `GET /info`, `GET /openapi.json`; for probes
    `GET /livez`, `GET /readyz`, `GET /health`.

    Run each recipe first: `babelray run RECIPE`; a recipe that trains nothing is indexed by this command. Uses the
    cluster named by `RAY_ADDRESS`, or this machine. Beyond 127.0.0.1 it needs API keys, in the file that
    `BABELRAY_API_KEYS_FILE` names: `python -m serving.keys NAME` makes one.

    Example: `babelray serve atlas --port 8000`, then

        curl -s 127.0.0.1:8000/search -H 'content-type: application/json' -d '{"query": "the currency of Iran", "k": 3}'
    """
    try:
        host = host or ("0.0.0.0" if print_config else "127.0.0.1")  # a cluster's proxies are asked from elsewhere
        args, access = _read_args(recipe, overrides or [], system), _read_access(host)
        if print_config:
            typer.echo(CONFIG_HEADER + _config(args, (host, port), access, _read_kept() if replace else []))
        else:
            _serve(args, (host, port), access, replace)
    except BabelrayError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def _read_args(recipes: list[str], overrides: list[str], system: str) -> "list[ServeArgs]":
    from serving.app import ServeArgs
    from serving.config import add_words

    return add_words([ServeArgs(recipe=recipe, overrides=overrides, system=system) for recipe in recipes])


def _read_access(host: str) -> "Access":
    from serving.access import read_access

    return read_access(host)


def _serve(args: "list[ServeArgs]", where: tuple[str, int], access: "Access", replace: bool) -> None:
    """Serve recipes until Ctrl-C or SIGTERM."""
    from serving.app import load
    from serving.tracing import load_exporter

    load_exporter()  # what traces lack is said before anything starts
    if not os.environ.get("RAY_ADDRESS"):
        _check_free(*where)
    for one in args:
        _make_missing(one)
    served = [load(one) for one in args]
    for one, found in zip(args, served, strict=True):
        _check_made(one, found)
    run_server(served, (args[0].scale, args[0].limits), where, access, replace)


def run_server(
    served: "list[Served]", size: tuple["Scale", "Limits"], where: tuple[str, int], access: "Access", replace: bool
) -> None:
    """Serve until Ctrl-C or SIGTERM. What has begun then is answered, and what this process made ends.

    Ray is that of ``RAY_ADDRESS``, or one of this process, whose proxy then refuses what the gateways have no room for.
    """
    from cluster import session
    from serving.front import make_environment

    started = time.monotonic()
    scale, limits = size

    def tell(line: str) -> None:
        typer.echo(f"{time.monotonic() - started:5.1f} s  {line}", err=True)

    if os.environ.get("RAY_ADDRESS"):
        tell(f"connecting to {os.environ['RAY_ADDRESS']}")
    else:
        tell("Ray starts")
        os.environ.update(make_environment(limits, scale.gateways))
    session.connect(with_data=False)
    tell("Ray runs; Serve starts")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what ends containers and services, as Ctrl-C does
    from ray import serve as ray_serve

    from serving import swap

    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # it warns of options that are given twice
    server = swap.Server(scale=scale, limits=limits, access=access)
    try:
        ray_serve.start(http_options={"host": where[0], "port": where[1]})
        parts = swap.start(server, served, replace, tell)
    except KeyboardInterrupt:
        tell("ended before anything was served")
        return
    with suppress(KeyboardInterrupt):
        _greet(_base(where))
        threading.Event().wait()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` sends two: to this process and to its group
    tell("what has begun is answered; then the server ends")
    if not swap.can_answer():
        tell("Ray has ended already: nothing is left to end")
        return
    if not swap.end(server, parts):
        tell(f"{server.name} serves something else by now and goes on")


def _greet(base: str) -> None:
    """Say where everything is."""
    import ray
    from ray.serve._private.logging_utils import get_serve_logs_dir

    from serving.tracing import find_endpoint

    metrics = [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes() if node["Alive"]]
    typer.echo(f"search page  {base}/")
    typer.echo(f"API          {base}/openapi.json")
    typer.echo(f"probes       {base}/livez  {base}/readyz")
    typer.echo(f"metrics      {'  '.join(f'http://{address}/metrics' for address in metrics)}")
    typer.echo(f"logs         {get_serve_logs_dir()}")
    if endpoint := find_endpoint():
        typer.echo(f"traces       {endpoint}")
    typer.echo("end          Ctrl-C or SIGTERM")


def _make_missing(args: "ServeArgs") -> None:
    """Index what a recipe without training serves. A recipe that trains must have been run: that may take days."""
    from rich.console import Console

    from pipelines import verbs
    from pipelines.recipe import load

    if load(args.recipe, args.overrides).student:
        plan, root = verbs.load_plan(args.recipe, args.overrides)
        verbs.make(plan, list(plan.indexes.values()), root, Console(stderr=True))


def _check_made(args: "ServeArgs", served: "Served") -> None:
    """Raise StepError, before anything starts, where the recipe was not run to its end."""
    from cluster.artifact import MANIFEST
    from cluster.errors import StepError

    for artifact in (served.index, *served.docs.values()):
        if not (artifact.place / MANIFEST).exists():
            words = [args.recipe, *(word for change in args.overrides for word in ("--set", change))]
            raise StepError(
                f"{artifact.place.redacted} is not complete: make what is to be served with "
                f"`babelray run {shlex.join(words)}`"
            )


def _base(asked: tuple[str, int]) -> str:
    """The address of the running Serve: on a cluster where one ran already, its own and not the one asked for."""
    from ray.serve.context import _get_global_client  # no public call tells it

    options = _get_global_client().http_config  # type: ignore[union-attr]
    if (options.host, options.port) != asked:
        typer.echo(f"Serve runs on this cluster already, on {options.host}:{options.port}; it keeps that", err=True)
    shown = "127.0.0.1" if options.host == "0.0.0.0" else options.host
    return f"http://{shown}:{options.port}{options.root_path}"


def _read_kept() -> list[dict[str, Any]]:
    """The applications of parts in the config file on standard input, those that are served now."""
    import yaml

    from serving.app import NAME

    read = yaml.safe_load(typer.get_text_stream("stdin"))
    applications = read.get("applications") if isinstance(read, dict) else None
    if not isinstance(applications, list):
        raise RecipeError(
            "--print-config --replace expects on standard input the config file that is deployed now, got "
            f"{type(read).__name__}: add < FILE"
        )
    return [app for app in applications if app["name"].startswith(f"{NAME}-")]


def _config(args: "list[ServeArgs]", where: tuple[str, int], access: "Access", kept: list[dict[str, Any]]) -> str:
    """The config file, with its paths made absolute: it will be read in another directory."""
    import yaml

    from serving.config import build_config

    config = build_config([_make_absolute(one) for one in args], where, access, kept)
    return str(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def _make_absolute(args: "ServeArgs") -> "ServeArgs":
    """The same with absolute paths."""
    from pipelines.recipe import load, names

    recipe = load(args.recipe, args.overrides)  # what cannot be built is refused here, not on the cluster
    absolute = {"root": Place.of(recipe.root).uri} | dict(_locations(recipe))
    given = [override for override in args.overrides if override.partition("=")[0].strip() not in absolute]
    overrides = [*given, *(f"{key}={uri}" for key, uri in absolute.items())]
    named = args.recipe if args.recipe in names() else str(Path(args.recipe).absolute())
    return args.model_copy(update={"recipe": named, "overrides": overrides})


def _locations(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Key and URI of everything in a recipe that says where data stand. Loading has made them absolute."""
    if isinstance(value, Location):
        yield key, str(value)
    elif isinstance(value, Component):
        for name in type(value).model_fields:
            yield from _locations(getattr(value, name), f"{key}.{name}" if key else name)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _locations(item, f"{key}.{name}")


def _check_free(host: str, port: int) -> None:
    """Raise RecipeError for a port that is taken, now: Serve would say so after a while, in a page of traceback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RecipeError(
                f"cannot listen on {host}:{port}: {error.strerror}. Choose another --port or --host"
            ) from error


if __name__ == "__main__":
    app(prog_name="python -m serving")
