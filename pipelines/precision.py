"""Numeric precision: the key that decides which numbers a model computes.

    fp32   everything in 32 bits
    bf16   matrix products in bfloat16 (8 bits of precision, the range of fp32)
    fp16   matrix products in float16 (11 bits of precision, values up to 65,504)

Weights stay in float32 and are cast where they are used (torch's autocast); where nothing is trained, those of linear
layers are cast once (``cast_weights``), which gives the same numbers. A recipe may say "auto"; what enters a
step's config, and thus its fingerprint, is what ``resolve`` made of it at planning, so that one table never holds the
numbers of two precisions. Importing this loads no torch.
"""

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from cluster.component import Component

Precision = Literal["fp32", "bf16", "fp16"]
Wanted = Literal["auto", "fp32", "bf16", "fp16"]
AnyComponent = TypeVar("AnyComponent", bound=Component)

AUTO: Final = "auto"
# What a processor needs for bf16 to pay. On an AMD EPYC with avx512_bf16 MiniLM encodes 1.7 times as many passages a
# second as in fp32 (tests/benchmarks/bench_encode.py); AMX was not measured with it. Other processors emulate bf16: a
# product of matrices takes an AMD EPYC with avx2 alone 7 to 9 times as long as in fp32.
BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})


def resolve(wanted: Wanted, gpus: float) -> Precision:
    """What "auto" is for a model that encodes or scores; any other value is itself.

    With a GPU float16: its 11 bits keep rankings, where bfloat16 with SDPA costs about 1 % nDCG (sentence-transformers
    6 backend documentation). On a CPU bfloat16 where this machine's processor computes with it, else float32. The
    machine that plans decides for those that work.
    """
    if wanted != "auto":
        return wanted
    if gpus > 0:
        return "fp16"
    return "bf16" if BF16_FLAGS & cpu_flags() else "fp32"


def resolve_for_training(wanted: Wanted, gpus: float) -> Precision:
    """What "auto" is for a student that learns; any other value is itself.

    As ``resolve``, but bfloat16 on a GPU too: it has the range of float32, so that no gradient overflows.
    """
    return "bf16" if wanted == "auto" and gpus > 0 else resolve(wanted, gpus)


def require_resolved(wanted: Wanted) -> Precision:
    """A precision that planning has resolved. Raises ValueError for "auto", which must not reach a model."""
    if wanted == "auto":
        raise ValueError(
            'precision = "auto" depends on the machine: resolve it with pipelines.precision.with_precision'
        )
    return wanted


def resolve_compute_type(wanted: str, gpus: float) -> str:
    """The same for CTranslate2's name of a precision: float16 on a GPU, float32 on a CPU, where the library has no
    other floating point. Integers change translations more, and are never chosen for you."""
    if wanted != AUTO:
        return wanted
    return "float16" if gpus > 0 else "float32"


def with_precision(component: AnyComponent, gpus: float) -> AnyComponent:
    """The component, and those ``of`` an ensemble, with ``precision`` or ``compute_type`` resolved for actors with
    ``gpus`` GPUs each."""
    update: dict[str, Any] = {}
    if getattr(component, "precision", None) == AUTO:
        update["precision"] = resolve(AUTO, gpus)
    if getattr(component, "compute_type", None) == AUTO:
        update["compute_type"] = resolve_compute_type(AUTO, gpus)
    members = _members(component)
    if members != (resolved := tuple(with_precision(member, gpus) for member in members)):
        update["of"] = resolved
    return component.model_copy(update=update) if update else component


def refuse_auto(component: Component, key: str) -> None:
    """Raise ValueError where ``component``, at ``key`` of a step's config, still says "auto"."""
    for name in ("precision", "compute_type"):
        if getattr(component, name, None) == AUTO:
            raise ValueError(
                f'{key}.{name} = "auto" depends on the machine and cannot name a table: resolve it first with '
                "pipelines.precision.with_precision"
            )
    for number, member in enumerate(_members(component)):
        refuse_auto(member, f"{key}.of.{number}")


def _members(component: Component) -> tuple[Component, ...]:
    """The components that an ensemble is made of; of others none."""
    members = getattr(component, "of", ())
    return members if isinstance(members, tuple) else ()


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """The instruction sets of this machine's processor as Linux names them; none elsewhere."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())


def cast_weights(model: Any, precision: Precision, keep: Collection[str] = ()) -> None:
    """Store the weights of a model's linear layers in ``precision``, in place, as autocast would cast them at every
    call. For inference alone, under ``autocast``: an optimiser needs float32. Layers that are named in ``keep``, and
    those that share their weights with an embedding, stay as they are."""
    if precision == "fp32":
        return
    import torch

    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, torch.nn.Embedding)}
    for name, part in model.named_modules():
        if type(part) is torch.nn.Linear and name not in keep and id(part.weight) not in embeddings:
            part.to(_dtype(precision))


def autocast(device_type: str, precision: Precision) -> AbstractContextManager[Any]:
    """A context in which torch computes with this precision on ``device_type`` ("cpu" or "cuda")."""
    if precision == "fp32":
        return nullcontext()
    import torch

    return torch.autocast(device_type, dtype=_dtype(precision))


def _dtype(precision: Precision) -> Any:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
