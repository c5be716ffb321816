"""How much memory of a GPU a worker of a step takes, and whether its GPU has that much.

What no batch changes (weights; of a training gradients and the optimiser's state) follows from the number of
parameters: where that alone is too much, the plan is an error. What the batch changes (activations, the cache of a
language model) is an estimate: where it is too much with it, the plan says so and goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import RecipeError
from cluster.step import Step
from pipelines.costs.amounts import Amount
from pipelines.costs.operations import component_of, endpoint_of, find_step_parameters, is_half, needs_model
from pipelines.costs.parameters import Parameters
from pipelines.costs.prices import GPUS
from pipelines.costs.quantities import work_name

if TYPE_CHECKING:
    from pipelines.costs.estimate import StepEstimate

GIB = 2.0**30
FREE = 0.92  # of a GPU's memory: the rest is taken by its error correction, the driver and the libraries
# of a layer's width, for each token and layer: what a training keeps of a pass until it goes back. Counted with torch's
# saved_tensors_hooks on a BERT with fused attention (tests/test_costs_gpu_memory.py); in half with the float32 copies
# that autocast makes
KEPT_SINGLE, KEPT_HALF = 74.0, 46.0
COMPUTED_SINGLE, COMPUTED_HALF = 44.0, 28.0  # without gradients: the inner layer twice and three of the width
BATCH_TOKENS = {"cross_encoder": 16_384, "monot5": 16_384}  # of a scorer's batch; of encoders:
ENCODER_TOKENS = 65_536
GROUPED = 0.25  # of the heads of a language model those whose keys are kept: an assumption
MODEL_LEN = 8192  # tokens of a prompt and its answer, where engine.max_model_len does not say: an assumption
BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int16": 2.0}  # of a weight of CTranslate2 and vLLM


@dataclass(frozen=True)
class GpuMemory:
    """Bytes of each GPU of a worker by what takes them: ``held`` whatever its batch, and ``batch``. The keys are those
    of the recipe that change each of the two. ``share`` is how much of the GPU the worker may take."""

    held: Mapping[str, float]
    batch: Mapping[str, float]
    held_keys: str
    batch_keys: str
    share: float = 1.0

    @property
    def fixed(self) -> float:
        """Whatever the batch."""
        return sum(self.held.values())

    @property
    def total(self) -> float:
        """All together."""
        return self.fixed + sum(self.batch.values())


def measure_gpu_memory(step: Step, amount: Amount) -> GpuMemory | None:
    """The memory of a worker of a step; None where it has no GPU or no model, or nothing is known of the model."""
    gpus = step.resources.gpus
    if not gpus or endpoint_of(step) or not needs_model(step):
        return None
    parameters = find_step_parameters(step)
    if parameters is None:
        return None
    component = component_of(step)
    kind = getattr(component, "kind", "")
    share = min(1.0, gpus)
    if work_name(step) == "train":
        return _of_training(step, amount, parameters, share)
    if kind == "llm":
        return _of_language_model(step, component, parameters, share)
    if kind == "nmt":
        return _of_translator(component, parameters, share)
    return _of_encoder(step, parameters, share)


def check_gpu_memory(steps: "Sequence[StepEstimate]") -> None:
    """Raises RecipeError where a step that is to be done does not fit the GPUs of its machines, whatever its batch."""
    for one in steps:
        memory, free = one.gpu_memory, free_memory(one)
        if one.state == "to do" and one.node and memory and free and memory.fixed > free:
            raise RecipeError(
                f"{one.step.name}: a worker takes {memory.fixed / GIB:.1f} GiB of a GPU whatever its batch "
                f"({_list(memory.held)}), and {one.node.gpu} ({one.node.instance}) has {free / GIB:.1f} free. Change "
                f"{memory.held_keys}, or name a node type with larger GPUs in --cluster"
            )


def free_memory(one: "StepEstimate") -> float:
    """Bytes of a GPU that a worker of the step may take; 0 where its kind is not known."""
    kind = GPUS.get(one.node.gpu) if one.node else None
    if kind is None or one.gpu_memory is None:
        return 0.0
    return kind.memory_gb * GIB * FREE * one.gpu_memory.share


def describe_gpu_memory(groups: "Sequence[tuple[str, Sequence[StepEstimate]]]") -> list[str]:
    """A line for each group of equal steps that has a GPU."""
    lines = []
    for name, (one, *_) in groups:
        if one.state != "to do" or one.gpu_memory is None:
            continue
        memory, free = one.gpu_memory, free_memory(one)
        has = f" of {free / GIB:.1f} free on {one.node.gpu}" if one.node and free else ""
        line = f"  {name}: {memory.total / GIB:.1f} GiB{has} ({_list({**memory.held, **memory.batch})})"
        lines.append(line + (f"; may not fit: lower {memory.batch_keys}" if 0 < free < memory.total else ""))
    return ["memory that a worker takes of a GPU, estimated:", *lines] if lines else []


def _list(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items() if size)


def describe() -> str:
    """The assumptions, in words."""
    return (
        f"memory of GPUs: of data sheets, {FREE:.0%} of it free. Weights are float32 where torch holds them; a "
        "training has as much again for gradients, twice for AdamW, and once more where workers add gradients up. "
        f"Activations are {KEPT_HALF:g} bytes for each token, layer and unit of width in half precision "
        f"({KEPT_SINGLE:g} in single) where a model learns, {COMPUTED_HALF:g} ({COMPUTED_SINGLE:g}) for one layer "
        "where it does not, without padding. A language model keeps keys and values of a quarter of its heads, for one "
        f"prompt of {MODEL_LEN:,} tokens where engine.max_model_len says nothing; of one that is known by its name "
        "alone the width is a guess"
    )


def find_width(parameters: Parameters) -> float:
    """The width of a model's layers. Of a model whose number of parameters alone is known it follows from
    12 · layers · width² with 128 of width to a layer, as language models of 1 to 70 billion about have."""
    if parameters.origin.startswith("the name"):
        return float((parameters.reads * 128 / 12) ** (1 / 3))
    return float(parameters.dim)


def _of_training(step: Step, amount: Amount, parameters: Parameters, share: float) -> GpuMemory:
    config: Any = step.config.train  # type: ignore[attr-defined]
    workers = step.workers
    divided = workers if config.resources.shard else 1
    trained = _count_trained(config, parameters)
    weights = 4 * parameters.total / divided
    summed = 4 if workers > 1 and divided == 1 else 0  # the sum, beside the own gradients
    states = (4 + 8 + summed) * trained / divided
    half = config.precision != "fp32"
    cast = 2 * parameters.reads if half else 0.0
    tokens = amount.read / config.steps / workers / int(config.accumulation)
    cut_by_tokens = getattr(config.loss, "in_batch", False) or config.loss.reads == "vectors"
    if cut_by_tokens:
        tokens = min(tokens, float(int(config.piece_tokens)))
    kept = _per_token(parameters, KEPT_HALF if half else KEPT_SINGLE) * tokens
    return GpuMemory(
        {"weights": weights, "gradients and optimiser": states},
        {"casts": cast, "activations": kept},
        "train.resources (shard = true, more workers), train.adapter or train.student",
        "train.piece_tokens" if cut_by_tokens else "the batch of a pass (raise train.accumulation)",
        share,
    )


def _count_trained(config: Any, parameters: Parameters) -> float:
    """Parameters that are trained: all, or the factors of an adapter on the linear layers, whose inputs and outputs are
    18 times the width in each layer."""
    if not config.adapter:
        return parameters.total
    width = find_width(parameters)
    return config.adapter.rank * 18 * width * parameters.reads / (12 * width**2)


def _of_encoder(step: Step, parameters: Parameters, share: float) -> GpuMemory:
    component = component_of(step)
    source = component if component is not None else step.config
    key = "score.scorer.batch_tokens" if component is not None else "encode.batch_tokens"
    tokens = getattr(source, "batch_tokens", None) or BATCH_TOKENS.get(getattr(component, "kind", ""), ENCODER_TOKENS)
    weights = 4 * parameters.total
    computed = int(tokens) * find_width(parameters) * (COMPUTED_HALF if is_half(step) else COMPUTED_SINGLE)
    model = "score.scorer.model" if component is not None else "the model that encodes"
    return GpuMemory({"weights": weights}, {"activations": computed}, model, key, share)


def _of_translator(component: Any, parameters: Parameters, share: float) -> GpuMemory:
    """CTranslate2: weights as it stores them; of a batch keys and values of the decoder, for each beam."""
    weights = BYTES.get(component.compute_type, 1.0 if component.compute_type.startswith("int8") else 4.0)
    cached = int(component.max_batch_tokens) * component.beam * _per_token(parameters, 2 * 2 * 2.0)
    held = weights * parameters.total
    keys = "translate.model or translate.compute_type"
    return GpuMemory({"weights": held}, {"keys and values": cached}, keys, "translate.max_batch_tokens", share)


def _of_language_model(step: Step, component: Any, parameters: Parameters, share: float) -> GpuMemory:
    """vLLM: weights over ``tensor_parallel`` GPUs, and the cache that one prompt takes; it needs both in the share of
    the memory that it is given."""
    engine = component.engine
    per_weight = 1.0 if engine.quantization else BYTES.get(engine.dtype, 2.0)
    spread = int(engine.tensor_parallel)
    weights = per_weight * parameters.total / spread
    length = engine.max_model_len or MODEL_LEN
    cache = 2 * 2 * GROUPED * _per_token(parameters, 1.0) * length / spread
    role = {"Score": "score.scorer", "Synthesise": "synthesis"}.get(work_name(step), "translate")
    keys = f"{role}.model, {role}.engine.quantization or {role}.engine.tensor_parallel"
    share *= engine.gpu_memory_utilization
    return GpuMemory({"weights": weights}, {"cache of a prompt": cache}, keys, f"{role}.engine.max_model_len", share)


def _per_token(parameters: Parameters, of_width: float) -> float:
    """Bytes of all layers for a token, given those for each unit of width of one layer."""
    width = find_width(parameters)
    layers = parameters.reads / (12 * width**2) if width else 0.0
    return of_width * width * layers
