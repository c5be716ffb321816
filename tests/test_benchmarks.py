"""Benchmarks are run by hand, so that what they import may be gone unnoticed: each is loaded here, and runs nothing."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent / "benchmarks"
LOAD = """
import runpy, sys
sys.path.insert(0, sys.argv[1])  # as Python does for a script
for path in sys.argv[2:]:
    runpy.run_path(path, run_name="loaded")
"""


def test_every_benchmark_finds_what_it_imports(tmp_path):
    files = sorted(BENCHMARKS.glob("bench_*.py"))
    assert len(files) > 20
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(BENCHMARKS), *map(str, files)],
        cwd=tmp_path,
        env={"HOME": str(tmp_path)},  # without PYTHONPATH: a user's is not the tests'
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
