"""The verbs: ``python -m pipelines run|status|show|search|evaluate RECIPE``. Each takes ``--set`` and ``--json``."""

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
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""Teach a small encoder to find passages in every language.

    A recipe is a name (atlas, xquad, translate-distill, multilingual-translate-distill, …) or the path of a TOML file.
    Everything that is made stands below the recipe's root, in directories named step@fingerprint; what is there is
    never made again, so a run that was stopped goes on where it was.

    [bold]Begin with[/bold]  python -m pipelines run atlas
    """,
)

QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, or the path of a TOML file.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the recipe, as --set train.steps=200. Repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables for people.")]


def _told(command: Callable[..., None]) -> Callable[..., None]:
    """Print the message of an error that a user can act on, and leave with status 1."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
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

    return run


@app.command()
@_told
def run(
    recipe: RecipeName,
    steps: Annotated[
        list[str] | None, typer.Argument(metavar="[STEP]…", help="Only these steps and what they need. Default: all.")
    ] = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Make what is missing of a recipe, show progress, and end with the measures."""
    from pipelines import verbs

    _echo(verbs.run(recipe, steps or [], sets or [], _console(as_json)), as_json)


@app.command()
@_told
def status(recipe: RecipeName, sets: Sets = None, as_json: Json = False) -> None:
    """Which steps are done, going on, or to come, with their rows, rejects and times."""
    from pipelines import verbs

    _echo(verbs.status(recipe, sets or []), as_json)


@app.command()
@_told
def show(
    recipe: RecipeName,
    step: Annotated[str, typer.Argument(metavar="STEP", help="A step's name, as `status` prints it.")],
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """One step: its config, inputs, where it stands, what was rejected and why, and its first rows."""
    from pipelines import verbs

    _echo(verbs.show(recipe, step, sets or []), as_json)


@app.command()
@_told
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
    """Search the recipe's index with its student."""
    from pipelines import verbs

    _echo(verbs.search(recipe, query, k, lang or [], sets or []), as_json)


@app.command()
@_told
def evaluate(
    recipe: RecipeName,
    other: Annotated[str | None, typer.Argument(metavar="[OTHER]", help="A recipe to compare with.")] = None,
    system: Annotated[str, typer.Option(help="student, bm25 or untrained.")] = "student",
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """The measures per language and pooled; with OTHER also the differences and a paired t-test over the queries.

    Makes what is missing first. Add a collection of your own with
    --set evaluate.mine.source.kind=parallel --set evaluate.mine.source.path=DIR
    """
    from pipelines import verbs

    _echo(verbs.evaluate(recipe, other, system, sets or [], _console(as_json)), as_json)


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
