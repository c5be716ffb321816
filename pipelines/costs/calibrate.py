"""``plan --calibrate N``: run the sample twice, fit the rates, keep them in ``rates.json`` below the recipe's root."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cluster import executor, session
from cluster.artifact import Artifact
from cluster.errors import RecipeError
from cluster.step import Step
from cluster.storage import Place
from pipelines.costs.cluster import NodeType, this_machine
from pipelines.costs.fit import Measured, TimedProgress, fit, read_run
from pipelines.costs.quantities import measure
from pipelines.costs.rates import Calibration, Rate, languages_of
from pipelines.costs.sample import QUARTER, Sample, find_sizes, sample_plan
from pipelines.costs.sizes import Size
from pipelines.verbs import load_plan

LEAST = 8  # questions


def calibrate(name: str, sets: Sequence[str], questions: int, console: Any) -> Calibration:
    """Measure the rates of a recipe on so many of its training questions.

    Raises:
        RecipeError: too few questions, or the recipe's data are not here.
        StepError: a step of the sample failed.
    """
    if questions < LEAST:
        raise RecipeError(
            f"--calibrate {questions}: expected {LEAST} training questions or more; a few hundred will do"
        )
    plan, root = load_plan(name, sets)
    began = time.monotonic()
    session.connect()
    ray_start = time.monotonic() - began
    node = this_machine().workers[0]
    bench = Bench(node, console, plan.recipe.environments)
    sizes = find_sizes(plan, root)
    samples = [sample_plan(plan, sizes, questions, part) for part in (QUARTER, 1)]
    place = root / "rates"
    runs = [_run_sample(sample, sizes, place / plan.recipe.name, bench) for sample in samples]
    place.delete()
    rates = _fit_by_hardware(plan.steps, runs, node)
    today = datetime.now(UTC).date().isoformat()
    calibration = Calibration(
        plan.recipe.name, questions, today, node.instance, node.gpu, round(ray_start, 2), rates
    )  # fmt: skip
    written = calibration.write(root)
    console.print(f"rates of {len(rates)} kinds of steps are in {written.redacted}", style="dim")
    return calibration


class Bench:
    """Where a sample runs, who hears of it, and the runtime environments of the recipe."""

    def __init__(self, node: NodeType, console: Any, environments: executor.Environments):
        self.node, self.console, self.environments = node, console, environments


def _fit_by_hardware(steps: Sequence[Step], runs: Sequence[dict[str, Measured]], node: NodeType) -> dict[str, Rate]:
    """Rates of steps on processors, and of steps on accelerators, each with what it was measured on."""
    languages = languages_of(steps)
    on_cpu = [step for step in steps if not step.resources.gpus]
    on_gpu = [step for step in steps if step.resources.gpus]
    return fit(on_cpu, runs, languages, node.instance) | fit(on_gpu, runs, languages, f"{node.instance} + {node.gpu}")


def _run_sample(sample: Sample, sizes: Mapping[str, Size], place: Place, bench: Bench) -> dict[str, Measured]:
    """Run a sample from nothing, and measure it."""
    place.delete()
    progress = TimedProgress(bench.console)
    executor.run(sample.targets, place, progress, environments=bench.environments)
    whole = {step.id: sizes[name] for name, step in sample.steps.items() if name in sizes}

    def size_of(step: Step) -> Size:
        rows = Artifact(place / step.id).rows
        return replace(whole[step.id], rows=rows) if step.id in whole else Size(rows, "sampled")

    amounts = measure(list(sample.steps.values()), size_of)
    return read_run(sample.steps, place, amounts, progress, bench.node)
