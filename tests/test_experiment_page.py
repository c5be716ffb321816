"""The page of an experiment: whole, offline, escaped, with every verdict and number; and the same for a terminal."""

import io
import re
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from experiments import apart, pair, scores
from pipelines.experiment import words
from pipelines.experiment.claims import Axis, AxisClaim, Claim, Grid, GridPoint
from pipelines.experiment.effects import fit_grid
from pipelines.experiment.markdown import write_markdown
from pipelines.experiment.markup import element
from pipelines.experiment.page import write_page
from pipelines.experiment.results import Curve, ExperimentResult
from pipelines.experiment.scores import summarise
from pipelines.experiment.statistics import judge
from pipelines.experiment.terminal_page import experiment_page

EVIL = '<b>"x" & $\\alpha$</b>'
VOID = {"meta", "br", "col"}
CLAIMS = (
    Claim(name="above", claim="MTD is above <i>MTT</i>", a=EVIL, b="mtt"),
    Claim(name="by-ten-percent", a=EVIL, b="mtt", at_least={"nDCG@20": 0.1}),
    Claim(name="strategies", test="equivalent", of=(EVIL, "mtt", "ed"), bound=0.02),
    Claim(name="change", test="different", a="ed", b="mtt", bound=0.02),
)


class Page(HTMLParser):
    """The page as text, attributes and SVGs; fails where an element is not closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.attributes, self.of, self.tags = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.of.append((self.open[-1] if self.open else "", data))

    @property
    def texts(self):
        return [text for _, text in self.of]

    @property
    def text(self):
        return "\n".join(self.texts)


@pytest.fixture(scope="module")
def result():
    made = []
    for measure in ("nDCG@20", "AP"):
        for i, lang in enumerate(("all", "de", "zh")):
            a, b = apart(0.03 * i, n=40, seed=i)
            made.append(scores(EVIL, np.column_stack([a, a + 0.002]), measure, lang, ("1", "2")))
            made += [scores("mtt", b, measure, lang), scores("ed", b + 0.001 * pair(0, n=40)[0], measure, lang)]
    axes = (Axis.of("languages", [["en"], ["en", "de"]]), Axis.of("teacher", ["strong", "<weak>"]))
    points = [
        GridPoint(variant=f"{x}-{y}", levels={"languages": x, "teacher": y})
        for x in axes[0].levels
        for y in axes[1].levels
    ]
    grid, claim = Grid(axes=axes, points=tuple(points)), AxisClaim(larger="languages", than="teacher")
    of_grid = [scores(p.variant, 0.01 * i + pair(0)[1], "nDCG@20") for i, p in enumerate(points)]
    found = fit_grid(grid, of_grid, [claim])
    curves = [
        Curve(variant=v, fold="0", seed=s, measure="loss", steps=(1, 2, 4), values=(3.0, 2.5, 2.0 + int(s)))
        for v in (EVIL, "ed")
        for s in "12"
    ]
    return ExperimentResult(
        name="mtd <1>",
        about="about & more",
        claims=CLAIMS,
        cells=summarise([*made, *of_grid]),
        verdicts=judge(CLAIMS, made),
        grid=grid,
        axis_claims=(claim,),
        effects=found.effects,
        contrasts=found.contrasts,
        fits=found.fits,
        curves=tuple(curves),
        commands=("babelray experiment mtd --set a=<b>", "babelray show mtd"),
        notes=("five folds are put together",),
    )


@pytest.fixture(scope="module")
def html(result):
    return write_page(result)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_page_needs_no_network(html, page):
    assert "http://" not in html
    assert "https://" not in html
    assert not {"script", "link", "img", "iframe", "object", "embed", "image"} & set(page.tags)
    assert {name for name, _ in page.attributes} & {"src", "srcset", "data", "action", "onload"} == set()
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "@import" not in html
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_names_are_escaped(page):
    assert "i" not in page.tags
    bold = [text for tag, text in page.of if tag == "b"]
    assert bold
    assert all(re.fullmatch(r"[\d.]+", text) for text in bold)  # the best mean of a column, and nothing of a name
    for name in (EVIL, "MTD is above <i>MTT</i>", "mtd <1>", "<weak>", "babelray experiment mtd --set a=<b>"):
        assert name in page.text


def test_every_verdict_is_there_in_words(result, page):
    answers = {verdict.answer for verdict in result.verdicts}
    assert answers == {"holds", "fails", "cannot tell"}
    for verdict in result.verdicts:
        assert words.write_sentence(verdict) in page.texts
    for contrast in result.contrasts:
        assert words.write_contrast(contrast) in page.texts
    shown = [text for text in page.texts if text in answers]
    for answer in answers:
        found = [*result.verdicts, *result.contrasts]
        assert shown.count(answer) >= sum(one.answer == answer for one in found)


def test_means_curves_commands_and_method_are_there(result, page):
    for cell in result.cells:
        assert words.write_number(cell.mean) in page.texts
        assert words.write_interval(cell.low, cell.high) in page.texts
    for line in (*words.describe_power(result), *words.describe_method(result), *result.notes):
        assert line in page.texts
    assert "\n".join(result.commands) in page.texts
    assert "loss after so many steps" in page.texts
    for effect in result.effects:
        assert words.write_effect(effect) in page.texts


def test_plots_are_svg_with_text_and_variables_for_colours(result, html):
    plots = re.findall(r"<svg .*?</svg>", html, flags=re.DOTALL)
    forests = len({(v.claim, v.measure) for v in result.verdicts})
    assert len(plots) == forests + 2 + 1 + 2  # means by measure, curves, axes
    ids = []
    for plot in plots:
        root = ElementTree.fromstring(plot)
        ids += [node.get("id") for node in root.iter() if node.get("id")]
        used = set(re.findall(r'["(]#([\w-]+)', plot))
        assert used <= {node.get("id") for node in root.iter()}
        assert not re.search(r"(?:fill|stroke): #(?!000000|ffffff)", plot)
        assert list(root.iter("text"))
    assert len(ids) == len(set(ids))
    assert "var(--holds)" in "".join(plots)
    style = html[html.index("<style>") : html.index("</style>")]
    assert all(f"{name}:" in style for name in set(re.findall(r"var\((--[\w-]+)\)", html)) - {"--share"})


def test_an_experiment_without_claims_has_a_page_without_their_section():
    page = Page(write_page(ExperimentResult(name="bare", cells=summarise([scores("a", [0.5])]))))
    assert {"Means", "Method"} <= set(page.texts)
    assert not {"Claims", "Differences", "Grid", "Every comparison", "Learning curves"} & set(page.texts)


def test_long_names_in_other_scripts_leave_room_for_the_plot():
    """A warning is an error here: no layout that collapses, no glyph that is missing."""
    names = ("混合" * 40, "ترکیب " * 30)
    made = [scores(name, values) for name, values in zip(names, pair(0.1), strict=True)]
    claim = Claim(name="c", test="equivalent", of=names, bound=0.1)
    page = write_page(
        ExperimentResult(name="long", claims=(claim,), cells=summarise(made), verdicts=judge([claim], made))
    )
    assert f"{names[0]} − {names[1]}" in Page(page).texts


def test_the_result_is_read_back_as_it_was_written(result):
    assert ExperimentResult.model_validate_json(result.model_dump_json()) == result


def test_the_terminal_shows_verdicts_and_means(result):
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(experiment_page(result))
    shown = console.export_text()
    for verdict in result.verdicts:
        assert f"{verdict.answer:11} {words.write_sentence(verdict)}" in shown
    for cell in result.cells:
        assert words.write_number(cell.mean) in shown
    assert EVIL in shown


def test_the_markdown_page_has_verdicts_means_and_commands_and_no_html(result):
    page = write_markdown(result)
    shown = unescape(page)
    for verdict in result.verdicts:
        assert f"* {verdict.answer}: {words.write_sentence(verdict)}\n" in shown
    for cell in result.cells:
        assert f"| {words.write_number(cell.mean)} ± " in shown
    for line in (*result.commands, *result.notes):
        assert line in shown
    prose = [line for line in page.splitlines() if not line.startswith("    ")]
    assert "<b>" in shown
    assert not [line for line in prose if re.search(r"<[a-zA-Z/]", line)]


def test_a_markdown_table_has_as_many_cells_in_each_row_whatever_a_variant_is_called():
    page = write_markdown(
        ExperimentResult(name="x", cells=summarise([scores("a|b", [0.1, 0.2]), scores("c", [0.3, 0.4])]))
    )
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {row.count("|") for row in rows} == {3}
    assert any("a&#124;b" in row for row in rows)


def test_elements_escape_all_but_elements():
    made = element("td", "a < b", element("b", '"&"'), ["c", "<d>"], class_="x", aria_label='"')
    assert made == ('<td class="x" aria-label="&quot;">a &lt; b<b>&quot;&amp;&quot;</b>c&lt;d&gt;</td>')


def test_numbers_in_words():
    assert [words.write_number(v) for v in (0.4123, -0.0412, -0.0001, None)] == ["0.412", "−0.041", "0.000", "–"]
    assert [words.write_signed(v) for v in (0.04, -0.04, 0.0)] == ["+0.040", "−0.040", "0.000"]
    assert [words.write_p(p).replace("\u00a0", " ") for p in (0.0004, 0.0123, None)] == [
        "p < 0.001", "p = 0.012", "no p-value",
    ]  # fmt: skip
    assert words.sort_languages(["zh", "all", "de", "zh"]) == ["all", "zh", "de"]  # Chinese, German
    assert words.name_language("not-a-language") == "not-a-language"


def test_a_sentence_as_a_person_would_say_it():
    a, b = apart(-0.04, n=100, seed=1)
    (verdict,) = judge([Claim(name="c", a="MTD", b="ED")], [scores("MTD", a, lang="de"), scores("ED", b, lang="de")])
    said = words.write_sentence(verdict).replace("\u00a0", " ")
    assert said == "MTD is below ED in German by 0.040 [0.020, 0.060] nDCG@20, p < 0.001 for the opposite"
    assert verdict.answer == "fails"
