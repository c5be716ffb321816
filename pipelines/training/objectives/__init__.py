"""Objectives: what a training learns from. The kind of its loss chooses one, or ``[train.meta]``; see
``base.Objective``.

Importing this loads no model library.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cluster.errors import RecipeError
from pipelines.training.config import TrainingRun
from pipelines.training.losses import Cosine, InfoNce, TeacherVectors, Triplet

if TYPE_CHECKING:
    from pipelines.students.encoder import TextEncoder
    from pipelines.training.objectives.base import Objective


def build_objective(
    run: TrainingRun, data: Mapping[str, Mapping[str, Any]], student: "TextEncoder"
) -> "Objective[Any]":
    """Open the data sets, which ``check_data`` has seen, and make the objective of the run's loss.

    Raises:
        RecipeError: the loss cuts vectors to more dimensions than the student's have.
        StepError: there are fewer questions than an episode of a meta-learning needs.
    """
    from pipelines.training.objectives.base import Sampler
    from pipelines.training.objectives.contrast import Contrast
    from pipelines.training.objectives.distil import Distil
    from pipelines.training.objectives.similarity import Similarity, open_pair_sampler
    from pipelines.training.objectives.vectors import Imitation, open_vector_sampler

    try:
        run.train.loss.check_dim(student.dim)
    except ValueError as error:
        raise RecipeError(f"train.{error}") from error
    if run.train.meta:
        from pipelines.training.meta.objective import open_meta

        return open_meta(run, data, student)
    loss = run.train.loss
    if isinstance(loss, Cosine):
        return Similarity(loss, run.train, student, open_pair_sampler(run, data, student, loss.pairs))
    if isinstance(loss, TeacherVectors):
        return Imitation(loss, run.train, student, open_vector_sampler(run, data, student, loss.original))
    sampler = Sampler.open(run, data, student)
    if isinstance(loss, InfoNce | Triplet):
        return Contrast(loss, run.train, student, sampler)
    return Distil(loss, run.train, student, sampler)
