"""Training on Ray Train, on a toy task: names in two languages, whose words share nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import torch
from artifacts import table_artifact
from pydantic import ValidationError
from safetensors.numpy import load_file
from scipy.stats import rankdata

from cluster.errors import RecipeError, StepError
from cluster.storage import Place
from pipelines.docstore import Docstore, RowStore
from pipelines.students import Corpus, LateInteraction, load_encoder
from pipelines.students.scratch import Scratch
from pipelines.tables import DOCS, QRELS, QUERIES, RANKINGS
from pipelines.training.batches import Batches, Draw, Entry
from pipelines.training.config import TrainConfig, TrainResources, Validation
from pipelines.training.distil import Distillation, maxsim
from pipelines.training.losses import KullbackLeibler, language_consistency
from pipelines.training.loop import Loop, Workers, learning_rate_factor, make_optimizer
from pipelines.training.validate import Pool, ndcg, score_all

NAMES = ["oslo", "lima", "cairo", "tokio", "paris", "delhi", "quito", "sofia", "riga", "minsk", "accra", "dakar"]
TRAIN_FORMS = ["where is {}", "tell me of {}", "{} please"]
STUDENT = LateInteraction(
    base=Scratch(vocabulary=120, hidden=32, layers=1, heads=2, positions=32, dropout=0.1), dim=16, query_length=10,
    doc_length=24,
)  # fmt: skip
CONFIG = TrainConfig(
    student=STUDENT, steps=100, batch=8, ways=8, pool=8, lr=5e-3, validation=Validation(every=25), checkpoint_every=30,
    loss=KullbackLeibler(temperature=0.5), resources=TrainResources(threads=1),
)  # fmt: skip


def foreign(name):
    return name[::-1].translate(str.maketrans("abcdefghijklmnopqrstuvwxyz", "βγδεζηθικλμνξοπρστυφχψωабв"))


def make_inputs(root: Path):
    docs = {
        "en": [f"the city of {name} lies far" for name in NAMES],
        "xx": [f"ж {foreign(name)} ш щ" for name in NAMES],
    }
    random = np.random.default_rng(0)
    rankings, queries = [], []
    for form_number, form in enumerate(TRAIN_FORMS):
        for n, name in enumerate(NAMES):
            query_id = f"t{form_number}-{n}"
            queries.append({"query_id": query_id, "lang": "en", "text": form.format(name)})
            others = [f"d{k}" for k in random.permutation(len(NAMES)) if k != n][:7]
            rankings.append({"query_id": query_id, "doc_ids": [f"d{n}", *others], "scores": [8.0] + [0.0] * 7})
    dev = [{"query_id": f"v{n}", "lang": "en", "text": f"show {name}"} for n, name in enumerate(NAMES)]
    qrels = [{"query_id": f"v{n}", "doc_id": f"d{n}", "relevance": 1} for n in range(len(NAMES))]
    return {
        "queries": table_artifact(root / "queries@0", QUERIES, queries),
        "scores": table_artifact(root / "scores@0", RANKINGS, rankings),
        "dev-queries": table_artifact(root / "dev-queries@0", QUERIES, dev),
        "dev-qrels": table_artifact(root / "dev-qrels@0", QRELS, qrels),
    } | {
        f"docs-{lang}": table_artifact(
            root / f"docs-{lang}@0",
            DOCS,
            [{"doc_id": f"d{n}", "lang": lang, "title": "", "text": text} for n, text in enumerate(texts)],
        )
        for lang, texts in docs.items()
    }


RUN = """
import pickle, sys
from cluster.storage import Place
from pipelines.training.trainer import train
config, inputs, out = pickle.loads(sys.stdin.buffer.read())
print(train(config, inputs, Place(out), None))
"""


def start(config, inputs, out):
    """A training in a process of its own, with a Ray of its own."""
    import pickle

    process = subprocess.Popen(
        [sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"}, start_new_session=True,
    )  # fmt: skip
    process.stdin.write(pickle.dumps((config, inputs, str(out))))
    process.stdin.close()
    process.stdin = None
    return process


def finish(process):
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()[-3000:]
    return eval(output.decode().splitlines()[-1])


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    root = tmp_path_factory.mktemp("training")
    patch = pytest.MonkeyPatch()
    patch.setenv("BABELRAY_CACHE", str(root / "cache"))
    yield root
    patch.undo()


@pytest.fixture(scope="module")
def inputs(shared):
    return make_inputs(shared)


@pytest.fixture(scope="module")
def trained(shared, inputs):
    """An uninterrupted training: its directory and its facts."""
    return shared / "whole", finish(start(CONFIG, inputs, shared / "whole"))


def table(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def weights(directory):
    return {
        (file.relative_to(directory).as_posix(), name): value
        for file in sorted(directory.rglob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def test_the_student_learns(trained, inputs):
    out, facts = trained
    losses, curve = table(out / "losses.tsv"), table(out / "validation.tsv")
    assert losses[0] == ["step", "loss", "lr", "seconds"]
    assert [int(row[0]) for row in losses[1:]] == list(range(1, 101))
    loss = [float(row[1]) for row in losses[1:]]
    assert np.mean(loss[-10:]) < 0.25 * np.mean(loss[:10])
    assert [int(row[0]) for row in curve[1:]] == [0, 25, 50, 75, 100]
    assert facts["best_nDCG@20"] > float(curve[1][1]) + 0.25
    assert facts["best_nDCG@20"] == pytest.approx(max(float(r[1]) for r in curve[2:]), abs=1e-4)
    assert facts["skipped_queries"] == 0
    assert sum(facts["passages"].values()) == 100 * 8 * 8
    assert (out / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(p.name for p in out.iterdir()) == [
        "best", "curves.png", "facts.json", "last", "losses.tsv", "progress.json", "start", "start.json", "validation.tsv",
    ]  # fmt: skip


def test_best_and_start_are_what_was_measured(trained, inputs):
    out, facts = trained
    pool = Pool(
        Docstore.open(inputs["dev-queries"]),
        inputs["dev-qrels"],
        {lang: Docstore.open(inputs[f"docs-{lang}"]) for lang in ("en", "xx")},
        CONFIG.validation,
    )
    for name, expected in (("best", facts["best_nDCG@20"]), ("start", float(table(out / "validation.tsv")[1][1]))):
        found = pool.evaluate(load_encoder(out / name, "cpu"), lambda value: [value])
        assert found == pytest.approx(expected, abs=1e-4)


def test_run_again_does_nothing(trained, inputs):
    from pipelines.training.trainer import train

    out, facts = trained
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert train(CONFIG, inputs, Place.of(out), None) == facts  # without Ray: none is running here
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


def test_killed_and_run_again_ends_with_the_same_bits(trained, inputs, shared):
    out = shared / "killed"
    process = start(CONFIG, inputs, out)
    deadline = time.monotonic() + 120
    while not list((out / "checkpoints").glob("step-*/records.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        os.sched_yield()
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (out / "facts.json").exists()
    facts = finish(start(CONFIG, inputs, out))
    whole, again = weights(trained[0] / "last"), weights(out / "last")
    assert whole.keys() == again.keys()
    assert all(np.array_equal(whole[key], again[key]) for key in whole)
    assert [row[:2] for row in table(out / "losses.tsv")] == [row[:2] for row in table(trained[0] / "losses.tsv")]
    assert {k: v for k, v in facts.items() if k != "training_seconds"} == {
        k: v for k, v in trained[1].items() if k != "training_seconds"
    }


def test_two_workers_make_nearly_the_same_student(inputs, corpus, shared):
    plain = STUDENT.model_copy(update={"base": STUDENT.base.model_copy(update={"dropout": 0})})
    config = CONFIG.model_copy(
        update={"steps": 10, "student": plain, "resources": TrainResources(workers=2, cpus=0.5, threads=1)}
    )
    finish(start(config, inputs, shared / "two"))
    alone = load_encoder(shared / "two" / "start", "cpu")
    loop = make_loop(config, alone, corpus, inputs)
    losses = [loop.step(number)[0] for number in range(10)]
    np.testing.assert_allclose([float(row[1]) for row in table(shared / "two" / "losses.tsv")[1:]], losses, rtol=1e-4)
    alone.save(shared / "alone")
    one, two, before = (weights(shared / name) for name in ("alone", "two/last", "two/start"))
    for key in one:
        if "key.bias" in key[1]:  # adds the same to all of a softmax: its gradient is rounding and nothing else
            continue
        moved = np.abs(one[key] - before[key]).max()
        assert np.abs(one[key] - two[key]).max() <= 0.02 * moved, key


# --- without Ray -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(inputs):
    docs = {lang: Docstore.open(inputs[f"docs-{lang}"]) for lang in ("en", "xx")}
    return Corpus(Docstore.open(inputs["queries"]), docs)


def test_scores_equal_encoding_and_maxsim(corpus):
    student = STUDENT.build(corpus, 0)
    student.model.eval()
    entries = [
        Entry("t0-1", ("d1", "d4", "d2"), ("en", "xx", "en"), np.zeros(3, np.float32)),
        Entry("t1-5", ("d5", "d1", "d0"), ("xx", "en", "xx"), np.zeros(3, np.float32)),
    ]
    found = Distillation(student, corpus.queries, corpus.docs, KullbackLeibler()).scores(entries).detach().numpy()
    for row, entry in zip(found, entries, strict=True):
        (query,) = student.encode_queries([corpus.queries.text(entry.query_id)])
        for score, lang, doc_id in zip(row, entry.langs, entry.doc_ids, strict=True):
            (doc,) = student.encode_docs([corpus.docs[lang].text(doc_id)])
            assert score == pytest.approx((query @ doc.T).max(1).sum(), abs=1e-4)


def test_maxsim_ignores_what_is_masked():
    random = torch.Generator().manual_seed(0)
    queries, docs = torch.randn(2, 4, 8, generator=random), torch.randn(2, 3, 5, 8, generator=random)
    query_mask, doc_mask = torch.rand(2, 4, generator=random) > 0.3, torch.rand(2, 3, 5, generator=random) > 0.3
    query_mask[:, 0] = doc_mask[:, :, 0] = True
    found = maxsim(queries, query_mask, docs, doc_mask)
    for n in range(2):
        for w in range(3):
            expected = sum(
                max(float(queries[n, q] @ docs[n, w, t]) for t in range(5) if doc_mask[n, w, t])
                for q in range(4)
                if query_mask[n, q]
            )
            assert float(found[n, w]) == pytest.approx(expected, abs=1e-5)


def make_loop(config, student, corpus, inputs):
    batches = Batches(RowStore.open(inputs["scores"]), corpus.docs, config.draw, config.batch, config.seed)
    objective = Distillation(student, corpus.queries, corpus.docs, config.loss, config.consistency)
    return Loop(config, student, batches, objective, Workers())


def gradients(corpus, inputs, **changes):
    config = CONFIG.model_copy(update=changes)
    student = STUDENT.model_copy(update={"base": STUDENT.base.model_copy(update={"dropout": 0})}).build(corpus, 0)
    loop = make_loop(config, student, corpus, inputs)
    loss = loop._backward(0)
    return loss, torch.cat([p.grad.flatten() for p in student.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("mixing", ["mix_passages", "round_robin_entries"])
def test_accumulation_changes_rounding_only(corpus, inputs, mixing):
    extra = {"mixing": mixing, "consistency": 0.5 if mixing == "round_robin_entries" else 0.0}
    whole, pieces = gradients(corpus, inputs, **extra), gradients(corpus, inputs, accumulation=3, **extra)
    assert pieces[0] == pytest.approx(whole[0], rel=1e-5)
    torch.testing.assert_close(pieces[1], whole[1], rtol=1e-3, atol=1e-6)


def test_round_robin_loss_is_a_mean_over_entries_with_the_consistency_term(corpus, inputs):
    student = STUDENT.build(corpus, 0)
    student.model.eval()
    batches = Batches(RowStore.open(inputs["scores"]), corpus.docs, Draw("round_robin_entries", ways=2, pool=8), 5, 0)
    groups = batches.entries(0)
    entries = [entry for group in groups for entry in group]
    objective = Distillation(student, corpus.queries, corpus.docs, KullbackLeibler(), consistency=2.0)
    scores = objective.scores(entries)
    teacher = torch.tensor(np.stack([e.scores for e in entries]))
    expected = KullbackLeibler().per_entry(scores, teacher).mean() * 5
    expected = expected + 2 * language_consistency(scores.reshape(5, 2, 2)).sum()
    torch.testing.assert_close(objective(groups), expected)


def test_ndcg_equals_ir_measures():
    random = np.random.default_rng(1)
    for _ in range(20):
        gains = random.integers(0, 4, 40)
        order = random.permutation(40)
        qrels = [ir_measures.Qrel("q", str(d), int(g)) for d, g in enumerate(gains)]
        run = [ir_measures.ScoredDoc("q", str(d), float(40 - rank)) for rank, d in enumerate(order)]
        expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 20], qrels, run)[ir_measures.nDCG @ 20]
        assert ndcg(gains[order].tolist(), gains[gains > 0].tolist()) == pytest.approx(expected, abs=1e-6)


def test_score_all_equals_loops_and_workers_agree(corpus, inputs):
    random = np.random.default_rng(2)
    queries = [random.normal(size=(n, 4)).astype(np.float32) for n in (1, 3, 2)]
    docs = [random.normal(size=(n, 4)).astype(np.float32) for n in random.integers(1, 6, 150)]
    expected = [[(q @ d.T).max(1).sum() for d in docs] for q in queries]
    np.testing.assert_allclose(score_all(queries, docs), expected, rtol=1e-5, atol=1e-5)
    student = STUDENT.build(corpus, 0)
    pool = Pool(Docstore.open(inputs["dev-queries"]), inputs["dev-qrels"], corpus.docs, Validation(max_docs=5))
    assert len(pool.names) == 24  # every relevant document is kept, in both languages
    shares = [pool.search(student, rank, 3) for rank in range(3)]
    assert pool.evaluate(student, lambda _: shares) == pytest.approx(pool.evaluate(student, lambda value: [value]))
    few = Pool(
        Docstore.open(inputs["dev-queries"]), inputs["dev-qrels"], corpus.docs, Validation(max_docs=9, max_queries=3)
    )
    assert (len(few.queries), len(few.names)) == (3, 9)


def test_schedules():
    def rates(**changes):
        config = CONFIG.model_copy(update={"steps": 10, **changes})
        return [round(learning_rate_factor(config, step), 4) for step in range(10)]

    assert rates() == [1.0] * 10
    assert rates(warmup=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    linear, cosine = rates(warmup=2, schedule="linear"), rates(schedule="cosine")
    assert linear[1:] == [1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert rankdata(cosine).tolist() == list(range(10, 0, -1))
    assert cosine[0] == 1.0
    assert cosine[5] == 0.5


def test_learning_rate_groups(corpus):
    student = STUDENT.build(corpus, 0)
    optimizer = make_optimizer(student.model, CONFIG.model_copy(update={"lr_groups": {"word_embeddings": 0.1}}))
    rates = {group["base_lr"]: len(group["params"]) for group in optimizer.param_groups}
    assert rates[0.1] == 1
    assert sum(rates.values()) == len(list(student.model.parameters()))
    with pytest.raises(RecipeError, match="no parameter is named 'nowhere'"):
        make_optimizer(student.model, CONFIG.model_copy(update={"lr_groups": {"nowhere": 0.1}}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ways": 9, "pool": 8}, "cannot be drawn from a pool of 8"),
        ({"consistency": 1.0}, "round_robin_entries"),
        ({"warmup": 100}, "longer than the training"),
        ({"resources": {"workers": 9}}, "cannot share a batch of 8"),
    ],
)
def test_configs_say_what_does_not_fit(change, message):
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate({**CONFIG.model_dump(), **change})


def test_resources_are_no_part_of_the_fingerprint():
    from cluster.component import fingerprint

    faster = CONFIG.model_copy(update={"resources": TrainResources(workers=7, gpus=1)})
    assert fingerprint(faster) == fingerprint(CONFIG)


def test_missing_inputs_are_named(tmp_path, inputs):
    from pipelines.training.trainer import train

    with pytest.raises(StepError, match="needs the inputs queries, scores"):
        train(CONFIG, {"queries": inputs["queries"]}, Place.of(tmp_path), None)
