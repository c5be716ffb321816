"""The command line: its verbs are frozen, it goes on where it was, and it prints what people and machines read."""

import json
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import typer.main
from click.testing import Result
from scipy.special import softmax
from scipy.stats import entropy, kendalltau
from typer.testing import CliRunner

from cluster.artifact import Artifact
from cluster.storage import Place
from local_executor import run_here
from pipelines import verbs
from pipelines.__main__ import app
from pipelines.terminal import QUIET
from pipelines.training.data import open_passages
from serving.cli import app as babelray

ROOT = Path(__file__).parents[1]
SMALL = [
    "source.territories=12",
    'languages.docs=["en", "fa", "zh"]',
    "train.steps=20",
    "measure.untrained=false",
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
def own(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that add a collection of one's own to those of a recipe."""
    folder = tmp_path_factory.mktemp("own")
    for lang, text in {"en": "The currency of Iran is the rial", "fa": "واحد پول ایران ریال است"}.items():
        (folder / f"collection.{lang}.tsv").write_text(f"d1\t{text}\nd2\tzzz\n", encoding="utf-8")
    (folder / "queries.en.tsv").write_text("q1\tWhat is the currency of Iran?\n")
    (folder / "qrels.tsv").write_text("q1 0 d1 1\n")
    sets = ["source.kind=parallel", f"source.path={folder}", 'languages=["en", "fa"]']
    return [part for value in sets for part in ("--set", f"evaluate.mine.{value}")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, own: list[str]) -> Path:
    """Where a small atlas has been run, and measured on its own collection and on another."""
    directory = tmp_path_factory.mktemp("root")
    out = ray_cli(directory, "run", "atlas", *own)
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
    "evaluate": ["recipe", "others", "--system", "--set", "--json"],
    "experiment": ["name", "--only", "--markdown", "--set", "--json"],
    "export": ["recipe", "step", "file", "--format", "--set", "--json"],
    "calibration": ["recipe", "others", "--student", "--set", "--json"],
    "prune": ["recipes", "--dry-run", "--set", "--json"],
    "search": ["recipe", "query", "-k", "--lang", "--set", "--json", "--where", "--ids"],
    "add": ["recipe", "files", "--lang", "--system", "--set", "--json"],
    "delete": ["recipe", "ids", "--file", "--lang", "--system", "--set", "--json"],
    "compact": ["recipe", "--system", "--set", "--json"],
}
OTHER_VERBS = {
    "serve": ["recipe", "--set", "--system", "--host", "--port", "--print-config", "--replace"],
    "doctor": ["--root", "--timeout", "--workers", "--gpus", "--wait", "--json"],
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
    found, fairness = measures["atlas"]["measures"], measures["atlas"]["fairness"]
    assert set(found) == {"all", "en", "fa", "zh"}
    assert all(set(m) == {"nDCG@20", "AP", "R@100", "RR@10"} for m in found.values())
    assert found["fa"]["nDCG@20"] > 0.3
    assert set(fairness["languages"]) == {"en", "fa", "zh"}
    lexical = json.loads(cli(root, "evaluate", "atlas", "--json", "--system", "bm25").stdout)
    assert lexical["atlas"]["measures"]["fa"]["nDCG@20"] < found["fa"]["nDCG@20"]


def test_evaluate_measures_a_collection_of_ones_own(root: Path, own: list[str]) -> None:
    measures = json.loads(cli(root, "evaluate", "atlas", "--json", *own).stdout)
    assert set(measures) == {"atlas", "mine"}
    assert measures["mine"]["measures"]["en"]["RR@10"] == 1.0


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


def test_exported_scores_are_read_again_as_the_same_training_input(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.jsonl.gz"
    written = json.loads(cli(root, "export", "atlas", "score", str(file), "--json").stdout)
    assert (written["format"], written["rejected"]) == ("colbert", 0)
    teacher = Artifact(Place.of(root / written["step"]))
    assert written["lines"] == teacher.manifest.rows > 100
    with_file = ["--set", f'score={{kind="file", path="{file}"}}']
    plan, place = verbs.load_plan("atlas", [*SMALL, f"root={root}", with_file[1]])
    run_here(plan.find_steps("score"), place)
    rows = json.loads(cli(root, "status", "atlas", "--json", *with_file).stdout)
    steps = {row["step"].partition("@")[0]: row["step"] for row in rows}
    assert not {"select", "index-select"} & set(steps)
    published = Artifact(Place.of(root / steps["score"]))
    assert published.name != teacher.name
    assert published.read().equals(teacher.read())
    theirs, ours = open_passages({"scores": published}), open_passages({"scores": teacher})
    for row in (0, len(ours) - 1):
        one, other = theirs.candidates(row, 50), ours.candidates(row, 50)
        assert (one.query_id, one.doc_ids) == (other.query_id, other.doc_ids)
        assert one.scores.tolist() == other.scores.tolist()


def test_tables_are_exported_in_the_formats_of_the_field(root: Path, tmp_path: Path) -> None:
    def exported(step: str, *options: str) -> list[list[str]]:
        cli(root, "export", "atlas", step, str(tmp_path / "out"), *options)
        return [
            line.split("\t" if "msmarco" in options else " ") for line in (tmp_path / "out").read_text().splitlines()
        ]

    run = exported("search-student-fa")
    assert [(len(line), line[1], line[5]) for line in run[:1]] == [(6, "Q0", "search-student-fa")]
    assert exported("search-student-fa", "--format", "msmarco")[0] == [run[0][0], run[0][2], "1"]
    assert json.loads(" ".join(exported("select", "--format", "colbert")[0]))[0]
    (evaluation,) = json.loads(cli(root, "show", "atlas", "evaluate-atlas-student", "--json").stdout)
    assert {len(line) for line in exported(evaluation["inputs"]["qrels.fa"])} == {4}
    translations = exported("translate-fa", "--format", "msmarco")
    assert {len(line) for line in translations} == {2}
    assert all(line[1] for line in translations)


def test_a_student_is_exported_with_a_card_of_what_its_manifests_say(root: Path, tmp_path: Path) -> None:
    written = json.loads(cli(root, "export", "atlas", "train", str(tmp_path / "model"), "--json").stdout)
    assert written["format"] == "model"
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    measures = json.loads(cli(root, "evaluate", "atlas", "--json").stdout)["atlas"]["measures"]
    lexical = json.loads(cli(root, "evaluate", "atlas", "--json", "--system", "bm25").stdout)["atlas"]["measures"]
    for lang, of in measures.items():
        assert f"| {lang} | {of['nDCG@20']:.3f} | {lexical[lang]['nDCG@20']:.3f} |" in card
    assert f"Made by step `{written['step']}`" in card
    assert card.startswith("---\nlanguage: [en, fa, zh]\n")
    code = card.partition("```python\n")[2].partition("```")[0].replace("DIRECTORY", str(tmp_path / "model"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "tensor" in done.stdout


def test_what_cannot_be_exported_is_told(root: Path, tmp_path: Path) -> None:
    def told(where: Path, *words: str) -> str:
        return " ".join(cli(where, "export", "atlas", *words, code=1).stderr.split())

    out = str(tmp_path / "out")
    assert re.search(r"step score@\w+ is not finished in .*`babelray run atlas score`", told(tmp_path, "score", out))
    assert "encode-student-fa makes a table of vectors, which has no format" in told(root, "encode-student-fa", out)
    assert "step start makes a directory of files" in told(root, "start", out)
    assert "step train makes a directory of files" in told(root, "train", out, "--format", "trec")
    assert "--format trec: a table of docs is written as msmarco" in told(root, "translate-fa", out, "--format", "trec")
    several = told(root, "docs-en", out)
    assert re.search(
        r"several steps are named docs-en: choose one of docs-en@\w+ \(train\), docs-en@\w+ \(all\)", several
    )
    assert not (tmp_path / "out").exists()


def test_calibration_compares_teachers_and_the_student(root: Path, tmp_path: Path) -> None:
    lexical = tmp_path / "lexical.toml"
    lexical.write_text(
        'extends = "atlas"\n[score.scorer]\nkind = "ensemble"\nof = [{ kind = "bm25" }, { kind = "bm25", k1 = 2 }]\n'
    )
    shown = json.loads(ray_cli(root, "calibration", "atlas", str(lexical), "--json"))
    assert list(shown["teachers"]) == ["atlas", "lexical", "lexical 0", "lexical 1"]
    assert (shown["ways"], shown["pool"]) == (12, 50)
    assert list(shown["teachers"]["atlas"]["temperatures"]) == ["0.0125", "0.025", "0.05", "0.1", "0.2"]
    assert Path(shown["png"]).read_bytes().startswith(b"\x89PNG")
    assert shown["tau"]["lexical 0 and lexical 1"]["tau"] > shown["tau"]["atlas and lexical"]["tau"] > 0
    assert set(shown["students"]) == {"en", "fa", "zh"}
    for lang, agreement in shown["students"].items():
        (scored,) = [Artifact(Place.of(path)) for path in root.glob(f"score-atlas-{lang}@*")]
        assert scored.manifest.inputs["docs"].startswith("docs-en@")
        assert scored.manifest.config["doc_lang"] == "en"
        found = Artifact(Place.of(root) / scored.manifest.inputs["rankings"])
        assert found.name.startswith(f"search-student-{lang}@")
        assert agreement == pytest.approx(agree(scored, found, alpha=40, temperature=2), rel=1e-6)
    page = cli(root, "calibration", "atlas", "--no-student").stdout  # all of it is there by now
    assert "Effective passages of 12" in page
    assert "student" not in page


def agree(teacher: Artifact, student: Artifact, alpha: float, temperature: float) -> dict[str, float]:
    """Mean tau-b and KL over queries, by scipy, of the first 50 documents by the teacher."""
    taus, divergences = [], []
    theirs = {
        row["query_id"]: dict(zip(row["doc_ids"], row["scores"], strict=True)) for row in student.read().to_pylist()
    }
    for row in teacher.read().to_pylist():
        found = theirs[row["query_id"]]
        mine = [score for doc, score in zip(row["doc_ids"], row["scores"], strict=True) if doc in found][:50]
        others = [found[doc] for doc in row["doc_ids"] if doc in found][:50]
        if len(set(mine)) > 1 and len(set(others)) > 1:
            taus.append(kendalltau(mine, others).statistic)
            p, q = softmax(np.array(mine) * alpha / temperature), softmax(np.array(others) / temperature)
            divergences.append(entropy(p, q))
    return {"queries": len(taus), "tau": float(np.mean(taus)), "kl": float(np.mean(divergences))}


def test_calibration_needs_a_teacher(root: Path) -> None:
    labels = ["--set", 'train.loss={kind="infonce", in_batch=false}']
    told = " ".join(cli(root, "calibration", "atlas", *labels, code=1).stderr.split())
    assert "recipe atlas has no teacher to calibrate: expected a training on scores" in told


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
