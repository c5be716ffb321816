"""The training loop without Ray: objective, optimiser, validation, against plain loops and ir_measures."""

import ir_measures
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import rankdata

from artifacts import table_artifact
from cluster.component import fingerprint
from cluster.errors import RecipeError
from pipelines.docstore import Docstore
from pipelines.students.loading import load as load_student
from pipelines.tables import QRELS, RANKINGS
from pipelines.training.batches import Entry
from pipelines.training.config import TrainConfig, TrainingRun, TrainResources, Validation
from pipelines.training.cpu import speed_up
from pipelines.training.loop import learning_rate_factor, make_optimizer, set_dropout
from pipelines.training.losses import KullbackLeibler, language_consistency
from pipelines.training.objectives.texts import TokenRows, maxsim
from pipelines.training.records import Records
from pipelines.training.validate import Pool, draw, ndcg, score_all
from toy import CONFIG, STUDENT, make_inputs, make_loop, open_corpus, save_loop, score_entries

pytestmark = pytest.mark.usefixtures("one_thread")

HUGE = 3e38  # a teacher's score that the loss, dividing by its temperature, takes beyond float32


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("loop"))


@pytest.fixture(scope="module")
def corpus(inputs):
    return open_corpus(inputs)


def test_scores_equal_encoding_and_maxsim(corpus):
    student = STUDENT.build(corpus, 0)
    student.model.eval()
    entries = [
        Entry("t0-1", ("d1", "d4", "d2"), ("en", "xx", "en"), np.zeros(3, np.float32), query_lang="en"),
        Entry("t1-5", ("d5", "d1", "d0"), ("xx", "en", "xx"), np.zeros(3, np.float32), query_lang="en"),
    ]
    texts = TokenRows(student, {"en": corpus.queries}, corpus.docs)
    docs = sorted({key for e in entries for key in zip(e.langs, e.doc_ids, strict=True)})
    rows = texts.of_queries([("en", "t0-1"), ("en", "t1-5")]), texts.of_docs(docs)
    found = score_entries(student, entries, rows).detach().numpy()
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


