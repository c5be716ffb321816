"""The search page in a browser, served by Ray Serve."""

import re
from html.parser import HTMLParser
from urllib.parse import quote

import httpx
import pytest

import serving_apps
from serving.api import PAGE
from webdriver import KEYS, open_browser

# importing Ray Data warns about a deprecated setting of its own
pytestmark = pytest.mark.filterwarnings("ignore:.use_push_based_shuffle:DeprecationWarning")


@pytest.fixture(scope="module")
def url(served):
    return served.url("words")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


RESULTS = """[...document.querySelectorAll("#results li")].map(item => ({
    lang: item.querySelector(".text").lang, dir: item.querySelector(".text").dir,
    side: getComputedStyle(item.querySelector(".text")).direction,
    tag: item.querySelector(".tag").innerText.replace(/\\s+/g, " ").trim(),
    text: item.querySelector(".text").textContent, title: item.querySelector("h2").textContent,
    score: item.querySelector(".score").textContent }))"""


def test_typing_a_question_shows_results_in_their_language_and_direction(browser, url):
    browser.open(f"{url}/")
    browser.wait_until('document.querySelectorAll(".chip").length === 4')
    browser.type("#query", "پایتخت ایران")
    browser.wait_until('document.querySelector("#results li")')
    results = browser.run(f"return {RESULTS}")
    first = results[0]
    assert (first["lang"], first["dir"], first["side"], first["tag"]) == ("fa", "rtl", "rtl", "fa Persian")
    assert (first["title"], first["text"]) == serving_apps.TEXTS["fa"][0][0]
    assert float(first["score"]) > 0
    answer = httpx.post(f"{url}/search", json={"query": "پایتخت ایران", "collapse": True}).json()["results"]
    assert [r["text"] for r in results] == [r["text"] for r in answer]
    status = browser.run('return document.querySelector("#status").innerText')
    assert status.startswith(f"{len(answer)} result")
    assert " ms (" in status


def test_search_is_restored_from_the_address(browser, url):
    browser.open(f"{url}/?q={quote('Столица')}&lang=ru&k=1")
    browser.wait_until('document.querySelector("#results li")')
    results = browser.run(f"return {RESULTS}")
    assert [(r["lang"], r["dir"]) for r in results] == [("ru", "ltr")]
    assert browser.run('return document.querySelector("#query").value') == "Столица"
    assert browser.run('return document.querySelector("[value=ru]").checked')


def test_language_chips_filter_the_results(browser, url):
    browser.open(f"{url}/?q=currency+ruble")
    browser.wait_until('new Set([...document.querySelectorAll(".text")].map(e => e.lang)).size > 1')
    browser.run('document.querySelector("[value=fa]").click()')
    browser.wait_until(
        '[...document.querySelectorAll(".text")].every(e => e.lang === "fa") && document.querySelector(".text")'
    )
    assert "lang=fa" in browser.run("return location.search")
    assert "q=currency+ruble" in browser.run("return location.search")


def test_arrow_keys_move_through_results_and_escape_returns_to_the_query(browser, url):
    browser.open(f"{url}/?q=currency+country")
    browser.wait_until('document.querySelectorAll("#results li").length > 1')
    focus_index = 'return [...document.querySelectorAll("article")].indexOf(document.activeElement)'
    browser.run('document.querySelector("#query").focus()')
    focused_results = []
    for key in ("down", "down", "up"):
        browser.press(KEYS[key])
        focused_results.append(browser.run(focus_index))
    assert focused_results == [0, 1, 0]
    browser.press(KEYS["escape"])
    assert browser.run("return document.activeElement.id") == "query"
    browser.run("document.activeElement.blur()")
    browser.press("/")
    assert browser.run("return document.activeElement.id") == "query"


@pytest.mark.parametrize(("app", "query"), [("words", "xyzzy"), ("lexical", "…")])
def test_search_without_results_says_so(browser, served, app, query):
    """For a word that no document has, and for a query without words."""
    browser.open(f"{served.url(app)}/?q={quote(query)}")
    browser.wait_until('document.querySelector("#status").innerText.startsWith("Nothing found")')
    assert browser.run('return document.querySelectorAll("#results li").length') == 0


