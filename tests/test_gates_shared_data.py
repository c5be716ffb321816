"""Gates on human translations that nothing was learnt from, and on damaged copies of them: a sample of what
``tests/benchmarks/bench_gates.py`` reports on all."""

import pytest

from pipelines.gates import Gate, GateConfig
from translations import REPORTED, Damage, read_reporting_half, translations_by_source

SAMPLE = 400


@pytest.fixture(scope="module")
def halves(shared_data):
    return {lang: read_reporting_half(shared_data, lang) for lang in REPORTED}


@pytest.mark.parametrize("lang", REPORTED)
def test_human_translations_pass_and_damaged_ones_do_not(halves, lang):
    pairs = halves[lang][:: max(1, len(halves[lang]) // SAMPLE)]
    gate = Gate(GateConfig(source_lang="en", target_lang=lang), {})
    false = [pair for pair, verdict in zip(pairs, gate.judge(pairs), strict=True) if verdict]
    assert len(false) <= 0.0125 * len(pairs)  # 0.5 % in all; in a sample of 400 rarely more than 5
    damage = Damage(lang, translations_by_source(halves))
    for kind in Damage.KINDS:
        damaged = list(damage.plant(kind, pairs))
        caught = sum(verdict is not None for verdict in gate.judge(damaged))
        assert caught >= 0.95 * len(damaged) - 3, f"{kind}: {caught} of {len(damaged)} caught"
