"""LoRA: what is trained and what is not, what is saved, and that it is what peft and sentence-transformers read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.numpy import load_file
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from torch.multiprocessing import spawn
from transformers import AutoModel

from cluster.component import fingerprint
from cluster.errors import RecipeError
from pipelines.students import Dense, Lexical, load_encoder
from pipelines.students.adapter import Lora
from pipelines.training.config import TrainConfig, TrainingRun
from pipelines.training.losses import KullbackLeibler
from pipelines.training.workers import Workers
from toy import CONFIG, STUDENT, make_inputs, make_loop, open_corpus, save_loop

pytestmark = pytest.mark.usefixtures("one_thread")

LORA = Lora(rank=4, alpha=8, dropout=0.1)
ADAPTED = CONFIG.model_copy(update={"adapter": LORA})
DENSE = Dense(base=STUDENT.base, query_prefix="", doc_prefix="", doc_length=32, query_length=32)
COSINES = {"loss": KullbackLeibler(temperature=0.05, alpha=0.025)}
TEXTS = ["where is oslo", "tell me of lima", "ж oslo ш щ", "paris please"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def start(tmp_path_factory, inputs):
    """The directory of an untrained student."""
    directory = tmp_path_factory.mktemp("start")
    STUDENT.build(open_corpus(inputs), 0).save(directory)
    return directory


def loop_of(start, inputs, config=ADAPTED, workers=None):
    return make_loop(config, load_encoder(start, "cpu"), inputs, workers)


def train(loop, steps):
    return [loop.step(number)[0] for number in steps]


def weights_of(student):
    return {name: p.detach().clone() for name, p in student.model.named_parameters()}


def encode(student):
    return [*student.encode_queries(TEXTS), *student.encode_docs(TEXTS)]


def assert_same(ones, others, **tolerance):
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


def test_a_fresh_adapter_computes_what_the_base_does(start, inputs):
    loop = loop_of(start, inputs)
    assert_same(encode(loop.student), encode(load_encoder(start, "cpu")), rtol=0, atol=0)


def test_only_factors_and_the_projection_are_trained(start, inputs):
    loop = loop_of(start, inputs)
    before = weights_of(loop.student)
    losses = train(loop, range(60))
    after = weights_of(loop.student)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    factors = {name for name in before if ".lora_" in name}
    layers = {name.partition(".lora_")[0].partition(".layer.0.")[2] for name in factors}
    attention = {f"attention.{name}" for name in ("self.query", "self.key", "self.value", "output.dense")}
    assert layers == attention | {"intermediate.dense", "output.dense"}
    assert changed == factors | {name for name in before if name.startswith("1.")}  # the second module projects
    assert loop.adapter.trained.keys() == changed
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])  # beside a random base there is little to learn


def test_what_is_saved_is_merged_and_needs_sentence_transformers_alone(start, inputs, tmp_path):
    loop = loop_of(start, inputs)
    train(loop, range(10))
    unmerged, before = encode(loop.student), weights_of(loop.student)
    save_loop(loop, tmp_path)
    assert all(torch.equal(before[name], values) for name, values in weights_of(loop.student).items())
    assert_same(encode(loop.student), unmerged, rtol=0, atol=0)
    original, saved = (load_file(root / "model.safetensors") for root in (start, tmp_path / "model"))
    assert saved.keys() == original.keys()
    assert_same(encode(load_encoder(tmp_path / "model", "cpu")), unmerged, rtol=0, atol=1e-5)
    alone = MultiVectorEncoder(str(tmp_path / "model"), device="cpu")
    assert_same(alone.encode_query(TEXTS), unmerged[: len(TEXTS)], rtol=0, atol=1e-5)
    untrained = encode(load_encoder(start, "cpu"))
    moved = max(np.abs(one - other).max() for one, other in zip(untrained, unmerged, strict=True))
    assert moved > 0.01  # so that 1e-5 means something


def test_a_dense_student_trains_its_factors_alone(inputs, tmp_path):
    loop = make_loop(ADAPTED.model_copy(update=COSINES), DENSE.build(open_corpus(inputs), 0), inputs)
    assert all(".lora_" in name for name in loop.adapter.trained)
    train(loop, range(5))
    save_loop(loop, tmp_path)
    alone = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    vectors = [vector[0] for vector in loop.student.encode_docs(TEXTS)]
    assert_same(alone.encode_document(TEXTS), vectors, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning"
)  # peft 0.21 reads it of transformers 5.23
def test_the_adapter_is_what_peft_opens_on_the_base(start, inputs, tmp_path):
    loop = loop_of(start, inputs)
    train(loop, range(10))
    save_loop(loop, tmp_path)
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
    opened = PeftModel.from_pretrained(AutoModel.from_pretrained(start), str(tmp_path / "adapter"))
    theirs = opened.merge_and_unload().state_dict()
    ours = AutoModel.from_pretrained(tmp_path / "model").state_dict()
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        torch.testing.assert_close(values, theirs[name], rtol=0, atol=1e-6)


def test_resume_is_to_the_bit(start, inputs, tmp_path):
    whole = loop_of(start, inputs)
    losses = train(whole, range(4))
    save_loop(whole, tmp_path)
    losses += train(whole, range(4, 8))
    again = loop_of(start, inputs)
    again.restore(tmp_path)
    assert train(again, range(4, 8)) == losses[4:]
    assert all(torch.equal(whole.adapter.trained[name], values) for name, values in again.adapter.trained.items())


def compute(rank: int, world: int, start: Path, inputs: dict, directory: Path) -> None:
    """Three steps of one worker of ``world``; the first writes what was trained."""
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", f"file://{directory}/meet", rank=rank, world_size=world)
    still = ADAPTED.model_copy(update={"adapter": LORA.model_copy(update={"dropout": 0})})
    loop = loop_of(start, inputs, still, Workers(rank, world))
    for part in loop.student.model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0  # workers draw other masks
    train(loop, range(3))
    if rank == 0:
        torch.save(loop.adapter.trained, directory / f"of-{world}.pt")
    if world > 1:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_workers_make_the_student_of_one(start, inputs, tmp_path):
    compute(0, 1, start, inputs, tmp_path)
    spawn(compute, (2, start, inputs, tmp_path), nprocs=2)
    one, two = (torch.load(tmp_path / f"of-{world}.pt") for world in (1, 2))
    began = loop_of(start, inputs).adapter.trained
    for name in one:
        if "key" not in name:  # a key's bias and a part of its weights change no softmax: gradients near rounding
            moved = float((one[name] - began[name]).abs().max())
            assert float((one[name] - two[name]).abs().max()) <= 0.02 * moved, name


@pytest.mark.parametrize(
    ("targets", "layers"),
    [
        (("query", "value"), {"encoder.layer.0.attention.self.query", "encoder.layer.0.attention.self.value"}),
        (("intermediate.dense",), {"encoder.layer.0.intermediate.dense"}),
        (("pooler.dense", "key"), {"pooler.dense", "encoder.layer.0.attention.self.key"}),
    ],
)
def test_targets_are_ends_of_names(start, inputs, targets, layers):
    lora = LORA.model_copy(update={"targets": targets})
    loop = loop_of(start, inputs, CONFIG.model_copy(update={"adapter": lora}))
    found = {name.partition(".lora_")[0] for name in loop.adapter.trained if ".lora_" in name}
    assert {name.partition("model.")[2] for name in found} == layers


@pytest.mark.parametrize("targets", [("q_proj",), ("query", "uery"), ("word_embeddings",)])
def test_targets_that_match_nothing_are_an_error_that_lists_the_layers(start, inputs, targets):
    lora = LORA.model_copy(update={"targets": targets})
    said = rf"train\.adapter\.targets: no linear layer .* {targets[-1]!r}.*encoder\.layer\.N\.attention\.self\.query, "
    with pytest.raises(RecipeError, match=said):
        loop_of(start, inputs, CONFIG.model_copy(update={"adapter": lora}))


def test_a_base_without_linear_layers_in_blocks_is_an_error_that_lists_what_there_is(start):
    student = load_encoder(start, "cpu")
    student.model[0].model.encoder = torch.nn.Identity()
    with pytest.raises(RecipeError, match=r"all-linear: the base has no linear layers .* of pooler\.dense"):
        Lora().add_to(student, 0)


def test_the_fingerprint_covers_an_adapter_and_not_its_absence():
    plain = CONFIG.model_dump(exclude={"adapter"})
    assert "adapter" not in plain
    assert fingerprint(TrainConfig.model_validate(plain)) == fingerprint(CONFIG)
    made = [None, Lora(), Lora(rank=8), Lora(alpha=16), Lora(targets=("query",))]
    configs = [TrainingRun(train=TrainConfig.model_validate(plain | {"adapter": lora})) for lora in made]
    assert len({fingerprint(config) for config in configs}) == len(made)


def test_a_student_without_a_base_names_the_key():
    with pytest.raises(ValidationError, match=r"student.kind = lexical has no base .* leave out train.adapter"):
        TrainConfig(student=Lexical(words=None), adapter=Lora())
    for wrong in ({"rank": 0}, {"alpha": 0}, {"targets": ()}, {"targets": "query"}, {"dropout": 1}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            Lora(**wrong)
