"""The whole system on one page: which steps a recipe becomes, and what each reads.

    ingest ─ docs, queries, qrels of every language and split                      (tables)
    translate → gate ─ the training passages, into each language that is read      (tables)
    synth → keep ─ questions written for the passages, where the source has none   (tables)
    select ─ the k passages of the training collection that look best per query    (a search)
    score ─ what the teacher thinks of them, in the teacher's languages            (rankings)
    mine ─ hard negatives, where labels are read                                   (rankings)
    start ─ the untrained student                                                  (a directory)
    train ─ the student, on the teacher's scores, or on judgements                 (a directory)
    encode → index → search → evaluate ─ for the student and for each other system, on each evaluation set

Where the source has pairs of sentences (``sts``), there is nothing to translate, select, index or search:

    ingest (pairs) → start → train → correlate ─ cosines against gold scores, on each evaluation set

A step is known by its name and the fingerprint of all that can change it, so two recipes that differ only in the
student share their translations and scores, and a selection is made by the same steps as a search.

    steps      what every part is built from       translation   stages of translators, gates
    questions  passages, questions, the selector   data          select, score, mine
    training   start, train                        systems       index, search, rerank, evaluate; fusion: fuse
    pairs      sentence pairs: train, correlate
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.errors import RecipeError
from cluster.step import Step, find_steps, list_steps
from pipelines.index import IndexConfig
from pipelines.ingest import ABSENT, IngestConfig
from pipelines.model_hub import remember_answers
from pipelines.models import find_absent, pin
from pipelines.plan.pairs import plan_correlations, plan_pair_sets
from pipelines.plan.steps import Collection, plan_collections, plan_documents
from pipelines.plan.systems import (
    System,
    encoder_of,
    plan_evaluation,
    plan_examples,
    plan_matrices,
    plan_searches,
    plan_systems,
)
from pipelines.plan.training import Training, plan_training
from pipelines.recipe import BM25, STUDENT, UNTRAINED, Recipe
from pipelines.score_file import ScoreFileConfig
from pipelines.sources.splits import describe_splits

READING = IngestConfig | ScoreFileConfig | IndexConfig  # configs that identify the content of files
__all__ = ["BM25", "STUDENT", "UNTRAINED", "Collection", "Plan", "System", "encoder_of", "plan"]


@dataclass(frozen=True)
class Plan:
    """The steps of a recipe that other things ask for by name; all others are reached through their inputs."""

    recipe: Recipe
    training: Training | None
    systems: Mapping[str, System]
    collections: Mapping[str, Collection]  # by evaluation set, and by language where it is asked in several
    indexes: Mapping[tuple[str, str], Step]  # (collection, system)
    evaluations: Mapping[tuple[str, str], Step]
    matrices: Mapping[tuple[str, str], Step]  # (evaluation set, system), of sets that are asked in several languages
    pairs: Mapping[str, Mapping[str, Step]]  # by evaluation set of sentence pairs, and language
    correlations: Mapping[tuple[str, str], Step]  # (evaluation set of sentence pairs, system)
    examples: Step | None

    @property
    def name(self) -> str:
        """The recipe's."""
        return self.recipe.name

    @property
    def environments(self) -> Mapping[str, Mapping[str, Any]]:
        """The recipe's runtime environments by name."""
        return self.recipe.environments

    @property
    def steps(self) -> list[Step]:
        """Every step once, inputs first: the order in which they are shown."""
        return list_steps(self.targets)

    @property
    def targets(self) -> list[Step]:
        """What a run makes; all else is made because these read it."""
        trained = [self.training.train] if self.training else []
        searched = [index for key, index in self.indexes.items() if key not in self.evaluations]
        measured = [*self.measured.values(), *self.matrices.values()]
        return [*trained, *searched, *measured, *([self.examples] if self.examples else [])]

    @property
    def measured(self) -> dict[tuple[str, str], Step]:
        """The steps that measure a system on a set, whether it searches or compares pairs."""
        return {**self.evaluations, **self.correlations}

    @property
    def absent(self) -> list[str]:
        """Which files of the sources and which models are not here: such a plan can be looked at, and not run."""
        contents = [s.config.content for s in self.steps if isinstance(s.config, READING)]
        files = [content.removeprefix(ABSENT) for content in contents if content.startswith(ABSENT)]
        return list(dict.fromkeys([*files, *(line for step in self.steps for line in find_absent(step.config))]))

    @property
    def notes(self) -> list[str]:
        """What the user should know of the data: which collections are divided into splits by hash."""
        ingests = [step.config for step in self.steps if isinstance(step.config, IngestConfig)]
        return list(dict.fromkeys(filter(None, (describe_splits(c.source) for c in ingests if c.splits))))

    def check_data(self) -> "Plan":
        """This plan. Raises RecipeError, naming each, when files or models are absent: its steps would be others."""
        if self.absent:
            raise RecipeError("\n".join(self.absent))
        return self

    def find_steps(self, name: str) -> list[Step]:
        """The steps of this name, or of this name and fingerprint. Raises RecipeError when there is none."""
        return find_steps(self.steps, name, f"recipe {self.name}")


@remember_answers()
def plan(recipe: Recipe) -> Plan:
    """Turn a recipe into steps. Reading this function is reading the system."""
    recipe = pin(recipe)  # what identifies the weights of each model that it names
    training = plan_training(recipe) if recipe.train else None
    systems = plan_systems(recipe, training)
    collections = plan_collections(recipe)
    pairs = plan_pair_sets(recipe)
    if recipe.student and not collections and not pairs:
        collections = {recipe.name: plan_documents(recipe)}  # nothing is asked: it is indexed, to be served
    searches = {
        (name, system): search
        for name, collection in collections.items()
        for system, search in plan_searches(recipe, systems, collection).items()
    }
    evaluations = {
        (name, system): plan_evaluation(recipe, name, system, collections[name], search.rankings)
        for (name, system), search in searches.items()
        if search.rankings
    }
    indexes = {key: search.index for key, search in searches.items() if search.index}
    matrices = plan_matrices(collections, evaluations)
    examples = plan_examples(recipe, systems[STUDENT], collections, indexes)
    correlations = plan_correlations(recipe, systems, pairs)
    return Plan(recipe, training, systems, collections, indexes, evaluations, matrices, pairs, correlations, examples)
