"""How long a server takes to start, what memory its processes take, and how long one search takes.

    python tests/benchmarks/bench_start.py [atlas] [--set root=DIR] [--seconds 10]      # a minute

Starts ``python -m serving RECIPE`` for a recipe that was run, with a Ray of its own, lets one client search, one search
after another, and adds up the memory of all processes: their proportional set sizes. Ends it by SIGTERM. Exits with an
error where the server is ready later than 12 s after Ray runs, takes more than 1.2 GiB, or answers half of the searches
later than in 25 ms.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import free_port
from pipelines.recipe import load
from process_memory import find_memory
from search_load import measure_clients
from serving_apps import wait_until_ready

READY_S, GIBIBYTES, P50_MS = 12.0, 1.2, 25.0
SHOWN = 70  # characters of a command


def wait_for(server: subprocess.Popen[str], words: str, started: float) -> float:
    """Print what the server says until a line has ``words``. Returns when that was, in seconds since ``started``."""
    assert server.stderr is not None
    for line in server.stderr:
        seconds = time.monotonic() - started
        print(f"{seconds:6.1f} s  {line.rstrip()}", flush=True)
        if words in line:
            return seconds
    raise SystemExit("the server ended before it was ready")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="atlas")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    port = free_port()
    sets = [word for one in given.sets for word in ("--set", one)]
    command = [sys.executable, "-m", "serving", given.recipe, "--port", str(port), *sets]
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        runs = wait_for(server, "Ray runs", started)
        wait_for(server, "answers the example queries", started)
        base, queries = f"http://127.0.0.1:{port}", load(given.recipe, given.sets).examples
        wait_until_ready(base)
        ready = time.monotonic() - started - runs
        measure_clients(base, queries, 1, given.seconds / 5)
        measured = measure_clients(base, queries, 1, given.seconds)
        memory = find_memory(server.pid)
        server.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        server.wait()
    for name, size in sorted(memory.items(), key=lambda item: -item[1]):
        print(f"{1024 * size:7.0f} MiB  {name[:SHOWN]}")
    total, p50 = sum(memory.values()), measured.quantile_ms(0.5)
    print(f"ready {ready:.1f} s after Ray ran; {total:.2f} GiB; ended in {time.monotonic() - asked:.1f} s")
    print(f"1 client {measured}")
    return 0 if ready <= READY_S and total <= GIBIBYTES and p50 <= P50_MS else 1


if __name__ == "__main__":
    sys.exit(main())
