"""The search page in a browser, without Ray: the student beside BM25, fused results, and axe-core's rules.

axe-core is no part of this repository. Its test runs where ``BABELRAY_AXE`` names an axe.min.js, or node_modules has
one (``npm install axe-core``).
"""

import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

import serving_apps
from pipelines.fusion import Hybrid
from serving_here import ServerHere, SeveralHere
from test_page_cards import listen
from webdriver import open_browser

pytestmark = pytest.mark.usefixtures("one_thread")
EXAMPLES = ("پایتخت ایران کجاست؟", "What is the capital of Iran?")
QUERY = "the currency of Russia"
BOTH = f"?q={quote(QUERY)}&view=beside"
IDS = '[...document.querySelectorAll("#{} .id")].map(e => e.textContent)'


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return ServerHere(serving_apps.make_words_system(tmp_path_factory.mktemp("words")))


@pytest.fixture(scope="module")
def url(tmp_path_factory, words):
    """A student with BM25 beside it."""
    served = serving_apps.make_lexical_system(tmp_path_factory.mktemp("lexical"))
    student = ServerHere(replace(served, examples=EXAMPLES, hybrid=Hybrid()), words=words)
    with listen(SeveralHere(student, words)) as url:
        yield url


def ask(url, **fields):
    body = {"query": QUERY, "collapse": True, **fields}
    return httpx.post(f"{url}/search", json=body).raise_for_status().json()["results"]


def set_width(browser, width):
    browser.devtools("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)


def is_shown(browser, selector):
    return browser.run(f"return document.querySelector({selector!r}).checkVisibility()")


def test_the_student_stands_beside_bm25(browser, url):
    set_width(browser, 1200)
    browser.open(f"{url}/?q={quote(QUERY)}")
    browser.wait_until('document.querySelector("#results li")')
    assert not is_shown(browser, "#beside")
    browser.click(".view:has([value=beside])")
    browser.wait_until('document.querySelector("#words li")')
    assert browser.run("return new URLSearchParams(location.search).get('view')") == "beside"
    student, bm25 = ask(url), ask(url, model="tiny/bm25")
    assert browser.run(f"return {IDS.format('results')}") == [result["doc_id"] for result in student]
    assert browser.run(f"return {IDS.format('words')}") == [result["doc_id"] for result in bm25]
    ids = [result["doc_id"] for result in bm25]
    expected = [f"BM25 {ids.index(r['doc_id']) + 1 if r['doc_id'] in ids else '–'}" for r in student]
    assert browser.wait_until('document.querySelector("#words .ranks").textContent')
    assert browser.run('return [...document.querySelectorAll("#results .ranks")].map(e => e.textContent)') == expected
    heads = browser.run('return [...document.querySelectorAll(".head")].map(e => e.textContent)')
    assert heads == [f"lexical · {len(student)} results", f"BM25 · {len(bm25)} results"]
    left, right = browser.run("""return ["#first", "#beside"].map(
        id => document.querySelector(id).getBoundingClientRect()).map(({left, right}) => [left, right])""")
    assert left[1] <= right[0]
    ids = browser.run('return [...document.querySelectorAll("[id]")].map(e => e.id)')
    assert len(set(ids)) == len(ids)


def test_a_narrow_screen_shows_one_column_and_a_switch(browser, url):
    set_width(browser, 360)
    browser.open(f"{url}/{BOTH}")
    browser.wait_until('document.querySelector("#words li")')
    assert [is_shown(browser, part) for part in ("#switch", "#first", "#beside")] == [True, True, False]
    browser.click("#switch [data-column=beside]")
    assert [is_shown(browser, part) for part in ("#switch", "#first", "#beside")] == [True, False, True]
    pressed = 'return [...document.querySelectorAll("#switch button")].map(e => [e.textContent, e.ariaPressed])'
    assert browser.run(pressed) == [["lexical", "false"], ["BM25", "true"]]
    assert browser.run("return document.documentElement.scrollWidth") <= 360


def test_fused_results_say_which_rank_each_system_gave(browser, url):
    set_width(browser, 1200)
    browser.open(f"{url}/?q={quote(QUERY)}&view=fused")
    browser.wait_until('document.querySelector("#results .ranks")?.textContent')
    fused = ask(url, hybrid=True)
    assert browser.run(f"return {IDS.format('results')}") == [result["doc_id"] for result in fused]
    names = {"lexical": "lexical", "bm25": "BM25"}
    expected = [" · ".join(f"{names[name]} {rank}" for name, rank in result["ranks"].items()) for result in fused]
    assert browser.run('return [...document.querySelectorAll("#results .ranks")].map(e => e.textContent)') == expected
    assert not is_shown(browser, "#beside")


def test_a_question_without_words_of_the_index_says_so(browser, url):
    browser.open(f"{url}/?q=xyzzy&view=beside")
    browser.wait_until('document.querySelector("#none").checkVisibility()')
    assert browser.run('return document.querySelector("#none").textContent') == "No text has a word of the question."


def test_a_server_without_an_index_of_words_offers_none(browser, words):
    with listen(words) as url:
        browser.open(f"{url}/{BOTH}")
        browser.wait_until('document.querySelector("#results li")')
        assert [is_shown(browser, part) for part in ("#views", "#beside", "#switch")] == [False, False, False]
        assert browser.run("return new URLSearchParams(location.search).get('view')") == "beside"  # kept until a search


def find_axe():
    """The text of axe.min.js. Skips the test where there is none."""
    below = [parent / "node_modules" / "axe-core" / "axe.min.js" for parent in Path(__file__).parents[:2]]
    named = os.environ.get("BABELRAY_AXE")
    for path in [Path(named)] if named else below:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    pytest.skip("needs axe-core: BABELRAY_AXE=…/axe.min.js, or npm install axe-core")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("address", ["", f"?q={quote(QUERY)}", BOTH, f"?q={quote(QUERY)}&view=fused", "?q=xyzzy"])
def test_axe_finds_no_violation(browser, url, address, width, scheme):
    axe = find_axe()
    set_width(browser, width)
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(f"{url}/{address}")
    browser.wait_until(
        'document.querySelector("#results li") && !document.querySelector("#results[aria-busy=true]")'
        if "currency" in address
        else 'document.querySelector("#welcome").checkVisibility() || document.querySelector("#status").textContent'
    )
    if "view=beside" in address:
        browser.wait_until('document.querySelector("#words li")')
    browser.run(axe)
    found = browser.send(
        "/execute/async",
        script="axe.run(document, {resultTypes: ['violations']}).then(arguments[0])",
        args=[],
    )
    browser.devtools("Emulation.setEmulatedMedia", features=[])
    broken = [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]]
    assert broken == []
    assert len(found["passes"]) > 10
