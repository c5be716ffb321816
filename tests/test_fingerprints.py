"""The golden file of versions, defaults and code: up to date, complete, and deaf to what cannot change a result.

When the first test fails, its message says what has changed and which of two things to do; see tests/fingerprints.py.
"""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cluster.component import Component
from pipelines.recipe import names
from tests.fingerprints import GOLDEN, ROOT, Checkout, Snapshot, find_changes, find_works, tree_hash
from tests.test_recipe import planned

DENSE = "pipelines.scorers.dense"
SEARCH = "pipelines.indexes.plaid.search"


def compare(root: Path, *arguments: str) -> tuple[int, str]:
    """Run the command in a checkout: exit status and what it says. Its process sees the plan's imports alone."""
    command = [sys.executable, str(root / "tests" / "fingerprints.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env={"PYTHONPATH": str(root)})
    return done.returncode, done.stdout + done.stderr


def test_no_default_and_no_code_has_changed_in_silence() -> None:
    status, said = compare(ROOT)
    assert status == 0, said


@pytest.mark.parametrize("name", names())
def test_all_works_and_components_of_the_recipes_are_watched(name: str, tmp_path: Path) -> None:
    golden = Snapshot.read(GOLDEN)
    for step in planned(name, tmp_path).steps:
        assert step.work.__name__ in golden.works
        assert step.work.__module__ in golden.modules
        for component in components(step.config):
            assert f"{type(component).__module__}.{type(component).__name__}" in golden.components


def components(value: Any) -> Iterator[Component]:
    """The components of a config that a fingerprint may cover, itself included."""
    if isinstance(value, Component):
        kept = set(type(value).model_fields) - value.left_out()
        if type(value).__module__.startswith("pipelines.") and not type(value).__name__.endswith("Resources"):
            yield value
            value = [getattr(value, name) for name in kept]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from components(item)


def test_code_far_from_any_component_is_watched() -> None:
    watched = Snapshot.read(GOLDEN).modules
    far = ("indexes.plaid.search", "indexes.plaid.codec", "indexes.maxsim", "training.loop", "students.lexical.align")
    assert {f"pipelines.{name}" for name in far} <= set(watched)
    assert not {name for name in watched if name.startswith(("pipelines.plan", "pipelines.verbs", "pipelines.report"))}


@pytest.fixture(scope="module")
def checkout() -> Checkout:
    return Checkout.read(ROOT)


@pytest.fixture
def golden(checkout: Checkout) -> Snapshot:
    """What a golden file would hold that is up to date."""
    return deepcopy(checkout.now)


def test_what_has_not_changed_needs_nothing(checkout: Checkout, golden: Snapshot) -> None:
    assert find_changes(golden, checkout) == ([], [])


def test_a_changed_default_asks_for_a_version(checkout: Checkout, golden: Snapshot) -> None:
    golden.components[f"{DENSE}.DenseScorer"]["defaults"]["scale"] = 0.5
    ((said,), (stale,)) = find_changes(golden, checkout)
    assert f"{DENSE}.DenseScorer.scale: the default was 0.5 and is 1.0" in said
    assert f"Raise `version: ClassVar[int]` in {DENSE}.DenseScorer" in said
    assert "not up to date (components): run python tests/fingerprints.py --write" in stale
    golden.components[f"{DENSE}.DenseScorer"]["version"] = 0  # it has been raised since
    assert find_changes(golden, checkout) == ([], [stale])


def test_a_new_optional_field_asks_for_nothing_more_than_its_module_does(checkout: Checkout, golden: Snapshot) -> None:
    del golden.components[f"{DENSE}.DenseScorer"]["defaults"]["scale"]
    decide, stale = find_changes(golden, checkout)
    assert not decide
    assert stale


def test_changed_code_asks_for_a_version_of_what_depends_on_it_or_a_word(checkout: Checkout, golden: Snapshot) -> None:
    golden.modules[SEARCH] = "other"
    (said,) = find_changes(golden, checkout)[0]
    assert f"{SEARCH} has changed. On it depend pipelines.indexes.plaid.Plaid, " in said
    assert "raise `version: ClassVar[int]` in pipelines.indexes.plaid.Plaid" in said
    assert f'python tests/fingerprints.py --write --no-effect {SEARCH} "why"' in said
    assert not find_changes(golden, checkout, [SEARCH])[0]
    golden.components[f"{DENSE}.DenseScorer"]["version"] = 0  # which does not search
    assert find_changes(golden, checkout)[0] == [said]
    golden.works["Search"]["version"] = 0
    assert not find_changes(golden, checkout)[0]


def test_a_lowered_version_is_refused(checkout: Checkout, golden: Snapshot) -> None:
    golden.works["Encode"]["version"] = 2
    (said,) = find_changes(golden, checkout)[0]
    assert said == "Encode: version 1 is below 2: only raise it"


def test_two_works_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Encode:
        def __init__(self, config: Any, inputs: Any) -> None: ...
        def __call__(self, rows: Any) -> Any: ...

    Encode.__module__ = "pipelines.other"
    other = ModuleType("pipelines.other")
    other.Encode = Encode  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipelines.other", other)
    with pytest.raises(ValueError, match=r"pipelines\.encode and pipelines\.other both have a work Encode: rename one"):
        find_works()


def change(file: Path, before: str, after: str) -> None:
    text = file.read_text("utf-8")
    assert text.count(before) == 1
    file.write_text(text.replace(before, after), "utf-8")


def test_from_a_change_to_a_new_golden_file(tmp_path: Path) -> None:
    """The whole way, in a checkout of our own: refused, versions raised and reasons given, written."""
    for package in ("cluster", "pipelines"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "fingerprints.py", tmp_path / "tests")
    assert compare(tmp_path, "--write") == (0, "")
    file = tmp_path / "tests" / "fingerprints.json"
    before = file.read_bytes()

    dense, search = (tmp_path / f"{name.replace('.', '/')}.py" for name in (DENSE, SEARCH))
    change(dense, "scale: float = Field(1.0", "scale: float = Field(2.0")
    search.write_text(search.read_text("utf-8") + "\n\nROUNDS = 3\n", "utf-8")
    status, said = compare(tmp_path, "--write")
    assert status == 1
    assert f"{DENSE}.DenseScorer.scale: the default was 1.0 and is 2.0" in said
    assert f"{DENSE} has changed" in said
    assert f"{SEARCH} has changed" in said
    assert file.read_bytes() == before

    change(dense, "class DenseScorer(Pretrained):", "class DenseScorer(Pretrained):\n    version = 2")
    reason = ["--no-effect", SEARCH, "a constant that nothing reads"]
    assert compare(tmp_path, "--write", *reason) == (0, "")
    after = json.loads(file.read_text("utf-8"))
    assert after["no_effect"] == {SEARCH: reason[2]}
    assert after["components"][f"{DENSE}.DenseScorer"]["version"] == 2
    assert compare(tmp_path) == (0, "nothing has changed\n")


CODE = '''
"""A module."""
from pipelines.ids import batches

DEPTH = 8

class Kind(Component):
    """A class."""
    depth: int = 3

def search(query, k=10):
    """A function."""
    if k < 1:
        raise ValueError(f"k = {k} is too small")
    return sorted(query)[:k]
'''


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        ('"""A module."""', '"""Another."""', False),
        ('    """A class."""\n', "", False),
        ('"""A function."""', '"""Does\n    more."""  # much', False),
        ("is too small", "must be at least 1", False),
        ("DEPTH = 8", "DEPTH = (8)  # in tokens", False),
        ("DEPTH = 8", "DEPTH = 9", True),
        ("depth: int = 3", "depth: int = 4", True),
        ("depth: int = 3", "depth: int = 3\n    width: int = 0", True),
        ("sorted(query)", "sorted(query, reverse=True)", True),
        ("k < 1", "k < 2", True),
        ("ValueError", "TypeError", True),
        ("k=10", "k=11", True),
        ("pipelines.ids", "pipelines.other", True),
    ],
)
def test_what_counts_in_a_syntax_tree(before: str, after: str, counts: bool) -> None:
    assert CODE.count(before) == 1
    changed = CODE.replace(before, after)
    assert (tree_hash(ast.parse(changed)) != tree_hash(ast.parse(CODE))) == counts