def gradients(corpus, inputs, **changes):
    config = CONFIG.model_copy(update=changes)
    student = STUDENT.model_copy(update={"base": STUDENT.base.model_copy(update={"dropout": 0})}).build(corpus, 0)
    loop = make_loop(config, student, inputs)
    loss = loop.backward(loop.shares.get(0))
    return loss, torch.cat([p.grad.flatten() for p in student.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("mixing", ["mix_passages", "round_robin_entries"])
def test_accumulation_changes_rounding_only(corpus, inputs, mixing):
    extra = {"mixing": mixing, "consistency": 0.5 if mixing == "round_robin_entries" else 0.0}
    whole, pieces = gradients(corpus, inputs, **extra), gradients(corpus, inputs, accumulation=3, **extra)
    assert pieces[0] == pytest.approx(whole[0], rel=1e-5)
    torch.testing.assert_close(pieces[1], whole[1], rtol=1e-3, atol=1e-6)


def test_round_robin_loss_is_a_mean_over_entries_with_the_consistency_term_at_the_temperature(corpus, inputs):
    student = STUDENT.build(corpus, 0)
    config = {"mixing": "round_robin_entries", "ways": 2, "batch": 5, "consistency": 2.0}
    loss = KullbackLeibler(temperature=0.5)
    loop = make_loop(CONFIG.model_copy(update={**config, "loss": loss}), student, inputs)
    student.model.eval()
    share = loop.shares.get(0)
    entries = [entry for group in share.groups for entry in group]
    assert len(entries) == 10
    scores = score_entries(student, entries, (share.queries, share.docs))
    teacher = torch.tensor(np.stack([e.scores for e in entries]))
    expected = loss.per_entry(scores, teacher).mean()
    expected = expected + 2 * language_consistency(scores.reshape(5, 2, 2) / 0.5).mean()
    assert loop.backward(share) == pytest.approx(float(expected.detach()), rel=1e-5)


def with_scores(inputs, root, changed):
    """The same inputs with other teacher scores: ``changed`` maps (query, scores) to scores."""
    main = inputs["data"]["main"]
    rows = main["scores"].read(["query_id", "doc_ids", "scores"]).to_pylist()
    rows = [{**row, "scores": changed(row["query_id"], row["scores"])} for row in rows]
    return {**inputs, "data": {"main": {**main, "scores": table_artifact(root / "scores@1", RANKINGS, rows)}}}


def state_of(student):
    return torch.cat([p.detach().flatten() for p in student.model.parameters()])


def fp16_loop(corpus, inputs):
    return make_loop(CONFIG.model_copy(update={"precision": "fp16"}), STUDENT.build(corpus, 0), inputs)


def test_a_step_that_overflows_is_not_taken(corpus, inputs, tmp_path):
    one_is_bad = with_scores(inputs, tmp_path, lambda query, scores: [HUGE, *scores[1:]] if query == "t0-3" else scores)
    loop = fp16_loop(corpus, one_is_bad)
    bad = [n for n in range(9) if any(e.query_id == "t0-3" for group in loop.shares.get(n).groups for e in group)]
    assert len(bad) == 2  # once in each of two epochs of 36 queries, eight a step
    records, scale = Records(9), loop.scaler.get_scale()
    for number in range(9):
        before = state_of(loop.student)
        loss, lr = loop.step(number)
        records.step(loss, lr, 0.0)
        assert np.isfinite(loss) == (number not in bad)
        assert torch.equal(before, state_of(loop.student)) == (number in bad)
    assert loop.overflows == 2
    assert loop.scaler.get_scale() == scale / 4
    assert [row[0] for row in records.losses if np.isfinite(row[1])] == [n + 1 for n in range(9) if n not in bad]


def test_overflows_end_in_an_error_and_are_counted_across_a_resume(corpus, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.training.loop.OVERFLOWS", 4)
    all_bad = with_scores(inputs, tmp_path, lambda _, scores: [HUGE, *scores[1:]])
    with pytest.raises(FloatingPointError, match=r"the loss of step 1 is nan: lower train.lr"):
        make_loop(CONFIG, STUDENT.build(corpus, 0), all_bad).step(0)
    loop = fp16_loop(corpus, all_bad)
    loop.step(0)
    loop.step(1)
    save_loop(loop, tmp_path)
    again = fp16_loop(corpus, all_bad)
    again.restore(tmp_path)
    again.step(2)
    with pytest.raises(FloatingPointError, match="gradients of 4 steps up to 4 overflowed fp16"):
        again.step(3)
    assert again.overflows == 4


def test_half_precision_learns(corpus, inputs):
    student = STUDENT.build(corpus, 0)
    loop = make_loop(CONFIG.model_copy(update={"precision": "bf16"}), student, inputs)
    losses = [loop.step(number)[0] for number in range(30)]
    assert not loop.scaler.is_enabled()
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert all(p.dtype == torch.float32 for p in student.model.parameters())


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
    pool = Pool(Docstore.open(inputs["dev"]["queries"]), inputs["dev"]["qrels"], corpus.docs, Validation(max_docs=5))
    assert len(pool.names) == 24  # every relevant document is kept, in both languages
    shares = [pool.search(student, rank, 3) for rank in range(3)]
    assert pool.evaluate(student, lambda _: shares) == pytest.approx(pool.evaluate(student, lambda value: [value]))
    few = Pool(
        Docstore.open(inputs["dev"]["queries"]),
        inputs["dev"]["qrels"],
        corpus.docs,
        Validation(max_docs=9, max_queries=3),
    )
    assert (len(few.queries), len(few.names)) == (3, 9)
    needed = {name for names in few.relevant for name in names}
    others = {f"{lang}:{doc}" for lang in corpus.docs for doc in corpus.docs[lang].ids} - needed
    assert few.names == sorted([*needed, *sorted(others, key=draw)[: 9 - len(needed)]])


def test_judgements_are_those_of_each_language(corpus, inputs, tmp_path):
    """Document ids that mean another passage in each language, as in collections that are not translations."""
    student = STUDENT.build(corpus, 0)
    judged = {
        lang: table_artifact(
            tmp_path / f"qrels-{lang}@0", QRELS, [{"query_id": "v3", "doc_id": doc_id, "relevance": 1}]
        )
        for lang, doc_id in (("en", "d3"), ("xx", "d5"))
    }
    pool = Pool(Docstore.open(inputs["dev"]["queries"]), judged, corpus.docs, Validation())
    assert pool.relevant == [{"en:d3": 1, "xx:d5": 1}]
    ranked = [[(2.0, "en:d3"), (1.0, "en:d5"), (0.5, "xx:d3"), (0.1, "xx:d5")]]
    assert pool.measure(ranked) == pytest.approx((1 + 1 / np.log2(5)) / (1 + 1 / np.log2(3)))
    assert 0 < pool.evaluate(student, lambda value: [value]) <= 1


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
        ({"warmup": 101}, "longer than the training"),
        ({"consistency": 1.0, "mixing": "round_robin_entries", "loss": {"kind": "infonce"}}, "a term of distillation"),
        ({"resources": {"workers": 9}}, "cannot share a batch of 8"),
        ({"resources": {"workers": [2, 9]}}, "cannot share a batch of 8"),
        ({"resources": {"workers": [3, 2]}}, "the fewest and the most"),
        ({"resources": {"workers": 0}}, "from 1"),
    ],
)
def test_configs_say_what_does_not_fit(change, message):
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate({**CONFIG.model_dump(), **change})


def test_dropout_is_what_the_recipe_says_and_the_saved_student_keeps_its_own(corpus, inputs, tmp_path):
    plain = STUDENT.build(corpus, 0)
    own = {m.p for m in plain.model.modules() if isinstance(m, torch.nn.Dropout)}
    assert own == {STUDENT.base.dropout}
    loop = make_loop(CONFIG.model_copy(update={"dropout": 0.0}), plain, inputs)
    speed_up(plain.model)
    plain.model.train()
    rows = plain.rows(["where is Rome"], "query")
    first, second = (plain.embed(rows, "query")[0] for _ in range(2))
    assert torch.equal(first, second)
    loop.student.save(tmp_path / "saved")
    saved = load_student(str(tmp_path / "saved"), "cpu")
    assert {m.p for m in saved.model.modules() if isinstance(m, torch.nn.Dropout)} == own


def test_a_student_without_dropout_refuses_the_key():
    with pytest.raises(RecipeError, match="train.dropout: the student has no layer"):
        set_dropout(torch.nn.Linear(2, 2), 0.0)


def test_ways_are_those_of_the_strategy_where_none_are_named():
    for mixing, ways in (("mix_passages", 6), ("mix_entries", 6), ("round_robin_entries", 2)):
        config = TrainConfig(student=STUDENT, mixing=mixing)
        assert config.ways == config.draw.ways == config.model_dump()["ways"] == ways
        assert TrainConfig(student=STUDENT, mixing=mixing, ways=4).draw.ways == 4
    with pytest.raises(ValidationError, match="mixing"):
        TrainConfig(student=STUDENT, mixing="stirred")


def test_a_run_names_positive_shares():
    assert TrainingRun(train=CONFIG).shares == {"main": 1.0}
    with pytest.raises(ValidationError, match="positive share"):
        TrainingRun(train=CONFIG, shares={"a": 1.0, "b": 0.0})


def test_what_changes_only_the_speed_is_no_part_of_the_fingerprint():
    for change in ({"resources": TrainResources(workers=(1, 7), gpus=1)}, {"accumulation": 4}, {"checkpoint_every": 9}):
        faster = TrainConfig.model_validate({**CONFIG.model_dump(), **change})
        assert faster != CONFIG
        assert fingerprint(faster) == fingerprint(CONFIG)
    assert fingerprint(CONFIG.model_copy(update={"batch": 9})) != fingerprint(CONFIG)
