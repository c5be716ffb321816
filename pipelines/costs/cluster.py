"""The machines of a plan: those of a Ray cluster's YAML file, or this one.

A file is read as Ray's autoscaler reads it: ``available_node_types`` with the most workers of each. What a type holds
is looked up by its instance type; ``resources`` of the file say otherwise where they name a number.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.capacity import amounts
from cluster.component import Resources
from cluster.errors import RecipeError
from pipelines.costs.prices import INSTANCES, RAY_MEMORY, SPOT, Instance


@dataclass(frozen=True)
class NodeType:
    """Equal machines: at most ``count`` of them. ``price`` is in dollars per hour of one, None where it is unknown."""

    name: str
    instance: str
    count: int
    cpus: float
    memory_gb: float
    gpus: int = 0
    gpu: str = ""
    price: float | None = None
    is_spot: bool = False
    gbps: float = 10.0

    def fits(self, resources: Resources) -> int:
        """How many actors of these resources one such machine holds."""
        have = {"CPU": self.cpus, "GPU": float(self.gpus), "memory": self.memory_gb * RAY_MEMORY * 2**30}
        return int(min((have[name] + 1e-6) // amount for name, amount in amounts(resources).items()))


@dataclass(frozen=True)
class Cluster:
    """The workers, and the head, which is up all the time and does no work where it holds no CPUs."""

    name: str
    workers: tuple[NodeType, ...]
    head: NodeType | None = None
    idle_minutes: float = 0.0
    is_local: bool = False
    notes: tuple[str, ...] = ()

    @property
    def capacity(self) -> dict[str, float]:
        """What all workers together hold, by the names of Ray's resources."""
        return {
            "CPU": sum(node.count * node.cpus for node in self.workers),
            "GPU": float(sum(node.count * node.gpus for node in self.workers)),
            "memory": sum(node.count * node.memory_gb for node in self.workers) * RAY_MEMORY * 2**30,
        }

    def choose(self, resources: Resources) -> NodeType | None:
        """The machines that do a step: those with GPUs only where it asks for some, and of these the cheapest per
        actor. None where no machine holds one actor."""
        able = [node for node in self.workers if node.count and node.fits(resources)]
        if not resources.gpus:
            able = [node for node in able if not node.gpus] or able
        return min(able, key=lambda node: (node.price or 0.0) / node.fits(resources), default=None)


def this_machine() -> Cluster:
    """The machine that this process runs on, which costs nothing. Counts its CPUs and GPUs, and starts nothing."""
    from cluster.session import count_gpus

    gpus = count_gpus()
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    node = NodeType(
        "this machine", describe_cpu(), 1, len(os.sched_getaffinity(0)), pages / 2**30, gpus, _gpu_here(gpus)
    )
    return Cluster("this machine", (node,), is_local=True)


