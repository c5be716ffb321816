"""Pages: what stands on them, what is bold, and that right-to-left text disturbs no table."""

import io

import numpy as np
import pytest
from rich.console import Console

from pipelines.report import calibration_page, comparison_page, examples_page, measures_page, next_page, systems_page
from pipelines.significance import Estimate, SystemResult, compare_values, correct

SYSTEMS = {
    "student": {
        "de": {"nDCG@20": 0.7123, "AP": 0.5},
        "fa": {"nDCG@20": 0.61, "AP": 0.4},
        "all": {"nDCG@20": 0.7, "AP": 0.45},
    },
    "bm25": {
        "de": {"nDCG@20": 0.2, "AP": 0.1},
        "fa": {"nDCG@20": 0.61, "AP": 0.1},
        "all": {"nDCG@20": 0.1, "AP": 0.46},
    },
}
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


def shown(page, width=100, color=False):
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
    )
    console.print(page)
    return console.file.getvalue()


def test_the_first_measure_stands_per_language_and_all_of_them_for_the_pool():
    lines = shown(measures_page("test", SYSTEMS)).splitlines()
    assert lines[0].strip() == "test: nDCG@20"
    cells = [line.split() for line in lines if line.strip()]
    assert ["de", "German", "0.712", "0.200"] in cells
    assert ["fa", "Persian", "0.610", "0.610"] in cells
    assert ["all", "languages", "0.700", "0.100"] in cells
    assert ["AP", "0.450", "0.460"] in cells


def test_the_best_is_bold_and_so_are_equals():
    page = shown(measures_page("test", SYSTEMS), color=True)
    for best in ("0.712", "0.610", "0.700", "0.460"):
        assert f"{BOLD}{best}{PLAIN}" in page
    assert page.count(f"{BOLD}0.610{PLAIN}") == 2
    assert f"{BOLD}0.200{PLAIN}" not in page


def test_a_language_that_one_system_lacks_is_a_dash():
    partial = {**SYSTEMS, "other": {"all": {"nDCG@20": 0.3, "AP": 0.2}}}
    cells = [line.split() for line in shown(measures_page("test", partial)).splitlines()]
    assert ["de", "German", "0.712", "0.200", "–"] in cells


HITS = {
    "What is the capital of Iran?": [
        {"doc_id": "fa-1", "lang": "fa", "score": 12.3456, "title": "تهران", "text": "تهران پایتخت ایران است."},
        {"doc_id": "zh-1", "lang": "zh", "score": 11.0, "title": "", "text": "德黑兰是伊朗的首都。" * 60},
        {"doc_id": "de-1", "lang": "de", "score": 10.5, "text": "Teheran [Hauptstadt]\n ist /alt/."},
    ],
    "nothing": [],
}


def test_examples_stand_below_each_other_with_language_tags():
    lines = [line.strip() for line in shown(examples_page(HITS)).splitlines()]
    assert lines[0] == "What is the capital of Iran?"
    assert "1. [fa] 12.346 fa-1" in lines
    assert "تهران پایتخت ایران است." in lines  # alone on its line: nothing to its left or right to be torn apart
    assert "Teheran [Hauptstadt] ist /alt/." in lines
    assert "nothing found" in lines
    chinese = "".join(line for line in lines if "首都" in line or "伊朗" in line)
    assert chinese.endswith("…")
    assert len(chinese) == 280


@pytest.mark.parametrize("width", [40, 80])
def test_no_line_is_wider_than_the_terminal(width):
    from rich.cells import cell_len

    for page in (examples_page(HITS), measures_page("test", SYSTEMS)):
        assert max(cell_len(line) for line in shown(page, width).splitlines()) <= width


def test_a_comparison_shows_the_difference_and_marks_what_is_significant():
    rng = np.random.default_rng(0)
    b = rng.random(50)
    rows = correct([compare_values("de", "AP", b + 0.1 + 0.01 * rng.random(50), b), compare_values("zh", "AP", b, b)])
    page = shown(comparison_page("test", "new", "old", rows), width=140, color=True)
    assert f"{BOLD}+{rows[0].difference:.3f}{PLAIN}" in page
    assert f"{BOLD}+0.000" not in page
    assert "<0.0001" in page
    assert "50/0/0" in page
    assert "0/50/0" in page
    single = [compare_values("de", "AP", np.array([0.5]), np.array([0.4]))]
    assert "–" in shown(comparison_page("test", "new", "old", single), width=140)
    assert "the pools are not compared" in page
    pools = [compare_values("all", "AP", b, b)]
    assert "not compared" not in shown(comparison_page("test", "new", "old", pools), width=140)


def test_systems_stand_side_by_side_with_intervals_and_differences_to_the_first():
    def result(system, lang, mean, difference=None):
        estimate = Estimate(lang=lang, measure="AP", queries=50, mean=mean, low=mean - 0.02, high=mean + 0.02)
        return SystemResult(system=system, estimate=estimate, difference=difference)

    b = np.random.default_rng(0).random(50)
    better, same = correct([compare_values("all", "AP", b + 0.1 + 0.01 * b, b), compare_values("de", "AP", b, b)])
    results = [
        result("MTT", "de", 0.5),
        result("MTT", "all", 0.4),
        result("MTD", "de", 0.5, same),
        result("MTD", "all", 0.6, better),
        result("ED", "de", 0.3),
    ]
    lines = [" ".join(line.split()) for line in shown(systems_page("xquad", results), width=120).splitlines()]
    assert "all languages 0.400 [0.380, 0.420] 0.600 [0.580, 0.620] –" in lines
    assert "de German 0.500 [0.480, 0.520] 0.500 [0.480, 0.520] 0.300 [0.280, 0.320]" in lines
    assert f"all languages {better.difference:+.3f} <0.0001 –" in lines
    assert "de German +0.000 1.0000 –" in lines
    page = shown(systems_page("xquad", results), width=120, color=True)
    assert f"{BOLD}{better.difference:+.3f}{PLAIN}" in page
    assert f"{BOLD}+0.000" not in page
    alone = shown(systems_page("xquad", results[:2]), width=120)
    assert "difference" not in alone


def test_the_next_command_is_named():
    assert "python -m serving atlas" in shown(next_page("python -m serving atlas", "atlas"))


def test_a_calibration_shows_teachers_by_temperature_and_how_pairs_agree():
    half = {"atlas": 0.25, "flat": None}
    temperatures = {"2": {"passages": 5.5}, "0.5": {"passages": 1.25}}
    measured = {
        "ways": 6,
        "teachers": {
            n: {"temperatures": temperatures, "half_temperature": t, "queries": 1200} for n, t in half.items()
        },
        "tau": {"atlas and flat": {"tau": 0.5, "kl": 9.0, "queries": 7}},
        "students": {"fa": {"tau": 0.75, "kl": 1.5, "queries": 8}, "zh": {"tau": None, "kl": None, "queries": 0}},
    }
    lines = [" ".join(line.split()) for line in shown(calibration_page(measured)).splitlines()]
    assert "teacher T = 0.5 T = 2 T of 3 queries" in lines
    assert "atlas 1.25 5.50 0.25 1,200" in lines
    assert "flat 1.25 5.50 – 1,200" in lines
    assert "atlas and flat 0.5 – 7" in lines
    assert "teacher and student, fa 0.75 1.5 8" in lines
    assert "teacher and student, zh – – 0" in lines
    assert "Agreement" not in shown(calibration_page({**measured, "tau": {}, "students": {}}))
