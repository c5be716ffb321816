"""The verb ``plan``: options in, report out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.errors import RecipeError
from pipelines.costs.cluster import Cluster, read_cluster, this_machine
from pipelines.costs.estimate import estimate_plan
from pipelines.costs.page import assumptions, cost_page, data_of
from pipelines.costs.rates import Calibration, languages_of
from pipelines.costs.sizes import parse_rows
from pipelines.verbs import Report, load_plan


@dataclass(frozen=True)
class Options:
    """What the user says: the cluster's file ("" for this machine), rows, prices, and on how many questions to measure
    first (0: not)."""

    cluster: str = ""
    rows: Sequence[str] = ()
    prices: Sequence[str] = ()
    calibrate: int = 0


def plan_costs(name: str, sets: Sequence[str], options: Options, console: Any) -> Report:
    """Estimate a recipe. Needs no data; a calibration needs those of the recipe, and runs it on a sample."""
    given = parse_rows(options.rows)
    cluster = find_cluster(options)
    if options.calibrate:
        from pipelines.costs.calibrate import calibrate

        calibrate(name, sets, options.calibrate, console)
    plan, root = load_plan(name, sets, data_needed=False)
    if unknown := set(given) - _names(plan.steps):
        raise RecipeError(
            f"--rows {min(unknown)}: no such table or step; expected docs, queries, qrels, one of these with a split "
            f"(queries.train), or a step as `babelray status {name}` prints it"
        )
    estimate = estimate_plan(plan, root, cluster, given)
    languages = languages_of(plan.steps)
    notes = assumptions(estimate, languages, Calibration.read(root))
    title = f"{plan.recipe.name} on {describe_cluster(cluster)}"
    return Report(data_of(estimate, languages, notes), cost_page(title, estimate, languages, notes))


def find_cluster(options: Options) -> Cluster:
    """The cluster that the options name. Raises RecipeError where they do not fit each other."""
    if options.cluster:
        return read_cluster(options.cluster, options.prices)
    if options.prices:
        raise RecipeError("--price says what a machine of --cluster costs: give --cluster FILE too")
    return this_machine()


def describe_cluster(cluster: Cluster) -> str:
    """``babelray: 8 × g6.2xlarge (L4), 16 × m7i.4xlarge``."""
    if cluster.is_local:
        node = cluster.workers[0]
        gpus = f", {node.gpus} × {node.gpu}" if node.gpus else ""
        return f"this machine ({node.cpus:g} CPUs, {node.instance}{gpus})"
    types = [f"{node.count} × {node.instance}{f' ({node.gpu})' if node.gpu else ''}" for node in cluster.workers]
    return f"cluster {cluster.name}: {', '.join(types)}"


def _names(steps: Sequence[Any]) -> set[str]:
    ingests = [step for step in steps if step.table and not step.rows]
    splits = {f"{step.table.name}.{getattr(step.config, 'split', '')}" for step in ingests}
    return {"docs", "queries", "qrels"} | splits | {step.name for step in ingests} | {step.id for step in ingests}
