"""Clients of a server, all in one process: closed loops, which wait for an answer, and an open one, which does not."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

import aiohttp

RETRY_S = 0.1  # what a client waits that was told to try again: less than it was told
PROBE_S = 0.05


@dataclass
class Measured:
    """What clients saw in ``seconds``: how often each status, how long answered searches and probes took."""

    seconds: float = 0
    statuses: Counter[int | str] = field(default_factory=Counter)
    answered_s: list[float] = field(default_factory=list)
    probe_s: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answered searches per second: the goodput."""
        return len(self.answered_s) / self.seconds

    def quantile_ms(self, share: float, of: str = "answered_s") -> float:
        """A quantile of the times, in milliseconds."""
        times = sorted(getattr(self, of))
        return 1000 * times[min(int(share * len(times)), len(times) - 1)] if times else float("nan")

    def __str__(self) -> str:
        statuses = ", ".join(f"{count} × {status}" for status, count in sorted(self.statuses.items(), key=str))
        p50, p95 = self.quantile_ms(0.5), self.quantile_ms(0.95)
        probes = f"/livez median {1000 * median(self.probe_s):.1f}, longest {1000 * max(self.probe_s):.1f} ms"
        return f"{self.per_second:7.1f} /s   p50 {p50:7.1f} ms   p95 {p95:7.1f} ms   {statuses}   {probes}"


def measure_clients(base: str, queries: Sequence[str], clients: int, seconds: float) -> Measured:
    """Let so many clients search, each again when it has its answer, or ``RETRY_S`` after it was refused."""

    async def search_all(search: Callable[[], Awaitable[bool]], end: float) -> None:
        async def search_on() -> None:
            while time.perf_counter() < end:
                if not await search():
                    await asyncio.sleep(RETRY_S)

        await asyncio.gather(*(search_on() for _ in range(clients)))

    return asyncio.run(_measure(base, queries, seconds, search_all))


def measure_rate(base: str, queries: Sequence[str], per_second: float, seconds: float) -> Measured:
    """Send so many searches a second, whether or not the earlier ones were answered."""

    async def search_all(search: Callable[[], Awaitable[bool]], end: float) -> None:
        running = []
        next_one = time.perf_counter()
        while next_one < end:
            await asyncio.sleep(max(next_one - time.perf_counter(), 0))
            running.append(asyncio.ensure_future(search()))
            next_one += 1 / per_second
        await asyncio.gather(*running)

    return asyncio.run(_measure(base, queries, seconds, search_all))


async def _measure(base: str, queries: Sequence[str], seconds: float, search_all: Callable[..., Awaitable[None]]):
    measured, number = Measured(), 0
    limit = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limit) as session:

        async def search() -> bool:
            nonlocal number
            number += 1
            start = time.perf_counter()
            body = {"query": queries[number % len(queries)], "k": 10}
            try:
                async with session.post(f"{base}/search", json=body) as answer:
                    await answer.read()
                    status: int | str = answer.status
            except aiohttp.ClientError as error:
                status = type(error).__name__
            measured.statuses[status] += 1
            if status == 200:
                measured.answered_s.append(time.perf_counter() - start)
            return status == 200

        async def probe() -> None:
            while True:
                start = time.perf_counter()
                async with session.get(f"{base}/livez") as answer:
                    assert answer.status == 200
                measured.probe_s.append(time.perf_counter() - start)
                await asyncio.sleep(PROBE_S)

        probing = asyncio.ensure_future(probe())
        start = time.perf_counter()
        await search_all(search, start + seconds)
        measured.seconds = time.perf_counter() - start
        probing.cancel()
    return measured
