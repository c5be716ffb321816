"""What a training run is: the student, the loss, the batches, the optimiser. Importing this loads no model library."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from cluster.component import NOT_CONTENT, Component, Resources, Speed
from pipelines.precision import AUTO, Wanted, resolve_for_training
from pipelines.students import AnyStudent, Dense, LateInteraction
from pipelines.students.adapter import Lora
from pipelines.students.base import Task
from pipelines.training.batches import Draw, Mixing, Sampling
from pipelines.training.losses import AnyLoss, KullbackLeibler
from pipelines.training.meta.config import Meta


class TrainResources(Resources):
    """How a training is spread. ``workers`` share each batch; gradients are summed over them, so a change moves the
    weights by rounding, and draws other masks of dropout, and changes nothing else. A pair is the fewest and the most:
    training goes on with as many as there is room for, and takes more when nodes come (looked at once a minute).
    """

    workers: int | tuple[int, int] = 1
    threads: int | None = Field(None, ge=1)  # of one worker; None: the node's cores, divided by its workers
    shard: bool = False  # weights and optimiser divided over the workers, where the student is too large for one
    failures: int = Field(5, ge=0)  # workers or nodes lost within one hour, from which training goes on

    @field_validator("workers")
    @classmethod
    def _ordered(cls, workers: int | tuple[int, int]) -> int | tuple[int, int]:
        fewest, most = workers if isinstance(workers, tuple) else (workers, workers)
        if not 1 <= fewest <= most:
            raise ValueError(f"expected a number of workers from 1, or the fewest and the most of them, got {workers}")
        return workers

    @property
    def fewest_workers(self) -> int:
        """The smallest number of workers with which training begins."""
        return self.workers[0] if isinstance(self.workers, tuple) else self.workers

    @property
    def most_workers(self) -> int:
        """The largest number of workers at once."""
        return self.workers[1] if isinstance(self.workers, tuple) else self.workers


class Validation(Component):
    """How the student is measured while it learns: nDCG@20 of dev queries over a pool of dev documents in all
    languages, searched exactly. The pool keeps every relevant document and fills up with others, always the same. Where
    it learns from sentence pairs: the mean of Pearson's correlations on ``max_queries`` dev pairs, in and across all
    languages."""

    every: int = Field(500, ge=1)  # steps
    max_docs: int = Field(2000, ge=1)
    max_queries: int = Field(200, ge=1)


class TrainConfig(Component):
    """The defaults are those of MTD as released: AdamW without decay, warm-up or schedule, gradients clipped at 2,
    64 queries a step, 6 of 50 passages each.

    ``batch`` counts queries, of all workers together; round_robin_entries makes ``languages`` entries of each. With
    ``meta`` it counts meta-tasks.
    ``lr_groups`` gives parameters whose name contains the key another learning rate.
    ``ways`` passages of each query are drawn: 6, or 2 where round_robin_entries repeats them in every language. 1 is
    the relevant passage alone, whose negatives are the passages of the batch's other queries.
    ``examples`` bounds the queries that are learnt from, of all data sets of a mixture together: each gives as many as
    any other, and what a small one lacks the others give, so that mixtures of few and of many members are compared at
    equal size. Which they are is drawn by ``seed``; more of them hold the fewer ones.
    ``consistency`` weighs the language-consistency term of round-robin batches (``losses.language_consistency``). With
    n languages the released code has (n − 1) / ((n + 1) · ways): 0.25 for three languages and two ways.
    ``repetition`` changes nothing but the artifact: equal trainings with other numbers are made apart and compared,
    with another number of workers say.
    """

    student: AnyStudent
    after: Annotated[str, NOT_CONTENT] = ""  # the recipe whose best student takes the first step; it is an input
    adapter: Lora | None = None  # trains little of the base; None: all of the student
    loss: AnyLoss = KullbackLeibler()
    meta: Meta | None = None  # episodes around a loss on labels; None: batches of queries
    consistency: float = Field(0.0, ge=0)
    mixing: Mixing = "mix_passages"
    sampling: Sampling = "random"
    steps: int = Field(200_000, ge=1)
    examples: int | None = Field(None, ge=1)
    batch: int = Field(64, ge=1)
    ways: int = Field(default_factory=lambda chosen: 2 if chosen["mixing"] == "round_robin_entries" else 6, ge=1)
    pool: int = Field(50, ge=2)
    lr: float = Field(5e-6, gt=0)
    lr_groups: dict[str, float] = {}
    weight_decay: float = Field(0.0, ge=0)
    warmup: int = Field(0, ge=0)  # steps
    schedule: Literal["none", "linear", "cosine"] = "none"
    clip: float = Field(2.0, gt=0)
    dropout: float | None = Field(None, ge=0, lt=1)  # of the base's layers while it trains; None: as its files say
    # pieces that a worker cuts its share of a batch into, to save memory. A Speed, since it does what ``workers`` does:
    # it adds the same gradients up in another order, under other masks of dropout. So a training that ran out of memory
    # goes on from its last checkpoint with more pieces; one that is not changed resumes to the bit, as ever
    accumulation: Speed = Speed(1)
    # an in-batch contrast, and an imitation of vectors, cut their share by themselves into pieces of at most so many
    # tokens, padding included: this bounds their memory. 8,192 are 45 passages of 180 tokens, about 2.5 GB of
    # activations of a small transformer (MiniLM) in fp32
    piece_tokens: Speed = Speed(8192)
    precision: Wanted = "fp32"  # "auto": bf16 where the machine that plans computes with it, else fp32
    validation: Validation = Validation()
    # steps; a validation makes a checkpoint as well. It is stored while training goes on, so that a lost node costs at
    # most these steps and those that were taken while the last one was stored
    checkpoint_every: Speed = Speed(1000)
    seed: int = Field(12345, ge=0, lt=2**63)
    repetition: int = Field(0, ge=0)
    resources: TrainResources = TrainResources()

    @model_validator(mode="after")
    def _fits(self) -> "TrainConfig":
        if self.ways > self.pool:
            raise ValueError(f"ways = {self.ways} passages cannot be drawn from a pool of {self.pool}")
        if self.ways == 1 and not getattr(self.loss, "in_batch", False):
            raise ValueError(
                f"ways = 1 is a passage alone, and loss.kind = {self.loss.kind} compares it with no others: expected "
                "at least 2, or a loss on labels with in_batch = true"
            )
        if self.consistency and self.mixing != "round_robin_entries":
            raise ValueError("consistency compares languages within a query: it needs mixing = round_robin_entries")
        if self.consistency and self.loss.reads != "scores":
            raise ValueError(f"consistency is a term of distillation: loss.kind = {self.loss.kind} has none")
        if self.adapter and self.student.kind == "lexical":
            raise ValueError("adapter: student.kind = lexical has no base with linear layers; leave out train.adapter")
        if self.loss.reads in ("pairs", "vectors") and self.student.kind != "dense":
            raise ValueError(
                f"loss.kind = {self.loss.kind} compares one vector for each text, and student.kind = "
                f'{self.student.kind} has one for each token: set train.student.kind = "dense"'
            )
        if self.warmup > self.steps:
            raise ValueError(f"warmup = {self.warmup} is longer than the training of {self.steps} steps")
        if (dim := _find_dim(self.student)) is not None:
            self.loss.check_dim(dim)
        if getattr(self.loss, "distance", "score") == "euclidean" and self.student.kind != "dense":
            raise ValueError(
                f"loss.distance = euclidean is between two vectors, and student.kind = {self.student.kind} has one for "
                "each token: set loss.distance = score"
            )
        if self.meta:
            self._check_meta(self.meta)
        if (most := self.resources.most_workers) > self.batch:
            raise ValueError(f"{most} workers cannot share a batch of {self.batch} queries")
        if self.resources.shard:
            self._check_sharding(self.resources.workers)
        return self

    def _check_meta(self, meta: Meta) -> None:
        """An episode is sets of triplets or of pairs, whose loss is taken with the weights of an inner loop."""
        loss = self.loss
        if loss.reads == "pairs":
            if meta.reads_nearest or loss.dims or getattr(loss, "pairs", "both") != "both":
                raise ValueError(
                    "meta draws pairs at random, in the languages of its tasks: leave out meta.sampling, "
                    "meta.negatives, loss.pairs and loss.dims"
                )
        elif loss.reads != "labels" or getattr(loss, "in_batch", True) or loss.reads_teacher or loss.dims:
            raise ValueError(
                "meta compares a question with the passages of its own triplet: expected loss.kind = triplet or "
                f"infonce with in_batch = false, without dims and a teacher's false_negatives, got {loss!r}; or "
                "cosine, for sentence pairs"
            )
        if self.precision == "fp16" or self.resources.shard:
            raise ValueError(
                "meta has an inner loop, in which fp16 underflows and no weights are divided: choose "
                "precision = fp32 or bf16, and leave out resources.shard"
            )
        if meta.differentiates_twice and self.precision not in ("fp32", AUTO):
            raise ValueError(
                f"meta.order = 2 differentiates twice, precision = {self.precision} is too coarse: set fp32"
            )

    def _check_sharding(self, workers: int | tuple[int, int]) -> None:
        """Workers that hold one student together take the same passes through it (see ``sharding``)."""
        if isinstance(workers, tuple) or self.batch % workers:
            raise ValueError(
                f"resources.shard needs a fixed number of workers with equal shares of a batch, got workers = "
                f"{workers} and batch = {self.batch}: let batch be a multiple of workers"
            )
        if self.adapter or self.student.kind == "lexical" or self.precision == "fp16":
            raise ValueError(
                "resources.shard divides a whole transformer: leave it out with train.adapter, student.kind = lexical "
                "and precision = fp16"
            )

    def resolve_precision(self) -> "TrainConfig":
        """The same training with the precision that "auto" is on this machine."""
        if self.precision != AUTO:
            return self
        twice = self.meta is not None and self.meta.differentiates_twice
        precision = "fp32" if twice else resolve_for_training(AUTO, self.resources.gpus)
        return self.model_copy(update={"precision": precision})

    @property
    def draw(self) -> Draw:
        """How passages are drawn."""
        return Draw(self.mixing, self.ways, self.pool, self.sampling)


def _find_dim(student: AnyStudent) -> int | None:
    """The dimension of a student's vectors; None where its checkpoint alone knows."""
    return getattr(student.base, "hidden", None) if isinstance(student, Dense) else student.dim


