"""What "auto" becomes, and which device a process may use."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from cluster.component import Component, fingerprint
from pipelines import devices, precision
from pipelines.encode import EncodeConfig
from pipelines.plan.training import plan_training
from pipelines.precision import Precision, Wanted, autocast, cast_weights, resolve, resolve_for_training, with_precision
from pipelines.recipe import load
from pipelines.students import Dense, Lexical
from pipelines.students.checkpoint import Checkpoint
from pipelines.training.config import TrainConfig, TrainingRun


class Model(Component):
    precision: Wanted = "fp32"
    compute_type: str = "float32"


@pytest.mark.parametrize(
    ("find", "flags", "gpus", "resolved"),
    [
        (resolve, {"avx2", "avx512f"}, 0, "fp32"),
        (resolve, {"avx512_bf16"}, 0, "bf16"),
        (resolve, {"amx_bf16", "amx_tile"}, 0, "bf16"),
        (resolve, {"avx2"}, 1, "fp16"),
        (resolve, {"amx_bf16"}, 0.25, "fp16"),
        (resolve_for_training, {"avx2"}, 0, "fp32"),
        (resolve_for_training, {"amx_bf16"}, 0, "bf16"),
        (resolve_for_training, {"avx2"}, 1, "bf16"),
        (resolve_for_training, {"avx2"}, 0.5, "bf16"),
    ],
)
def test_auto_is_what_the_machine_computes_best(
    find: Callable[[Wanted, float], Precision],
    flags: set[str],
    gpus: float,
    resolved: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A training is never resolved to fp16, which needs a loss scale."""
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))
    assert find("auto", gpus) == resolved
    for named in ("fp32", "bf16", "fp16"):
        assert find(named, gpus) == named


@pytest.mark.parametrize(("flags", "resolved"), [({"avx2"}, "fp32"), ({"amx_bf16"}, "bf16")])
def test_a_plan_names_the_precision_of_a_training(
    flags: set[str], resolved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same artifact as of a recipe that says the precision, and another where the processor is another."""
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))
    auto, named = (plan_training(load("atlas", [f'train.precision="{wanted}"'])).train for wanted in ("auto", resolved))
    assert auto.config.train.precision == resolved
    assert auto.id == named.id


def test_a_gradient_through_gradients_is_computed_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"amx_bf16"}))
    meta = {"mode": "mono_bil_multi", "order": 2}
    loss = {"kind": "triplet", "in_batch": False}
    config = TrainConfig(student=Dense(base=Checkpoint(model="m")), loss=loss, meta=meta, precision="auto")  # type: ignore[arg-type]
    assert config.resolve_precision().precision == "fp32"
    first = config.model_copy(update={"meta": config.meta.model_copy(update={"order": 1})})  # type: ignore[union-attr]
    assert first.resolve_precision().precision == "bf16"


def test_the_step_of_a_training_refuses_a_precision_that_is_not_resolved() -> None:
    with pytest.raises(ValueError, match=r'precision = "auto" depends on the machine'):
        TrainingRun(train=TrainConfig(student=Lexical(words=None), precision="auto"))


def test_the_flags_are_those_of_this_processor() -> None:
    flags = precision.cpu_flags()
    if sys.platform == "linux" and flags:
        assert ("avx512_bf16" in flags) == torch.cpu._is_avx512_bf16_supported()


def test_components_are_resolved_for_their_resources() -> None:
    auto = Model(precision="auto", compute_type="auto")
    assert with_precision(auto, gpus=1) == Model(precision="fp16", compute_type="float16")
    assert with_precision(auto, gpus=0).compute_type == "float32"
    assert with_precision(auto, gpus=0).precision == resolve("auto", 0)
    named = Model(precision="bf16", compute_type="int8")
    assert with_precision(named, gpus=1) is named
    plain = Component()
    assert with_precision(plain, gpus=1) is plain


def test_precision_names_the_vectors_and_the_batch_does_not() -> None:
    config = EncodeConfig(role="docs", model="m")
    with pytest.raises(ValueError, match="'fp32', 'bf16' or 'fp16'"):
        EncodeConfig(role="docs", model="m", precision="auto")  # type: ignore[arg-type]
    assert fingerprint(config) != fingerprint(config.model_copy(update={"precision": "bf16"}))
    assert fingerprint(config) == fingerprint(EncodeConfig(role="docs", model="m", batch_tokens=9))


@pytest.mark.parametrize(
    ("wanted", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_computes_products_in_the_precision(wanted: Precision, dtype: torch.dtype) -> None:
    with autocast("cpu", wanted):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize("wanted", ["bf16", "fp16"])
def test_weights_that_are_cast_once_give_the_numbers_of_autocast(wanted: Precision) -> None:
    torch.manual_seed(0)
    table, head, last = torch.nn.Embedding(9, 16), torch.nn.Linear(16, 9, bias=False), torch.nn.Linear(9, 1)
    head.weight = table.weight  # tied, as in language models
    model = torch.nn.Sequential(table, torch.nn.Linear(16, 16), torch.nn.GELU(), torch.nn.LayerNorm(16), head, last)
    ids = torch.arange(9)
    with torch.inference_mode(), autocast("cpu", wanted):
        before = model(ids)
        cast_weights(model, wanted, keep=["5"])
        after = model(ids)
    assert torch.equal(before, after)
    dtypes = [str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()]
    half = "bfloat16" if wanted == "bf16" else "float16"
    assert dtypes == ["float32", half, half, "float32", "float32", "float32", "float32"]
    cast_weights(last, "fp32")
    assert last.weight.dtype == torch.float32


def test_a_hidden_gpu_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.device() == "cuda"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert devices.device() == "cuda"
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert devices.device() == "cpu"


def test_importing_them_loads_no_torch() -> None:
    names = ", ".join(f"pipelines.{name}" for name in ("precision", "devices", "batching", "text"))
    code = f"import sys, {names}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
