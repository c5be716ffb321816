"""The demo as a newcomer runs it: minutes, memory, and what it finds.

    python tests/benchmarks/bench_demo.py [--root DIR]

Runs ``python -m pipelines run atlas`` into an empty root (DIR, to keep what it makes), with no cache of an earlier run,
and adds up the memory of all its processes every five seconds: their proportional set sizes (PSS), in which a page that
n processes share counts 1/n in each. Exits with an error beyond 6 minutes or 6 GB, below 0.70 pooled nDCG@20, or below
0.50 in a language.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from process_memory import find_memory

MINUTES, GIGABYTES, POOLED, EACH = 6.0, 6.0, 0.70, 0.50
SECONDS_BETWEEN_LOOKS = 5.0


def main() -> None:
    """Run, watch, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root")
    kept = parser.parse_args().root
    with tempfile.TemporaryDirectory() as directory:
        env = os.environ | {"BABELRAY_CACHE": f"{directory}/cache"}
        command = [
            sys.executable,
            "-m",
            "pipelines",
            "run",
            "atlas",
            "--json",
            "--set",
            f"root={kept or directory + '/root'}",
        ]
        started, peak = time.monotonic(), 0.0
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as demo:
            while demo.poll() is None:
                peak = max(peak, sum(find_memory(demo.pid).values()))
                time.sleep(SECONDS_BETWEEN_LOOKS)
            minutes = (time.monotonic() - started) / 60
            assert demo.stdout is not None
            found = json.loads(demo.stdout.read())["atlas"]["measures"]
    ndcg = {lang: round(measures["nDCG@20"], 3) for lang, measures in found.items()}
    print(json.dumps({"minutes": round(minutes, 2), "peak_gb": round(peak, 2), "nDCG@20": ndcg}))
    pooled = ndcg.pop("all")
    if minutes > MINUTES or peak > GIGABYTES or pooled < POOLED or min(ndcg.values()) < EACH:
        raise SystemExit(f"expected {MINUTES} minutes, {GIGABYTES} GB, {POOLED} pooled and {EACH} each, or better")


if __name__ == "__main__":
    main()
