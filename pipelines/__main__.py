"""The verbs of recipes: ``babelray new|plan|run|status|show|search|evaluate|…``, also as ``python -m pipelines``."""

from typing import Annotated

import typer

from pipelines.search_command import app as searching
from pipelines.segments.commands import app as growing
from pipelines.terminal import AnyName, Json, RecipeName, Sets, console, echo, report_errors

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

    Looks at DIR, recognises its layout (a parallel collection, SQuAD's files, BEIR, MS MARCO, JSON lines, or text,
    Markdown and HTML files), says how many documents, questions and judgements it has in which languages, what is
    missing and what that means, and writes a commented recipe that runs as it is: one that trains and measures a
    student where there are translations and judged questions, and one that indexes and serves a ready encoder where
    there are not.

    Example: `babelray new manual --source docs/`
    """
    from pipelines.new import write_recipe

    echo(write_recipe(name, source, lang, force), as_json)


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
            "--price",
            metavar="TYPE=N",
            help="Dollars per hour of a machine; spot=0.35: spot machines at this share of the list price.",
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
    echo(verb.plan_costs(recipe, sets or [], options, console(as_json)), as_json)


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

    echo(verbs.run(recipe, steps or [], sets or [], console(as_json)), as_json)


@app.command()
@report_errors
def status(recipe: AnyName, sets: Sets = None, as_json: Json = False) -> None:
    """List the steps of a recipe: done, going on, or to come, with their rows, rejects and times.

    Starts nothing, and needs no data.

    Example: `babelray status atlas`
    """
    from pipelines import verbs

    echo(verbs.status(recipe, sets or []), as_json)


@app.command()
@report_errors
def show(
    recipe: AnyName,
    step: Annotated[str, typer.Argument(metavar="STEP", help="A step's name, as `status` prints it.")],
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Show one step: its config and inputs, where it is kept, what was rejected and why, and its first rows.

    Example: `babelray show atlas translate-fa`
    """
    from pipelines import verbs

    echo(verbs.show(recipe, step, sets or []), as_json)


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
    paired t-test over the queries. --json has the measures, each language's share of the pool (fairness), and of a set
    that is asked in several languages the matrix. Makes what is missing first. Add another collection with
    `--set evaluate.mine.source.kind=parallel --set evaluate.mine.source.path=DIR`.

    Example: `babelray evaluate xquad xquad-ed xquad-mtt --set source.path=DIR`
    """
    from pipelines import comparison

    echo(comparison.evaluate(recipe, others or [], system, sets or [], console(as_json)), as_json)


@app.command()
@report_errors
def experiment(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="An experiment, or the path of its TOML file. Default: list them.")
    ] = "",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="VARIANT", help="Run this variant alone, without the report. Repeatable."),
    ] = None,
    markdown: Annotated[
        str, typer.Option("--markdown", metavar="FILE", help="Write what was found to FILE too, for a repository.")
    ] = "",
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Compare variants of a recipe with statistics: folds, seeds, tests of stated claims, and one page.

    Makes what is missing (what variants share is made once), and prints a verdict for each claim (holds, fails, cannot
    tell) with its interval, and the means of all variants. The page report.html has plots and commands beside them, and
    needs no network. --set changes the base recipe; what a variant sets wins over it.

    Example: `babelray experiment mtd --set source.path=DIR`
    """
    from pipelines.experiment import verb

    if name:
        echo(verb.experiment(name, only or [], sets or [], console(as_json), markdown), as_json)
    else:
        echo(verb.list_experiments(), as_json)


@app.command()
@report_errors
def export(
    recipe: RecipeName,
    step: Annotated[str, typer.Argument(metavar="STEP", help="A finished step's name, as `status` prints it.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to: a path or an s3:// URI; .gz is compressed.")],
    form: Annotated[
        str,
        typer.Option("--format", help="trec, colbert, msmarco, fast-plaid, model. By default what suits the step."),
    ] = "",
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Write a finished step's table in a format of the field.

    Rankings become a TREC run, ColBERT's scored examples or an MS MARCO run, judgements TREC or MS MARCO qrels,
    documents and queries MS MARCO's files, an index of PLAID fast-plaid's. A trained student (step `train`) becomes a
    directory for sentence-transformers with a model card. A file of scores takes the teacher's place in any recipe
    with the same queries and documents: `--set 'score={kind="file", path="FILE"}'`.

    Example: `babelray export atlas score scores.jsonl.gz`
    """
    from pipelines import formats

    echo(formats.export_table(recipe, step, file, form, sets or []), as_json)


@app.command()
@report_errors
def calibration(
    recipe: RecipeName,
    others: Annotated[
        list[str] | None, typer.Argument(metavar="[OTHER]…", help="Recipes of which the teachers are compared with it.")
    ] = None,
    student: Annotated[
        bool, typer.Option("--student/--no-student", help="Compare the teacher with the student, where it is trained.")
    ] = True,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Show how sharp a recipe's teacher is, and how far the student and other teachers agree with it.

    Over how many of the passages that training draws the teacher spreads its probability, at several T (a loss has
    T = temperature / alpha), and the T at which it is half of them. Kendall's tau between teachers; tau and KL between
    teacher and student, by language, where it is trained. Makes the teachers' scores that are missing, also of what the
    student found.

    Example: `babelray calibration atlas`
    """
    from pipelines import agreement

    echo(agreement.calibrate(recipe, others or [], student, sets or [], console(as_json)), as_json)


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

    echo(verbs.prune(recipes, sets or [], dry_run), as_json)


app.registered_commands += [*searching.registered_commands, *growing.registered_commands]

if __name__ == "__main__":
    app(prog_name="python -m pipelines")
