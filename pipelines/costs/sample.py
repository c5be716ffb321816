"""A calibration: the same recipe on a sample, in a root of its own, to measure how long each step takes.

The sample has the first N training questions, and of every other table the same share, or as many as ``FEWEST`` where
that is more: of the documents those that are relevant to the sampled questions, then the first ones. Trainings take
``STEPS`` steps. The plan is the recipe's own, step by step, but for that.

It is run twice, the first time on a quarter, so that what every part costs is told from what every row costs
(``pipelines.costs.fit``). Both runs are removed when ``rates.json`` is written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.component import Component
from cluster.errors import RecipeError
from cluster.step import Step, map_leaves
from cluster.storage import Place
from pipelines.costs.sizes import Size, find_size
from pipelines.ingest import IngestConfig, IngestDocs, IngestQrels, IngestQueries
from pipelines.plan import Plan
from pipelines.sources.base import Entry
from pipelines.training.config import TrainingRun

FEWEST = 64  # rows of a table of the whole sample, where the source has so many
QUARTER = 4  # the part of everything that the first run has
STEPS = 40  # of a training, with a measurement at half
QUESTIONS, DOCUMENTS, JUDGEMENTS = "queries", "docs", "qrels"


class IngestSample(Component):
    """What to ingest, and which rows of it. Judgements have the rows of their questions and documents alone."""

    ingest: IngestConfig
    ids: tuple[str, ...] = ()

    @property
    def rows_per_part(self) -> int:
        """Rows of a part, as in the recipe."""
        return self.ingest.rows_per_part


class _SampledRows:
    """Reads no further than the last row that is wanted."""

    def __init__(self, sample: IngestSample, given: Mapping[str, Any]) -> None:
        super().__init__(sample.ingest, given)  # type: ignore[call-arg]
        self.wanted = set(sample.ids)

    def _entries(self) -> Iterator[Entry]:
        left = set(self.wanted)
        column = "doc_id" if self.name == DOCUMENTS else "query_id"  # type: ignore[attr-defined]
        for entry in super()._entries():  # type: ignore[misc]
            if entry.row and entry.row[column] in left:
                left.discard(entry.row[column])
                yield entry
            if not left:
                return


class _SampledIngestDocs(_SampledRows, IngestDocs):
    """DOCS of the sample."""


class _SampledIngestQueries(_SampledRows, IngestQueries):
    """QUERIES of the sample."""


class _SampledIngestQrels(IngestQrels):
    """QRELS between the sample's questions and documents."""

    def __init__(self, sample: IngestSample, given: Mapping[str, Any]) -> None:
        super().__init__(sample.ingest, given)

    def _entries(self) -> Iterator[Entry]:
        known = {}
        for name, column in ((QUESTIONS, "query_id"), (DOCUMENTS, "doc_id")):
            parts = self.inputs[name].tables([column])
            known[column] = {key for rows in parts for key in rows[column].to_pylist()}
        for entry in getattr(self.config.source, self.name)(self.config.lang, self.config.split):
            if not entry.row or all(entry.row[column] in keys for column, keys in known.items()):
                yield entry


_WORKS = {DOCUMENTS: _SampledIngestDocs, QUESTIONS: _SampledIngestQueries, JUDGEMENTS: _SampledIngestQrels}


@dataclass(frozen=True)
class Sample:
    """A plan that is cut down: its targets, and the step that stands for each step of the plan, by that one's id,
    inputs first."""

    targets: tuple[Step, ...]
    steps: Mapping[str, Step]


def find_sizes(plan: Plan, root: Place) -> dict[str, Size]:
    """The sizes of all that a plan ingests, by the step's id."""
    ingests = (step for step in plan.steps if isinstance(step.config, IngestConfig))
    return {step.id: find_size(step, root, {}) for step in ingests}


def sample_plan(plan: Plan, sizes: Mapping[str, Size], questions: int, part: int = 1) -> Sample:
    """Cut a plan down to so many training questions, or to that ``part`` of the sample (4: a quarter).

    Raises:
        RecipeError: it reads neither questions nor documents.
    """
    ids = _choose_rows(plan.steps, _count_rows(sizes, _share(plan, sizes, questions), part))
    made: dict[str, Step] = {}

    def cut(step: Step) -> Step:
        if step.id not in made:
            made[step.id] = _cut_step(step, map_leaves(step.inputs, cut), ids)
        return made[step.id]

    return Sample(tuple(cut(target) for target in plan.targets), made)


