"""The verb *export*: the table of a finished step, written in a format of the field.

    rankings   trec      a TREC run; the default, but for a teacher's scores
               colbert   ColBERT's scored examples, which a recipe reads as ``score = { kind = "file" }``; the default
                         for a teacher's scores
               msmarco   query, document, rank
    qrels      trec (the default), msmarco
    docs       msmarco: a collection
    queries    msmarco
    index      fast-plaid: of PLAID, a directory for each shard
    train      model: the student, a directory for sentence-transformers, with a card (``pipelines.model_card``)

Nothing is computed and no Ray is started: one pass over the parts (``pipelines.export``).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from cluster.artifact import MANIFEST, Artifact
from cluster.errors import RecipeError, StepError
from cluster.step import Step
from cluster.storage import Place
from pipelines import export
from pipelines.index import IndexConfig
from pipelines.indexes.plaid import Plaid
from pipelines.indexes.plaid.interchange import export_fast_plaid
from pipelines.ingest import IngestConfig
from pipelines.model_card import export_model
from pipelines.scored import STEP
from pipelines.tables import DOCS, QRELS, QUERIES, RANKINGS
from pipelines.verbs import Report, load_plan

COLBERT, TREC, MSMARCO, FAST_PLAID, MODEL = "colbert", "trec", "msmarco", "fast-plaid", "model"
Writer = Callable[[Artifact, Place], int]


def _of_tables(write: Callable[[Iterable[pa.Table], Place], int]) -> Writer:
    """A writer of an artifact's tables."""
    return lambda artifact, file: write(artifact.tables(), file)


WRITERS: Mapping[str, Mapping[str, Writer]] = {  # by table and format; a table's default comes first
    RANKINGS.name: {
        TREC: lambda artifact, file: export.write_trec_run(artifact.tables(), file, tag=artifact.manifest.step),
        COLBERT: export.export_scores,
        MSMARCO: _of_tables(export.write_msmarco_run),
    },
    QRELS.name: {TREC: _of_tables(export.write_trec_qrels), MSMARCO: _of_tables(export.write_msmarco_qrels)},
    DOCS.name: {MSMARCO: _of_tables(export.write_msmarco_collection)},
    QUERIES.name: {MSMARCO: _of_tables(export.write_msmarco_queries)},
}
FORMATS = (*dict.fromkeys(name for of_table in WRITERS.values() for name in of_table), FAST_PLAID, MODEL)


COUNTED = {FAST_PLAID: "passages", MODEL: "bytes"}


def export_table(name: str, wanted: str, file: str, form: str, sets: Sequence[str]) -> Report:
    """Write the table of the step ``wanted`` to ``file``, a path or an ``s3://`` URI; ``form`` "" is the default.

    Raises:
        RecipeError: no such step, or several of this name; a step without a table, or a table without this format.
        StepError: the step is not finished.
        TableError: an id holds what the format cannot.
    """
    plan, root = load_plan(name, sets)
    step = _choose_one(wanted, plan.find_steps(wanted))
    write: Writer
    if plan.training and step is plan.training.train and form in ("", MODEL):
        form, write = MODEL, lambda _, target: export_model(plan, root, target)
    else:
        form, write = _choose_writer(step, form)
    artifact = step.artifact(root)
    if not (artifact.place / MANIFEST).exists():
        raise StepError(
            f"step {step.id} is not finished in {root.redacted}: make it with `babelray run {name} {wanted}`"
        )
    place = Place.of(file)
    lines = write(artifact, place)
    counted = COUNTED.get(form, "lines")
    data: dict[str, Any] = {"step": step.id, "format": form, "file": place.redacted, counted: lines}
    data["rejected"] = sum(reject.count for reject in artifact.manifest.rejects.values())
    left_out = f"; {data['rejected']:,} rejected records are not in it" if data["rejected"] else ""
    page = f"{step.id} as {form}: {lines:,} {counted} in {place.redacted}{left_out}"
    return Report(data, page)


def _choose_one(wanted: str, steps: Sequence[Step]) -> Step:
    """The only step; several of one name are told apart by their fingerprints, and mostly are of different splits."""
    if len(steps) > 1:
        splits = {step.id: f" ({step.config.split})" for step in steps if isinstance(step.config, IngestConfig)}
        known = ", ".join(f"{step.id}{splits.get(step.id, '')}" for step in steps)
        raise RecipeError(f"several steps are named {wanted}: choose one of {known}")
    return steps[0]


def _choose_writer(step: Step, form: str) -> tuple[str, Writer]:
    """The format that is asked for, or the table's default, and what writes it."""
    if isinstance(step.config, IndexConfig) and isinstance(step.config.index, Plaid) and form in ("", FAST_PLAID):
        return FAST_PLAID, export_fast_plaid
    of_table = WRITERS.get(step.table.name, {}) if step.table else {}
    if not of_table:
        made = f"a table of {step.table.name}" if step.table else "a directory of files"
        raise RecipeError(
            f"step {step.name} makes {made}, which has no format to be exported in; {', '.join(WRITERS)} have one"
        )
    form = form or (COLBERT if _is_teacher(step) else next(iter(of_table)))
    if form not in of_table:
        raise RecipeError(
            f"--format {form}: a table of {step.table.name if step.table else ''} is written as {' or '.join(of_table)}"
        )
    return form, of_table[form]


def _is_teacher(step: Step) -> bool:
    """Whether this is a teacher's step: ``score``, or ``score-0`` for a member of an ensemble."""
    return step.table is RANKINGS and (step.name == STEP or step.name.startswith(f"{STEP}-"))
