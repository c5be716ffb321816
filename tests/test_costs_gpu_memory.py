"""The memory of a GPU that a plan says a worker takes: against hand calculation, and tensors that torch keeps."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cluster.errors import RecipeError
from marco_plans import RECIPE, three_languages
from pipelines.__main__ import app
from pipelines.costs.cluster import read_cluster
from pipelines.costs.estimate import estimate_plan
from pipelines.costs.gpu_memory import FREE, GIB, KEPT_HALF, KEPT_SINGLE, find_width
from pipelines.costs.parameters import PUBLISHED, find_parameters
from pipelines.terminal import QUIET
from pipelines.verbs import load_plan

CLUSTER = str(Path(__file__).parents[1] / "ray_cluster.yaml")
LARGE = PUBLISHED["xlm-roberta-large"]


def cluster_of(tmp_path: Path, instance: str) -> str:
    path = tmp_path / "cluster.yaml"
    path.write_text(Path(CLUSTER).read_text().replace("g6.2xlarge", instance))
    return str(path)


def estimate(tmp_path: Path, *sets: str, instance: str = "g6.2xlarge"):
    plan, root = load_plan(RECIPE, [*three_languages(tmp_path), *sets], data_needed=False)
    found = estimate_plan(plan, root, read_cluster(cluster_of(tmp_path, instance)), {})
    return {one.step.name: one for one in found.steps}


def test_weights_batches_and_optimiser_by_hand(tmp_path) -> None:
    steps = estimate(tmp_path, 'train.precision="bf16"', "train.accumulation=2")
    train = steps["train"].gpu_memory
    assert train.held["weights"] == 4 * LARGE.total
    assert train.held["gradients and optimiser"] == (4 + 8 + 4) * LARGE.total  # eight workers add theirs up
    tokens = 64 * (32 + 6 * 56 * 1.35) / 8 / 2  # of a worker and a pass
    assert train.batch["activations"] == pytest.approx(tokens * 24 * 1024 * KEPT_HALF)
    score = steps["score"].gpu_memory
    assert score.held == {"weights": 4 * PUBLISHED["bge-reranker-v2-m3"].total}
    assert score.batch["activations"] == 16_384 * 1024 * 28
    translate = steps["translate-zh"].gpu_memory
    assert translate.held == {"weights": 2 * 1.37e9}  # float16 by CTranslate2
    assert steps["encode-student-zh"].gpu_memory.batch["activations"] == 65_536 * 1024 * 28
    assert steps["index-student"].gpu_memory is None


def test_sharding_and_adapters_hold_less(tmp_path) -> None:
    whole, sharded, adapted = (
        estimate(tmp_path, *sets)["train"].gpu_memory
        for sets in (
            [],
            ["train.resources.shard=true", "train.precision=bf16"],
            ['train.adapter={kind="lora", rank=16}'],
        )
    )
    assert sharded.fixed == pytest.approx((4 + 4 + 8) * LARGE.total / 8)
    assert adapted.held["weights"] == whole.held["weights"]
    factors = 16 * 24 * (4 * (1024 + 1024) + 2 * (1024 + 4096))  # of rank 16, in and out of each linear layer
    assert adapted.held["gradients and optimiser"] == pytest.approx(16 * factors)


def test_a_contrast_holds_a_piece(tmp_path) -> None:
    sets = ['train.loss={kind="infonce"}', "train.batch=1024", "train.precision=fp32"]
    piece = estimate(tmp_path, *sets)["train"].gpu_memory
    assert piece.batch["activations"] == pytest.approx(8192 * 24 * 1024 * KEPT_SINGLE)
    assert piece.batch_keys == "train.piece_tokens"


def test_what_cannot_fit_is_an_error_that_names_the_key(tmp_path) -> None:
    words = 'precision="bf16", true_token="▁true", false_token="▁"'
    teacher = f'score.scorer={{kind="monot5", model="unicamp-dl/mt5-13b-mmarco-100k", {words}}}'
    said = r"score: a worker takes 48\.4 GiB.*L4 \(g6\.2xlarge\) has 22\.1 free"
    with pytest.raises(RecipeError, match=said) as told:
        estimate(tmp_path, teacher)
    assert "Change score.scorer.model" in str(told.value)
    assert estimate(tmp_path, teacher, instance="p5.48xlarge")["score"].gpu_memory.fixed == 4 * 13e9
    engine = 'score.scorer={kind="llm", model="Qwen/Qwen3-32B", engine={tensor_parallel=1}}'
    with pytest.raises(
        RecipeError, match=r"score\.scorer\.engine\.quantization or score\.scorer\.engine\.tensor_parallel"
    ):
        estimate(tmp_path, engine)


def test_a_batch_that_may_not_fit_is_said_and_no_error(tmp_path) -> None:
    words = ["plan", RECIPE, "--cluster", CLUSTER, "--set", "encode.batch_tokens=4000000"]
    sets = [word for override in three_languages(tmp_path) for word in ("--set", override)]
    run = CliRunner(env={**QUIET, "COLUMNS": "120"}).invoke(app, [*words, *sets])
    assert run.exit_code == 0, run.output
    (line,) = [part for part in " ".join(run.stdout.split()).split(")") if "encode-student ×2: " in part][-1:]
    assert "108.9 GiB of 22.1 free on L4" in line
    assert "may not fit: lower encode.batch_tokens" in " ".join(run.stdout.split())
    run = CliRunner(env=QUIET).invoke(app, [*words, *sets, "--json"])
    steps = {one["step"].partition("@")[0]: one for one in json.loads(run.stdout)["steps"]}
    assert steps["train"]["gpu_free_bytes"] == pytest.approx(24 * GIB * FREE)
    assert steps["encode-student-zh"]["gpu_memory_bytes"] > steps["encode-student-zh"]["gpu_free_bytes"]
    assert steps["index-bm25"]["gpu_memory_bytes"] == 0


@pytest.mark.parametrize(
    ("name", "width"), [("Qwen/Qwen3-8B", 4096), ("meta/Llama-2-13b", 5120), ("x/llama-70b", 8192)]
)
def test_widths_that_a_name_says(name, width) -> None:
    """The widths are of the published configurations."""
    assert find_width(find_parameters(name)) == pytest.approx(width, rel=0.15)


@pytest.mark.parametrize(("half", "per_token"), [(False, KEPT_SINGLE), (True, KEPT_HALF)])
def test_what_torch_keeps_of_a_pass(half, per_token) -> None:
    from transformers import BertConfig, BertModel

    layers, width, texts, length = 3, 128, 4, 50
    config = BertConfig(
        vocab_size=300, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=4 * width,
        attention_probs_dropout_prob=0.0, attn_implementation="sdpa",
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).train()
    weights = {tuple(sorted(p.shape)) for p in model.parameters()}  # and their casts
    kept: dict[int, int] = {}

    def keep(tensor):
        if tuple(sorted(tensor.shape)) not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        held.append(tensor)  # so that no address is used twice
        return tensor

    held: list[torch.Tensor] = []
    ids = torch.randint(0, 300, (texts, length))
    precision = torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext()
    with precision, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(ids, attention_mask=torch.ones_like(ids))
    assert sum(kept.values()) / (texts * length * layers * width) == pytest.approx(per_token, rel=0.1)
