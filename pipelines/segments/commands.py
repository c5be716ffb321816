"""The verbs that change an index in place of making a new one: ``babelray add|delete|compact``."""

from typing import Annotated

import typer

from pipelines.terminal import Json, RecipeName, Sets, console, echo, report_errors

app = typer.Typer()
System = Annotated[str, typer.Option(help="Whose index: student, bm25, untrained, or one of [systems].")]


@app.command()
@report_errors
def add(
    recipe: RecipeName,
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Documents: .jsonl or .tsv, perhaps compressed.")],
    lang: Annotated[str, typer.Option("--lang", help="Language of documents that name none.")] = "",
    system: System = "student",
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Add documents to the index of a finished recipe, or replace those whose ids it has.

    A line of FILE is `{"doc_id": "d1", "title": "…", "text": "…", "lang": "de"}` or `doc_id<TAB>text`. Only documents
    that are new or have changed are encoded; `search` finds them at once, a running server within seconds. The recipe's
    measures stay those of the documents that it names. A file with a line that is no document changes nothing.

    Example: `babelray add atlas more.jsonl --lang en`
    """
    from pipelines.segments import verbs

    echo(verbs.add(recipe, files, lang, system, sets or [], console(as_json)), as_json)


@app.command()
@report_errors
def delete(
    recipe: RecipeName,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]…", help="Ids of documents.")] = None,
    file: Annotated[str, typer.Option("--file", metavar="FILE", help="A file of ids, one a line.")] = "",
    lang: Annotated[
        list[str] | None, typer.Option("--lang", help="Only in this language. Repeatable. Default: in all.")
    ] = None,
    system: System = "student",
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Delete documents from the index of a finished recipe.

    They are found no more from then on; `compact` frees their space. Ids that the index does not have are counted and
    shown, the others are deleted all the same.

    Example: `babelray delete atlas currency-IR --lang fa`
    """
    from pipelines.segments import verbs

    echo(verbs.delete(recipe, ids or [], file, lang or [], system, sets or []), as_json)


@app.command()
@report_errors
def compact(recipe: RecipeName, system: System = "student", sets: Sets = None, as_json: Json = False) -> None:
    """Put the segments of an index into one, without what was deleted or replaced.

    Nothing is encoded, and results stay the same. What the new segment replaces is removed a day later
    (`BABELRAY_GRACE_S` seconds), by the next of these verbs or by `prune`: until then, who has it open may read it.

    Example: `babelray compact atlas`
    """
    from pipelines.segments import verbs

    echo(verbs.compact(recipe, system, sets or []), as_json)
