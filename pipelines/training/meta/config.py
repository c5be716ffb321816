"""The table ``[train.meta]``: which meta-tasks a training learns from, and how it learns to learn from them."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cluster.component import Component
from cluster.errors import RecipeError
from pipelines.training.meta.specs import Mode, Spec, list_tasks, parse, split_tasks

Algorithm = Literal["finetune", "maml", "maml_align"]
Negatives = Literal["random", "easy", "semi_hard", "hard"]
Codes = Annotated[
    tuple[str, ...], BeforeValidator(lambda codes: tuple(codes.split(",")) if isinstance(codes, str) else codes)
]


class Meta(Component):
    """Episodes around the loss (MAML-Align, arXiv 2309.08185). ``train.batch`` counts meta-tasks.

    ``tasks`` are specifications (see ``specs``); or ``mode`` makes them of ``languages`` (none: ``languages.docs``).
    ``support`` and ``queries`` are the questions of the support set and of each query set; a question has a triplet for
    each language of its passages. ``neighbours`` is how many of the nearest questions ``sampling = similar`` chooses
    from. ``negatives`` are random, or ``hard`` (nearer than the relevant passage to the base student), ``semi_hard``
    (farther by less than ``negative_margin``), or ``easy`` (by more), among the ``candidates`` nearest passages.

    Where the loss is ``cosine``, episodes are of sentence pairs: a part of a specification is the language of the left
    sentence, and those of the right one; ``support`` and ``queries`` count pairs.

    ``order`` 2 takes the gradient through the inner steps, 1 as if they had moved the weights by a constant
    (first-order MAML, Finn et al. 2017, section 5.2). ``kd_weight`` is λ. ``kd_target`` says what is distilled.
    ``loss``: the squared difference of the summed losses of teacher and student (the released code). ``logits``: the KL
    divergence of the softmax over the passages of the first query set, whose scores are divided by ``kd_temperature``;
    for pairs the mean squared difference of their cosines. ``embeddings``: the mean squared difference of the vectors
    of that set's texts. ``student_adapts``: the student has an inner loop of its own, on the first query set (the
    paper's text); the released code has none. ``learners`` has the formulas.
    """

    version: ClassVar[int] = 2  # sparse gradients of word vectors are added up as they are

    algorithm: Algorithm = "maml_align"
    tasks: Annotated[tuple[str, ...], BeforeValidator(split_tasks)] = ()
    mode: Mode | None = None
    languages: Codes = ()
    support: int = Field(8, ge=1)
    queries: int = Field(4, ge=1)
    sampling: Literal["random", "similar"] = "random"
    neighbours: int = Field(5, ge=1)
    negatives: Negatives = "random"
    negative_margin: float = Field(0.2, ge=0)  # in units of the distance (see ``nearest``)
    candidates: int = Field(1000, ge=2)
    inner_steps: int = Field(5, ge=1)
    inner_lr: float = Field(1e-3, gt=0)
    order: Literal[1, 2] = 1
    kd_weight: float = Field(0.5, ge=0)
    kd_target: Literal["loss", "logits", "embeddings"] = "loss"
    kd_temperature: float = Field(0.05, gt=0)
    student_adapts: bool = False

    @field_validator("tasks")
    @classmethod
    def _check_tasks(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        for position, task in enumerate(tasks):
            try:
                parse(task)
            except (ValueError, RecipeError) as error:
                raise RecipeError(f"train.meta.tasks[{position}]: {error}") from error
        return tasks

    @model_validator(mode="after")
    def _check_choice(self) -> "Meta":
        if bool(self.tasks) == (self.mode is not None):
            raise ValueError('give tasks, as ["el_el-el_ar-el_ar,el,hi"], or a mode, one of the two')
        if self.languages and not self.mode:
            raise ValueError("languages are those of a mode: leave them out beside tasks")
        if self.mode and self.languages:
            list_tasks(self.mode, self.languages)
        if self.algorithm == "maml_align" and self.mode not in (None, "mono_bil_multi"):
            raise ValueError(
                f"mode = {self.mode} has one query set: maml_align aligns two, as mono_bil_multi has; or choose "
                "algorithm = maml"
            )
        for position, spec in enumerate(self.specs):
            if self.algorithm == "maml_align" and len(spec.queries) != 2:
                raise RecipeError(
                    f"train.meta.tasks[{position}]: {str(spec)!r} has one query set: maml_align aligns two, "
                    "support-query-query2; or choose algorithm = maml"
                )
        return self

    @property
    def specs(self) -> tuple[Spec, ...]:
        """The specifications of ``tasks``."""
        return tuple(map(parse, self.tasks))

    @property
    def differentiates_twice(self) -> bool:
        """Whether gradients go through the gradients of an inner loop."""
        return self.algorithm != "finetune" and self.order == 2

    @property
    def reads_nearest(self) -> bool:
        """Whether episodes are drawn by the vectors of the student that training begins with."""
        return self.sampling == "similar" or self.negatives != "random"

    def resolve(self, docs: tuple[str, ...], *, is_of_pairs: bool = False) -> "Meta":
        """This table with its tasks spelled out, where the student reads passages, or the sentences of pairs, in the
        languages ``docs``.

        Raises:
            RecipeError: the mode asks for more languages, or a task names a language that is not read.
        """
        chosen = self.languages or docs
        try:
            tasks = list_tasks(self.mode, chosen) if self.mode else self.tasks
        except ValueError as error:
            raise RecipeError(f"train.meta.{error}") from error
        for position, spec in enumerate(map(parse, tasks)):
            named = [code for part in spec.parts for code in (*part.docs, *([part.query] if is_of_pairs else []))]
            if unread := [code for code in named if code not in docs]:
                what = "sentences" if is_of_pairs else "passages"
                raise RecipeError(
                    f"train.meta.tasks[{position}]: {str(spec)!r} has {what} in {unread[0]}, and languages.docs are "
                    f"{', '.join(docs)}: add it there, or change the task"
                )
        return Meta(**{**dict(self), "tasks": tasks, "mode": None, "languages": ()})
