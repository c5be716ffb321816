"""The verbs of recipes: ``babelray new|plan|run|status|show|search|evaluate|prune``, or ``python -m pipelines``."""

import json
import logging
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from cluster.errors import BabelrayError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Teach a small encoder to find passages in every language.

    A recipe is a name (atlas, xquad, translate-distill, …) or the path of a TOML file. Everything that a run makes is
    kept below the recipe's root, in directories named step@fingerprint, and never made again: a run that was stopped
    goes on where it was, and a changed recipe makes only what the change concerns.

    **The demo**: `babelray run atlas`

    **Your own collection**: `babelray new mine --source DIR`, then `babelray run mine.toml`
    """,
)

QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, or the path of a TOML file.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe: --set train.steps=200. Repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables for people.")]


def report_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Print the message of an error that a user can act on, and exit with status 1."""

    @wraps(command)
    def run_command(*args: Any, **kwargs: Any) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        logging.getLogger("babelray").setLevel(logging.INFO)
        try:
            command(*args, **kwargs)
        except BabelrayError as error:
            typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            typer.echo("\nstopped; run the same command again and it goes on from here", err=True)
            raise typer.Exit(130) from None

    return run_command


@app.command()
@report_errors
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the recipe: it becomes NAME.toml here.")],
    source: Annotated[
        str, typer.Option("--source", metavar="DIR", help="The directory of your collection, or an s3:// URI.")
    ],
    lang: Annotated[str, typer.Option("--lang", help="Language of texts whose language nothing says.")] = "en",
    force: Annotated[bool, typer.Option("--force", help="Replace a recipe of that name.")] = False,
    as_json: Json = False,
) -> None:
    """Write a recipe for a collection of your own.

    Looks at DIR, recognises its layout (a parallel collection, BEIR, MS MARCO, JSON lines, or text, Markdown and HTML
    files), says how many documents, questions and judgements it has in which languages, what is missing and what that
    means, and writes a commented recipe that runs as it is: one that trains and measures a student where there are
    translations and judged questions, and one that indexes and serves a ready encoder where there are not.

    Example: `babelray new manual --source docs/`
    """
    from pipelines.new import write_recipe

    _echo(write_recipe(name, source, lang, force), as_json)


@app.command()
@report_errors
def plan(
    recipe: RecipeName,
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="FILE", help="A Ray cluster file. Default: this machine, which is free.")
    ] = "",
    calibrate: Annotated[
        int, typer.Option("--calibrate", metavar="N", min=0, help="First measure each step on N training questions.")
    ] = 0,
    rows: Annotated[
        list[str] | None,
        typer.Option("--rows", metavar="NAME=N", help="Rows of a table or step: docs=8841823. Repeatable."),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price", metavar="TYPE=N", help="Dollars per hour of a machine; spot=0.35: spot machines, as a share."
        ),
    ] = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Say what a recipe will take: rows, tokens, GPU-hours, time, storage, requests and money, step by step.

    Runs nothing and needs no data: what is not here is taken as published, or said with --rows. Each number says where
    it comes from: a finished step (run), a calibration, or an estimate; the assumptions stand below the table.

    With --calibrate the recipe is run on a sample below its root, and the rates are kept in rates.json there, for every
    later plan. A few hundred questions will do; the accuracy is that of the machine it runs on, so calibrate where the
    recipe will run.

    Example: `babelray plan translate-distill --cluster ray_cluster.yaml --set source.path=DIR`
    """
    from pipelines.costs import verb

    options = verb.Options(cluster, rows or [], price or [], calibrate)
    _echo(verb.plan_costs(recipe, sets or [], options, _console(as_json)), as_json)


@app.command()
@report_errors
def run(
    recipe: RecipeName,
    steps: Annotated[
        list[str] | None, typer.Argument(metavar="[STEP]…", help="Only these steps and what they need. Default: all.")
    ] = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Make what is missing of a recipe, and print the measures.

    Shows progress by step. Stop it with Ctrl-C at any time: the same command goes on from there. Runs on the cluster
    named by `RAY_ADDRESS`, or on this machine.

    Example: `babelray run atlas --set train.steps=200`
    """
    from pipelines import verbs

    _echo(verbs.run(recipe, steps or [], sets or [], _console(as_json)), as_json)


@app.command()
@report_errors
def status(recipe: RecipeName, sets: Sets = None, as_json: Json = False) -> None:
    """List the steps of a recipe: done, going on, or to come, with their rows, rejects and times.

    Starts nothing, and needs no data.

    Example: `babelray status atlas`
    """
    from pipelines import verbs

    _echo(verbs.status(recipe, sets or []), as_json)


@app.command()
@report_errors
def show(
    recipe: RecipeName,
    step: Annotated[str, typer.Argument(metavar="STEP", help="A step's name, as `status` prints it.")],
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Show one step: its config and inputs, where it is kept, what was rejected and why, and its first rows.

    Example: `babelray show atlas translate-fa`
    """
    from pipelines import verbs

    _echo(verbs.show(recipe, step, sets or []), as_json)


@app.command()
@report_errors
def search(
    recipe: RecipeName,
    query: Annotated[str, typer.Argument(help="The query, in quotes.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many passages.")] = 10,
    lang: Annotated[
        list[str] | None, typer.Option("--lang", help="Only passages of this language. Repeatable.")
    ] = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Search the index of a finished recipe with its student.

    Example: `babelray search atlas "What money do people use in Iran?" -k 3 --lang fa`
    """
    from pipelines import verbs

    _echo(verbs.search(recipe, query, k, lang or [], sets or []), as_json)


@app.command()
@report_errors
def evaluate(
    recipe: RecipeName,
    others: Annotated[
        list[str] | None, typer.Argument(metavar="[OTHER]…", help="Recipes to compare with, on the same sets.")
    ] = None,
    system: Annotated[str, typer.Option(help="student, bm25, untrained, or one of [systems].")] = "student",
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Print the measures of a recipe by language and pooled; with OTHER, what it gains over that recipe.

    With several others: each mean with its 95 % interval, and the differences to the first. Differences come with a
    paired t-test over the queries. Makes what is missing first. Add another collection with
    `--set evaluate.mine.source.kind=parallel --set evaluate.mine.source.path=DIR`.

    Example: `babelray evaluate xquad xquad-ed xquad-mtt --set source.path=DIR`
    """
    from pipelines import comparison

    _echo(comparison.evaluate(recipe, others or [], system, sets or [], _console(as_json)), as_json)


@app.command()
@report_errors
def prune(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE…", help="The recipes whose artifacts are kept.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Remove the artifacts below the recipes' root that none of these recipes needs.

    What another driver is making now is left alone. A plan is needed to know what to keep, so the recipes' data must be
    here.

    Example: `babelray prune atlas xquad --dry-run`
    """
    from pipelines import verbs

    _echo(verbs.prune(recipes, sets or [], dry_run), as_json)


def _console(as_json: bool) -> Any:
    """Where progress goes: the terminal's standard error, so that standard output holds the result alone."""
    from rich.console import Console

    return Console(stderr=True, quiet=as_json and not sys.stderr.isatty())


def _echo(shown: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(shown.data, ensure_ascii=False, indent=1))
        return
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", 120))).print(shown.page)


if __name__ == "__main__":
    app(prog_name="python -m pipelines")