def describe_cpu() -> str:
    """The model of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _gpu_here(gpus: int) -> str:
    """The kind of this machine's first GPU; asks torch, which takes seconds, only where there is one."""
    if not gpus:
        return ""
    import torch

    return name_gpu(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else ""


def name_gpu(name: str) -> str:
    """The short name of a GPU: ``NVIDIA H100 80GB HBM3`` is an H100; as it is where it is not known."""
    from pipelines.costs.prices import GPUS

    words = name.replace("-", " ").split()
    return next((kind for kind in GPUS if kind in words), name)


def read_cluster(file: str, prices: Sequence[str] = ()) -> Cluster:
    """The cluster of a Ray cluster file. ``prices`` are ``TYPE=DOLLARS``, by instance type or by the file's own name,
    and ``spot=SHARE``: what spot machines cost, as a share of the list price.

    Raises:
        RecipeError: the file is none, a type is not known and says nothing of itself, or a price is no number.
    """
    tree = _read_file(file)
    given = parse_prices(prices)
    spot = given.pop("spot", SPOT)
    head_name = tree.get("head_node_type")
    types: Mapping[str, Any] = tree["available_node_types"]
    if head_name not in types:
        raise RecipeError(f"{file}: expected head_node_type to be one of {', '.join(types)}, got {head_name!r}")
    nodes = {name: _read_type(file, name, tree, given, spot) for name, _ in types.items()}
    if unused := set(given) - {word for node in nodes.values() for word in (node.name, node.instance)}:
        there = ", ".join(f"{node.name} ({node.instance})" for node in nodes.values())
        raise RecipeError(f"--price {min(unused)}: {file} has no such type; it has {there}")
    head = nodes.pop(str(head_name))
    workers = [node for node in nodes.values() if node.count]
    if head.cpus:  # a head that works is one machine more
        workers.insert(0, head)
    most, wanted = tree.get("max_workers"), sum(node.count for node in nodes.values())
    notes = (
        [] if most is None or wanted <= most else [f"max_workers = {most} is less than its types' {wanted} together"]
    )
    idle = float(tree.get("idle_timeout_minutes", 5))
    return Cluster(tree.get("cluster_name", Path(file).stem), tuple(workers), head, idle, notes=tuple(notes))


def parse_prices(prices: Sequence[str]) -> dict[str, float]:
    """Dollars per hour by type. Raises RecipeError for what is not ``TYPE=DOLLARS``."""
    found = {}
    for text in prices:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            found[name.strip()] = -1.0
        if not name.strip() or not 0 <= found[name.strip()] < float("inf"):
            raise RecipeError(
                f"expected --price TYPE=DOLLARS per hour, as --price g6.2xlarge=0.9776, or spot=SHARE, got {text!r}"
            )
    return found


def _read_file(file: str) -> dict[str, Any]:
    import yaml

    try:
        tree = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"--cluster {file}: cannot be read ({error.strerror}): name a Ray cluster file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"--cluster {file} is not YAML: {error}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("available_node_types"), dict):
        found = ", ".join(map(str, tree)) if isinstance(tree, dict) else type(tree).__name__
        raise RecipeError(
            f"--cluster {file}: expected a Ray cluster file with available_node_types, got {found}; ray_cluster.yaml "
            "of the repository is one"
        )
    return tree


def _read_type(file: str, name: str, tree: Mapping[str, Any], prices: Mapping[str, float], spot: float) -> NodeType:
    """One of the file's types, with its share of ``max_workers``."""
    entry: Mapping[str, Any] = tree["available_node_types"][name] or {}
    config: Mapping[str, Any] = entry.get("node_config") or {}
    instance = str(config.get("InstanceType", name))
    named: Mapping[str, Any] = entry.get("resources") or {}
    known = INSTANCES.get(instance)
    if known is None:
        if "CPU" not in named:
            raise RecipeError(
                f"{file}: {name} is a {instance}, which is not known here. Known are {', '.join(INSTANCES)}; of "
                'another say what it holds: resources: {CPU: 16, GPU: 1, memory: 68719476736, "accelerator_type:L4": 1}'
            )
        known = Instance(0, float(named.get("memory", 0)) / 2**30 / RAY_MEMORY or 1e6)
    kinds = [key.partition(":")[2] for key in named if str(key).startswith("accelerator_type:")]
    known = replace(
        known,
        cpus=float(named.get("CPU", known.cpus)),
        gpus=int(named.get("GPU", known.gpus)),
        gpu=kinds[0] if kinds else known.gpu,
    )
    is_spot = (config.get("InstanceMarketOptions") or {}).get("MarketType") == "spot"
    price = prices.get(instance, prices.get(name))
    if price is None and known.price is not None:
        price = known.price * (spot if is_spot else 1.0)
    is_head = name == tree.get("head_node_type")
    count = 1 if is_head else int(entry.get("max_workers", tree.get("max_workers", 0)))
    return NodeType(
        name, instance, count, known.cpus, known.memory_gb, known.gpus, known.gpu, price, is_spot, known.gbps
    )
