"""Models are content: the same weights elsewhere are the same, other weights under the same name are others."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download
from safetensors.numpy import load_file, save_file

import checkpoints
from cluster.component import Component, fingerprint
from cluster.errors import RecipeError, StepError
from cluster.storage import Place, redact_secrets
from pipelines.encode import EncodeConfig
from pipelines.models import OptionalModel, Pretrained, find_absent, locate, pin, references, resolve
from pipelines.plan import Plan, plan
from pipelines.recipe import Select, load
from pipelines.scorers.cross_encoder import CrossEncoderScorer
from pipelines.scorers.dense import DenseScorer
from pipelines.students import LateInteraction, Lexical
from pipelines.students.checkpoint import Checkpoint
from pipelines.translators.nmt import Nmt
from tests.artifacts import directory_artifact

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = ["source.territories=12", "train.student.words="]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT, as transformers saves one."""
    directory = tmp_path_factory.mktemp("weights") / "bert"
    checkpoints.xlm_roberta(directory, ["the river runs under the bridge", "a fox and a whale"], seed=0)
    return directory


@pytest.fixture
def bert(weights: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(weights, tmp_path / "bert"))


def name(model: Any) -> str:
    """The fingerprint of a component that names this model, when it is planned."""
    return fingerprint(pin(DenseScorer(model=str(model))))


def change_weights(directory: Path) -> None:
    """One number of the weights, the file's size kept."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] + 1}, file, metadata={"format": "pt"})


def test_other_weights_at_the_same_path_are_others(bert: Path) -> None:
    before, size = name(bert), (bert / "model.safetensors").stat().st_size
    change_weights(bert)
    assert (bert / "model.safetensors").stat().st_size == size
    assert name(bert) != before


def test_any_file_counts_and_a_hidden_one_does_not(bert: Path) -> None:
    before = name(bert)
    (bert / ".cache").mkdir()
    (bert / ".cache" / "times").write_text("now")
    assert name(bert) == before
    (bert / "1_Pooling").mkdir()
    (bert / "1_Pooling" / "config.json").write_text("{}")
    assert name(bert) != before


def test_a_moved_directory_is_the_same(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = name(bert)
    bert.rename(tmp_path / "elsewhere")
    assert name(tmp_path / "elsewhere") == before
    monkeypatch.chdir(tmp_path)
    relative = DenseScorer(model="elsewhere")
    assert relative.model == str(tmp_path / "elsewhere")  # workers run in another directory
    assert fingerprint(pin(relative)) == before


def test_a_model_in_a_bucket_is_that_of_the_disk(bert: Path, s3_root: str) -> None:
    place = Place.of(s3_root) / "models" / "bert"
    place.put(bert)
    copied = resolve(pin(Pretrained(model=place.uri)))
    assert name(place.uri) == name(bert)
    assert (Path(copied) / "model.safetensors").read_bytes() == (bert / "model.safetensors").read_bytes()
    with pytest.raises(RecipeError, match="expected content sha256:0") as told:
        pin(Pretrained(model=place.uri, content="sha256:0"))
    assert "secret_key" not in str(told.value)
    (absent,) = find_absent(pin(Pretrained(model=(Place.of(s3_root) / "models" / "none").uri)))
    assert "nothing at s3://babelray/models/none to fetch" in absent
    assert "secret_key" not in absent


def test_a_manifest_shows_the_content_and_no_key_of_a_bucket(bert: Path, s3_root: str) -> None:
    place = Place.of(s3_root) / "models" / "shown"
    place.put(bert)
    config = pin(EncodeConfig(role="docs", model=Pretrained(model=place.uri)))
    shown = redact_secrets(config.model_dump(mode="json"))["model"]
    assert shown["model"] == "s3://babelray/models/shown"
    assert shown["content"] == pin(Pretrained(model=str(bert))).content


def test_a_commit_names_a_hub_model_without_a_network() -> None:
    pinned = pin(Pretrained(model="some/model", revision=COMMIT))
    assert pinned.content == f"hub:{COMMIT}"
    assert fingerprint(pinned) == fingerprint(pin(Pretrained(model="mirror/model", revision=COMMIT)))
    assert fingerprint(pinned) != fingerprint(pin(Pretrained(model="some/model", revision="f" * 40)))
    assert find_absent(pinned) == []


def test_a_branch_is_the_commit_that_the_cache_holds(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "models--some--bert"
    shutil.copytree(bert, hub / "snapshots" / COMMIT)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    pinned = pin(Checkpoint(model="some/bert"))
    assert pinned.content == f"hub:{COMMIT}"
    assert resolve(pinned) == str((hub / "snapshots" / COMMIT).resolve())
    assert pin(pinned) == pinned
    (hub / "refs" / "main").write_text("f" * 40)  # the branch moved on: what was planned stays
    assert resolve(pinned) == str((hub / "snapshots" / COMMIT).resolve())


def test_a_plan_asks_the_hub_once_for_each_model_and_the_next_plan_asks_again(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``retrofit`` names four models, some of them in each of its 49 members."""
    asked: list[tuple[str, bool]] = []

    def ask(model: str, **options: Any) -> str:
        asked.append((model, options.get("local_files_only", False)))
        return snapshot_download(model, **options)

    monkeypatch.setattr("huggingface_hub.snapshot_download", ask)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    recipe = load("retrofit")
    models = {"intfloat/multilingual-e5-base", "BAAI/bge-m3", "BAAI/bge-reranker-v2-m3", "Qwen/Qwen3-8B"}
    absent = [line for line in plan(recipe).absent if "Hugging Face" in line]
    assert Counter(model for model, is_local in asked if is_local) == Counter(models)
    assert len([model for model, is_local in asked if not is_local]) == 1  # the hub cannot be reached: asked once
    assert {line.split("'")[1] for line in absent} == models

    hub = tmp_path / "models--BAAI--bge-m3"  # it comes between two plans
    shutil.copytree(bert, hub / "snapshots" / COMMIT)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(COMMIT)
    asked.clear()
    assert {line.split("'")[1] for line in plan(recipe).absent if "Hugging Face" in line} == models - {"BAAI/bge-m3"}
    assert asked.count(("BAAI/bge-m3", True)) == 1


