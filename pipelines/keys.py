"""Keys of endpoints: looked for where a run is started, before anything of it runs.

A key stands in an environment variable that the recipe names (``api_key_env``). Workers that Ray starts here inherit
it; those of a cluster have it from the node, or from the runtime environment of the step. Without this look a run would
end at the first translation, after hours of other steps.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from cluster.errors import RecipeError
from cluster.step import Step
from pipelines.engines.endpoint import Endpoint
from pipelines.tree import walk

Environments = Mapping[str, Mapping[str, Any]]


def find_lacking_keys(steps: Iterable[Step], environments: Environments) -> dict[str, str]:
    """The environment variables that steps ask endpoints with, and that are neither set here nor in ``env_vars`` of the
    step's runtime environment, by the ids of the steps."""
    lacking = {}
    for step in steps:
        given = environments.get(step.resources.environment, {}).get("env_vars", {})
        for _, endpoint in walk(step.config, Endpoint):
            name = endpoint.api_key_env
            if name and not (os.environ.get(name) or given.get(name)):
                lacking[step.id] = name
    return lacking


def check_keys(missing: Iterable[Step], lacking: Mapping[str, str]) -> None:
    """Raise RecipeError where a step that is to run lacks its key."""
    for step in missing:
        if step.id in lacking:
            raise RecipeError(
                f"step {step.name}: api_key_env = {lacking[step.id]!r}, but this environment variable is not set here. "
                f"Set it where the run is started, and on the nodes of a cluster: export {lacking[step.id]}=…"
            )
