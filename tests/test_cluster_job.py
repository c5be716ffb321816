"""The whole path on a cluster: ``ray start``, ``ray job submit``, ``serve deploy``, a query over HTTP."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from conftest import free_port

LANGS = ["en", "fa"]
QUERY = "What money do people use in Iran?"
ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SMALL = [
    *("source.territories=12", 'languages.docs=["en", "fa"]', "train.steps=20", "train.student.words="),
    *("measure.bm25=false", "measure.untrained=false", "examples=[]"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A head node started as an operator would; ends with exactly the processes that it started."""
    port, dashboard = free_port(), free_port()
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}
    env["BABELRAY_API_KEYS"] = "none"  # the printed config listens on all addresses
    env.pop("RAY_ADDRESS", None)
    env["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray")  # short, for its sockets; its own, so that no one else finds it
    agent = f"--dashboard-agent-listen-port={free_port()}"  # its default is taken where another Ray runs
    ports = [agent, f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
    start = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=4", "--include-dashboard=true", *ports]
    head = subprocess.Popen(
        start, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    address = f"http://127.0.0.1:{dashboard}"
    end = time.monotonic() + 120
    while not _answers(f"{address}/api/version"):
        assert head.poll() is None, "ray start ended"
        assert time.monotonic() < end, "the dashboard did not come up"
        time.sleep(0.5)
    yield env | {"RAY_API_SERVER_ADDRESS": address, "RAY_DASHBOARD_ADDRESS": address}
    head.terminate()  # --block: ends the node's processes with it
    head.wait(timeout=60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def call(command: list[str], env: dict[str, str], tries: int = 20) -> str:
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=500)
    if "No available agent" in done.stderr and tries:  # the dashboard answers before the node's agent reports to it
        time.sleep(2)
        return call(command, env, tries - 1)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_recipe_runs_as_a_job_and_is_deployed_and_searched(cluster: dict[str, str], tmp_path: Path) -> None:
    sets = [part for value in [*SMALL, f"root={tmp_path / 'root'}"] for part in ("--set", value)]
    submit = [str(BIN / "ray"), "job", "submit", "--working-dir", ".", "--"]
    out = call([*submit, "python", "-m", "pipelines", "run", "atlas", *sets], cluster)
    assert "nDCG@20" in out

    port = free_port()
    config = call([sys.executable, "-m", "serving", "atlas", *sets, "--port", str(port), "--print-config"], cluster)
    file = tmp_path / "serve.yaml"
    file.write_text(config)
    call([str(BIN / "serve"), "deploy", str(file)], cluster)
    base = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 240
    while not _answers(f"{base}/health"):
        assert time.monotonic() < end, call([str(BIN / "serve"), "status"], cluster)
        time.sleep(1)
    answer = httpx.post(f"{base}/search", json={"query": QUERY, "k": 5}, timeout=30)
    assert answer.status_code == 200, answer.text
    offline = call([sys.executable, "-m", "pipelines", "search", "atlas", QUERY, "-k", "5", "--json", *sets], cluster)
    expected, found = json.loads(offline)["results"], answer.json()["results"]
    assert [hit["score"] for hit in found] == pytest.approx([hit["score"] for hit in expected], rel=1e-5)
    assert len(expected) == 5
    # languages of equal score take turns in the server alone
    best = [hit for hit in expected if hit["score"] > expected[-1]["score"] * (1 + 1e-5)]
    assert {(hit["lang"], hit["doc_id"], hit["text"]) for hit in best} <= {
        (hit["lang"], hit["doc_id"], hit["text"]) for hit in found
    }
    languages = httpx.get(f"{base}/info", timeout=10).json()["languages"]
    assert {language["code"]: language["documents"] > 0 for language in languages} == dict.fromkeys(LANGS, True)
