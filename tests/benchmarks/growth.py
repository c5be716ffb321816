"""Peak memory as a collection grows tenfold: each size in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def peak_mb() -> float:
    """The most memory this process has held; ``ru_maxrss`` would begin with that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def in_own_process(script: str, arguments: Sequence[object]) -> dict[str, Any]:
    """What ``script`` with these arguments prints: one JSON object."""
    command = [sys.executable, script, *map(str, arguments)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def compare(measured: Iterable[dict[str, Any]]) -> None:
    """Print each measurement as it comes and, last, the ratio of the last peak to the first."""
    peaks = []
    for one in measured:
        print(json.dumps(one), flush=True)
        peaks.append(one["peak_mb"])
    print(json.dumps({"ratio": round(peaks[-1] / peaks[0], 3)}))
