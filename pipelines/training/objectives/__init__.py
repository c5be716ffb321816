"""Objectives: what a training learns from. The kind of its loss chooses one; see ``base.Objective``.

Importing this loads no model library.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.training.config import TrainingRun
from pipelines.training.losses import InfoNce

if TYPE_CHECKING:
    from pipelines.students.encoder import TextEncoder
    from pipelines.training.objectives.base import Objective


def build_objective(run: TrainingRun, data: Mapping[str, Mapping[str, Any]], student: "TextEncoder") -> "Objective":
    """Open the data sets, which ``check_data`` has seen, and make the objective of the run's loss."""
    from pipelines.training.objectives.base import Sampler
    from pipelines.training.objectives.contrast import Contrast
    from pipelines.training.objectives.distil import Distil

    loss, sampler = run.train.loss, Sampler.open(run, data, student)
    if isinstance(loss, InfoNce):
        return Contrast(loss, run.train, student, sampler)
    return Distil(loss, run.train, student, sampler)
