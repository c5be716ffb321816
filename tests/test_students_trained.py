"""Students from a pretrained multilingual base: a tiny XLM-R, through a step of training and back from disk."""

import numpy as np
import pytest
import torch

import checkpoints
from cluster.errors import RecipeError
from pipelines.students import Dense, LateInteraction, load_encoder
from pipelines.students.checkpoint import Checkpoint
from pipelines.students.scratch import Scratch
from pipelines.training.losses import KullbackLeibler
from toy import CONFIG, STUDENT, make_inputs, make_loop, open_corpus

pytestmark = pytest.mark.usefixtures("one_thread")

MARKERS = ["[unused0]", "[unused1]"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def corpus(inputs):
    return open_corpus(inputs)


@pytest.fixture(scope="module")
def xlmr(tmp_path_factory, corpus):
    """The directory of a tiny XLM-R, with positions for 64 tokens."""
    checkpoints.xlm_roberta(folder := tmp_path_factory.mktemp("xlmr"), list(corpus.iterate_texts()))
    return str(folder)


def late(xlmr, **options):
    return LateInteraction(base=Checkpoint(model=xlmr), **{"dim": 16, "query_length": 10, "doc_length": 24, **options})


def test_an_xlmr_student_survives_a_step_and_the_disk(xlmr, corpus, inputs, tmp_path):
    student = late(xlmr).build(corpus, seed=0)
    tokenizer, table = student.model.tokenizer, student.model[0].model.get_input_embeddings()
    ids = tokenizer.convert_tokens_to_ids(MARKERS)
    assert ids == [len(tokenizer) - 2, len(tokenizer) - 1]  # added behind the vocabulary, which had none
    assert table.num_embeddings == len(tokenizer)
    before = table.weight[ids].detach().clone()
    loop = make_loop(CONFIG, student, inputs)
    loop.step(0)
    assert not torch.equal(table.weight[ids[0]], before[0])
    assert not torch.equal(table.weight[ids[1]], before[1])
    student.save(tmp_path / "s")
    again = load_encoder(tmp_path / "s", device="cpu")
    assert again.model.tokenizer.convert_tokens_to_ids(MARKERS) == ids
    texts = [corpus.docs[lang].text(f"d{n}") for lang in ("en", "xx") for n in range(4)]
    for one, other in ((student.encode_docs, again.encode_docs), (student.encode_queries, again.encode_queries)):
        for a, b in zip(one(texts), other(texts), strict=True):
            np.testing.assert_array_equal(a, b)
    row = again.rows(["oslo"], "query")[0]["input_ids"]
    tokens = again.model.tokenizer.convert_ids_to_tokens(row)
    assert tokens[:2] == ["<s>", "[unused0]"]
    assert tokens[tokens.index("</s>") + 1 :] == ["<mask>"] * (9 - tokens.index("</s>"))


def test_punctuation_has_no_vector_with_or_without_a_space_before_it(xlmr, corpus):
    student = late(xlmr).build(corpus, seed=0)
    text = "oslo, lima (cairo) - riga"
    row = student.rows([text], "document")[0]["input_ids"]
    tokens = student.model.tokenizer.convert_ids_to_tokens(row)
    assert {"▁(", ")", "▁-", ","} <= set(tokens)
    words = [token for token in tokens if token.strip("▁,()-")]
    assert len(student.encode_docs([text])[0]) == len(words) == len(tokens) - 4
    everything = late(xlmr, skip_punctuation=False).build(corpus, seed=0)
    assert len(everything.encode_docs([text])[0]) == len(tokens)


@pytest.mark.parametrize("kind", [LateInteraction, Dense])
def test_texts_longer_than_the_positions_are_refused_when_the_student_is_built(kind, xlmr, corpus):
    long = "the city of oslo lies far " * 60
    for base in (Checkpoint(model=xlmr), Scratch(vocabulary=120, hidden=32, layers=1, heads=2, positions=64)):
        student = kind(base=base, doc_length=64).build(corpus, seed=0)
        assert len(student.rows([long], "document")[0]["input_ids"]) == 64
        assert np.isfinite(student.encode_docs([long])[0]).all()
        with pytest.raises(RecipeError, match=r"doc_length = 65, but the base has positions for 64 tokens"):
            kind(base=base, doc_length=65).build(corpus, seed=0)
        with pytest.raises(RecipeError, match=r"query_length = 65"):
            kind(base=base, query_length=65, doc_length=20).build(corpus, seed=0)


@pytest.mark.parametrize("kind", [LateInteraction, Dense])
def test_a_window_of_the_papers_is_read_whole_by_default(kind, corpus):
    student = kind(base=Scratch(vocabulary=200, hidden=32, layers=1, heads=2)).build(corpus, seed=0)
    text = " ".join("the city of oslo lies far" for _ in range(100))
    tokenizer = student.model.tokenizer
    tokens = len(tokenizer.tokenize(text))
    (windows,) = student.windows([text], 180, 90)
    assert len(windows) == -(-(tokens - 180) // 90) + 1
    assert len(tokenizer.tokenize(windows[0])) == 180
    own = len(student.rows([""], "document")[0]["input_ids"])
    assert len(student.rows([windows[0]], "document")[0]["input_ids"]) == 180 + own  # nothing is cut off


def test_a_dense_student_learns(corpus, inputs):
    student = Dense(base=STUDENT.base, query_prefix="", doc_prefix="", doc_length=32, query_length=32)
    loss = KullbackLeibler(temperature=0.05, alpha=0.025)  # cosines, and a teacher whose scores are 0 and 8
    loop = make_loop(CONFIG.model_copy(update={"loss": loss}), student.build(corpus, seed=0), inputs)
    losses = [loop.step(number)[0] for number in range(20)]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_a_revision_pins_a_checkpoint(corpus, tmp_path, monkeypatch):
    """Two revisions of a model in the cache of the Hugging Face hub, which is what a download leaves."""
    hub = tmp_path / "models--some--xlmr"
    for seed, commit in enumerate(("a" * 40, "b" * 40)):
        checkpoints.xlm_roberta(hub / "snapshots" / commit, list(corpus.iterate_texts()), seed=seed)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("b" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def built(**pinned):
        module = Checkpoint(model="some/xlmr", **pinned).build_module(corpus, 0)
        return module.model.get_input_embeddings().weight

    assert torch.equal(built(), built(revision="b" * 40))
    assert not torch.equal(built(), built(revision="a" * 40))