def test_refused_search_shows_the_servers_reason(browser, url):
    browser.open(f"{url}/?q=x&k=5000")
    browser.wait_until('!document.querySelector("#problem").hidden')
    assert "an integer from 1 to 1000" in browser.run('return document.querySelector("#problem").innerText')


def test_markup_in_a_passage_is_shown_as_text(browser, url):
    """The page sets passages as text, so their markup is not interpreted; its content policy also forbids scripts."""
    browser.open(f"{url}/?q=markup")
    browser.wait_until('document.querySelector("#results li")')
    (result,) = browser.run(f"return {RESULTS}")
    assert (result["title"], result["text"]) == serving_apps.MARKUP
    assert browser.run('return document.querySelectorAll("#results :is(img, script)").length') == 0
    assert browser.run("return document.title") == "tiny · babelray"


def test_empty_status_is_rendered(browser, url):
    """Screen readers announce changes of a region that is rendered already, and not a region that appears."""
    state = 'const s = document.querySelector("#status"); return [s.checkVisibility(), s.textContent]'
    browser.open(f"{url}/")
    browser.wait_until('document.querySelectorAll(".chip").length === 4')
    assert browser.run(state) == [True, ""]
    browser.open(f"{url}/?q=currency")
    browser.wait_until('document.querySelector("#results li")')
    visible, text = browser.run(state)
    assert visible
    assert "result" in text
    browser.run('document.querySelector("#query").value = ""; document.querySelector("#form").requestSubmit()')
    assert browser.run(state) == [True, ""]


def test_clearing_the_query_cancels_the_search(browser, url):
    """Both happen within one turn of the page's event loop, so the first answer is still pending."""
    browser.open(f"{url}/")
    browser.wait_until('document.querySelectorAll(".chip").length === 4')
    busy = browser.run("""
        const [form, query, results] = ["#form", "#query", "#results"].map(s => document.querySelector(s));
        return ["currency", ""].map(text => {
            query.value = text;
            form.requestSubmit();
            return results.getAttribute("aria-busy");
        });""")
    assert busy == ["true", None]
    assert browser.run('return document.querySelectorAll("#results li").length') == 0


def test_every_control_has_a_name_and_the_console_is_empty(browser, url):
    browser.send("/se/log", type="browser")  # discard the messages of earlier tests
    browser.open(f"{url}/?q=currency")
    browser.wait_until('document.querySelector("#results li")')
    unnamed = """return [...document.querySelectorAll("input, textarea, button")].filter(e => e.checkVisibility())
        .filter(e => !e.labels?.[0]?.textContent.trim() && !e.textContent.trim()).map(e => e.outerHTML)"""
    assert browser.run(unnamed) == []
    assert browser.send("/se/log", type="browser") == []


def test_long_text_is_expanded_by_its_button(browser, url):
    browser.open(f"{url}/?q=yen+Japan&lang=en&k=1")
    browser.wait_until('document.querySelector(".more") && !document.querySelector(".more").hidden')
    short = browser.run('return document.querySelector(".text").clientHeight')
    browser.run('document.querySelector(".more").click()')
    assert browser.run('return document.querySelector(".text").clientHeight') > 1.5 * short
    assert browser.run('return document.querySelector(".more").ariaExpanded') == "true"


def test_page_loads_nothing_from_other_hosts(url):
    """Every address in its files is relative, and the content policy forbids other hosts."""

    class LinkParser(HTMLParser):
        found: list[str] = []

        def handle_starttag(self, tag, attrs):
            self.found += [value for name, value in attrs if name in ("src", "href")]

    answer = httpx.get(f"{url}/")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    LinkParser().feed(answer.text)
    assert LinkParser.found
    assert not [link for link in LinkParser.found if "//" in link]
    for file in PAGE.glob("*.*s"):
        source = httpx.get(f"{url}/page/{file.name}").raise_for_status().text
        assert not re.findall(r"https?://|\burl\(|@import|import\(", source)
        assert all(name.startswith("./") for name in re.findall(r"\bfrom \"(.+?)\"", source))
