"""What the verbs of recipes share on the command line: arguments, how errors are printed, how results are."""

import json
import logging
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from cluster.errors import BabelrayError

QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, or the path of a TOML file.")]
AnyName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="The name or the file of a recipe, or of an experiment.")
]
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


def console(as_json: bool) -> Any:
    """Where progress goes: the terminal's standard error, so that standard output holds the result alone."""
    from rich.console import Console

    return Console(stderr=True, quiet=as_json and not sys.stderr.isatty())


def echo(shown: Any, as_json: bool) -> None:
    """Print a report, for machines or for people."""
    if as_json:
        typer.echo(json.dumps(shown.data, ensure_ascii=False, indent=1))
        return
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", 120))).print(shown.page)
