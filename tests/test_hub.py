"""Models of a hub, over real sockets and with the hub's own client: commits, files, refusals, broken downloads."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.component import fingerprint
from cluster.errors import RecipeError, StorageError
from hub import TOKEN, Hub, Repository, another_process, serve_hub
from pipelines.models import Pretrained, find_absent, pin, resolve
from pipelines.scorers.dense import DenseScorer

FIRST, SECOND = "a" * 40, "b" * 40
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b"{}" * 500,
    "model.safetensors": bytes(range(256)) * 4000,
}
MOVED = {**FILES, "model.safetensors": FILES["model.safetensors"][::-1]}
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def ask(hub: Hub, home: Path) -> Iterator[Ask]:
    """Calls a function in a process that knows the hub and has no token."""
    with another_process(hub, home) as ask:
        yield ask


@pytest.fixture
def model(hub: Hub, request: pytest.FixtureRequest) -> str:
    """A model of each test's own, of which nothing is in the cache."""
    name = f"some/{request.node.originalname.replace('_', '-')}"
    name = name[:60] + str(len(hub.repositories))
    hub.repositories[name] = Repository({FIRST: FILES, SECOND: MOVED}, {"main": FIRST, "v1": FIRST})
    hub.asked.clear()
    hub.faults.clear()
    return name


def test_a_name_is_a_commit_when_planned_and_its_files_arrive_when_used(hub: Hub, ask: Ask, model: str) -> None:
    hub.repositories[model].commits[FIRST] = {**FILES, "onnx/model.onnx": b"0", "pytorch_model.msgpack": b"0"}
    pinned = ask(pin, Pretrained(model=model))
    assert pinned.content == f"hub:{FIRST}"
    assert hub.paths("GET", "safetensors") == []  # a plan reads no weights
    directory = Path(ask(resolve, pinned))
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == FILES
    hub.asked.clear()
    assert ask(resolve, pinned) == str(directory)
    assert hub.asked == []  # all is in the cache


def test_a_moved_branch_is_another_model_and_a_commit_is_not(hub: Hub, ask: Ask, model: str, tmp_path: Path) -> None:
    branch, commit = DenseScorer(model=model), DenseScorer(model=model, revision=FIRST)
    before = [ask(pin, branch), ask(pin, commit)]
    assert fingerprint(before[0]) == fingerprint(before[1])
    hub.repositories[model].refs["main"] = SECOND
    assert ask(pin, branch) == before[0]  # what is in use on a machine does not change its name
    with another_process(hub, tmp_path) as ask_elsewhere:
        after = [ask_elsewhere(pin, branch), ask_elsewhere(pin, commit)]
        assert after[0].content == f"hub:{SECOND}"
        assert fingerprint(after[0]) != fingerprint(before[0])
        assert after[1] == before[1]
        planned, moved = (Path(ask_elsewhere(resolve, pinned)) for pinned in (before[0], after[0]))
    assert (planned / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert (moved / "model.safetensors").read_bytes() == MOVED["model.safetensors"]


def test_what_the_hub_does_not_give_is_an_error_that_names_the_key(hub: Hub, ask: Ask, model: str) -> None:
    hub.repositories[model].gated = True
    (gated,) = find_absent(ask(pin, Pretrained(model=model)))
    assert gated.startswith(f"model = '{model}': no such directory, not in the Hugging Face cache")
    assert "accept them on the model's page" in gated
    assert "HF_TOKEN" in gated
    with pytest.raises(RecipeError, match=rf"model '{model}', revision {FIRST}: .*accept them on the model's page"):
        ask(resolve, Pretrained(model=model, revision=FIRST))  # of a commit the hub is not asked before
    (absent,) = find_absent(ask(pin, Pretrained(model="some/none")))
    assert absent.startswith("model = 'some/none': ")
    assert "has no such model, or none that HF_TOKEN opens" in absent
    (misnamed,) = find_absent(ask(pin, Pretrained(model="my model")))
    assert misnamed.startswith("model = 'my model': ")
    assert "the hub has no models of such a name: " in misnamed
    hub.repositories[model].gated = False
    (unknown,) = find_absent(ask(pin, Pretrained(model=model, revision="v9")))
    assert "no such revision" in unknown
    assert ask(pin, Pretrained(model=model, revision="v1")).content == f"hub:{FIRST}"


def test_a_broken_download_goes_on(hub: Hub, ask: Ask, model: str) -> None:
    large = {**FILES, "model.safetensors": FILES["model.safetensors"] * 24}  # the library takes pieces of 10 MB
    hub.repositories[model].commits[FIRST] = large
    hub.faults["model.safetensors"] = [503, 429, "cut"]
    directory = Path(ask(resolve, ask(pin, Pretrained(model=model))))
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == large
    assert hub.faults["model.safetensors"] == []
    asked = [headers.get("range") for _, path, headers in hub.asked if "/storage/" in path]
    assert asked == [None, None, None, f"bytes={10 << 20}-"]


def test_a_busy_hub_is_asked_again_when_planned(hub: Hub, ask: Ask, model: str) -> None:
    hub.faults["config.json"] = [500]
    assert ask(pin, Pretrained(model=model)).content == f"hub:{FIRST}"
    assert hub.faults["config.json"] == []


def test_a_token_goes_to_the_hub_alone_and_to_no_log(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.repositories[model].gated = True
    hub.faults.update({"model.safetensors": [429], "tokenizer.json": [503]})
    code = (
        "import logging; logging.basicConfig(level=logging.DEBUG)\n"
        "from pipelines.models import Pretrained, pin, resolve, find_absent\n"
        f"print(resolve(pin(Pretrained(model={model!r}))), find_absent(pin(Pretrained(model='some/none'))))"
    )
    values = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN}
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **values}, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert "has no such model" in run.stdout
    assert "DEBUG" in run.stderr
    assert TOKEN not in run.stdout + run.stderr
    bearers = [(path, headers.get("authorization")) for _, path, headers in hub.asked]
    assert {bearer for path, bearer in bearers if "/models/" in path or "/resolve/" in path} == {f"Bearer {TOKEN}"}
    assert {bearer for path, bearer in bearers if "/storage/" in path} == {None}
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []


@pytest.mark.parametrize("offline", ["0", "1"])
def test_what_is_in_the_cache_needs_no_hub(model: str, hub: Hub, offline: str, tmp_path: Path) -> None:
    with another_process(hub, tmp_path) as ask:
        pinned = ask(pin, Pretrained(model=model))
        directory = ask(resolve, pinned)
        other = ask(pin, Pretrained(model=model, revision="v1"))
    nothing = Hub(port=hub.port if offline == "1" else 1)  # to which nothing listens
    hub.asked.clear()
    with another_process(nothing, tmp_path, HF_HUB_OFFLINE=offline) as ask:
        assert ask(pin, Pretrained(model=model)) == pinned
        assert ask(pin, Pretrained(model=model, revision="v1")) == other
        assert ask(resolve, pinned) == directory
        (absent,) = find_absent(ask(pin, Pretrained(model="some/other")))
        assert "the hub cannot be reached" in absent
        if offline == "0":
            return  # for a commit the library asks a hub that refuses connections for 23 s
        with pytest.raises(StorageError, match=f"'some/other', revision {SECOND}: not all of its files"):
            ask(resolve, Pretrained(model="some/other", revision=SECOND))
    assert hub.asked == []
