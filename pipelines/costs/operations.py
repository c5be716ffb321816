"""Floating point operations of a step: 2 per parameter and token that is read or written, 6 per token that is learnt
from (forward, and twice that backward; Kaplan et al. 2020, section 2.1).
"""

from dataclasses import dataclass
from typing import Any

from cluster.step import Step
from pipelines.costs.amounts import Amount
from pipelines.costs.encoders import encoder_of_step
from pipelines.costs.parameters import Parameters, find_parameters
from pipelines.costs.prices import GPUS, VCPU_PEAK
from pipelines.costs.quantities import unit_of, work_name

READING, TRAINING = 0.35, 0.30  # of the peak, where many tokens are computed at once: assumptions
WRITING = 0.05  # where tokens are written one after another, and the weights are read for each: an assumption
ON_CPU = 0.4  # of the peak of its vCPUs, in large products: an assumption
HALF = {"fp16", "bf16", "float16", "bfloat16", "int8_float16", "int8_bfloat16"}


@dataclass(frozen=True)
class Operations:
    """Operations by what they do, and the precision of the model, "half" or "single"."""

    reading: float = 0.0
    writing: float = 0.0
    training: float = 0.0
    precision: str = "single"
    parameters: Parameters | None = None

    @property
    def total(self) -> float:
        """All together."""
        return self.reading + self.writing + self.training


def operations_of(step: Step, amount: Amount) -> Operations | None:
    """The operations of a step's model; none at all where it has no model; None where the model is not known."""
    if endpoint_of(step):
        return Operations()
    if unit_of(step) == "Gflop":
        return Operations(reading=amount.units * 1e9)
    if not needs_model(step):
        return Operations()
    parameters = find_step_parameters(step)
    if parameters is None:
        return None
    precision = _precision(step)
    if work_name(step) == "train":
        return Operations(training=6 * parameters.reads * amount.read, precision=precision, parameters=parameters)
    return Operations(
        2 * parameters.reads * amount.read, 2 * parameters.writes * amount.written, 0.0, precision, parameters
    )


def component_of(step: Step) -> Any:
    """The translator, writer or scorer of a step; None of any other."""
    return next(
        (found for n in ("translator", "synthesis", "scorer") if (found := getattr(step.config, n, None))), None
    )


def endpoint_of(step: Step) -> bool:
    """Whether a service computes, not the cluster."""
    return getattr(component_of(step), "kind", "") == "openai"


def needs_model(step: Step) -> bool:
    """Whether a neural model computes in this step."""
    component = component_of(step)
    if component is not None:
        return component.kind in ("nmt", "llm", "cross_encoder", "monot5", "dense")
    if work_name(step) in ("Encode", "train", "find_examples", "correlate_pairs"):
        encoder = encoder_of_step(step)
        return encoder.parameters is not None or not encoder.is_known
    return False


def find_step_parameters(step: Step) -> Parameters | None:
    """The parameters of a step's model; None where it has none, or they are not known."""
    component = component_of(step)
    if component is None:
        return encoder_of_step(step).parameters
    if getattr(component, "recipe", ""):
        trained = next((p for path, p in step.parents.items() if path.startswith("models.")), None)
        return encoder_of_step(trained).parameters if trained else None
    return find_parameters(component)


def is_half(step: Step) -> bool:
    """Whether a step's model computes in 16 bits."""
    return _precision(step) == "half"


def _precision(step: Step) -> str:
    component = component_of(step) or getattr(step.config, "train", None) or step.config
    named = getattr(component, "compute_type", None) or getattr(component, "precision", None)
    if named is None and component is not None and getattr(component, "kind", "") == "llm":
        return "half"  # as vLLM serves it
    return "half" if named in HALF else "single"


def seconds_of(operations: Operations, cpus: float, gpus: float, gpu: str) -> float | None:
    """Seconds of one actor for these operations; None where it has a GPU of an unknown kind."""
    if not gpus:
        return operations.total / (cpus * VCPU_PEAK * ON_CPU)
    kind = GPUS.get(gpu)
    if kind is None:
        return None
    peak = gpus * (kind.half if operations.precision == "half" else kind.single)
    return (
        operations.reading / (peak * READING)
        + operations.writing / (peak * WRITING)
        + operations.training / (peak * TRAINING)
    )


def describe() -> str:
    """The assumptions, in words."""
    return (
        f"estimates: 2 operations per parameter and token (training 6), at {READING:.0%} of the peak where a model "
        f"reads, {WRITING:.0%} where it writes token by token, {TRAINING:.0%} where it learns, {ON_CPU:.0%} on "
        "processors; peaks are of data sheets"
    )
