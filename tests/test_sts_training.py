"""Training on sentence pairs: the loss against sentence-transformers, languages drawn, workers, pieces, validation."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from scipy import stats
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from torch.multiprocessing import spawn

from artifacts import table_artifact
from cluster.errors import RecipeError, StepError
from pipelines.students import load_encoder
from pipelines.tables import PAIRS
from pipelines.training.config import Validation
from pipelines.training.losses import Cosine
from pipelines.training.objectives.base import Pass
from pipelines.training.validate_pairs import PairPool
from pipelines.training.workers import GradientSum, Workers
from toy import assert_same_gradient, gradients_of, make_loop
from toy_pairs import CONFIG, LANGS, PLAIN, SIZES, make_pairs, open_pair_corpus

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture(scope="module")
def inputs(root):
    return make_pairs(root)


@pytest.fixture(scope="module")
def corpus(inputs):
    return open_pair_corpus(inputs)


@pytest.fixture(scope="module")
def rows(inputs):
    """The training pairs by language and id."""
    pairs = inputs["data"]["main"]["pairs"]
    return {lang: {row["pair_id"]: row for row in of.read().to_pylist()} for lang, of in pairs.items()}


def loop_of(student, inputs, workers=None, **changes):
    return make_loop(CONFIG.model_copy(update=changes), student, inputs, workers)


def pairs_of(share, rows):
    """The two sentences and the gold score of each pair of a share."""
    entries = [entry for group in share.groups for entry in group]
    left = [rows[e.query_lang][e.query_id]["left"] for e in entries]
    right = [rows[e.langs[0]][e.doc_ids[0]]["right"] for e in entries]
    return left, right, [rows["en"][e.query_id]["score"] / 5 for e in entries]


@pytest.mark.parametrize("languages", ["mono", "cross", "both"])
def test_loss_and_gradient_are_those_of_sentence_transformers(corpus, inputs, rows, languages):
    student = PLAIN.build(corpus, 0)
    loop = loop_of(student, inputs, loss=Cosine(pairs=languages))
    found, share, gradient = gradients_of(loop, 3)
    left, right, gold = pairs_of(share, rows)
    features = [student.model.preprocess(texts, prompt=None, task="query") for texts in (left, right)]
    value = CosineSimilarityLoss(student.model)(features, torch.tensor(gold))
    value.backward()
    expected = torch.cat([p.grad.flatten() for p in student.model.parameters() if p.grad is not None])
    own = torch.cat([g.flatten() for g in _by_parameter(student, gradient)])
    student.model.zero_grad()
    assert found == pytest.approx(float(value.detach()), rel=1e-5)
    assert_same_gradient(own, expected, 1e-5)


def _by_parameter(student, gradient):
    """The parts of a gradient of all parameters that the other library's has too."""
    parts = gradient.split([p.numel() for p in student.model.parameters()])
    pairs = list(zip(student.model.parameters(), parts, strict=True))
    assert all(float(part.abs().max()) == 0 for p, part in pairs if p.grad is None)
    return [part for p, part in pairs if p.grad is not None]


def test_the_loss_of_cut_vectors_is_the_weighted_mean(corpus, inputs, rows):
    student = PLAIN.build(corpus, 0)
    found, share, _ = gradients_of(loop_of(student, inputs, loss=Cosine(dims=(32, 8), dim_weights=(1, 3))))
    left, right, gold = pairs_of(share, rows)
    x, y = (np.concatenate(student.encode_queries(texts)) for texts in (left, right))
    losses = []
    for dim in (32, 8):
        a, b = x[:, :dim], y[:, :dim]
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        losses.append(np.mean((cosines - gold) ** 2))
    assert found == pytest.approx((losses[0] + 3 * losses[1]) / 4, rel=1e-5)


