"""The search page in a real browser: Chromium without a window, driven through WebDriver's own HTTP protocol."""

import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from urllib.parse import quote

import httpx
import pytest

import serving_apps
from conftest import free_port

# Ray Data trips over its own deprecated settings when it is imported
pytestmark = pytest.mark.filterwarnings("ignore:.use_push_based_shuffle:DeprecationWarning")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,900", "--no-first-run"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver §12: the key under which an element's reference travels
KEYS = {"down": "\ue015", "up": "\ue013", "escape": "\ue00c"}  # WebDriver §17.4.2


@pytest.fixture(scope="module")
def url(served):
    return served.url("words")


class Browser:
    """A WebDriver session with the few commands that the tests need."""

    def __init__(self, client, session):
        self.client, self.path = client, f"/session/{session}"

    def command(self, path, **body):
        answer = self.client.post(self.path + path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def open(self, address):
        self.command("/url", url=address)

    def run(self, script):
        return self.command("/execute/sync", script=script, args=[])

    def until(self, script):
        """Wait until the script, an expression, is true."""
        deadline = time.monotonic() + 30
        while not (value := self.run(f"return {script}")):
            assert time.monotonic() < deadline, (
                f"{script} did not come true on {self.run('return document.body.innerText')}"
            )
        return value

    def type(self, selector, text):
        element = self.command("/element", using="css selector", value=selector)[ELEMENT]
        self.command(f"/element/{element}/value", text=text)

    def press(self, key):
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self.command("/actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not driver or not chromium:
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    port = free_port()
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    flags = [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]
    wanted = {"goog:chromeOptions": {"binary": chromium, "args": flags}, "goog:loggingPrefs": {"browser": "ALL"}}
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", timeout=60, transport=httpx.HTTPTransport(retries=20)
    ) as client:
        answer = client.post("/session", json={"capabilities": {"alwaysMatch": wanted}})
        assert answer.status_code == 200, answer.text
        session = answer.json()["value"]["sessionId"]
        yield Browser(client, session)
        client.delete(f"/session/{session}")
    process.terminate()
    process.wait(30)


RESULTS = """[...document.querySelectorAll("#results li")].map(item => ({
    lang: item.querySelector(".text").lang, dir: item.querySelector(".text").dir,
    side: getComputedStyle(item.querySelector(".text")).direction,
    tag: item.querySelector(".tag").innerText.replace(/\\s+/g, " ").trim(),
    text: item.querySelector(".text").textContent, title: item.querySelector("h2").textContent,
    score: item.querySelector(".score").textContent }))"""


def test_typing_a_question_shows_results_in_their_language_and_direction(browser, url):
    browser.open(f"{url}/")
    browser.until('document.querySelectorAll(".chip").length === 4')
    browser.type("#query", "پایتخت ایران")
    browser.until('document.querySelector("#results li")')
    results = browser.run(f"return {RESULTS}")
    first = results[0]
    assert (first["lang"], first["dir"], first["side"], first["tag"]) == ("fa", "rtl", "rtl", "fa Persian")
    assert (first["title"], first["text"]) == serving_apps.TEXTS["fa"][0][0]
    assert float(first["score"]) > 0
    answer = httpx.post(f"{url}/search", json={"query": "پایتخت ایران"}).json()["results"]
    assert [r["text"] for r in results] == [r["text"] for r in answer]
    status = browser.run('return document.querySelector("#status").innerText')
    assert status.startswith(f"{len(answer)} result")
    assert " ms (" in status


def test_address_holds_the_search(browser, url):
    browser.open(f"{url}/?q={quote('Столица')}&lang=ru&k=1")
    browser.until('document.querySelector("#results li")')
    results = browser.run(f"return {RESULTS}")
    assert [(r["lang"], r["dir"]) for r in results] == [("ru", "ltr")]
    assert browser.run('return document.querySelector("#query").value') == "Столица"
    assert browser.run('return document.querySelector("[value=ru]").checked')


def test_language_chips_filter_the_results(browser, url):
    browser.open(f"{url}/?q=currency+ruble")
    browser.until('new Set([...document.querySelectorAll(".text")].map(e => e.lang)).size > 1')
    browser.run('document.querySelector("[value=fa]").click()')
    browser.until(
        '[...document.querySelectorAll(".text")].every(e => e.lang === "fa") && document.querySelector(".text")'
    )
    assert "lang=fa" in browser.run("return location.search")
    assert "q=currency+ruble" in browser.run("return location.search")


def test_keyboard_walks_through_results_and_back(browser, url):
    browser.open(f"{url}/?q=currency+country")
    browser.until('document.querySelectorAll("#results li").length > 1')
    focused = 'return [...document.querySelectorAll("article")].indexOf(document.activeElement)'
    browser.run('document.querySelector("#query").focus()')
    walked = []
    for key in ("down", "down", "up"):
        browser.press(KEYS[key])
        walked.append(browser.run(focused))
    assert walked == [0, 1, 0]
    browser.press(KEYS["escape"])
    assert browser.run("return document.activeElement.id") == "query"
    browser.run("document.activeElement.blur()")
    browser.press("/")
    assert browser.run("return document.activeElement.id") == "query"


@pytest.mark.parametrize(("app", "query"), [("words", "xyzzy"), ("lexical", "…")])
def test_nothing_found_is_said(browser, served, app, query):
    """Of a word that no document has, and of a question that says nothing."""
    browser.open(f"{served.url(app)}/?q={quote(query)}")
    browser.until('document.querySelector("#status").innerText.startsWith("Nothing found")')
    assert browser.run('return document.querySelectorAll("#results li").length') == 0


def test_refused_search_shows_the_servers_reason(browser, url):
    browser.open(f"{url}/?q=x&k=5000")
    browser.until('!document.querySelector("#problem").hidden')
    assert "an integer from 1 to 1000" in browser.run('return document.querySelector("#problem").innerText')


def test_texts_are_shown_and_never_run(browser, url):
    """A passage is data: whatever it holds, it is set as text. (The page has a policy against scripts besides.)"""
    browser.open(f"{url}/?q=markup")
    browser.until('document.querySelector("#results li")')
    (result,) = browser.run(f"return {RESULTS}")
    assert (result["title"], result["text"]) == serving_apps.MARKUP
    assert browser.run('return document.querySelectorAll("#results :is(img, script)").length') == 0
    assert browser.run("return document.title") == "tiny · babelray"


def test_status_is_rendered_before_it_says_something(browser, url):
    """Screen readers tell what changes in a region that is there, and nothing of one that appears."""
    state = 'const s = document.querySelector("#status"); return [s.checkVisibility(), s.textContent]'
    browser.open(f"{url}/")
    browser.until('document.querySelectorAll(".chip").length === 4')
    assert browser.run(state) == [True, ""]
    browser.open(f"{url}/?q=currency")
    browser.until('document.querySelector("#results li")')
    visible, text = browser.run(state)
    assert visible
    assert "result" in text
    browser.run('document.querySelector("#query").value = ""; document.querySelector("#form").requestSubmit()')
    assert browser.run(state) == [True, ""]


def test_clearing_the_question_ends_the_search(browser, url):
    """While an answer is on its way: both happen within one turn of the page's event loop."""
    browser.open(f"{url}/")
    browser.until('document.querySelectorAll(".chip").length === 4')
    busy = browser.run("""
        const [form, query, results] = ["#form", "#query", "#results"].map(s => document.querySelector(s));
        return ["currency", ""].map(text => {
            query.value = text;
            form.requestSubmit();
            return results.getAttribute("aria-busy");
        });""")
    assert busy == ["true", None]
    assert browser.run('return document.querySelectorAll("#results li").length') == 0


def test_every_control_has_a_name_and_the_console_is_quiet(browser, url):
    browser.command("/se/log", type="browser")  # what earlier tests provoked
    browser.open(f"{url}/?q=currency")
    browser.until('document.querySelector("#results li")')
    unnamed = """return [...document.querySelectorAll("input, button")]
        .filter(e => !e.labels?.[0]?.textContent.trim() && !e.textContent.trim()).map(e => e.outerHTML)"""
    assert browser.run(unnamed) == []
    assert browser.command("/se/log", type="browser") == []


def test_long_text_opens_on_request(browser, url):
    browser.open(f"{url}/?q=yen+Japan&lang=en&k=1")
    browser.until('document.querySelector(".more") && !document.querySelector(".more").hidden')
    short = browser.run('return document.querySelector(".text").clientHeight')
    browser.run('document.querySelector(".more").click()')
    assert browser.run('return document.querySelector(".text").clientHeight') > 1.5 * short
    assert browser.run('return document.querySelector(".more").ariaExpanded') == "true"


def test_page_asks_no_other_host(url):
    """Every address in the three files is relative, and the policy sent with them forbids the rest."""

    class Links(HTMLParser):
        found: list[str] = []

        def handle_starttag(self, tag, attrs):
            self.found += [value for name, value in attrs if name in ("src", "href")]

    answer = httpx.get(f"{url}/")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    Links().feed(answer.text)
    assert Links.found
    assert not [link for link in Links.found if "//" in link]
    for name in ("style.css", "search.js"):
        assert not re.findall(r"https?://|url\(|@import|import\s", httpx.get(f"{url}/page/{name}").text)
