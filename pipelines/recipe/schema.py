"""The recipe: what one TOML file may say, and what must fit together in it."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from cluster.component import Component, Location
from pipelines.gates import Gates
from pipelines.indexes import Index
from pipelines.indexes.base import SearchOptions
from pipelines.mining import Mine
from pipelines.recipe.languages import Languages, Reading
from pipelines.recipe.tables import (
    Encoding,
    EvaluationSet,
    Measures,
    Mix,
    ReadyStudent,
    Run,
    Select,
    Serve,
    StepResources,
    SystemSpec,
    Teacher,
)
from pipelines.score_file import ScoreFile
from pipelines.sources import AnySource, PairSource
from pipelines.synthesis import Synthesis
from pipelines.training.config import TrainConfig
from pipelines.translators import Parallel, Translator

# [translate] is one stage, [[translate]] several: each translates what those before it could not
Stages = Annotated[
    tuple[Translator, ...],
    BeforeValidator(lambda stages: (stages,) if isinstance(stages, Mapping) else stages),
    Field(min_length=1),
]
# TOML has no null: gates = "none" and mine = "none" take away those of the recipe that is extended
_NoneByName = BeforeValidator(lambda value: None if value == "none" else value)
AnyGates = Annotated[Gates | None, _NoneByName]
AnyMine = Annotated[Mine | None, _NoneByName]
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
    data: Location | None = None  # stands for {data} in the paths of the file
    source: AnySource
    train_split: str = "train"
    languages: Languages
    translate: Stages = (Parallel(),)
    gates: AnyGates = None
    select: Select = Select()
    score: Teacher | None = None
    synthesis: Synthesis | None = None  # writes the training questions; None: the source has them
    mine: AnyMine = None  # chooses the negatives of labelled questions; None: the selection's other passages
    mix: Mix | None = None
    train: TrainConfig | None = None
    student: ReadyStudent | None = None
    validate_split: str | None = None  # questions that choose the best checkpoint; None keeps the last as the best
    encode: Encoding = Encoding()
    passage_length: int = Field(180, ge=8)  # MTD §4: documents are read in windows of 180 tokens …
    passage_stride: int = Field(90, ge=1)  # … that begin every 90
    index: Index | None = None  # None where sentences are compared and nothing is searched
    shard_rows: int = Field(100_000, ge=1)  # documents per shard: what one replica serves
    group_gb: float = Field(4, gt=0)  # shards that one worker of a batch search opens together, in GB of files
    search: SearchOptions = SearchOptions()
    systems: dict[str, SystemSpec] = {}
    evaluate: dict[str, EvaluationSet] = {}
    measure: Measures = Measures()
    serve: Serve = Serve()
    examples: tuple[str, ...] = ()  # queries shown at the end of a run
    run: Run = Run()
    resources: StepResources = StepResources()
    environments: dict[str, dict[str, Any]] = {}  # Ray runtime environments by name, for resources.STEP.environment

    @field_validator("select", "score")
    @classmethod
    def _fill_in_languages(cls, table: Any, info: ValidationInfo) -> Any:
        languages = info.data.get("languages")  # absent where it is wrong, which is an error of its own
        return table.fill_in(languages) if languages and isinstance(table, Reading) else table

    @model_validator(mode="after")
    def _check_student(self) -> "Recipe":
        if (self.train is None) == (self.student is None):
            raise ValueError(
                "a recipe trains a student ([train]) or takes a ready one ([student]): give one of the two"
            )
        if self.index and self.index.kind == "bm25":
            raise ValueError("index.kind = bm25 holds no vectors: choose plaid, exact or faiss for the student")
        if self.train:
            self._check_training(self.train)
        return self

    @model_validator(mode="after")
    def _check_pairs(self) -> "Recipe":
        sources = [self.source, *(spec.source for spec in self.evaluate.values())]
        kind = self.train.student.kind if self.train else "dense"  # of a ready student only its files know
        if kind != "dense" and any(isinstance(source, PairSource) for source in sources):
            raise ValueError(
                "sentence pairs (source.kind = sts) are compared by one vector for each sentence, and "
                f'train.student.kind = {kind} has one for each token: set train.student.kind = "dense"'
            )
        return self

    @model_validator(mode="after")
    def _check_index(self) -> "Recipe":
        sources = [spec.source or self.source for spec in self.evaluate.values()] or [self.source]
        searched = [source.kind for source in sources if not isinstance(source, PairSource)]
        if searched and not self.index:
            raise ValueError(
                f"index is missing: the documents of source.kind = {searched[0]} are searched. Add it to the file, or "
                "--set index.kind=…"
            )
        return self

    def _check_training(self, train: TrainConfig) -> None:
        """What would otherwise be found after hours, by the step that fails."""
        if train.loss.reads in ("scores", "vectors") and not self.score and not self.mix:
            raise ValueError(
                f"train.loss.kind = {train.loss.kind} reads the {train.loss.reads} of a teacher: add [score]"
            )
        if isinstance(self.source, PairSource) and train.loss.reads != "pairs" and not self.mix:
            raise ValueError(
                f"train.loss.kind = {train.loss.kind} reads {train.loss.reads} of passages, and source.kind = "
                f'{self.source.kind} has pairs of sentences: set train.loss.kind = "cosine"'
            )
        if train.loss.reads == "pairs" and not isinstance(self.source, PairSource) and not self.mix:
            raise ValueError(
                f"train.loss.kind = {train.loss.kind} learns from pairs of sentences, and source.kind = "
                f"{self.source.kind} has none: set source.kind = sts, or another loss"
            )
        is_selected = not isinstance(self.score, ScoreFile)
        if (ways := train.draw.ways) > self.select.k and not self.mix and is_selected:
            raise ValueError(f"train.ways = {ways} passages cannot be drawn from select.k = {self.select.k}")
        if self.mine and train.loss.reads == "labels" and ways > 1 + self.mine.num_negatives:
            raise ValueError(
                f"train.ways = {ways}: a relevant passage and mine.num_negatives = {self.mine.num_negatives} others "
                "are fewer; raise mine.num_negatives, or lower train.ways"
            )
        if self.index and self.index.kind == "faiss" and train.student.kind != "dense":
            raise ValueError(
                f"index.kind = faiss cannot hold the vectors of a {train.student.kind} student: choose plaid or exact"
            )
        if self.encode.pool > 1 and train.student.kind == "dense":
            raise ValueError("encode.pool merges vectors of tokens, and a dense student has one vector: leave it out")

    @model_validator(mode="after")
    def _check_stages(self) -> "Recipe":
        if any(stage.kind == "parallel" for stage in self.translate[1:]):
            raise ValueError("translate.kind = parallel takes what the source has: make it the first of the stages")
        return self

    @model_validator(mode="after")
    def _check_questions(self) -> "Recipe":
        if self.synthesis and isinstance(self.score, ScoreFile):
            raise ValueError("score.kind = file scores the questions of the source: leave out [synthesis]")
        if self.mine and isinstance(self.score, ScoreFile):
            raise ValueError("[mine] compares a teacher's scores with those of the positives: give score.scorer")
        return self

    @model_validator(mode="after")
    def _check_passages(self) -> "Recipe":
        if self.passage_stride > self.passage_length:
            raise ValueError(
                f"passage_stride = {self.passage_stride} beyond passage_length = {self.passage_length} leaves text out"
            )
        return self

    @model_validator(mode="after")
    def _check_systems(self) -> "Recipe":
        known = [STUDENT, *([BM25] if self.measure.bm25 else [])]
        known += [UNTRAINED] if self.measure.untrained and self.train else []
        for name, spec in self.systems.items():
            if name in (STUDENT, BM25, UNTRAINED):
                raise ValueError(f"systems.{name}: this name is taken; choose another")
            if spec.rerank and spec.of not in known:
                raise ValueError(f"systems.{name}.of = {spec.of!r}: expected a system above it, {', '.join(known)}")
            if unknown := [member for member in spec.fuse if member not in known]:
                raise ValueError(
                    f"systems.{name}.fuse has {', '.join(unknown)}: expected systems above it, {', '.join(known)}"
                )
            if spec.fusion.learn and not self.validate_split:
                raise ValueError(
                    f'systems.{name}.fusion.weights = "learn" needs questions to learn from: set validate_split'
                )
            known.append(name)
        return self

    @model_validator(mode="after")
    def _check_serve(self) -> "Recipe":
        hybrid = self.serve.hybrid
        if hybrid is None:
            return self
        words = [BM25] if self.measure.bm25 else []
        words += [name for name, spec in self.systems.items() if spec.index and spec.index.kind == "bm25"]
        if hybrid.system not in words:
            raise ValueError(
                f"serve.hybrid.system = {hybrid.system!r}: expected a system with an index of words, "
                f"{', '.join(words) or 'and this recipe has none'}: set measure.bm25 = true, or add "
                "[systems.NAME] with index.kind = bm25"
            )
        if hybrid.like and not (hybrid.like in self.systems and self.systems[hybrid.like].fuse):
            raise ValueError(f"serve.hybrid.like = {hybrid.like!r}: expected a system of this recipe with fuse")
        try:
            hybrid.check_count((STUDENT, hybrid.system))
        except ValueError as error:
            raise ValueError(f"serve.hybrid.{error}") from error
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