def test_pairs_come_in_epochs_and_languages_as_the_key_says(corpus, inputs):
    student = PLAIN.build(corpus, 0)
    steps = SIZES["train"] * 3 // 4  # of 8 pairs: 6 epochs
    for languages, allowed in (
        ("mono", {(a, a) for a in LANGS}),
        ("cross", {(a, b) for a in LANGS for b in LANGS if a != b}),
        ("both", {(a, b) for a in LANGS for b in LANGS}),
    ):
        objective = loop_of(student, inputs, loss=Cosine(pairs=languages)).objective
        shares = [objective.share(number, 0, 1) for number in range(steps)]
        entries = [entry for share in shares for group in share.groups for entry in group]
        assert set(Counter(e.query_id for e in entries).values()) == {6}
        drawn = Counter((e.query_lang, e.langs[0]) for e in entries)
        assert set(drawn) == allowed
        expected = len(entries) / len(allowed)
        assert stats.chisquare(list(drawn.values()), [expected] * len(allowed)).pvalue > 1e-3
        assert all(e.query_id == e.doc_ids[0] for e in entries)


def test_a_batch_is_a_function_of_seed_and_number(corpus, inputs):
    student = PLAIN.build(corpus, 0)
    objective = loop_of(student, inputs).objective
    forwards = [objective.share(number, 0, 1) for number in range(12)]
    resumed = loop_of(student, inputs).objective
    for number in (11, 4, 7):  # by seeking, in any order
        share = resumed.share(number, 0, 1)
        assert share.groups == forwards[number].groups
        assert share.digest() == forwards[number].digest()
        parts = [resumed.share(number, rank, 3) for rank in range(3)]
        assert [group for n in range(8) for group in [parts[n % 3].groups[n // 3]]] == list(share.groups)
        assert sum(part.digest() for part in parts) == share.digest()
    other = loop_of(student, inputs, seed=1).objective
    assert other.share(0, 0, 1).groups != forwards[0].groups


def compute(rank, world, directory, inputs):
    """One worker of ``world``: the loss and the gradient, written by the first."""
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", f"file://{directory}/meet", rank=rank, world_size=world)
    loop = loop_of(load_encoder(directory / "student", "cpu"), inputs, Workers(rank, world))
    loss, _, gradient = gradients_of(loop)
    dev = PairPool(inputs["dev"]["pairs"], Validation(max_queries=11))
    measured = dev.evaluate(loop.student, loop.workers.gather, rank, world)
    if rank == 0:
        torch.save((loss, gradient, measured), directory / f"of-{world}.pt")
    if world > 1:
        torch.distributed.destroy_process_group()


def test_the_parts_of_two_workers_add_up_to_the_whole_in_any_pieces(corpus, inputs):
    student = PLAIN.build(corpus, 0)
    whole, _, gradient = gradients_of(loop_of(student, inputs))
    for pieces in (1, 3):
        objective = loop_of(student, inputs, accumulation=pieces).objective
        parameters = list(student.model.parameters())
        step = Pass(
            Workers(), torch.amp.GradScaler("cpu", enabled=False), GradientSum(parameters, Workers()), pieces=pieces
        )
        parts = [float(objective.backward(objective.share(0, rank, 2), step)) for rank in range(2)]
        found = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        student.model.zero_grad()
        assert sum(parts) == pytest.approx(whole, rel=1e-6)
        assert_same_gradient(found, gradient, 1e-5)


def test_two_workers_measure_what_one_does(corpus, inputs):
    student = PLAIN.build(corpus, 0)
    pool = PairPool(inputs["dev"]["pairs"], Validation(max_queries=11))
    values, meet = {}, Barrier(2)

    def work(rank):
        def gather(value):
            values[rank] = value
            meet.wait()
            return [values[0], values[1]]

        return pool.evaluate(student, gather, rank, 2)

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(work, range(2)))
    assert found == pytest.approx([pool.evaluate(student, lambda value: [value])] * 2, abs=1e-6)


@pytest.mark.slow
def test_two_processes_change_rounding_only(corpus, inputs, tmp_path):
    PLAIN.build(corpus, 0).save(tmp_path / "student")
    compute(0, 1, tmp_path, inputs)
    spawn(compute, (2, tmp_path, inputs), nprocs=2)
    one, two = (torch.load(tmp_path / f"of-{world}.pt") for world in (1, 2))
    assert two[0] == pytest.approx(one[0], rel=1e-6)
    assert_same_gradient(two[1], one[1], 1e-6)
    assert two[2] == pytest.approx(one[2], abs=1e-6)


def test_validation_is_the_mean_of_pearson_over_language_pairs(corpus, inputs):
    student = PLAIN.build(corpus, 0)
    pool = PairPool(inputs["dev"]["pairs"], Validation(max_queries=1000))
    rows = {lang: of.read().to_pylist() for lang, of in inputs["dev"]["pairs"].items()}
    encoded = {
        (lang, side): np.concatenate(student.encode_queries([row[side] for row in of]))
        for lang, of in rows.items()
        for side in ("left", "right")
    }
    gold = [row["score"] for row in rows["en"]]
    expected = np.mean(
        [stats.pearsonr((encoded[a, "left"] * encoded[b, "right"]).sum(1), gold)[0] for a in LANGS for b in LANGS]
    )
    assert pool.evaluate(student, lambda value: [value]) == pytest.approx(expected, abs=1e-6)
    few = PairPool(inputs["dev"]["pairs"], Validation(max_queries=7))
    assert len(few.gold) == 7


def test_a_student_learns_from_pairs_within_and_across_languages(corpus, inputs):
    student = PLAIN.build(corpus, 0)
    loop = loop_of(student, inputs, steps=60)
    pool = PairPool(inputs["dev"]["pairs"], Validation())
    before = pool.evaluate(student, lambda value: [value])
    losses = [loop.step(number)[0] for number in range(60)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    assert pool.evaluate(student, lambda value: [value]) > before + 0.2


def test_batches_of_a_mixture_come_from_one_member_each(corpus, inputs):
    pairs = inputs["data"]["main"]["pairs"]
    members = {"data": {"of-en": {"pairs": {"en": pairs["en"]}}, "of-ru": {"pairs": {"ru": pairs["ru"]}}}}
    changes = {"shares": {"of-en": 1.0, "of-ru": 1.0}}
    objective = make_loop(
        CONFIG.model_copy(update={"examples": 20}), PLAIN.build(corpus, 0), members, **changes
    ).objective
    shares = [objective.share(number, 0, 1) for number in range(40)]
    assert objective.sampler.sizes == {"of-en": 10, "of-ru": 10}
    assert {share.data for share in shares} == {"of-en", "of-ru"}
    for share in shares:
        assert set(share.questions()) == set(share.passages()) == {share.data[-2:]}
    ids = {
        name: {g[0].query_id for s in shares if s.data == name for g in s.groups} for name in objective.sampler.sizes
    }
    assert [len(of) for of in ids.values()] == [10, 10]
    assert ids["of-en"] != ids["of-ru"]


def test_what_cannot_be_trained_on_is_an_error(corpus, inputs, root):
    student = PLAIN.build(corpus, 0)
    one = {"data": {"main": {"pairs": {"en": inputs["data"]["main"]["pairs"]["en"]}}}}
    with pytest.raises(RecipeError, match=r"train\.loss\.pairs = cross needs two languages, .* has en"):
        loop_of(student, one, loss=Cosine(pairs="cross"))
    assert loop_of(student, one, loss=Cosine(pairs="both")).objective.share(0, 0, 1).questions() == {"en": 8}
    rows = [{"pair_id": f"x{n}", "lang": "de", "left": "a", "right": "b", "score": 2.0} for n in range(60)]
    other = table_artifact(root / "other@0", PAIRS, rows)
    mixed = {"data": {"main": {"pairs": {**one["data"]["main"]["pairs"], "de": other}}}}
    with pytest.raises(StepError, match="holds other pairs than"):
        loop_of(student, mixed)
    with pytest.raises(StepError, match=r"other@0: .* scores are not all equal, got 60"):
        PairPool({"de": other}, Validation())