def test_a_plan_with_an_absent_hub_model_can_be_shown_and_not_run() -> None:
    own = [*SMALL, "score.scorer.model=some/model"]
    found = plan(load("atlas", own))
    (absent,) = found.absent
    assert absent.startswith("score.scorer.model = 'some/model': no such directory, not in the Hugging Face cache")
    assert "revision = COMMIT" in absent
    with pytest.raises(RecipeError, match=r"score\.scorer\.model"):
        found.check_data()
    pinned = plan(load("atlas", [*own, f"score.scorer.revision={COMMIT}"]))
    assert pinned.absent == []
    assert step(pinned, "score").id != step(found, "score").id


def step(of: Plan, wanted: str) -> Any:
    (found,) = of.find_steps(wanted)
    return found


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        ("config.json", "no config.json or modules.json"),
        ("model.safetensors", "no weights"),
        (".", "no such directory"),
    ],
)
def test_half_a_directory_is_an_error_that_names_the_key(bert: Path, gone: str, missing: str) -> None:
    shutil.rmtree(bert) if gone == "." else (bert / gone).unlink()
    with pytest.raises(RecipeError, match=rf"score\.scorer\.model = '{bert}'.*{missing}"):
        plan(load("atlas", [*SMALL, f"score.scorer.model={bert}"]))


def test_a_shard_of_the_weights_that_is_not_there_is_named(bert: Path) -> None:
    (bert / "model.safetensors").rename(bert / "model-00001-of-00002.safetensors")
    index = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    (bert / "model.safetensors.index.json").write_text(index)
    with pytest.raises(RecipeError, match=r"absent: model-00002-of-00002\.safetensors"):
        pin(Pretrained(model=str(bert)))
    (bert / "model.safetensors.index.json").write_text('{"weight_')
    with pytest.raises(RecipeError, match="index.json damaged"):
        pin(Pretrained(model=str(bert)))


