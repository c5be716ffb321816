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

MINUTES, GIGABYTES, POOLED, EACH = 6.0, 6.0, 0.70, 0.50
SECONDS_BETWEEN_LOOKS = 5.0


def memory_gb(ancestor: int) -> float:
    """The proportional set sizes of a process and of all that descend from it, added up."""
    parents, sizes = {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[process.name] = _read_fields(process / "status")["PPid"]
            sizes[process.name] = int(_read_fields(process / "smaps_rollup")["Pss"].split()[0])
        except (OSError, KeyError):  # it ended between the looks, or is one of the kernel's
            continue

    def descends(pid: str) -> bool:
        while pid not in ("0", str(ancestor)):
            pid = parents.get(pid, "0")
        return pid == str(ancestor)

    return sum(size for pid, size in sizes.items() if descends(pid)) / 2**20


def _read_fields(file: Path) -> dict[str, str]:
    """The lines ``name: value`` of a file of /proc."""
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


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
                peak = max(peak, memory_gb(demo.pid))
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
