"""Accelerators: hidden from workers that asked for none, and missed before a run begins instead of in its middle."""

import os
from collections.abc import Mapping

from cluster import session
from cluster.component import Resources
from cluster.errors import RecipeError

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")  # an empty value shows none


def hide_accelerators() -> None:
    """Hide the machine's accelerators from this process and its children. Must run before torch is imported.

    Ray leaves the machine's own variables to an actor that asks for no GPU (since its change 54868), and every library
    takes a GPU where it sees one: as many actors as there are CPUs would load their models onto the first.
    """
    os.environ.update(dict.fromkeys(VISIBLE, ""))


def check_gpus(resources: Mapping[str, Resources]) -> None:
    """Check that this machine has the GPUs that steps ask for, by the name of each in the recipe. Starts nothing.

    On a cluster that was there before (``RAY_ADDRESS``, a submitted job) nodes may come, so nothing is checked.

    Raises:
        RecipeError: a step asks for more GPUs per worker than this machine has.
    """
    if session.is_given():
        return
    wanted = {name: r.gpus for name, r in resources.items() if r.gpus > 0}
    if not wanted:
        return
    found = session.count_gpus()
    for name, gpus in wanted.items():
        if gpus > found:
            raise RecipeError(
                f"{name}.gpus = {gpus:g}, but Ray finds {found or 'no'} GPU{'s' * (found > 1)} on this machine. "
                f"Use CPUs with --set {name}.gpus=0, or run it on a cluster with GPUs (RAY_ADDRESS, ray job submit)"
            )
