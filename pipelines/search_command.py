"""The verb ``babelray search``: one query, from the command line, among all documents or some."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.terminal import Json, RecipeName, Sets, echo, report_errors

if TYPE_CHECKING:
    from pipelines.filters.subset import Subset

app = typer.Typer()
Where = Annotated[
    str, typer.Option("--where", metavar="CONDITION", help="Only documents whose fields fulfil this: 'year >= 2020'.")
]
Ids = Annotated[str, typer.Option("--ids", metavar="FILE", help="Only documents with the ids in FILE, one a line.")]


def take_subset(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options ``--where`` and ``--ids`` in the place of its parameter ``subset``, made of them."""

    @wraps(command)
    def run_command(*args: Any, where: str = "", ids: str = "", **kwargs: Any) -> None:
        command(*args, subset=_read_subset(where, ids), **kwargs)

    others = [p for p in inspect.signature(command).parameters.values() if p.name != "subset"]
    limits = {"where": Where, "ids": Ids}
    made = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default="", annotation=a) for n, a in limits.items()]
    run_command.__signature__ = inspect.Signature([*others, *made])  # type: ignore[attr-defined]
    run_command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*others, *made)}
    return run_command


@app.command()
@report_errors
@take_subset
def search(
    recipe: RecipeName,
    query: Annotated[str, typer.Argument(help="The query, in quotes.")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many passages.")] = 10,
    lang: Annotated[
        list[str] | None, typer.Option("--lang", help="Only passages of this language. Repeatable.")
    ] = None,
    sets: Sets = None,
    as_json: Json = False,
    subset: "Subset | None" = None,
) -> None:
    """Search the index of a finished recipe with its student.

    CONDITION compares fields of the documents that the recipe's source keeps, as in
    `--where 'year >= 2020 and section in ("news", "sport")'`: ==, !=, <, <=, >, >=, in, exists, with and, or, not.

    Example: `babelray search atlas "What money do people use in Iran?" -k 3 --lang fa`
    """
    from pipelines import verbs

    echo(verbs.search(recipe, query, k, lang or [], sets or [], subset), as_json)


def _read_subset(where: str, ids: str) -> "Subset | None":
    """The documents that are searched; None for all. Raises RecipeError for a condition or a file that is none."""
    if not where and not ids:
        return None
    from pipelines.filters.subset import Subset
    from pipelines.filters.text import parse
    from pipelines.segments.documents import read_ids

    return Subset(tuple(read_ids(ids)) if ids else None, parse(where) if where else None)
