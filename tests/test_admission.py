"""Which requests a gateway works on, which wait, and which it refuses: the middleware alone, without Ray."""

import asyncio
import json
import time

import pytest

from serving.admission import Admission, Readiness, arrival
from serving.front import list_middlewares, make_environment
from serving.messages import MAX_BODY, Limits

LIMITS = Limits(ongoing=2, queued=3, timeout_s=1.0, body_s=0.2)
READY = Readiness(True, "", "f00")


class Application:
    """An ASGI application that answers when told to, and notes the bodies and waiting times that it saw."""

    def __init__(self):
        self.go = asyncio.Event()
        self.bodies, self.waited = [], []

    async def __call__(self, scope, receive, send):
        self.waited.append(time.perf_counter() - arrival.get())
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


class Answer:
    def __init__(self):
        self.messages = []

    async def send(self, message):
        self.messages.append(message)

    @property
    def status(self):
        return self.messages[0]["status"]

    @property
    def headers(self):
        return dict(self.messages[0]["headers"])

    @property
    def body(self):
        return json.loads(self.messages[1]["body"])


async def ask(admission, path="/search", method="POST", pieces=(b"{}",), ends=True):
    """Send a request whose body comes in ``pieces``, and whose end never comes unless ``ends``."""
    waiting = list(pieces)

    async def receive():
        if not waiting:
            await asyncio.Event().wait()
        piece = waiting.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(waiting) or not ends}

    answer = Answer()
    await admission({"type": "http", "path": path, "method": method, "headers": []}, receive, answer.send)
    return answer


def run(test, limits=LIMITS, readiness=READY):
    async def within():
        application = Application()
        await test(application, Admission(application, lambda: limits, lambda: readiness))

    asyncio.run(asyncio.wait_for(within(), 20))


async def start(admission, count):
    tasks = [asyncio.create_task(ask(admission)) for _ in range(count)]
    await asyncio.sleep(0.05)
    return tasks


def test_more_requests_than_places_and_queue_are_refused_at_once():
    async def test(application, admission):
        tasks = await start(admission, 8)
        refused = [task.result() for task in tasks if task.done()]
        assert [answer.status for answer in refused] == [429] * 3
        for answer in refused:
            assert int(answer.headers[b"retry-after"]) >= 1
            assert answer.headers[b"content-type"] == b"application/json"
            assert set(answer.body) == {"error", "fields", "missing"}
            assert "2 requests are being answered and 3 wait" in answer.body["error"]
        assert len(application.bodies) == 2
        application.go.set()
        assert [(await task).status for task in tasks] == [200] * 5 + [429] * 3
        assert (admission.queue.ongoing, len(admission.queue.waiting)) == (0, 0)

    run(test)


def test_waiting_ends_before_the_time_limit_and_counts_from_the_arrival():
    async def test(application, admission):
        tasks = await start(admission, 3)
        late = await asyncio.wait_for(tasks[2], 10)
        assert late.status == 429
        assert "no place became free" in late.body["error"]
        third = asyncio.create_task(ask(admission))
        await asyncio.sleep(0.2)
        application.go.set()
        assert (await third).status == 200
        assert application.waited[-1] >= 0.2

    run(test)


def test_a_client_that_leaves_the_queue_leaves_its_place():
    async def test(application, admission):
        tasks = await start(admission, 4)
        tasks[2].cancel()
        await asyncio.sleep(0.05)
        assert len(admission.queue.waiting) == 1
        tasks[0].cancel()  # one that is being answered: the last one gets its place
        await asyncio.sleep(0.05)
        assert len(application.bodies) == 3
        application.go.set()
        assert {(await task).status for task in (tasks[1], tasks[3])} == {200}
        assert admission.queue.ongoing == 0

    run(test)


def test_half_sent_bodies_take_no_place_and_end_with_408():
    async def test(application, admission):
        application.go.set()
        slow = [asyncio.create_task(ask(admission, pieces=(b'{"query": ',), ends=False)) for _ in range(300)]
        await asyncio.sleep(0)
        assert (await ask(admission)).status == 200
        answers = await asyncio.wait_for(asyncio.gather(*slow), 10)
        assert {answer.status for answer in answers} == {408}
        assert "expected all of it within 0.2 s, got 10 bytes" in answers[0].body["error"]

    run(test)


def test_a_body_reaches_the_application_whole():
    async def test(application, admission):
        application.go.set()
        pieces = [bytes([n]) * 30_000 for n in range(5)]
        assert len(b"".join(pieces)) > MAX_BODY
        await ask(admission, pieces=pieces)
        assert application.bodies == [b"".join(pieces)]

    run(test)


def test_probes_and_the_page_do_not_wait():
    async def test(application, admission):
        await start(admission, 5)
        assert (await ask(admission, "/livez", "GET")).body == {"status": "alive"}
        assert (await ask(admission, "/readyz", "GET")).body == {"status": "ready", "serves": "f00"}
        page = asyncio.create_task(ask(admission, "/", "GET"))
        await asyncio.sleep(0.05)
        assert len(application.bodies) == 3
        application.go.set()
        assert (await page).status == 200

    run(test)


def test_probes_are_found_below_a_route_prefix():
    async def test(application, admission):
        answer = Answer()
        scope = {"type": "http", "path": "/words/livez", "root_path": "/words", "method": "GET", "headers": []}
        await admission(scope, None, answer.send)
        assert answer.status == 200

    run(test)


@pytest.mark.parametrize(
    ("readiness", "ready", "search"),
    [
        (Readiness(False, "the server starts"), 503, 503),
        (Readiness(False, "shard-fa-0: gone, being restarted", "f00"), 503, 200),  # the rest may do for a search
        (READY, 200, 200),
    ],
)
def test_readiness_is_told_with_its_reason(readiness, ready, search):
    async def test(application, admission):
        application.go.set()
        answer = await ask(admission, "/readyz", "GET")
        assert answer.status == ready
        assert readiness.reason in json.dumps(answer.body)
        assert (await ask(admission)).status == search
        assert (await ask(admission, "/livez", "GET")).status == 200

    run(test, readiness=readiness)


def test_the_proxy_has_the_limits_that_the_environment_names(monkeypatch):
    for name, value in make_environment(Limits(ongoing=3, queued=5, body_s=30), gateways=2).items():
        monkeypatch.setenv(name, value)
    (middleware,) = list_middlewares()
    assert middleware.kwargs["limits"] == Limits(ongoing=16, queued=0, body_s=30)
