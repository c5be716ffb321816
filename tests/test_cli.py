"""The command line: its verbs are frozen, it goes on where it was, and it prints what people and machines read."""

import json
import resource
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer.main
from click.testing import Result
from typer.testing import CliRunner

from pipelines.__main__ import QUIET, app
from serving.cli import app as babelray

ROOT = Path(__file__).parents[1]
SMALL = [
    "source.territories=12",
    'languages.docs=["en", "fa", "zh"]',
    "train.steps=20",
    "train.student.words=",
    "select.index.kind=exact",
    "select.encoder.model=minilm",
]


def with_sets(root: Path, words: Sequence[str]) -> list[str]:
    return [*words, *(part for value in [*SMALL, f"root={root}"] for part in ("--set", value))]


def ray_cli(root: Path, *words: str) -> str:
    """What a verb that needs Ray prints: in a process of its own, as users run it."""
    command = [sys.executable, "-m", "pipelines", *with_sets(root, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cli(root: Path, *words: str, code: int = 0) -> Result:
    """What a verb that needs no Ray does: in this process, which has loaded the libraries."""
    done = CliRunner(env=QUIET).invoke(app, with_sets(root, words))
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a small atlas has been run."""
    directory = tmp_path_factory.mktemp("root")
    out = ray_cli(directory, "run", "atlas")
    assert "all languages" in out
    assert "What money do people pay with in Iran?" in out
    assert "serve atlas" in out
    return directory


RECIPE_VERBS = {
    "new": ["name", "--source", "--lang", "--force", "--json"],
    "plan": ["recipe", "--cluster", "--calibrate", "--rows", "--price", "--set", "--json"],
    "run": ["recipe", "steps", "--set", "--json"],
    "status": ["recipe", "--set", "--json"],
    "show": ["recipe", "step", "--set", "--json"],
    "search": ["recipe", "query", "-k", "--lang", "--set", "--json"],
    "evaluate": ["recipe", "others", "--system", "--set", "--json"],
    "prune": ["recipes", "--dry-run", "--set", "--json"],
}
OTHER_VERBS = {
    "serve": ["recipe", "--set", "--system", "--host", "--port", "--print-config"],
    "doctor": ["--root", "--timeout", "--json"],
}


def verbs_of(app: typer.Typer) -> dict[str, list[str]]:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return {name: [parameter.opts[0] for parameter in command.params] for name, command in commands.items()}


def test_verbs_are_frozen_and_babelray_has_those_of_all_packages() -> None:
    assert verbs_of(app) == RECIPE_VERBS
    assert verbs_of(babelray) == RECIPE_VERBS | OTHER_VERBS
    assert list(verbs_of(babelray)) == [*RECIPE_VERBS, *OTHER_VERBS]


def test_the_console_script_is_that_command() -> None:
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["babelray"]
    module, _, function = script.partition(":")
    code = f"import sys, {module}; sys.argv[1:] = ['--help']; {module}.{function}()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "Usage: babelray" in done.stdout
    assert all(verb in done.stdout for verb in [*RECIPE_VERBS, *OTHER_VERBS])


@pytest.mark.parametrize("verb", [*RECIPE_VERBS, *OTHER_VERBS])
def test_help_of_each_verb_explains_it_with_an_example(verb: str) -> None:
    done = CliRunner().invoke(babelray, [verb, "--help"])
    assert done.exit_code == 0
    _, _, example = done.stdout.partition("Example:")
    assert verb in example


def test_help_loads_no_models_and_no_ray() -> None:
    code = "import sys; from serving.cli import app; print({'ray', 'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.stdout.strip() == "set()", done.stderr


def test_finished_recipe_does_nothing_quickly_and_without_ray(root: Path) -> None:
    """In seconds of the processor: what else this machine does is no fault of ours."""
    code = (
        "import sys, atexit; from pipelines.__main__ import app\n"
        "atexit.register(lambda: print('ray' in sys.modules, 'torch' in sys.modules, file=sys.stderr))\n"
        f"app({with_sets(root, ['run', 'atlas'])!r})"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=100)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == ["False", "False"]
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


def test_evaluate_prints_measures_per_language_as_json(root: Path) -> None:
    measures = json.loads(cli(root, "evaluate", "atlas", "--json").stdout)
    assert set(measures) == {"atlas"}
    assert set(measures["atlas"]) == {"all", "en", "fa", "zh"}
    assert all(set(m) == {"nDCG@20", "AP", "R@100", "RR@10"} for m in measures["atlas"].values())
    assert measures["atlas"]["fa"]["nDCG@20"] > 0.3
    lexical = json.loads(cli(root, "evaluate", "atlas", "--json", "--system", "bm25").stdout)
    assert lexical["atlas"]["fa"]["nDCG@20"] < measures["atlas"]["fa"]["nDCG@20"]


def test_evaluate_measures_a_collection_of_ones_own(root: Path, tmp_path: Path) -> None:
    for lang, text in {"en": "The currency of Iran is the rial", "fa": "واحد پول ایران ریال است"}.items():
        (tmp_path / f"collection.{lang}.tsv").write_text(f"d1\t{text}\nd2\tzzz\n", encoding="utf-8")
    (tmp_path / "queries.en.tsv").write_text("q1\tWhat is the currency of Iran?\n")
    (tmp_path / "qrels.tsv").write_text("q1 0 d1 1\n")
    own = ["evaluate.mine.source.kind=parallel", f"evaluate.mine.source.path={tmp_path}"]
    own += ['evaluate.mine.languages=["en", "fa"]', "measure.bm25=false", "measure.untrained=false"]
    sets = [part for value in own for part in ("--set", value)]
    measures = json.loads(ray_cli(root, "evaluate", "atlas", "--json", *sets))
    assert set(measures) == {"atlas", "mine"}
    assert measures["mine"]["en"]["RR@10"] == 1.0


def test_comparison_with_itself_finds_no_difference(root: Path) -> None:
    rows = json.loads(cli(root, "evaluate", "atlas", "atlas", "--json").stdout)["atlas"]
    assert rows
    assert all(row["difference"] == 0 for row in rows)


def test_search_filters_by_language(root: Path) -> None:
    done = cli(root, "search", "atlas", "What money do people use in Iran?", "-k", "3", "--lang", "fa", "--json")
    results = json.loads(done.stdout)["results"]
    assert [r["lang"] for r in results] == ["fa"] * 3
    assert [r["rank"] for r in results] == [1, 2, 3]
    wrong = cli(root, "search", "atlas", "query", "--lang", "xx", code=1)
    assert "error: no passages in ['xx']; the index has en, fa, zh" in wrong.stderr


def test_status_and_show_tell_what_is_there(root: Path) -> None:
    rows = json.loads(cli(root, "status", "atlas", "--json").stdout)
    assert {row["state"] for row in rows} == {"done"}
    (shown,) = json.loads(cli(root, "show", "atlas", "translate-fa", "--json").stdout)
    rows_of = {row["step"]: row["rows"] for row in rows}
    assert shown["rows"] == rows_of[shown["inputs"]["docs"]] > 0  # a row in, a row out
    assert shown["config"]["target_lang"] == "fa"
    assert shown["first rows"][0]["lang"] == "fa"
    wrong = cli(root, "show", "atlas", "translate-xx", code=1)
    assert "no step 'translate-xx'" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_prune_deletes_what_no_named_recipe_needs(tmp_path: Path) -> None:
    needed = json.loads(cli(tmp_path, "status", "atlas", "--json").stdout)[0]["step"]
    for step in (needed, "docs-en@000000000000"):
        (tmp_path / step).mkdir()
        (tmp_path / step / "manifest.json").write_text("{}")
    listed = json.loads(cli(tmp_path, "prune", "atlas", "--dry-run", "--json").stdout)
    assert [(row["artifact"], row["bytes"]) for row in listed] == [("docs-en@000000000000", 2)]
    assert (tmp_path / "docs-en@000000000000").exists()
    assert json.loads(cli(tmp_path, "prune", "atlas", "--json").stdout) == listed
    assert [path.name for path in tmp_path.iterdir() if "@" in path.name] == [needed]
    assert json.loads(cli(tmp_path, "prune", "atlas", "--json").stdout) == []


def test_steps_to_come_are_listed_before_anything_ran(tmp_path: Path) -> None:
    rows = json.loads(cli(tmp_path, "status", "atlas", "--json").stdout)
    assert {row["state"] for row in rows} == {"to come"}
    assert not list(tmp_path.iterdir())
