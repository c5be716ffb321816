"""The search page in a browser, without Ray: cards and their tabs, the words that matched, more results, curl, keys."""

import shlex
import subprocess
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import quote

import httpx
import pytest
import uvicorn

import serving_apps
from conftest import free_port
from serving.access import Access
from serving.keys import Key, hash_key
from serving_here import ServerHere
from webdriver import KEYS, open_browser

pytestmark = pytest.mark.usefixtures("one_thread")
EXAMPLES = ("پایتخت ایران کجاست؟", "What is the capital of Iran?")
COUNTS = """Object.fromEntries([...document.querySelectorAll(".chip")]
    .filter(chip => chip.querySelector(".amount").checkVisibility())
    .map(chip => [chip.querySelector("input").value, Number(chip.querySelector(".amount").textContent)]))"""
LIT = '[...(CSS.highlights.get("matched") || [])].map(range => range.toString())'
SEARCHES = 'performance.getEntriesByType("resource").filter(entry => entry.name.endsWith("/search"))'


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@contextmanager
def listen(here):
    """Serve an application from a thread. Yields its URL."""
    port = free_port()
    config = uvicorn.Config(here.app, host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A student with a vector for each token."""
    served = replace(serving_apps.make_lexical_system(tmp_path_factory.mktemp("lexical")), examples=EXAMPLES)
    with listen(ServerHere(served)) as url:
        yield url


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return serving_apps.make_words_system(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return serving_apps.make_dense_system(tmp_path_factory.mktemp("dense"))


def ask(url, query, **fields):
    """Search as the page does."""
    body = {"query": query, "collapse": True, **fields}
    return httpx.post(f"{url}/search", json=body).raise_for_status().json()["results"]


def test_a_card_has_a_tab_for_each_language_of_its_document(browser, url):
    first = ask(url, "پایتخت ایران")[0]
    readings = [first, *first["translations"]]
    assert {"fa", "en"} <= {reading["lang"] for reading in readings}
    browser.open(f"{url}/?q={quote('پایتخت ایران')}")
    browser.wait_until('document.querySelector("#results li")')
    shown = """const card = document.querySelector("#results li"), text = card.querySelector(".text");
        return {lang: text.lang, dir: text.dir, text: text.textContent, title: card.querySelector("h2").textContent,
            score: card.querySelector(".score").textContent,
            chosen: [...card.querySelectorAll(".tag")].map(tab => tab.ariaSelected).indexOf("true")}"""
    tabs = 'return [...document.querySelector("#results li").querySelectorAll(".tag .code")].map(e => e.textContent)'
    assert browser.run(tabs) == [reading["lang"] for reading in readings]
    for index, reading in enumerate(readings):
        browser.click(f"#tab-1-{index}")
        direction = "rtl" if reading["lang"] == "fa" else "ltr"
        expected = {"lang": reading["lang"], "dir": direction, "text": reading["text"], "title": reading["title"]}
        assert browser.run(shown) == expected | {"score": f"{reading['score']:.3f}", "chosen": index}
    for key, index in (("right", 0), ("left", len(readings) - 1)):
        browser.press(KEYS[key])
        assert browser.run(shown)["chosen"] == index
        assert browser.run("return document.activeElement.id") == f"tab-1-{index}"


def test_chips_count_what_was_found_in_each_language(browser, url):
    query = "capital of Iran"
    browser.open(f"{url}/?q={quote(query)}")
    browser.wait_until('document.querySelector("#results li")')
    langs = [r["lang"] for result in ask(url, query) for r in (result, *result["translations"])]
    assert browser.run(f"return {COUNTS}") == Counter(langs)
    browser.click(".chip:has([value=ru])")
    browser.wait_until('[...document.querySelectorAll(".text")].every(e => e.lang === "ru")')
    assert browser.run(f"return {COUNTS}") == {"ru": 2}
    assert "lang=ru" in browser.run("return location.search")


def test_an_example_is_asked_by_a_click(browser, url):
    assert httpx.get(f"{url}/info").json()["examples"] == list(EXAMPLES)
    browser.open(f"{url}/")
    browser.wait_until('document.querySelectorAll("#examples button").length === 2')
    sides = 'return [...document.querySelectorAll("#examples button")].map(e => getComputedStyle(e).direction)'
    assert browser.run(sides) == ["rtl", "ltr"]
    browser.click("#examples button")
    browser.wait_until('document.querySelector("#results li")')
    assert browser.run('return document.querySelector("#query").value') == EXAMPLES[0]
    assert browser.run('return new URLSearchParams(location.search).get("q")') == EXAMPLES[0]
    assert not browser.run('return document.querySelector("#welcome").checkVisibility()')
    browser.send("/back")
    browser.wait_until('document.querySelector("#welcome").checkVisibility()')


def expect_lit(results, place):
    """The texts of the tokens that the query's token at ``place`` matched."""
    pairs = [pair for result in results for pair in result["matches"] if pair["query"].get("start") == place]
    return sorted(pair["passage"]["text"] for pair in pairs)


@pytest.mark.parametrize("before", ["", "🙂𝄞 "])  # characters that are two of JavaScript's
def test_pointing_at_a_word_lights_what_it_matched(browser, url, before):
    query = f"{before}currency of Russia"
    browser.open(f"{url}/?q={quote(query)}&k=3")
    browser.wait_until('document.querySelector(".word")')
    assert browser.run('return [...document.querySelectorAll(".word")].map(e => e.textContent)') == [
        *["currency", "of", "Russia"]
    ]
    browser.point_at(".word")
    lit = browser.wait_until(f"{LIT}.length && {LIT}")
    assert sorted(lit) == expect_lit(ask(url, query, k=3, explain=True), len(before))
    assert lit.count("currency") >= 2
    assert "currency" in browser.run('return document.querySelector("#matched").innerText')
    browser.point_at("#query")
    assert browser.run(f"return {LIT}") == []


def test_the_focus_lights_words_and_follows_a_tab_to_its_language(browser, url):
    query = "Тегеран"
    browser.open(f"{url}/?q={quote(query)}&k=4")
    browser.wait_until('document.querySelector(".word")')
    browser.run('document.querySelector(".word").focus()')
    assert browser.run(f"return {LIT}")[0] == "Тегеран"
    browser.run('[...document.querySelectorAll(".tag")].find(tab => tab.title === "English").focus()')
    browser.run("document.activeElement.click()")
    lit = browser.wait_until(f'{LIT}.length === document.querySelectorAll("#results li").length && {LIT}')
    first = next(r for r in ask(url, query, k=4, languages=["en"], explain=True) if r["doc_id"] == "d0")
    assert lit[0] == expect_lit([first], 0)[0]
    browser.run('document.querySelector("#query").focus()')
    browser.run('document.querySelectorAll(".word")[0].focus(); document.activeElement.blur()')
    assert browser.run(f"return {LIT}") == []


def test_words_are_asked_for_when_results_are_there(browser, url):
    browser.open(f"{url}/?q=currency")
    browser.wait_until('document.querySelector(".word")')
    first, second = browser.run(f"return {SEARCHES}.map(entry => [entry.startTime, entry.responseEnd])")
    assert first[1] <= second[0]


@pytest.mark.parametrize("system", ["words", "dense"])
def test_a_model_without_vectors_of_tokens_is_not_asked(browser, request, system):
    with listen(ServerHere(request.getfixturevalue(system))) as url:
        browser.send("/se/log", type="browser")  # discard the messages of earlier tests
        browser.open(f"{url}/?q=currency")
        browser.wait_until('document.querySelector("#results li")')
        time.sleep(0.3)  # for a second search, which there should not be
        assert browser.run(f"return {SEARCHES}.length") == 1
        assert not browser.run('return document.querySelector("#question").checkVisibility()')
        assert browser.send("/se/log", type="browser") == []


def test_more_results_follow_those_that_are_shown(browser, url):
    shown = """[...document.querySelectorAll("#results li")].map(
        item => [item.querySelector(".rank").textContent, item.querySelector(".id").textContent])"""
    browser.open(f"{url}/?q=currency&k=4")
    browser.wait_until('document.querySelectorAll("#results li").length === 4')
    browser.click("#more")
    browser.wait_until('document.querySelectorAll("#results li").length > 4')
    pages = [*ask(url, "currency", k=4), *ask(url, "currency", k=4, offset=4)]
    assert browser.run(f"return {shown}") == [[str(rank), r["doc_id"]] for rank, r in enumerate(pages, 1)]
    articles = 'return [...document.querySelectorAll("article")].indexOf(document.activeElement)'
    assert browser.run(articles) == 4
    assert not browser.run('return document.querySelector("#more").checkVisibility()')  # the second page is not full


def test_bars_are_as_long_as_scores(browser, url):
    browser.open(f"{url}/?q=currency")
    browser.wait_until('document.querySelector("#results li")')
    shares = browser.run("""return [...document.querySelectorAll(".bar")].map(bar =>
        parseFloat(getComputedStyle(bar, "::before").width) / bar.clientWidth)""")
    scores = [result["score"] for result in ask(url, "currency")]
    assert shares == pytest.approx([score / scores[0] for score in scores], abs=0.02)


def copy_command(browser):
    """Click on "Copy as curl". Returns what is in the clipboard then."""
    for name in ("clipboard-read", "clipboard-write"):
        browser.send("/permissions", descriptor={"name": name}, state="granted")  # to the page's host
    browser.click("#curl")
    browser.wait_until('document.querySelector("#copied").textContent === "Copied."')
    return browser.run("return navigator.clipboard.readText()")


def test_the_command_for_curl_does_the_same_search(browser, url):
    query = """Iran's "capital" $HOME `id` \\ پایتخت"""
    browser.open(f"{url}/?q={quote(query)}&lang=fa&lang=ru&k=3")
    browser.wait_until('document.querySelector("#results li")')
    command = copy_command(browser)
    assert f"{url}/search" in shlex.split(command)
    answer = subprocess.run(["sh", "-c", f"{command} --silent --fail"], capture_output=True, check=True).stdout
    ids = browser.run('return [...document.querySelectorAll(".id")].map(e => e.textContent)')
    found = httpx.Response(200, content=answer).json()
    assert (found["query"], [result["doc_id"] for result in found["results"]]) == (query, ids)


def test_a_server_with_keys_asks_for_one(browser, words):
    access = Access(keys=(Key(name="a", sha256=hash_key("a-key")),), hosts=("*",))
    with listen(ServerHere(words, access)) as url:
        visible = 'document.querySelector("{}").checkVisibility()'.format
        browser.open(f"{url}/?q=currency")
        browser.wait_until(visible("#secret"))
        assert not browser.run(f"return {visible('#wrong')}")
        browser.type("#secret", "another" + KEYS["enter"])
        browser.wait_until(visible("#wrong"))
        browser.type("#secret", "a-key" + KEYS["enter"])
        browser.wait_until('document.querySelector("#results li")')
        assert not browser.run(f"return {visible('#key')}")
        browser.send("/refresh")
        browser.wait_until('document.querySelector("#results li")')
        assert browser.run("return [localStorage.length, sessionStorage.length, document.cookie]") == [0, 1, ""]
        command = copy_command(browser)
        assert "a-key" not in command
        output = subprocess.run(["sh", "-c", f"BABELRAY_KEY=a-key; {command} -sf"], capture_output=True, check=True)
        assert b'"results":[{' in output.stdout


def test_a_long_question_is_shown_whole(browser, url):
    question = "Which currency do people pay with in Iran, and what is the capital of France? " * 4
    browser.open(f"{url}/")
    browser.wait_until('document.querySelector(".chip")')
    height = browser.run('return document.querySelector("#query").clientHeight')
    browser.type("#query", question + KEYS["enter"])
    browser.wait_until('document.querySelector("#results li")')
    state = """const q = document.querySelector("#query");
        return [q.clientHeight, q.scrollHeight - q.clientHeight, q.value.includes("\\n")]"""
    grown, hidden, has_break = browser.run(state)
    assert grown > 2 * height
    assert (hidden, has_break) == (0, False)
    browser.run('document.querySelector("#query").setSelectionRange(0, 0)')
    browser.press(KEYS["down"])  # to the question's next line, and not to the results
    assert browser.run("return document.activeElement.id") == "query"


def test_controls_are_large_enough_for_thumbs_on_a_narrow_screen(browser, url):
    browser.devtools("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    browser.open(f"{url}/?q=currency+of+Iran")
    browser.wait_until('document.querySelector(".word")')
    small = """return [...document.querySelectorAll(".chip, button, footer a")].filter(e => e.checkVisibility())
        .map(e => [e.outerHTML, e.getBoundingClientRect()])
        .filter(([html, box]) => box.height < 44 || (box.width < 44 && !html.includes('"word"')))
        .map(([html]) => html)"""
    assert browser.run(small) == []
    assert browser.run("return document.documentElement.scrollWidth") <= 360
    browser.devtools("Emulation.clearDeviceMetricsOverride")


def test_what_is_chosen_is_seen_in_forced_colours(browser, url):
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "forced-colors", "value": "active"}])
    browser.open(f"{url}/?q=capital+of+Iran&lang=en&lang=fa")
    browser.wait_until('document.querySelectorAll("#results .tag").length > 1')
    backgrounds = """const colour = (s) => getComputedStyle(document.querySelector(s)).backgroundColor;
        return [colour(".chip:has(:checked)") !== colour(".chip:not(:has(:checked))"),
            colour(".tag[aria-selected=true]") !== colour(".tag[aria-selected=false]"),
            getComputedStyle(document.querySelector(".box button")).borderTopWidth]"""
    assert browser.run(backgrounds) == [True, True, "1px"]
    browser.devtools("Emulation.setEmulatedMedia", features=[])
