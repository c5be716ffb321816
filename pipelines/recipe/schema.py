"""The recipe: what one TOML file may say, and what must fit together in it."""

from typing import Any

from pydantic import Field, model_validator

from cluster.component import Component
from pipelines.indexes import Index
from pipelines.indexes.base import SearchOptions
from pipelines.recipe.tables import (
    Encoding,
    EvaluationSet,
    Languages,
    Measures,
    Mix,
    ReadyStudent,
    Run,
    Score,
    Select,
    StepResources,
    SystemSpec,
)
from pipelines.sources import AnySource
from pipelines.training.config import TrainConfig
from pipelines.translators import Parallel, Translator

STUDENT, BM25, UNTRAINED = "student", "bm25", "untrained"  # systems that every recipe may have


class Recipe(Component):
    """One experiment. See ``pipelines.plan.plan`` for what becomes of it.

    A recipe trains a student (``train``) or takes a ready one (``student``). A teacher (``score``) is needed only where
    the loss reads its scores. With ``mix`` the training data are those of its members, and the recipe's own source is
    that of its evaluation.
    """

    name: str
    about: str = ""
    root: str = "artifacts"
    source: AnySource
    train_split: str = "train"
    languages: Languages
    translate: Translator = Parallel()
    select: Select = Select()
    score: Score | None = None
    mix: Mix | None = None
    train: TrainConfig | None = None
    student: ReadyStudent | None = None
    validate_split: str | None = None  # questions that choose the best checkpoint; None keeps the last as the best
    encode: Encoding = Encoding()
    passage_length: int = Field(180, ge=8)  # MTD §4: documents are read in windows of 180 tokens …
    passage_stride: int = Field(90, ge=1)  # … that begin every 90
    index: Index
    shard_rows: int = Field(100_000, ge=1)  # documents per shard: what one replica serves
    group_gb: float = Field(4, gt=0)  # shards that one worker of a batch search opens together, in GB of files
    search: SearchOptions = SearchOptions()
    systems: dict[str, SystemSpec] = {}
    evaluate: dict[str, EvaluationSet] = {}
    measure: Measures = Measures()
    examples: tuple[str, ...] = ()  # queries shown at the end of a run
    run: Run = Run()
    resources: StepResources = StepResources()
    environments: dict[str, dict[str, Any]] = {}  # Ray runtime environments by name, for resources.STEP.environment

    @model_validator(mode="after")
    def _check_student(self) -> "Recipe":
        if (self.train is None) == (self.student is None):
            raise ValueError(
                "a recipe trains a student ([train]) or takes a ready one ([student]): give one of the two"
            )
        if self.index.kind == "bm25":
            raise ValueError("index.kind = bm25 holds no vectors: choose plaid, exact or faiss for the student")
        if self.train:
            self._check_training(self.train)
        return self

    def _check_training(self, train: TrainConfig) -> None:
        """What would otherwise be found after hours, by the step that fails."""
        if train.loss.reads == "scores" and not self.score and not self.mix:
            raise ValueError(f"train.loss.kind = {train.loss.kind} reads the scores of a teacher: add [score]")
        if (ways := train.draw.ways) > self.select.k and not self.mix:
            raise ValueError(f"train.ways = {ways} passages cannot be drawn from select.k = {self.select.k}")
        if self.index.kind == "faiss" and train.student.kind != "dense":
            raise ValueError(
                f"index.kind = faiss cannot hold the vectors of a {train.student.kind} student: choose plaid or exact"
            )

    @model_validator(mode="after")
    def _check_passages(self) -> "Recipe":
        if self.passage_stride > self.passage_length:
            raise ValueError(
                f"passage_stride = {self.passage_stride} beyond passage_length = {self.passage_length} leaves text out"
            )
        return self

    @model_validator(mode="after")
    def _check_systems(self) -> "Recipe":
        known = [STUDENT, BM25, UNTRAINED]
        for name, spec in self.systems.items():
            if name in (STUDENT, BM25, UNTRAINED):
                raise ValueError(f"systems.{name}: this name is taken; choose another")
            if spec.rerank and spec.of not in known:
                raise ValueError(f"systems.{name}.of = {spec.of!r}: expected a system above it, {', '.join(known)}")
            known.append(name)
        return self

    @model_validator(mode="after")
    def _check_environments(self) -> "Recipe":
        for verb, resources in self.resources:
            if resources.environment and resources.environment not in self.environments:
                raise ValueError(
                    f"resources.{verb}.environment = {resources.environment!r}: add a table "
                    f"[environments.{resources.environment}], a Ray runtime environment"
                )
        return self
