"""Dockerfile and compose file by rules, and hadolint where it is installed; dashboard and alerts: every metric exists.

Nothing is built here: this needs a builder and an hour. The rules hold what a build would not notice.
"""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
GRAFANA = ROOT / "cluster" / "grafana"
COPY = re.compile(r"^COPY (?!--from)(.+) \S+$")


def read_instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each with its lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines]


@pytest.fixture(scope="module")
def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, with those of the stages that it is built on before them."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, rest in read_instructions():
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            found[stage] = [*found.get(base, [("FROM", base)])]
        elif found:
            found[stage].append((name, rest))
    return found


def test_bases_are_pinned(stages: dict[str, list[tuple[str, str]]]) -> None:
    arguments = dict(rest.split("=", 1) for name, rest in read_instructions() if name == "ARG" and "=" in rest)
    bases = {rest for instructions in stages.values() for name, rest in instructions if name == "FROM"}
    assert bases == {"python:${PYTHON}-slim-bookworm"}
    assert re.fullmatch(r"3\.1[1-3]\.\d+", arguments["PYTHON"])


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_images_run_as_a_user_with_a_health_check_and_a_first_process(
    target: str, stages: dict[str, list[tuple[str, str]]]
) -> None:
    last = dict(stages[target])
    assert last["USER"] == "1000:1000"  # as the pods of cluster/kubernetes/ do
    assert last["ENTRYPOINT"] == '["tini", "--"]'
    asked = re.search(r"http://127.0.0.1:8000(/[\w/-]+)", last["HEALTHCHECK"])
    assert asked
    assert asked.group(1) in ("/-/healthz", "/livez", "/health")


def test_the_lock_is_copied_before_the_code_and_binds_without_what_only_tests_need(
    stages: dict[str, list[tuple[str, str]]],
) -> None:
    steps = [f"{name} {rest}" for name, rest in stages["installed"]]
    lock = next(n for n, step in enumerate(steps) if step.startswith("COPY requirements.lock"))
    install = next(n for n, step in enumerate(steps) if "--constraint requirements.lock" in step)
    code = next(n for n, step in enumerate(steps) if step == "COPY cluster cluster")
    assert lock < install < code
    extras = next(rest for name, rest in stages["installed"] if name == "ARG" and rest.startswith("EXTRAS="))
    named = set(extras.removeprefix("EXTRAS=").split(","))
    known = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    assert "dev" not in named
    assert named <= known


def find_packages(requirements: list[str]) -> set[str]:
    """The names of all packages that these requirements bring, by what the installed ones say that they need."""
    todo, seen = [Requirement(text) for text in requirements], set()
    while todo:
        needed = todo.pop()
        key = (canonicalize_name(needed.name), frozenset(needed.extras))
        if key in seen:
            continue
        seen.add(key)
        for text in metadata.requires(needed.name) or []:
            further = Requirement(text)
            extras = (*needed.extras, "")
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(further)
    return {name for name, _ in seen}


def test_the_image_has_locked_packages_alone_and_none_of_the_tests(stages: dict[str, list[tuple[str, str]]]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = next(rest for name, rest in stages["installed"] if name == "ARG" and rest.startswith("EXTRAS="))
    chosen = [project["optional-dependencies"][name] for name in extras.removeprefix("EXTRAS=").split(",")]
    packages = find_packages([*project["dependencies"], *(text for group in chosen for text in group)])
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    locked = {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}
    assert packages - locked == set()
    assert not packages & {"pytest", "mypy", "ruff", "moto", "hypothesis"}
    assert {"ray", "torch", "aiohttp-cors", "boto3"} <= packages  # the dashboard's and the autoscaler's among them


def test_what_is_copied_is_there_and_not_ignored() -> None:
    patterns = (ROOT / ".dockerignore").read_text("utf-8").split("\n")
    copied = [name for line in map(" ".join, read_instructions()) if (m := COPY.match(line)) for name in m[1].split()]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages | {"requirements.lock", "pyproject.toml"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists()
        is_ignored = False
        for pattern in patterns:
            if pattern and not pattern.startswith("#") and fnmatch.fnmatch(name, pattern.removeprefix("!")):
                is_ignored = not pattern.startswith("!")
        assert not is_ignored


def test_no_layer_keeps_lists_of_packages() -> None:
    for name, rest in read_instructions():
        if name == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest
            assert rest.endswith("rm -rf /var/lib/apt/lists/*")


HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed: make setup brings it")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([str(HADOLINT), str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


# compose


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))


