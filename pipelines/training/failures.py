"""Which failures end a training: errors that would come again at once, lost workers and nodes when there are too many
in an hour.

Ray Train's own policy counts failures over the whole run, so that a run of days on spot nodes would end with the third
node that is taken back without notice, and starts the workers again after an error that will come again. Such an error
must not be counted by the hour: where attempts last longer than ten minutes there are never six in an hour.
"""

import time
from collections.abc import Iterator
from typing import Any

from ray.exceptions import RayError
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import RayTrainError
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from cluster.errors import BabelrayError
from cluster.session import is_given

HOUR_S = 3600.0
# what code raises that would do so again in every attempt; a lost worker or connection shows as another class
RECURRING = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, TypeError, ValueError)
OUT_OF_MEMORY = "OutOfMemoryError"  # torch's, a RuntimeError


class HourlyBudget(DefaultFailurePolicy):
    """Goes on after at most ``most`` failures of workers in any hour, and after any number of announced preemptions and
    of failures of Ray Train's own that may pass (workers that could not start in time)."""

    def __init__(self, most: int):
        super().__init__(FailureConfig(max_failures=-1))
        self.most = most
        self._failures: list[float] = []

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """See ``ray.train.v2._internal.execution.failure_handling.FailurePolicy``."""
        if find_own_error(training_failed_error) or _recurs(training_failed_error):
            return FailureDecision.RAISE
        before, now = self._worker_group_failures, time.monotonic()
        decision = super().make_decision(training_failed_error)
        if self._worker_group_failures > before:
            self._failures = [moment for moment in self._failures if now - moment < HOUR_S] + [now]
            if len(self._failures) > self.most:
                return FailureDecision.RAISE
        return decision


class Trainer(TorchTrainer):
    """Ray's trainer under an ``HourlyBudget`` of ``most_failures``, for which its config has no room, and without
    helpers that have nothing to do: each is a process that imports Ray Train, 3 to 4 s of a processor."""

    most_failures = 0

    def _create_default_callbacks(self) -> list[Any]:
        unneeded: tuple[type, ...] = (DatasetsCallback,)  # the workers open their data themselves
        if not is_given():
            unneeded += (PlacementGroupCleanerCallback,)  # a Ray of our own ends with this process
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unneeded)]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        return super()._initialize_and_run_controller(**settings | {"failure_policy": HourlyBudget(self.most_failures)})


def find_own_error(error: Exception) -> BabelrayError | FloatingPointError | None:
    """The error of ours that a worker raised, if there is one: it would come again."""
    return next(
        (cause for cause in _find_causes(error) if isinstance(cause, (BabelrayError, FloatingPointError))), None
    )


def _recurs(error: Exception) -> bool:
    """Whether every attempt would end with this error: a worker raised it by itself. Where a worker was lost too, it
    may be that what the others raised follows from that."""
    causes = list(_find_causes(error))
    if any(isinstance(cause, RayError | RayTrainError) for cause in causes):
        return False
    return any(isinstance(cause, RECURRING) or type(cause).__name__ == OUT_OF_MEMORY for cause in causes)


def _find_causes(error: Exception) -> Iterator[Exception]:
    """What each failed worker raised, without Ray Train's wrapper."""
    failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else ()
    return (getattr(failure, "_base_exc", failure) for failure in failures)
