"""Mixtures: which data set a batch comes from, as a function of (seed, number), and a training on two of them."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare

from artifacts import table_artifact
from pipelines.students import Dense
from pipelines.tables import QUERIES, RANKINGS
from pipelines.training.config import Prompts, TrainingRun
from pipelines.training.mixture import BLOCK, Mixture
from toy import CONFIG, STUDENT, make_inputs, make_loop, open_corpus

SHARES, SIZES = {"a": 1.0, "b": 2.0, "c": 1.0}, {"a": 400, "b": 100, "c": 2500}
PLAIN = STUDENT.model_copy(update={"base": STUDENT.base.model_copy(update={"dropout": 0})})


@given(st.integers(0, 2**62), st.integers(0, 3 * BLOCK))
@settings(max_examples=15, deadline=None)
def test_a_batch_s_place_is_counted_and_not_remembered(seed, number):
    mixture = Mixture(SHARES, SIZES, 2.0, seed)
    name, inside = Mixture(SHARES, SIZES, 2.0, seed).locate(number)
    earlier = [mixture.locate(n)[0] for n in range(number)]
    assert mixture.locate(number) == (name, inside) == (name, earlier.count(name))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 1000.0])
def test_data_sets_are_chosen_by_share_and_size(temperature):
    mixture = Mixture(SHARES, SIZES, temperature, seed=5)
    count = 3 * BLOCK + 1000
    found = Counter(mixture.locate(n)[0] for n in range(count))
    weights = np.array([SHARES[name] * SIZES[name] ** (1 / temperature) for name in "abc"])
    assert chisquare([found[name] for name in "abc"], weights / weights.sum() * count).pvalue > 0.001
    assert [mixture.locate(n)[0] for n in range(50)] != [
        Mixture(SHARES, SIZES, temperature, 6).locate(n)[0] for n in range(50)
    ]


def test_a_single_data_set_keeps_the_numbers():
    assert [Mixture({"main": 3.0}, {"main": 7}, 1.0, 0).locate(n) for n in (0, 5, 10**6)] == [
        ("main", 0),
        ("main", 5),
        ("main", 10**6),
    ]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two data sets whose questions and passages have the same ids and other texts."""
    root = tmp_path_factory.mktemp("mixture")
    inputs = make_inputs(root)
    main = inputs["data"]["main"]
    queries = [{**row, "text": f"say where {row['text']}"} for row in main["queries"].read().to_pylist()[:12]]
    scores = main["scores"].read().to_pylist()[:12]
    other = {
        "queries": table_artifact(root / "other-queries@0", QUERIES, queries),
        "scores": table_artifact(root / "other-scores@0", RANKINGS, scores),
        "docs": {"en": main["docs"]["xx"]},
    }
    return {"data": {"main": main, "other": other}}


def loop_of(two, workers=None, **changes):
    student = PLAIN.build(open_corpus(two), 0)
    mixture = {"shares": {"main": 1.0, "other": 3.0}}
    return make_loop(CONFIG.model_copy(update=changes), student, two, workers, **mixture)


def test_a_batch_is_of_one_data_set_and_workers_change_no_sample(two):
    loop = loop_of(two)
    shares = [loop.shares.get(number) for number in range(40)]
    assert {share.data for share in shares} == {"main", "other"}
    for number, share in enumerate(shares):
        langs = {lang for group in share.groups for entry in group for lang in entry.langs}
        assert langs == {"en"} if share.data == "other" else langs <= {"en", "xx"}
        if number in (0, 7, 23):  # as after a restart
            assert loop_of(two).objective.share(number, 0, 1).groups == share.groups
        parts = [loop.objective.share(number, rank, 3) for rank in range(3)]
        assert [parts[i % 3].groups[i // 3] for i in range(8)] == share.groups
        assert sum(part.digest() for part in parts) == share.digest()
    of_other = [share for share in shares if share.data == "other"]
    order = [group[0].query_id for share in of_other for group in share.groups][:24]
    assert sorted(order[:12]) == sorted(order[12:])  # epochs of its own 12 questions


def test_a_data_set_s_prompts_take_the_place_of_the_student_s(two):
    """What the library makes of the same texts with these prompts; other data sets keep the student's own."""
    student = Dense(base=PLAIN.base, query_prefix="say: ", doc_prefix="read: ", query_length=32, doc_length=32)
    made = student.build(open_corpus(two), 0)
    mixture = {"shares": {"main": 1.0, "other": 3.0}, "prompts": {"other": Prompts(query="find: ", document="")}}
    loop = make_loop(CONFIG.model_copy(update={"student": student}), made, two, **mixture)
    seen = set()
    for number in range(6):
        share = loop.shares.get(number)
        texts = open_corpus({"data": {share.data: two["data"][share.data]}})
        prompts = {"main": ("say: ", "read: "), "other": ("find: ", "")}[share.data]
        seen.add(share.data)
        for query_id, row in share.queries.items():
            expected = made.model.tokenizer(prompts[0] + texts.queries.text(query_id))["input_ids"]
            assert row["input_ids"].tolist() == expected
        for (lang, doc_id), row in share.docs.items():
            expected = made.model.tokenizer(prompts[1] + texts.docs[lang].text(doc_id))["input_ids"]
            assert row["input_ids"].tolist() == expected
    assert seen == {"main", "other"}
    assert made.model.prompts == {"query": "say: ", "document": "read: "}  # what the trained student is used with


def test_prompts_name_data_sets_and_keep_the_marker_of_late_interaction():
    with pytest.raises(ValidationError, match="prompts of 'more', which is none of the data sets main"):
        TrainingRun(train=CONFIG, prompts={"more": Prompts(query="query: ")})
    with pytest.raises(
        ValidationError, match=r"main: the prompt 'query: ' takes the place .* begin it with '\[unused0\]'"
    ):
        TrainingRun(train=CONFIG, prompts={"main": Prompts(query="query: ")})
    TrainingRun(train=CONFIG, prompts={"main": Prompts(query="[unused0] query: ")})


def test_what_was_drawn_is_counted_by_data_set_and_language(two, one_thread):
    loop = loop_of(two, steps=12)
    for number in range(12):
        loop.step(number)
    drawn = loop.take_drawn()
    assert sum(drawn.batches.values()) == 12
    for name in ("main", "other"):
        assert sum(drawn.passages[name].values()) == 64 * drawn.batches[name]
    assert set(drawn.passages["other"]) == {"en"}
    assert set(drawn.passages["main"]) == {"en", "xx"}
    assert loop.take_drawn().batches == {}


def test_corpus_of_several_data_sets_holds_all_texts_in_a_fixed_order(two):
    corpus = open_corpus(two)
    main, other = (open_corpus({"data": {name: two["data"][name]}}) for name in ("main", "other"))
    assert list(corpus.docs) == ["en", "xx"]
    assert list(corpus.docs["en"].ids) == [f"main:d{n}" for n in range(12)] + [f"other:d{n}" for n in range(12)]
    for lang, member, name, at in (("en", main, "main", 0), ("en", other, "other", 12), ("xx", main, "main", 0)):
        for n in range(12):
            assert corpus.docs[lang].text_at(at + n) == member.docs[lang].text_at(n)
            assert corpus.docs[lang].text(f"{name}:d{n}") == member.docs[lang].text(f"d{n}")
            assert corpus.docs[lang].id_at(at + n) == f"{name}:d{n}"
    assert "main:d3" in corpus.docs["xx"]
    assert "other:d3" not in corpus.docs["xx"]
    assert "d3" not in corpus.docs["en"]
    assert len(list(corpus.iterate_texts())) == 12 + 12 + 12 + 36 + 12
