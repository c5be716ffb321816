"""Bases that keep the first layers of a transformer: their weights are its own, and the student is read alone."""

import pytest
import torch

from artifacts import table_artifact
from cluster.errors import RecipeError
from pipelines.students import Corpus, Dense, LateInteraction, load_encoder
from pipelines.students.checkpoint import Checkpoint
from pipelines.students.transplant import Transplant
from pipelines.tables import DOCS

pytestmark = pytest.mark.usefixtures("one_thread")


def build(base, corpus=None):
    return Dense(base=base, query_prefix="", doc_prefix="").build(corpus or Corpus.open({}), seed=1)


@pytest.fixture(scope="module")
def whole():
    return build(Checkpoint(model="minilm"))


def weights_of(student):
    return student.model[0].model.state_dict()


@pytest.mark.parametrize("layers", [1, 3])
def test_the_first_layers_are_kept_as_they_are(whole, layers):
    kept, every = weights_of(build(Checkpoint(model="minilm", layers=layers))), weights_of(whole)
    numbers = {int(name.split(".")[2]) for name in kept if name.startswith("encoder.layer.")}
    assert numbers == set(range(layers))
    assert all(torch.equal(weight, every[name]) for name, weight in kept.items())


def test_a_student_of_few_layers_is_saved_and_read_as_any_other(tmp_path):
    student = build(Checkpoint(model="minilm", layers=2))
    student.save(tmp_path / "student")
    text = ["Where does the river begin?"]
    again = load_encoder(str(tmp_path / "student"), device="cpu")
    assert again.encode_queries(text)[0] == pytest.approx(student.encode_queries(text)[0], abs=1e-6)
    assert len({name.split(".")[2] for name in weights_of(again) if name.startswith("encoder.layer.")}) == 2


def test_late_interaction_and_transplants_have_the_key_too(tmp_path):
    late = LateInteraction(base=Checkpoint(model="minilm", layers=2)).build(Corpus.open({}), 0)
    assert late.encode_docs(["a river"])[0].shape[1] == late.dim
    rows = {"en": ["the house and the river", "the river"], "ru": ["дом и река", "река"]}
    docs = {
        lang: table_artifact(
            tmp_path / f"docs-{lang}@0",
            DOCS,
            [{"doc_id": str(n), "lang": lang, "title": "", "text": text} for n, text in enumerate(texts)],
        )
        for lang, texts in rows.items()
    }
    student = build(Transplant(model="minilm", pieces=40, layers=2), Corpus.open({"main": {"docs": docs}}))
    assert student.model[0].model.config.num_hidden_layers == 2
    assert "река" in student.model[0].tokenizer.get_vocab()


def test_all_layers_is_the_default_and_in_no_fingerprint():
    assert "layers" not in Checkpoint(model="minilm").model_dump(exclude_defaults=True)


def test_more_layers_than_the_model_has_are_refused():
    with pytest.raises(RecipeError, match=r"train\.student\.base\.layers = 7: .*it has 6"):
        build(Checkpoint(model="minilm", layers=7))
