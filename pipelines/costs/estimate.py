"""The estimate of a plan: what each step takes on a cluster, when it runs, and what all of it costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cluster.artifact import Artifact
from cluster.executor import find_missing
from cluster.step import Step
from cluster.storage import Place
from pipelines.costs.amounts import Amount, Amounts
from pipelines.costs.cluster import Cluster, NodeType
from pipelines.costs.gpu_memory import GpuMemory, check_gpu_memory, measure_gpu_memory
from pipelines.costs.prices import GB_MONTH, GET_PRICE, PUT_PRICE
from pipelines.costs.quantities import measure
from pipelines.costs.rates import Rate, Rates
from pipelines.costs.schedule import Load, Turn, machine_seconds, simulate
from pipelines.costs.sizes import Size, find_size
from pipelines.costs.storage import Requests, bytes_of, endpoint_requests, requests_of
from pipelines.plan import Plan


@dataclass(frozen=True)
class StepEstimate:
    """What one step takes. ``state`` is "done", "to do", or why it cannot be estimated. ``seconds`` is its share of
    the time of its turn; ``dollars`` is None where a price is unknown, ``node`` where no machine holds an actor, and
    ``gpu_memory`` where it takes none or its model is not known."""

    step: Step
    amount: Amount
    rate: Rate
    state: str
    bytes: float = 0.0
    requests: Requests = Requests(0, 0)
    asked: float = 0.0  # of an endpoint
    seconds: float = 0.0
    gpu_hours: float = 0.0
    actors: int = 0
    dollars: float | None = 0.0
    node: NodeType | None = None
    gpu_memory: GpuMemory | None = None


@dataclass(frozen=True)
class Estimate:
    """All steps, and the run as a whole. ``machine_hours`` includes idle machines; the head is up all the time."""

    steps: tuple[StepEstimate, ...]
    turns: tuple[Turn, ...]
    cluster: Cluster
    seconds: float
    machine_hours: Mapping[NodeType, float]
    sizes: Sequence[tuple[str, Size]] = field(default_factory=list)

    @property
    def machine_dollars(self) -> float | None:
        """Of all machines with the head; None where a price is unknown."""
        paid = dict(self.machine_hours)
        if self.cluster.head and not self.cluster.head.cpus:
            paid[self.cluster.head] = self.seconds / 3600
        if self.cluster.is_local or any(node.price is None for node, hours in paid.items() if hours):
            return None
        return sum(hours * (node.price or 0.0) for node, hours in paid.items())

    @property
    def request_dollars(self) -> float:
        """Of the object store's requests."""
        puts, gets = (sum(getattr(s.requests, kind) for s in self.steps) for kind in ("puts", "gets"))
        return puts * PUT_PRICE + gets * GET_PRICE

    @property
    def stored_bytes(self) -> float:
        """Of all artifacts when the run is done."""
        return sum(step.bytes for step in self.steps)

    @property
    def storage_dollars(self) -> float:
        """Per month, of all artifacts."""
        return self.stored_bytes / 1e9 * GB_MONTH


def estimate_plan(plan: Plan, root: Place, cluster: Cluster, given: Mapping[str, int]) -> Estimate:
    """Estimate what is missing of a plan. ``given`` holds rows by name, as the user says them.

    Raises:
        RecipeError: the rows of a source are not known, or a step cannot fit the GPUs of its machines.
    """
    steps = plan.steps
    sizes: dict[str, Size] = {}

    def size_of(step: Step) -> Size:
        return sizes.setdefault(step.id, find_size(step, root, given))

    amounts = measure(steps, size_of)
    rates = Rates(steps, amounts, root)
    missing = find_missing(plan.targets, root)
    described = [(step.name, sizes[step.id]) for step in steps if step.id in sizes]
    ray_start = rates.calibration.ray_start_s if rates.calibration and cluster.is_local and missing else 0.0
    estimate = assemble(steps, missing, amounts, rates, Surroundings(cluster, root, described, ray_start))
    check_gpu_memory(estimate.steps)
    return estimate


@dataclass(frozen=True)
class Surroundings:
    """What an estimate is made for: the cluster, the root, the sizes of what is ingested, seconds to start Ray."""

    cluster: Cluster
    root: Place
    sizes: Sequence[tuple[str, Size]] = ()
    ray_start_s: float = 0.0


def assemble(
    steps: Sequence[Step], missing: Sequence[Step], amounts: Amounts, rates: Rates, around: Surroundings
) -> Estimate:
    """The estimate, from what each step handles and the rates."""
    cluster = around.cluster
    to_do = {step.id for step in missing}
    found: dict[str, StepEstimate] = {}
    loads: dict[str, Load] = {}
    for step in steps:
        node = cluster.choose(step.resources)
        found[step.id] = _estimate_step(step, amounts[step.id], rates, node, around.root, step.id in to_do)
        if step.id in to_do:
            loads[step.id] = _load(found[step.id], node or _stand_in(step))
    turns = simulate(missing, loads, cluster, around.ray_start_s)
    for turn in turns:
        for step in turn.steps:
            found[step.id] = _add_turn(found[step.id], turn, turn.share(step, loads))
    seconds = max((turn.end_s for turn in turns), default=0.0)
    hours = {node: paid / 3600 for node, paid in machine_seconds(turns, cluster.idle_minutes * 60).items()}
    return Estimate(
        tuple(found.values()), tuple(turns), cluster, seconds, hours  , around.sizes
    )  # fmt: skip


def _stand_in(step: Step) -> NodeType:
    """Stands for the machines of a step that no machine of the cluster holds."""
    return NodeType("none", "none", 0, 0, 0)


def _estimate_step(
    step: Step, amount: Amount, rates: Rates, node: NodeType | None, root: Place, is_missing: bool
) -> StepEstimate:
    """A step before its turn is known."""
    if step.id in rates.done:
        kept = float(sum(size for _, size, _ in (root / step.id).files()))
        manifest = Artifact(root / step.id).manifest
        return StepEstimate(step, amount, Rate(0, 0, manifest.seconds, "run"), "done", kept)
    if not is_missing:
        return StepEstimate(step, amount, Rate(0, 0, 0, "run"), "not needed")
    rate = rates.find(step, amount, node or _stand_in(step))
    state = "to do"
    if node is None:
        state = "fits no machine"
    elif rate.origin == "unknown":
        state = "not known: calibrate"
    size = bytes_of(step, amount)
    if rate.bytes_per_row is not None:
        size = rate.bytes_fixed + rate.bytes_per_row * amount.rows
    return StepEstimate(
        step, amount, rate, state, size, requests_of(step, amount, size), endpoint_requests(step, amount),
        node=node, gpu_memory=measure_gpu_memory(step, amount),
    )  # fmt: skip


def _load(estimate: StepEstimate, node: NodeType) -> Load:
    amount, rate = estimate.amount, estimate.rate
    work = rate.seconds(amount)
    serial = work * amount.serial
    return Load(rate.fixed_s, work, amount.tasks, node, serial)


def _add_turn(estimate: StepEstimate, turn: Turn, share: float) -> StepEstimate:
    """With the step's share of its turn."""
    seconds = turn.seconds * share
    gpus = estimate.step.resources.gpus * turn.actors
    price = turn.node.price
    dollars = None if price is None else seconds / 3600 * turn.machines * price
    return replace(
        estimate, seconds=seconds, gpu_hours=gpus * seconds / 3600, actors=turn.actors, dollars=dollars
    )  # fmt: skip