def _share(plan: Plan, sizes: Mapping[str, Size], questions: int) -> float:
    """The part of the collection that so many training questions are; of its documents where there are none."""
    recipe = plan.recipe
    ingests = [step for step in plan.steps if isinstance(step.config, IngestConfig)]
    training = [s for s in ingests if _table(s) == QUESTIONS and s.config.split == recipe.train_split]  # type: ignore[attr-defined]
    counted = training or [step for step in ingests if _table(step) == DOCUMENTS]
    if not counted:
        raise RecipeError(f"recipe {recipe.name} reads no documents and no questions: there is nothing to calibrate on")
    return min(1.0, questions / max(1, max(sizes[step.id].rows for step in counted)))


def _table(step: Step) -> str:
    return step.table.name if step.table else ""


def _cut_step(step: Step, inputs: Mapping[str, Any], ids: Mapping[str, tuple[str, ...]]) -> Step:
    """The step that stands for one of the plan."""
    config: Any = step.config
    work = step.work
    if isinstance(config, IngestConfig) and _table(step) in _WORKS:  # sentence pairs are few: all are taken
        work, config = _WORKS[_table(step)], IngestSample(ingest=config, ids=ids.get(step.id, ()))
    elif isinstance(config, TrainingRun):
        config = _shorten(config)
    if step.table is None:
        from pipelines.costs.fit import TimedWork

        work = TimedWork(work)
    return replace(step, work=work, config=config, inputs=inputs, max_rejects=1.0)


def _shorten(run: TrainingRun) -> TrainingRun:
    """A training of a few steps, measured at half and at the end."""
    train = run.train
    steps = min(STEPS, train.steps)
    validation = train.validation.model_copy(update={"every": max(1, steps // 2)})
    short = {"steps": steps, "warmup": min(train.warmup, steps), "validation": validation}
    return run.model_copy(update={"train": train.model_copy(update=short)})


def _count_rows(sizes: Mapping[str, Size], share: float, part: int) -> dict[str, int]:
    """How many rows of each table the sample has."""
    whole = {name: min(size.rows, max(FEWEST, round(size.rows * share))) for name, size in sizes.items()}
    return {name: max(1, rows // part) for name, rows in whole.items()}


def _choose_rows(steps: Sequence[Step], counts: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """The ids of the sample's rows, for each step that ingests questions or documents."""
    ingests = [step for step in steps if step.id in counts]
    questions = {s.id: _first(s, counts[s.id], set()) for s in ingests if _table(s) == QUESTIONS}
    wanted: dict[str, set[str]] = {}  # documents that are judged, by the step that ingests them
    for step in ingests:
        if _table(step) == JUDGEMENTS:
            asked = set(questions[step.parents["queries"].id])
            docs = wanted.setdefault(step.parents["docs"].id, set())
            docs |= {row["doc_id"] for row in _rows(step) if row["query_id"] in asked and row["relevance"] > 0}
    chosen: dict[str, tuple[str, ...]] = dict(questions)
    of_split: dict[tuple[str, str], set[str]] = {}  # a translation has the ids of its original
    for step in ingests:
        if _table(step) == DOCUMENTS:
            config: Any = step.config
            shared = of_split.setdefault((config.source.model_dump_json(), config.split), set())
            chosen[step.id] = _first(step, counts[step.id], wanted.get(step.id, set()) | shared)
            shared |= set(chosen[step.id])
    return chosen


def _first(step: Step, count: int, wanted: set[str]) -> tuple[str, ...]:
    """The ids of the rows that are wanted, and of the first others, ``count`` together."""
    column = "doc_id" if _table(step) == DOCUMENTS else "query_id"
    found: list[str] = []
    others: list[str] = []
    room = max(0, count - len(wanted))
    for row in _rows(step):
        if row[column] in wanted:
            found.append(row[column])
        elif len(others) < count:
            others.append(row[column])
        if len(found) == len(wanted) and len(others) >= room:
            break
    return tuple(found + others[: max(0, count - len(found))])


def _rows(step: Step) -> Iterator[dict[str, Any]]:
    config: Any = step.config
    return (entry.row for entry in getattr(config.source, _table(step))(config.lang, config.split) if entry.row)
