"""Rates: how long a step takes per unit, with where that is known from.

    run          a finished step of the same work and config, by its manifest
    calibration  ``rates.json``, measured on a sample (``pipelines.costs.sample``)
    estimate     floating point operations, or seconds per row as measured on two CPUs (``BASIC``)

A rate of one language serves the others: its key is the step's name without language, its work, and its config without
languages, places and lengths of training. A rate that was measured on another accelerator is not used; one of another
processor is, and the assumptions say so.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cluster.artifact import MANIFEST, Artifact, Manifest
from cluster.component import canonical, fingerprint
from cluster.errors import RecipeError
from cluster.step import Step
from cluster.storage import Place
from pipelines.costs.amounts import Amount, Amounts
from pipelines.costs.cluster import NodeType, name_gpu
from pipelines.costs.operations import Operations, endpoint_of, operations_of, seconds_of
from pipelines.costs.prices import GPUS
from pipelines.costs.quantities import index_kind, unit_of, work_name

FILE = "rates.json"
Origin = Literal["run", "calibration", "estimate", "endpoint", "unknown"]
VARIES = ("lang", "source_lang", "target_lang", "query_lang", "doc_lang", "content", "split", "splits", "queries")
VARIES_IN_TRAINING = ("steps", "warmup", "validation", "seed")

POOL_S = 3.0  # to start a pool of actors on two CPUs
WORDS_S = 60.0  # to read the vectors of a student's words from its base, where it learns words from documents
BYTES_PER_S = 0.5e9  # at which weights are loaded: an assumption
SAVED_PER_S = 0.2e9  # at which checkpoints are written: an assumption
# Seconds of one vCPU per unit of what has no model. Measured: ingest, join, merge, bm25, exact and evaluate by
# tests/benchmarks/bench_basic_rates.py; gates as in docs/results.md, PLAID as in docs/index.md, build_start by runs of
# `small` and `xquad`. Others are assumptions.
BASIC = {
    "IngestDocs": 4e-5, "IngestQueries": 1e-5, "IngestQrels": 2e-5, "JoinTranslations": 5e-5, "Gate": 1e-3,
    "build_index:bm25": 2.4e-4, "build_index:exact": 1.6e-4, "MergeScores": 5e-4, "evaluate": 2e-3,
    "build_start": 3.5e-4, "Search:bm25": 5e-8,
    "Search:plaid": 2e-6, "search_shards": 2e-6, "Search:exact": 1.8e-5, "Search:faiss": 6e-4,
    # assumptions
    "ReadScores": 1e-3, "Keep": 1e-4, "Cap": 1e-4, "WithPositives": 1e-3, "MineNegatives": 1e-2, "Synthesise": 1e-3,
    "Encode": 1e-3, "Score": 1e-4, "train": 0.2, "build_index:faiss": 1e-3, "find_examples": 0.1,
    "build_matrix": 0.1, "Fuse": 4e-3, "learn_weights": 5e-3,
}  # fmt: skip


@dataclass(frozen=True)
class Rate:
    """Seconds of a step: ``fixed_s`` once (the pool, a model's loading), ``task_s`` of each part, ``unit_s`` of each
    unit, on one actor. ``bytes_per_row`` and ``bytes_fixed`` of what it keeps, where that was measured. ``note`` says
    what a person should know of this rate."""

    fixed_s: float
    task_s: float
    unit_s: float
    origin: Origin
    hardware: str = ""
    bytes_per_row: float | None = None
    bytes_fixed: float = 0.0
    note: str = ""

    def seconds(self, amount: Amount) -> float:
        """Seconds at work, of all actors together, without what is fixed. Of a training, whose workers do everything at
        once, the seconds of all of them; each stop is a task."""
        return self.task_s * amount.extra.get("stops", amount.tasks) + self.unit_s * amount.units


@dataclass
class Calibration:
    """What ``rates.json`` holds: rates by key, and the machine on which they were measured."""

    recipe: str
    rows: int
    measured: str
    cpu: str
    accelerator: str
    ray_start_s: float
    rates: dict[str, Rate] = field(default_factory=dict)

    def write(self, root: Place) -> Place:
        """Write it below the recipe's root; returns where."""
        (root / FILE).write(json.dumps(asdict(self), indent=1, ensure_ascii=False).encode())
        return root / FILE

    @classmethod
    def read(cls, root: Place) -> "Calibration | None":
        """Read it; None where there is none. Raises RecipeError where it is not as this version writes it."""
        if not (root / FILE).exists():
            return None
        try:
            tree = json.loads((root / FILE).read())
            return cls(**{**tree, "rates": {key: Rate(**rate) for key, rate in tree["rates"].items()}})
        except (ValueError, TypeError, KeyError) as error:
            raise RecipeError(
                f"{(root / FILE).redacted} cannot be read ({error}): delete it, or measure again with --calibrate"
            ) from error


def languages_of(steps: Iterable[Step]) -> set[str]:
    """The languages that names of steps hold."""
    fields = ("lang", "target_lang", "source_lang", "doc_lang", "query_lang")
    return {str(getattr(step.config, name)) for step in steps for name in fields if getattr(step.config, name, None)}


def strip_languages(name: str, languages: Iterable[str]) -> str:
    """``translate-queries-zh`` becomes ``translate-queries``."""
    either = "|".join(re.escape(lang) for lang in sorted(languages, key=len, reverse=True))
    return re.sub(rf"-(?:{either})(?=-|$)", "", name) if either else name


def key_of(step: Step, languages: Iterable[str]) -> str:
    """The key of a step's rate."""
    config: Any = {k: v for k, v in canonical(step.config).items() if k not in VARIES}
    if "train" in config:
        config["train"] = {k: v for k, v in config["train"].items() if k not in VARIES_IN_TRAINING}
    if "source" in config:
        config["source"] = config["source"]["kind"]
    return f"{strip_languages(step.name, languages)} {work_name(step)} {fingerprint(config)}"


class Rates:
    """Finds the rate of each step of a plan."""

    def __init__(self, steps: Sequence[Step], amounts: Amounts, root: Place):
        self.languages = languages_of(steps)
        self.calibration = Calibration.read(root)
        self.done: dict[str, Manifest] = {}
        self.runs: dict[str, Rate] = {}
        for step in steps:
            if (root / step.id / MANIFEST).exists():
                manifest = self.done[step.id] = Artifact(root / step.id).manifest
                rate = _rate_of_run(step, amounts[step.id], manifest)
                if rate:
                    self.runs[key_of(step, self.languages)] = rate

    def find(self, step: Step, amount: Amount, node: NodeType) -> Rate:
        """The rate of a step on machines of this type."""
        key = key_of(step, self.languages)
        wanted = node.gpu if step.resources.gpus else ""
        measured = (self.runs.get(key), self.calibration.rates.get(key) if self.calibration else None)
        for rate in measured:
            if rate and (_accelerator(rate) == wanted or not wanted):
                return rate
        return estimate(step, amount, node)


def _accelerator(rate: Rate) -> str:
    return rate.hardware.partition(" + ")[2]


def _rate_of_run(step: Step, amount: Amount, manifest: Manifest) -> Rate | None:
    """The rate of a finished step. Its seconds of work are those of its manifest."""
    if not amount.units or not manifest.seconds:
        return None
    accelerator = next((name_gpu(s["accelerator"]) for s in manifest.software if "accelerator" in s), "")
    hardware = f"a machine of an earlier run + {accelerator}" if accelerator else "a machine of an earlier run"
    fixed = POOL_S if step.table else 0.0
    return Rate(fixed, 0.0, manifest.seconds / amount.units, "run", hardware)


def estimate(step: Step, amount: Amount, node: NodeType) -> Rate:
    """A rate from operations, or from what the work took on two CPUs."""
    operations = operations_of(step, amount)
    hardware = f"{node.instance} + {node.gpu}" if step.resources.gpus else node.instance
    if operations is None:
        return Rate(0.0, 0.0, 0.0, "unknown", hardware)
    origin: Origin = "endpoint" if endpoint_of(step) else "estimate"
    seconds = _model_seconds(step, amount, operations, node)
    if seconds is None:
        return Rate(0.0, 0.0, 0.0, "unknown", hardware)
    fixed = POOL_S + (4 * operations.parameters.total / BYTES_PER_S if operations.parameters else 0.0)
    if work_name(step) == "build_start" and amount.rows:
        fixed += WORDS_S
    if step.table is None and work_name(step) not in ("train", "build_start"):
        fixed = POOL_S if amount.tasks else 0.0
    stop = _stop_seconds(step, operations) / amount.extra.get("stop_size", 1.0)
    return Rate(fixed, stop, seconds, origin, hardware, note=_note(step, operations, node))


def _model_seconds(step: Step, amount: Amount, operations: Operations, node: NodeType) -> float | None:
    """Seconds per unit: of the model, and of what is done around it."""
    units = max(amount.units, 1.0)
    resources = step.resources
    if operations.total:
        cpus = min(resources.cpus, node.cpus)
        seconds = seconds_of(operations, cpus * step.workers, resources.gpus * step.workers, node.gpu)
        return None if seconds is None else max(seconds / units, _exchange_seconds(step, operations, node))
    return BASIC.get(work_name(step)) or BASIC.get(f"{work_name(step)}:{index_kind(step)}") or 1e-3


def _exchange_seconds(step: Step, operations: Operations, node: NodeType) -> float:
    """Of one training step: the gradients, float32, around a ring (each sends and receives them almost twice), of the
    GPUs of a machine and of the machines. They travel while others are computed, so that the longest counts."""
    if unit_of(step) != "steps" or not operations.parameters or not step.resources.gpus:
        return 0.0
    machines = -(-step.workers // max(1, node.fits(step.resources)))
    here = -(-step.workers // machines)
    sent = 2 * 4 * operations.parameters.total
    within = sent * (here - 1) / here / GPUS[node.gpu].link
    return max(within, sent * (machines - 1) / machines * 8 / (node.gbps * 1e9))


def _note(step: Step, operations: Operations, node: NodeType) -> str:
    """Says where a training waits for its gradients."""
    exchange = _exchange_seconds(step, operations, node)
    resources = step.resources
    computing = seconds_of(operations, resources.cpus, resources.gpus * step.workers, node.gpu) if exchange else None
    if computing is None or exchange <= computing / step.config.train.steps:  # type: ignore[attr-defined]
        return ""
    every = computing / step.config.train.steps  # type: ignore[attr-defined]
    return (
        f"{step.name} waits for gradients: a step computes {every:.2f} s and adds up gradients of "
        f"{4 * operations.parameters.total / 1e9:.2f} GB in {exchange:.2f} s"  # type: ignore[union-attr]
    )


def _stop_seconds(step: Step, operations: Operations) -> float:
    """Of a checkpoint: weights and the two moments of the optimiser, in float32."""
    if unit_of(step) != "steps" or not operations.parameters:
        return 0.0
    return 3 * 4 * operations.parameters.total / SAVED_PER_S
