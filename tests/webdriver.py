"""A browser for tests: headless Chromium, driven over the HTTP protocol of WebDriver."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from conftest import free_port

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,900", "--no-first-run"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver §12: the JSON key of an element's reference
KEYS = {  # WebDriver §17.4.2
    "up": "\ue013",
    "down": "\ue015",
    "left": "\ue012",
    "right": "\ue014",
    "enter": "\ue007",
    "escape": "\ue00c",
}


class Browser:
    """A WebDriver session with the few commands that the tests need."""

    def __init__(self, client, session):
        self.client, self.path = client, f"/session/{session}"

    def send(self, path, **body):
        answer = self.client.post(self.path + path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def open(self, address):
        self.send("/url", url=address)

    def run(self, script):
        return self.send("/execute/sync", script=script, args=[])

    def wait_until(self, script):
        """Wait at most 30 s until an expression is true. Returns its value."""
        deadline = time.monotonic() + 30
        while not (value := self.run(f"return {script}")):
            assert time.monotonic() < deadline, (
                f"{script} did not come true on {self.run('return document.body.innerText')}"
            )
        return value

    def find(self, selector):
        return self.send("/element", using="css selector", value=selector)

    def type(self, selector, text):
        self.send(f"/element/{self.find(selector)[ELEMENT]}/value", text=text)

    def click(self, selector):
        self.send(f"/element/{self.find(selector)[ELEMENT]}/click")

    def point_at(self, selector):
        """Move the mouse to the middle of an element."""
        move = {"type": "pointerMove", "duration": 0, "origin": self.find(selector), "x": 0, "y": 0}
        self.send("/actions", actions=[{"type": "pointer", "id": "mouse", "actions": [move]}])

    def devtools(self, command, **params):
        """Send a command of the Chrome DevTools protocol."""
        return self.send("/goog/cdp/execute", cmd=command, params=params)

    def press(self, key):
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self.send("/actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Open a browser with a new profile in a directory. Skips the test where there is none."""
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not driver or not chromium:
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    port = free_port()
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    flags = [*FLAGS, f"--user-data-dir={profile}"]
    wanted = {"goog:chromeOptions": {"binary": chromium, "args": flags}, "goog:loggingPrefs": {"browser": "ALL"}}
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", timeout=60, transport=httpx.HTTPTransport(retries=20)
    ) as client:
        answer = client.post("/session", json={"capabilities": {"alwaysMatch": wanted}})
        assert answer.status_code == 200, answer.text
        session = answer.json()["value"]["sessionId"]
        browser = Browser(client, session)
        browser.devtools("Emulation.setFocusEmulationEnabled", enabled=True)  # as of a window that is in front
        yield browser
        client.delete(f"/session/{session}")
    process.terminate()
    process.wait(30)
