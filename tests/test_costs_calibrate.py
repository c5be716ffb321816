"""A calibration from end to end, on a small atlas: what it leaves, and what a plan makes of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = [
    "source.territories=12", 'languages.docs=["en", "fa"]', "train.steps=60", "train.student.words=",
    "select.index.kind=exact", "select.encoder.model=minilm", "measure.untrained=false", "measure.bm25=false",
]  # fmt: skip


@pytest.mark.slow
def test_a_calibration_measures_every_step_and_leaves_its_rates_alone(tmp_path) -> None:
    sets = [word for value in [*SMALL, f"root={tmp_path}"] for word in ("--set", value)]
    command = [sys.executable, "-m", "pipelines", "plan", "atlas", "--calibrate", "16", "--json", *sets]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1500)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {step["from"] for step in found["steps"]} == {"calibration"}
    assert any("calibration: measured" in line for line in found["assumptions"])
    kept = json.loads((tmp_path / "rates.json").read_text())
    assert kept["rows"] == 16
    assert kept["ray_start_s"] > 0
    rates = kept["rates"]
    assert {rate["hardware"] for rate in rates.values()} == {kept["cpu"]}
    (training,) = (rate for key, rate in rates.items() if key.startswith("train "))
    assert 0 < training["unit_s"] < 10
    assert min(rate["fixed_s"] for key, rate in rates.items() if key.startswith("docs ")) > 0.5  # a pool was started
    assert [path.name for path in tmp_path.iterdir()] == ["rates.json"]  # the samples are gone
