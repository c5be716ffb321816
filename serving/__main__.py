"""``python -m serving RECIPE``: serve a finished recipe over HTTP, with a search page on /."""

from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)

CONFIG_HEADER = """\
# A config file of Ray Serve: serve deploy FILE (with RAY_DASHBOARD_ADDRESS naming the cluster's dashboard).
# Every node needs babelray installed, and the recipe's root must be a place that all of them reach.
# args may also hold  scale: {gateways: 2, encoders: 2, encoder_gpus: 1, shard_replicas: 2, cpus: 1}
#                and  limits: {max_query_chars: 2000, timeout_s: 10}.
# A single shard is sized under  deployments: [{name: shard-…, num_replicas: 3}] ; GET /info lists their names.
"""


@app.command()
def serve(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or the path of its TOML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe, as it was changed for the run."),
    ] = None,
    system: Annotated[
        str, typer.Option(help="Which system of the recipe to serve: student, bm25 or untrained.")
    ] = "student",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every interface.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print a config file for `serve deploy` and end.")
    ] = False,
) -> None:
    """Serve a finished recipe: a search page on /, `POST /search`, `GET /health`, `GET /info`, the API's docs on /docs.

    Run the recipe first: `python -m pipelines run RECIPE`. Uses the cluster named by `RAY_ADDRESS`, or this machine.

    Example: `python -m serving atlas --port 8000`, then

        curl -s 127.0.0.1:8000/search -H 'content-type: application/json' -d '{"query": "the currency of Iran", "k": 3}'
    """
    from cluster.errors import BabelrayError

    try:
        _serve(recipe, overrides or [], system, (host, port), print_config)
    except BabelrayError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def _serve(recipe: str, overrides: list[str], system: str, where: tuple[str, int], print_config: bool) -> None:
    host, port = where
    from cluster import session
    from serving.app import NAME, ServeArgs, build, config

    args = ServeArgs(recipe=recipe, overrides=overrides, system=system)
    if print_config:
        import yaml

        from pipelines.recipe import load

        load(recipe, overrides)  # a config file that cannot be built is refused here, not on the cluster
        typer.echo(CONFIG_HEADER + yaml.safe_dump(config(args, host, port), sort_keys=False, allow_unicode=True))
        return
    ready = build(args)
    session.connect()
    from ray import serve as ray_serve

    ray_serve.start(http_options={"host": host, "port": port})
    ray_serve.run(ready, name=NAME, route_prefix="/")
    shown = "127.0.0.1" if host == "0.0.0.0" else host
    typer.echo(f"search page  http://{shown}:{port}/\nAPI          http://{shown}:{port}/docs\nend          Ctrl-C")
    ray_serve.api.wait_for_interrupt()


if __name__ == "__main__":
    app(prog_name="python -m serving")