def test_content_in_a_recipe_is_a_demand(bert: Path) -> None:
    found = pin(Pretrained(model=str(bert))).content
    assert pin(Pretrained(model=str(bert), content=found)).content == found
    with pytest.raises(RecipeError, match=rf"encoder\.model = .*expected content sha256:0, found {found}"):
        pin(Select(encoder=Pretrained(model=str(bert), content="sha256:0"), index={"kind": "exact"}))
    assert pin(Pretrained(model="some/model", content=f"hub:{COMMIT}")).content == f"hub:{COMMIT}"
    with pytest.raises(RecipeError, match=f"expected content hub:{COMMIT}"):
        pin(Pretrained(model="some/model", revision="f" * 40, content=f"hub:{COMMIT}"))
    with pytest.raises(RecipeError, match="pins a Hugging Face id"):
        pin(Pretrained(model=str(bert), revision=COMMIT))


def test_a_worker_refuses_weights_other_than_those_planned(bert: Path) -> None:
    planned = pin(Pretrained(model=str(bert)))
    assert resolve(planned) == str(bert)
    change_weights(bert)
    with pytest.raises(RecipeError, match=f"expected content {planned.content}, found sha256:"):
        resolve(planned)


def test_models_are_found_at_any_depth(bert: Path) -> None:
    class Deep(Component):
        members: dict[str, tuple[DenseScorer, ...]]
        student: LateInteraction
        words: OptionalModel = None

    deep = Deep(
        members={"a": (DenseScorer(model="x/y"), DenseScorer(recipe="xquad", which="last"))},
        student=LateInteraction(base=Checkpoint(model=str(bert))),
    )
    pinned = pin(deep)
    assert pinned.student.base.content.startswith("sha256:")
    assert [absent.split(" ")[0] for absent in find_absent(pinned)] == ["members.a.0.model"]
    assert references(pinned) == {"members.a.1": DenseScorer(recipe="xquad", which="last")}
    assert pin(pinned) == pinned
    nothing = Select()
    assert pin(nothing) is nothing


def test_an_unplanned_component_is_known_by_its_name() -> None:
    assert fingerprint(Pretrained(model="a/b")) != fingerprint(Pretrained(model="a/c"))
    assert fingerprint(Pretrained(model="a/b", revision="x")) != fingerprint(Pretrained(model="a/b"))


def test_a_student_of_another_recipe_is_a_directory_at_work(tmp_path: Path) -> None:
    config = EncodeConfig(role="docs", model=Pretrained(recipe="xquad", which="last"))
    assert fingerprint(pin(config)) != fingerprint(EncodeConfig(role="docs", model=Pretrained(recipe="xquad")))
    assert fingerprint(pin(config)) == fingerprint(EncodeConfig(role="docs", model={"recipe": "x", "which": "last"}))
    (tmp_path / "train@0" / "last").mkdir(parents=True)
    (tmp_path / "train@0" / "last" / "config.json").write_text("{}")
    located = locate(config, {"models": {"model": directory_artifact(tmp_path / "train@0")}})
    assert resolve(located.model) == str(tmp_path / "train@0" / "last")
    with pytest.raises(StepError, match=r"expected the training of recipe xquad as the input models\.model"):
        locate(config, {})
    with pytest.raises(StepError, match="call locate"):
        resolve(config.model or "")


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ({}, "give model or recipe: "),
        ({"model": "a/b", "recipe": "xquad"}, "give model or recipe, and only one of them"),
        ({"recipe": "xquad", "revision": COMMIT}, "revision and content belong to model"),
        ({"model": "a/b", "which": "last"}, "chooses a student of a recipe"),
    ],
)
def test_a_reference_names_one_model(keys: dict[str, str], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Pretrained.model_validate(keys)


@pytest.mark.parametrize("kind", [Nmt, CrossEncoderScorer])
def test_a_student_does_neither_translate_nor_read_pairs(kind: type[Pretrained]) -> None:
    with pytest.raises(ValueError, match="cannot do this; name a model"):
        kind(recipe="xquad")
    with pytest.raises(ValueError, match="give model: "):
        kind()


def test_words_of_a_lexical_student_are_a_name_a_table_or_nothing() -> None:
    assert Lexical(words="a/b") == Lexical(words={"model": "a/b"})
    assert Lexical(words={"model": "a/b", "revision": COMMIT}).words.revision == COMMIT
    assert Lexical(words="").words is None
    assert Lexical(words=None).words is None
    assert pin(Lexical()).words.content.startswith("sha256:")
