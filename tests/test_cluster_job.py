"""The README's commands for a cluster, run as they are written, on a machine where ``make demo`` has left a token.

``ray up`` is replaced by ``ray start`` here, names of places by others, and the recipe is made small.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from conftest import free_port

LANGS = ["en", "fa"]
ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SMALL = [
    *("source.territories=12", 'languages.docs=["en", "fa"]', "train.steps=20", "train.student.words="),
    *("measure.bm25=false", "measure.untrained=false", "examples=[]"),
]
CURL = re.compile(r"curl -s .*?-d '(.*?)'", re.DOTALL)


class Head(NamedTuple):
    """A cluster of one node: what a shell of its operator has, and where it is."""

    env: dict[str, str]
    dashboard: int
    metrics: int


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head node started as an operator would; ends with exactly the processes that it started."""
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path_factory.mktemp("home"))}
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        env.pop(name, None)
    env["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray")  # short, for its sockets; its own, so that no one else finds it
    leave_token(env)
    port, dashboard, metrics = free_port(), free_port(), free_port()
    agent = f"--dashboard-agent-listen-port={free_port()}"  # its default is taken where another Ray runs
    ports = [agent, f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
    start = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=4", "--include-dashboard=true", *ports]
    process = subprocess.Popen(
        [*start, f"--metrics-export-port={metrics}"],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not answers(f"http://127.0.0.1:{dashboard}/api/version"):
        assert process.poll() is None, "ray start ended"
        assert time.monotonic() < end, "the dashboard did not come up"
        time.sleep(0.5)
    yield Head(env, dashboard, metrics)
    process.terminate()  # --block: ends the node's processes with it
    process.wait(timeout=60)


def leave_token(env: dict[str, str], tries: int = 3) -> None:
    """Start and end a Ray of one's own, as ``make demo`` does: it leaves a token in the home directory."""
    code = "from cluster import session; session.connect()"
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, timeout=200)
    if "timed out during startup" in done.stderr and tries:  # Ray waits 30 s for its own parts, and no longer
        leave_token(env, tries - 1)
        return
    assert done.returncode == 0, done.stderr[-3000:]
    assert (Path(env["HOME"]) / ".ray" / "auth_token").stat().st_size


def answers(url: str) -> bool:
    """Whether something answers there: whoever has no token is told so at once."""
    try:
        return httpx.get(url, timeout=2).status_code in (200, 401)
    except httpx.HTTPError:
        return False


def run_shell(script: str, env: dict[str, str], tries: int = 20) -> str:
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=900)
    if "No available agent" in done.stderr and tries:  # the dashboard answers before the node's agent reports to it
        time.sleep(2)
        return run_shell(script, env, tries - 1)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def read_commands() -> tuple[list[str], str]:
    """The README's lines that begin at the token and end with the deployment, and the search that follows them."""
    _, _, section = (ROOT / "README.md").read_text("utf-8").partition("## A cluster\n")
    block = re.search(r"(?:^ {4}.*\n)+", section, re.MULTILINE)
    search = CURL.search(section)
    assert block
    assert search
    return [line.strip() for line in block.group().splitlines()], search.group(1)


def test_the_readme_turns_authentication_on_before_all_else() -> None:
    lines, search = read_commands()
    assert [line.partition("  ")[0] for line in lines[:2]] == [
        "ray get-auth-token --generate > /dev/null",
        "export RAY_AUTH_MODE=token",
    ]
    assert lines[-1] == "serve deploy serve.yaml"
    assert set(json.loads(search)) == {"query", "k", "languages"}


@pytest.mark.slow
def test_the_readmes_commands_run_with_authentication_on(head: Head, tmp_path: Path) -> None:
    port, sets = free_port(), " ".join(f"--set '{value}'" for value in SMALL)
    lines, search = read_commands()
    here = {
        "127.0.0.1:8265": f"127.0.0.1:{head.dashboard}",
        "s3://BUCKET/runs": str(tmp_path / "root"),
        " atlas ": f" atlas {sets} ",
        "--print-config": f"--port {port} --print-config",
        "serve.yaml": str(tmp_path / "serve.yaml"),
    }
    script = [line for line in lines if not line.startswith(("ray up", "ray dashboard"))]  # the head stands in for both
    for written, meant in here.items():
        script = [line.replace(written, meant) for line in script]
    ready = [*(line for line in script if line.startswith(("ray get-auth-token", "export"))), "ray job submit -- true"]
    run_shell("\n".join(ready), head.env)  # repeated until the node's agent is there

    out = run_shell("\n".join(script), head.env)
    assert "asked for" in out, "the doctor reports authentication"
    assert "all is well" in out
    assert "nDCG@20" in out
    assert httpx.get(f"http://127.0.0.1:{head.dashboard}/api/jobs/", timeout=5).status_code == 401, (
        "no token, no answer"
    )

    base = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 240
    while not answers(f"{base}/health"):
        assert time.monotonic() < end, run_shell("\n".join([*ready[:-1], "serve status"]), head.env)
        time.sleep(1)
    asked = json.loads(search) | {"languages": LANGS}
    answer = httpx.post(f"{base}/search", json=asked, timeout=30)
    assert answer.status_code == 200, answer.text
    words = f'babelray search atlas "{asked["query"]}" -k {asked["k"]} --json {sets} --set root={tmp_path / "root"}'
    offline = run_shell(words, head.env | {"RAY_AUTH_MODE": "disabled"})
    expected, found = json.loads(offline)["results"], answer.json()["results"]
    assert [hit["score"] for hit in found] == pytest.approx([hit["score"] for hit in expected], rel=1e-5)
    assert len(expected) == asked["k"]
    # languages of equal score take turns in the server alone
    best = [hit for hit in expected if hit["score"] > expected[-1]["score"] * (1 + 1e-5)]
    assert {(hit["lang"], hit["doc_id"], hit["text"]) for hit in best} <= {
        (hit["lang"], hit["doc_id"], hit["text"]) for hit in found
    }
    languages = httpx.get(f"{base}/info", timeout=10).json()["languages"]
    assert {language["code"]: language["documents"] > 0 for language in languages} == dict.fromkeys(LANGS, True)
    check_metrics(head.metrics)


def check_metrics(port: int) -> None:
    """See that what the dashboard shows of requests, replicas and machines is there under these names."""
    board = (ROOT / "cluster" / "grafana" / "dashboard.json").read_text("utf-8")
    named = set(re.findall(r"\bray_[a-z_]+", board))
    rare = {name for name in named if "error" in name or "gpus" in name or "gram" in name}  # no error, no GPU here
    end = time.monotonic() + 90
    while missing := {name for name in named - rare if f"\n{name}{{" not in ask_metrics(port)}:
        assert time.monotonic() < end, missing
        time.sleep(3)


def ask_metrics(port: int) -> str:
    return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text
