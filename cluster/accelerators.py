"""Accelerators: workers that asked for none see none, and a run that asks for more than there are ends before it
begins."""

import os
from collections.abc import Iterable

from cluster import session
from cluster.errors import StepError
from cluster.step import Step

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")  # an empty value shows none


def hide_accelerators() -> None:
    """Hide the machine's accelerators from this process and its children. Must run before torch is imported.

    Ray leaves the machine's own variables to an actor that asks for no GPU (since its change 54868), and every library
    takes a GPU where it sees one: as many actors as there are CPUs would load their models onto the first.
    """
    os.environ.update(dict.fromkeys(VISIBLE, ""))


def check_gpus(steps: Iterable[Step]) -> None:
    """Check that this machine has the GPUs that the steps which are to run ask for. Starts nothing.

    On a cluster that was there before (``RAY_ADDRESS``, a submitted job) nodes may come, so nothing is checked.

    Raises:
        StepError: a step asks for more GPUs than this machine has.
    """
    wanting = [step for step in steps if step.resources.gpus]
    if not wanting or session.is_given():
        return
    found = session.count_gpus()
    for step in wanting:
        gpus = step.resources.gpus * step.workers
        if gpus > found:
            raise StepError(
                f"step {step.name} needs {gpus:g} GPU{'s' * (gpus > 1)}, but Ray finds {found or 'none'} on this "
                f"machine. Use CPUs with --set {step.resources_key}.gpus=0, or run it on a cluster with GPUs "
                "(RAY_ADDRESS, ray job submit)"
            )