class Prompts(Component):
    """What stands before the texts of a data set while the student learns from it, in the place of the student's own
    prefix. None: the student's own."""

    query: str | None = None
    document: str | None = None

    @property
    def by_task(self) -> Mapping[Task, str]:
        """Those that are given."""
        prompts: dict[Task, str | None] = {"query": self.query, "document": self.document}
        return {task: prompt for task, prompt in prompts.items() if prompt is not None}


class TrainingRun(Component):
    """The config of the step *train*: the training, and how its data sets are mixed.

    Each batch is drawn from one data set, with a probability that is proportional to
    share · (number of its queries)^(1 / ``temperature``). ``shares`` names every data set; ``prompts`` those that have
    prompts of their own.
    ``first`` says which student of the input ``start`` takes the first step: the one that the step *start* made, or the
    ``best`` of another training.
    """

    train: TrainConfig
    shares: dict[str, float] = {"main": 1.0}
    prompts: dict[str, Prompts] = {}
    temperature: float = Field(1.0, gt=0)
    first: Literal["start", "best"] = "start"

    @field_validator("shares")
    @classmethod
    def _positive(cls, shares: dict[str, float]) -> dict[str, float]:
        if not shares or min(shares.values()) <= 0:
            raise ValueError(f"expected a positive share of each data set, got {shares}")
        return shares

    @field_validator("train")
    @classmethod
    def _resolved(cls, train: TrainConfig) -> TrainConfig:
        if train.precision == AUTO:
            raise ValueError(
                'train.precision = "auto" depends on the machine: call TrainConfig.resolve_precision first'
            )
        return train

    @model_validator(mode="after")
    def _check_prompts(self) -> "TrainingRun":
        if unknown := sorted(set(self.prompts) - set(self.shares)):
            raise ValueError(f"prompts of {unknown[0]!r}, which is none of the data sets {', '.join(self.shares)}")
        if isinstance(student := self.train.student, LateInteraction):
            markers: dict[Task, str] = {"query": student.query_marker, "document": student.doc_marker}
            for name, prompts in self.prompts.items():
                for task, prompt in prompts.by_task.items():
                    if not prompt.startswith(markers[task]):
                        raise ValueError(
                            f"{name}: the prompt {prompt!r} takes the place of the student's marker of a {task}: begin "
                            f"it with {markers[task]!r}"
                        )
        return self
