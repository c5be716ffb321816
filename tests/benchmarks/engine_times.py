"""How an engine's search is timed: the same for ours and, in another environment, fast-plaid's. Needs numpy alone."""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

ALONE = 20  # queries that are asked one at a time
Rankings = list[list[tuple[str, float]]]


@dataclass
class Measured:
    """What one engine did. CPU times are of all threads and processes."""

    name: str
    build_s: float
    build_cpu_s: float
    size: int
    qps: float
    alone_ms: float
    cpu_ms: float
    found: Rankings

    def show(self, docs: int, tokens: int, truth: Rankings) -> None:
        """Print one line."""
        print(
            f"{self.name:18} built {docs / self.build_s:7.0f} docs/s ({self.build_cpu_s:.1f} CPU s)"
            f" {self.size / 1e6:7.1f} MB ({self.size / tokens:.1f} bytes/token)  {self.qps:7.1f} queries/s"
            f"  alone {self.alone_ms:7.2f} ms  CPU {self.cpu_ms:7.2f} ms/query  recall@10 {self.recall(truth):.4f}",
            flush=True,
        )

    def recall(self, truth: Rankings) -> float:
        """Of the exact top 10, mean over the queries."""
        pairs = zip(self.found, truth, strict=True)
        return float(np.mean([len({n for n, _ in f[:10]} & {n for n, _ in t[:10]}) / len(t[:10]) for f, t in pairs]))


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def time_queries(
    ask: Callable[[Sequence[np.ndarray]], Rankings], queries: Sequence[np.ndarray]
) -> tuple[float, float, float, Rankings]:
    """Queries per second (all at once), median milliseconds of one alone, CPU milliseconds per query, the rankings."""
    ask(queries[:1])
    wall, cpu = time.perf_counter(), cpu_seconds()
    found = ask(queries)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    alone = []
    for query in queries[:ALONE]:
        started = time.perf_counter()
        ask([query])
        alone.append(1000 * (time.perf_counter() - started))
    return len(queries) / wall, median(alone), 1000 * cpu / len(queries), found
