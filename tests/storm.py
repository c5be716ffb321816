"""A driver on a Ray cluster of several nodes on this machine, and what kills its parts at random moments.

Killed are the driver, a worker of its pools, a node with all that runs on it, and the endpoint that workers ask:
each by SIGKILL while it is at work, and another takes its place.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import loopback_endpoint
from conftest import free_port

PATIENCE_S = 10.0  # for a unit that is at work
SHARES = {"worker": 5.0, "engine": 2.0, "driver": 1.5, "node": 1.5}  # of the kills, while all four are at work
KILLS_PER_RUN = 25  # at least, were the run no longer than an undisturbed one
BUSY_S = 1.5  # an endpoint that has answered within so many seconds is at work
# what a driver says when the storm has hit one unit three times: the user is to run the same command again
GIVEN_UP = "killed its worker 3 times"


class Driver:
    """``python -m pipelines run RECIPE STEP…`` in a process. Without an address it has a Ray of its own."""

    def __init__(self, words: Sequence[str], out: Path, cache: Path, address: str = ""):
        env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        env |= {"BABELRAY_CACHE": str(cache), "BABELRAY_LEASE_S": "20"} | ({"RAY_ADDRESS": address} if address else {})
        self.out = out
        with out.open("wb") as file:
            command = [sys.executable, "-m", "pipelines", "run", *words]
            self.process = subprocess.Popen(command, env=env, stdout=file, stderr=file)

    @property
    def output(self) -> str:
        return self.out.read_text("utf-8", "replace")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def finish(self, seconds: float) -> None:
        try:
            assert self.process.wait(seconds) == 0, self.output[-3000:]
        except subprocess.TimeoutExpired as late:
            self.kill()
            raise AssertionError(f"not done after {seconds:.0f} s:\n{self.output[-3000:]}") from late


class Endpoint:
    """``loopback_endpoint`` in a process, always on the same port."""

    def __init__(self, answers: Path):
        self.port, self.answers, self.log = free_port(), answers, answers.with_suffix(".log")
        self.start()

    def start(self) -> None:
        command = [sys.executable, loopback_endpoint.__file__, str(self.port), str(self.answers), str(self.log)]
        self.process = subprocess.Popen(command)
        until(self._listens)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def is_busy(self) -> bool:
        return self.log.exists() and time.time() - self.log.stat().st_mtime < BUSY_S

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0


class Nodes:
    """A Ray cluster: a head, to which drivers connect and which runs no units, and nodes that come and go."""

    def __init__(self, count: int, cpus: int):
        from ray.cluster_utils import Cluster

        self.cpus = cpus
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(count):
            self.add()

    def add(self) -> None:
        self.cluster.add_node(num_cpus=self.cpus)

    def kill(self, rng: random.Random) -> None:
        self.cluster.remove_node(rng.choice(list(self.cluster.worker_nodes)), allow_graceful=False)

    def find_workers(self) -> list[int]:
        """The processes that do a pool's units now, on all nodes: of actors, and of tasks while they run."""
        raylets = {node.all_processes["raylet"][0].process.pid for node in self.cluster.worker_nodes}
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        workers = [pid for pid in pids if _read(pid, "cmdline").startswith(("ray::MapWorker", "ray::MapBatches"))]
        return sorted(pid for pid in workers if _parent(pid) in raylets)


class Storm:
    """Keeps a driver at work until it has finished, and kills, so much more seldom as this machine is slow: an
    undisturbed run takes ``run_s``. After ``most`` kills it is over, and the driver finishes. ``kills`` counts by kind
    what died at work; ``given_up`` how often the driver ended by itself, since one unit had been hit three times."""

    def __init__(self, nodes: Nodes, endpoint: Endpoint, rng: random.Random, run_s: float, most: int):
        self.nodes, self.endpoint, self.rng, self.most = nodes, endpoint, rng, most
        self.longest_pause_s = 2 * run_s / KILLS_PER_RUN
        self.kills: Counter[str] = Counter()
        self.given_up = 0

    def rage(self, start: Callable[[], Driver], until_s: float) -> None:
        """Kill until a driver that ``start`` starts ends well; fail when ``time.monotonic()`` passes ``until_s``."""
        driver = start()
        try:
            while True:
                end = time.monotonic() + self.rng.uniform(0, self.longest_pause_s)
                while driver.process.poll() is None and time.monotonic() < end:
                    time.sleep(0.05)
                assert time.monotonic() < until_s, driver.output[-3000:]
                if driver.process.poll() == 0:
                    return
                if driver.process.poll() is not None:
                    assert GIVEN_UP in driver.output, driver.output[-6000:]
                    self.given_up += 1
                    driver = start()
                elif self.kills.total() < self.most and self._kill_one(driver) == "driver":
                    driver = start()
        finally:
            driver.kill()

    def _kill_one(self, driver: Driver) -> str:
        """Kill something that is at work, and say what; nothing where the driver has no pool at work for a while."""
        end = time.monotonic() + PATIENCE_S
        while not (workers := self.nodes.find_workers()):
            if driver.process.poll() is not None or time.monotonic() > end:
                return ""
            time.sleep(0.02)
        shares = {kind: share for kind, share in SHARES.items() if kind != "engine" or self.endpoint.is_busy}
        (kind,) = self.rng.choices(list(shares), list(shares.values()))
        if kind == "driver":
            driver.kill()
        elif kind == "engine":
            self.endpoint.kill()
            self.endpoint.start()
        elif kind == "node":
            self.nodes.kill(self.rng)
            self.nodes.add()
        else:
            try:
                os.kill(self.rng.choice(workers), signal.SIGKILL)
            except ProcessLookupError:  # its pool has ended
                return ""
        self.kills[kind] += 1
        print(f"{time.strftime('%X')} {kind}: {dict(self.kills)}, given up {self.given_up}", flush=True)
        return kind


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def _read(pid: int, file: str) -> str:
    try:
        return Path(f"/proc/{pid}/{file}").read_text("utf-8", "replace")
    except OSError:  # it has ended
        return ""


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else 0
