"""False alarms and damage caught by the gates per language, on human translations; rows per second.

    python tests/benchmarks/bench_gates.py [--data DIR] [--langs de zh] [--learn] [--reverse] [--misses KIND]

The table is made from translations that nothing was learnt from (XQuAD, React's documentation, the test parts of
Tatoeba and LibreOffice's help); see ``tests/translations.py``. Speed is rows per second of one processor. ``--learn``
prints the lengths to expect for ``pipelines/gates/lengths.py``, learnt from the other half, and its false alarms.
``--reverse`` judges translations into English. ``--misses`` prints what was not caught, ``--misses false`` the false
alarms. Exits with an error where more than 0.5 % of the human translations of a language fail, or less than 95 % of a
kind of damage is caught.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

import translations as data_sets
from pipelines.gates import Gate, GateConfig
from pipelines.gates.lengths import learn
from translations import Damage, Pairs

ROOT = Path(__file__).parents[2]
MOST_FALSE, LEAST_CAUGHT = 0.005, 0.95


def share_rejected(gate: Gate, pairs: Pairs, shown: bool, is_good: bool) -> tuple[float, Counter]:
    """The share of the pairs that a gate rejects, and why; ``shown`` prints those judged wrongly."""
    verdicts = gate.judge(pairs)
    for (source, target), verdict in zip(pairs, verdicts, strict=True):
        if shown and (verdict is None) != is_good:
            print(f"  {verdict or 'missed'}\n    {source[:200]}\n    {target[:200]}")
    reasons = Counter(verdict.removeprefix("gate: ") for verdict in verdicts if verdict)
    return reasons.total() / max(1, len(pairs)), reasons


def learn_all(data: Path, langs: list[str]) -> None:
    """Print the lengths to expect."""
    for lang in langs:
        pairs = data_sets.read_learning_half(data, lang)
        mean, spread = learn(pairs)
        false, reasons = share_rejected(Gate(GateConfig(source_lang="en", target_lang=lang), {}), pairs, False, True)
        print(f'    "{lang}": ({mean:.3f}, {spread:.3f}),  # {len(pairs)} pairs, {false:.2%} rejected {dict(reasons)}')


def report(data: Path, langs: list[str], is_reverse: bool, misses: str) -> bool:
    """Print the table; whether all is as good as it must be."""
    halves = {lang: data_sets.read_reporting_half(data, lang) for lang in data_sets.REPORTED}
    others, is_good = data_sets.translations_by_source(halves), True
    print(f"{'':4}{'pairs':>7}{'rows/s':>8}{'false':>8}", *(f"{kind:>16}" for kind in Damage.KINDS), " why false")
    for lang in langs:
        gate = Gate(GateConfig(source_lang="en", target_lang=lang), {})
        pairs = halves[lang]
        if is_reverse:
            gate = Gate(GateConfig(source_lang=lang, target_lang="en"), {})
            pairs = [(target, source) for source, target in pairs]
        gate.judge(pairs[:10])
        started = time.process_time()
        gate.judge(pairs)
        speed = len(pairs) / (time.process_time() - started)
        false, reasons = share_rejected(gate, pairs, misses == "false", True)
        is_good &= false <= MOST_FALSE
        cells = []
        for kind in () if is_reverse else Damage.KINDS:
            damaged = list(Damage(lang, others).plant(kind, pairs))
            caught, _ = share_rejected(gate, damaged, misses == kind, False)
            is_good &= not damaged or caught >= LEAST_CAUGHT
            cells.append(f"{caught:8.1%} {f'of {len(damaged)}':>7}" if damaged else f"{'–':>16}")
        print(f"{lang:4}{len(pairs):7}{speed:8.0f}{false:8.2%}", *cells, f" {dict(reasons)}", flush=True)
    return is_good


def main() -> None:
    """Learn or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--langs", nargs="*", default=[])
    parser.add_argument("--learn", action="store_true")
    parser.add_argument("--reverse", action="store_true")
    parser.add_argument("--misses", default="")
    given = parser.parse_args()
    if given.learn:
        learn_all(given.data, given.langs or data_sets.LEARNT)
    elif not report(given.data, given.langs or data_sets.REPORTED, given.reverse, given.misses):
        sys.exit(f"more than {MOST_FALSE:.1%} false alarms or less than {LEAST_CAUGHT:.0%} caught")


if __name__ == "__main__":
    main()
