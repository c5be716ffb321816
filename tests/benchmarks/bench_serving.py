"""What a server answers per second, and what becomes of it under ten times the load that it can carry.

    python tests/benchmarks/bench_serving.py [--url http://127.0.0.1:8000] [--without-front]     # two minutes

Asks the server at ``--url``, or a small one of its own: BM25, two shards of 2,000 documents, with or without the
admission in Serve's proxy (``serving.front``). First 1, 4, 16 and 64
clients, each of which waits for its answer; then as many searches a second as ten times the best of these, whatever
comes back. Prints answered searches per second, their times, how often each status came, and how long ``/livez`` took
meanwhile. The clients run on the same machine and take CPU from the server. Fails when the server answers less than
nine tenths of its best under ten times its load, or gives any status but 200 and 429.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from search_load import measure_clients, measure_rate
from serving_apps import wait_until_ready
from swap_driver import WORDS, make_system, small, start_driver

QUERIES = [f"{one} {other} road" for one in WORDS for other in WORDS]
CLIENTS = (1, 4, 16, 64)
TIMES, LEAST = 10, 0.9


@contextmanager
def serve_small(with_front: bool) -> Iterator[str]:
    with TemporaryDirectory() as directory, start_driver(with_front) as driver:
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
        driver.ask("start", small(), [make_system(Path(directory), 1, documents=2000)], False)
        wait_until_ready(driver.base)
        yield driver.base


@contextmanager
def use(url: str) -> Iterator[str]:
    yield url.rstrip("/")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--without-front", action="store_true")
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    with use(given.url) if given.url else serve_small(not given.without_front) as base:
        measure_clients(base, QUERIES, 1, 2)  # the first searches open what they need
        found = {clients: measure_clients(base, QUERIES, clients, given.seconds) for clients in CLIENTS}
        for clients, measured in found.items():
            print(f"{clients:4} clients      {measured}", flush=True)
        best = max(measured.per_second for measured in found.values())
        flood = measure_rate(base, QUERIES, TIMES * best, given.seconds)
        print(f"{TIMES * best:6.0f} searches/s {flood}")
    share = flood.per_second / best
    print(f"under {TIMES} times its load the server answers {share:.2f} of its best")
    return 0 if share >= LEAST and set(flood.statuses) <= {200, 429} else 1


if __name__ == "__main__":
    sys.exit(main())
