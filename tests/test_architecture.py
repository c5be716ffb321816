"""The lines of the architecture: who may import whom, what stays light, how large files and functions may grow."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"cluster": set(), "pipelines": {"cluster"}, "serving": {"cluster", "pipelines"}}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PARTS = ("translators", "engines", "scorers", "students", "indexes", "training", "sources")
STEPS = {"ingest", "translate", "scoring", "encode", "index", "search", "evaluate", "plan", "recipe", "verbs"}
MODELS = {"torch", "transformers", "sentence_transformers", "faiss", "bm25s", "ctranslate2", "vllm", "lingua"}


def imports(path: Path, everywhere: bool) -> Iterator[str]:
    """Dotted names that a file imports: anywhere, or when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = {n for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in ast.walk(f)}
    typing_only = {
        n
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for n in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if node in typing_only or (not everywhere and node in lazy):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_direction_of_imports(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    allowed = PACKAGES[package] | {package}
    for name in imports(path, everywhere=True):
        top = name.partition(".")[0]
        assert top not in PACKAGES or top in allowed, f"{package} must not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_parts_do_not_import_steps_and_models_do_not_import_ray(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    if parts[0] != "pipelines" or parts[1] not in PARTS:
        return
    for name in imports(path, everywhere=True):
        if name.startswith("pipelines."):
            assert name.split(".")[1] not in STEPS, f"{path.name} is a part and imports the step {name}"
        if parts[1] != "training":  # the trainer is where models and Ray Train meet
            assert not name.startswith("ray"), f"{path.name} is a model and imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_imports_are_lazy(path: Path) -> None:
    for name in imports(path, everywhere=False):
        top = name.partition(".")[0]
        assert top not in MODELS | {"ray"} or _runs_only_in_a_worker(path, top), (
            f"{path} imports {name} at module level"
        )


def _runs_only_in_a_worker(path: Path, top: str) -> bool:
    """Files that nothing imports but the code that needs what they need."""
    parts = path.relative_to(ROOT).parts
    if parts[0] == "serving":
        return top == "ray"
    return parts[:2] in {("pipelines", "students"), ("pipelines", "training")} and path.name != "__init__.py"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_one_file_one_story(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300, "a file of more than 300 lines has two stories"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            size = (node.end_lineno or 0) - node.lineno + 1
            count = len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs)
            assert size <= 60, f"{node.name}: {size} lines"
            assert count <= 7, f"{node.name}: {count} parameters"  # self included


def loaded_by(module: str) -> set[str]:
    """Top-level modules in memory after importing ``module`` in a fresh process."""
    code = f"import {module}, sys; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_recipes_load_without_models_or_ray() -> None:
    assert not loaded_by("pipelines.recipe") & (MODELS | {"ray"})


def test_plan_loads_without_models_or_ray() -> None:
    assert not loaded_by("pipelines.plan") & (MODELS | {"ray"})


def test_index_search_does_not_import_torch() -> None:
    assert "torch" not in loaded_by("pipelines.indexes")
    assert "torch" not in loaded_by("pipelines.search")


def test_shard_replica_does_not_import_torch() -> None:
    assert "torch" not in loaded_by("serving.shard")


def test_an_installed_package_has_every_file_that_is_not_code() -> None:
    """What an image or a wheel installs: the files that ``pyproject.toml`` names, and no others."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in ("pipelines", "serving"):
        named = {file for pattern in patterns[package] for file in (ROOT / package).glob(pattern)}
        there = {
            file
            for file in (ROOT / package).rglob("*")
            if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts
        }
        assert there - named == set()