def test_compose_builds_a_target_of_the_dockerfile_and_pins_the_other_images(
    compose: dict[str, Any], stages: dict[str, list[tuple[str, str]]]
) -> None:
    ours = compose["services"]["babelray"]
    assert ours["build"]["target"] in stages
    assert ours["image"] == f"babelray:{version('babelray')}"
    for service in compose["services"].values():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])


def test_ports_are_open_to_this_machine_alone_and_ray_asks_for_the_token(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert compose["services"]["babelray"]["environment"]["RAY_AUTH_MODE"] == "token"


def test_mounted_files_and_volumes_are_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            assert (ROOT / source).is_file() if source.startswith("./") else source in compose["volumes"]


def test_prometheus_asks_the_port_where_ray_has_its_metrics(compose: dict[str, Any]) -> None:
    (job,) = yaml.safe_load((GRAFANA / "prometheus.yaml").read_text("utf-8"))["scrape_configs"]
    name, _, port = job["static_configs"][0]["targets"][0].partition(":")
    assert f"--metrics-export-port={port}" in compose["services"][name]["command"][-1]
    rules = yaml.safe_load((GRAFANA / "alerts.yaml").read_text("utf-8"))
    (pattern,) = re.findall(r'up\{job=~"(.+?)"\}', json.dumps(rules).replace('\\"', '"'))
    assert re.fullmatch(pattern, job["job_name"])
    assert re.fullmatch(pattern, f"serving/{job['job_name']}")  # a PodMonitor's
    assert not re.fullmatch(pattern, f"not-{job['job_name']}")


# dashboard and alerts

METRIC = re.compile(r"\b(?:ray|babelray)_[a-z_]+")


def find_metrics(file: Path) -> set[str]:
    return set(METRIC.findall(file.read_text("utf-8")))


def find_names_in_ray() -> Iterator[re.Pattern[str]]:
    """The names of Ray's metrics as its source has them; a part that is filled in later stands for any word."""
    import ray

    folder = Path(ray.__file__).parent
    files = [
        *(folder / "serve" / "_private").glob("*.py"),
        folder / "dashboard" / "modules" / "reporter" / "reporter_agent.py",
    ]
    for file in files:
        for name in re.findall(r'f?"((?:serve|node)_[\w{}.]+)"', file.read_text("utf-8")):
            yield re.compile(re.sub(r"\\\{.+?\\\}", "[a-z]+", re.escape(name)))


@pytest.fixture(scope="module")
def ray_names() -> list[re.Pattern[str]]:
    return list(find_names_in_ray())


def is_known(metric: str, names: list[re.Pattern[str]]) -> bool:
    plain = metric.removeprefix("ray_")
    return any(
        name.fullmatch(re.sub(suffix, "", plain)) for name in names for suffix in ("$", "_(total|bucket|sum|count)$")
    )


@pytest.mark.parametrize("file", ["dashboard.json", "alerts.yaml"])
def test_every_metric_is_one_of_rays(file: str, ray_names: list[re.Pattern[str]]) -> None:
    named = find_metrics(GRAFANA / file)
    assert len(named) > 5
    assert sorted(metric for metric in named if not is_known(metric, ray_names)) == []


def test_a_metric_that_ray_has_not_is_found(ray_names: list[re.Pattern[str]]) -> None:
    assert is_known("ray_serve_num_http_requests_total", ray_names)
    assert not is_known("ray_serve_num_http_request_total", ray_names)
    assert not is_known("ray_serve_queries", ray_names)


def test_panels_have_queries_and_do_not_overlap() -> None:
    board = json.loads((GRAFANA / "dashboard.json").read_text("utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert {variable["name"] for variable in board["templating"]["list"]} == {"source", "application"}


def test_brackets_of_queries_match() -> None:
    board = json.loads((GRAFANA / "dashboard.json").read_text("utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    (group,) = yaml.safe_load((GRAFANA / "alerts.yaml").read_text("utf-8"))["groups"]
    for query in [*queries, *(rule["expr"] for rule in group["rules"])]:
        open_brackets = []
        for mark in re.sub(r'"[^"]*"', "", query):
            if mark in "({[":
                open_brackets.append(")}]"["({[".index(mark)])
            elif mark in ")}]":
                assert open_brackets.pop() == mark, query
        assert not open_brackets, query


def test_alerts_say_what_is_wrong_and_what_to_do() -> None:
    (group,) = yaml.safe_load((GRAFANA / "alerts.yaml").read_text("utf-8"))["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(set(names)) == len(names)
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "todo"}
