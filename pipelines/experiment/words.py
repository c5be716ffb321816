"""What an experiment found, in plain words: a sentence per verdict, and numbers as they are printed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pipelines import languages
from pipelines.evaluate import POOL
from pipelines.experiment.claims import Claim, Test
from pipelines.experiment.results import Answer, Contrast, Effect, ExperimentResult, Verdict

ANSWERS: tuple[Answer, ...] = ("holds", "fails", "cannot tell")
NONE = "–"
SPACE = "\N{NO-BREAK SPACE}"

Found = TypeVar("Found", Verdict, Contrast)


def name_language(lang: str) -> str:
    """``German``; ``all languages`` for the pool; the code itself where it is no language."""
    if lang == POOL:
        return "all languages"
    return languages.name(lang) if languages.is_known(lang) else lang


def sort_languages(langs: Iterable[str]) -> list[str]:
    """Each language once, the pool first."""
    return sorted(set(langs), key=lambda lang: (lang != POOL, name_language(lang)))


def sort_found(found: Sequence[Found]) -> list[Found]:
    """By language, the pool first; else as they are."""
    langs = sort_languages(one.lang for one in found)
    return sorted(found, key=lambda one: langs.index(one.lang))


def write_number(value: float | None, digits: int = 3) -> str:
    """``0.412``; a dash for None. A minus is a minus, and zero has no sign."""
    if value is None:
        return NONE
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def write_signed(value: float | None, digits: int = 3) -> str:
    """``+0.041``."""
    text = write_number(value, digits)
    return text if value is None or text.startswith("−") or float(text) == 0 else f"+{text}"


def write_interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """``[0.030, 0.052]``; nothing where there is none."""
    return "" if low is None or high is None else f"[{write_number(low, digits)}, {write_number(high, digits)}]"


def write_chance(p: float | None) -> str:
    """``< 0.001``, ``0.012``."""
    if p is None:
        return NONE
    return f"<{SPACE}0.001" if p < 0.001 else f"{p:.3f}"


def write_p(p: float | None) -> str:
    """``p < 0.001``, ``p = 0.012``, in one piece."""
    if p is None:
        return "no p-value"
    chance = write_chance(p)
    return f"p{SPACE}{chance}" if chance.startswith("<") else f"p{SPACE}={SPACE}{chance}"


def write_sentence(verdict: Verdict) -> str:
    """What is found about a and b, without the verdict itself: ``MTD is above ED in German by 0.041 [0.030, 0.052]
    nDCG@20, p < 0.001``."""
    where = f"in {name_language(verdict.lang)}"
    amount = f"{write_number(abs(verdict.difference))} {_interval_of_size(verdict)}".rstrip() + f" {verdict.measure}"
    p = f"{write_p(verdict.p_against)} for the opposite" if verdict.answer == "fails" else write_p(verdict.p_corrected)
    direction = "above" if verdict.difference > 0 else "below"
    if verdict.test == "superior" and verdict.margin:
        ratio = f"{write_number(verdict.ratio)} {write_interval(verdict.ratio_low, verdict.ratio_high)}".rstrip()
        return (
            f"{verdict.a} has {ratio} times the {verdict.measure} of {verdict.b} {where}, where the claim needs "
            f"{1 + verdict.margin:.4g}, {p}{_count(verdict)}"
        )
    if verdict.test == "superior" or (verdict.test == "different" and verdict.answer != "fails"):
        return f"{verdict.a} is {direction} {verdict.b} {where} by {amount}, {p}{_count(verdict)}"
    signed = f"{write_signed(verdict.difference)} {write_interval(verdict.low, verdict.high)}".rstrip()
    measured = f"{where}: {signed} {verdict.measure}, {p}{_count(verdict)}"
    if verdict.answer == "cannot tell":
        return f"{verdict.a} and {verdict.b} may be within ±{verdict.bound:g} or beyond it {measured}"
    if (verdict.test, verdict.answer) == ("equivalent", "fails"):
        return f"{verdict.a} and {verdict.b} differ by more than {verdict.bound:g} {measured}"
    return f"{verdict.a} and {verdict.b} are equivalent within ±{verdict.bound:g} {measured}"


def _interval_of_size(verdict: Verdict) -> str:
    """The interval of |difference|: turned round where a is below b."""
    if verdict.low is None or verdict.high is None or verdict.difference >= 0:
        return write_interval(verdict.low, verdict.high)
    return write_interval(-verdict.high, -verdict.low)


def _count(verdict: Verdict) -> str:
    """How many questions would decide, where it is undecided."""
    if verdict.answer != "cannot tell":
        return ""
    if verdict.n_to_decide is None:
        return "; no number of questions would decide at this difference"
    return f"; about {verdict.n_to_decide:,} questions would decide"


def write_contrast(contrast: Contrast) -> str:
    """``tasks − languages, in all languages: +0.0089 [0.0052, 0.0125] nDCG@10 per doubling``."""
    unit = "per doubling" if contrast.basis == "slope" else "between the highest and the lowest level"
    return (
        f"{contrast.larger} − {contrast.than}, in {name_language(contrast.lang)}: "
        f"{write_signed(contrast.difference, 4)} {write_interval(contrast.low, contrast.high, 4)} "
        f"{contrast.measure} {unit}"
    )


def write_effect(effect: Effect) -> str:
    """The slope of an axis, or the span of its levels."""
    if effect.slope is None:
        return f"span {write_number(effect.span, 4)} {write_interval(effect.span_low, effect.span_high, 4)}"
    return f"{write_signed(effect.slope, 4)} {write_interval(effect.low, effect.high, 4)} per doubling"


def count_answers(verdicts: Sequence[Verdict | Contrast]) -> str:
    """``holds in 6 of 7, cannot tell in 1``."""
    counts = Counter(verdict.answer for verdict in verdicts)
    if len(verdicts) == 1:
        return verdicts[0].answer
    return ", ".join(f"{answer} in {counts[answer]} of {len(verdicts)}" for answer in ANSWERS if counts[answer])


def describe_test(claim: Claim) -> str:
    """The test of a claim, in a line."""
    if claim.test == "equivalent":
        return f"two one-sided paired t-tests (TOST) within ±{claim.bound:g}, all pairs of {', '.join(claim.of)}"
    if claim.test == "different":
        bound = f"; equivalence within ±{claim.bound:g} (TOST) would refute it" if claim.bound else ""
        return f"two-sided paired t-test, {claim.a} against {claim.b}{bound}"
    shares = ", ".join(f"{100 * share:+.3g} % {measure}".replace("-", "−") for measure, share in claim.at_least.items())
    margin = f", by at least {shares}" if shares else ""
    return f"one-sided paired t-test, {claim.a} above {claim.b}{margin}"


def describe_power(result: ExperimentResult) -> list[str]:
    """What each family of comparisons could have found: the smallest difference or bound with 80 % power."""
    families: dict[tuple[Test, str], list[Verdict]] = {}
    for verdict in result.verdicts:
        families.setdefault((verdict.test, verdict.measure), []).append(verdict)
    lines = []
    for (test, measure), members in families.items():
        known = [v.detectable for v in members if v.detectable is not None]
        if not known:
            continue
        found = write_number(min(known), 4)
        if write_number(max(known), 4) != found:
            found += f" to {write_number(max(known), 4)}, depending on the pair and the language"
        n = sorted({v.n for v in members})
        questions = f"{n[0]:,}" if len(n) == 1 else f"{n[0]:,} to {n[-1]:,}"
        what = {
            "superior": "a true difference (beyond the margin that a claim asks for) is found if it is at least",
            "different": "a true difference is found if it is at least",
            "equivalent": "equivalence of variants that do not differ is found if the bound is at least",
        }[test]
        size = members[0].family
        many = f"{size} comparisons are corrected together" if size > 1 else "there is one comparison"
        lines.append(f"{measure}, {questions} questions, {many}: {what} {found} (80 % power, at 0.05 / {size}).")
    return lines


def describe_method(result: ExperimentResult) -> list[str]:
    """Tests, corrections and what the intervals cover, for a reader who would repeat them."""
    tests = {verdict.test for verdict in result.verdicts}
    sizes = sorted({(v.test, v.measure, v.family) for v in result.verdicts})
    lines = [
        "A question's value is the mean over its seeds; all tests are paired by question, and all intervals are 95 % "
        "t intervals over questions, not corrected. They do not cover other seeds: the deviation over seeds stands "
        "beside them.",
    ]
    if "superior" in tests:
        lines.append(
            "superior: one-sided paired t-test of a − (1 + margin) · b > 0. It holds where the corrected p is below "
            "0.05, fails where the corrected p of the opposite (< 0) is, else we cannot tell."
        )
    if "equivalent" in tests:
        lines.append(
            "equivalent: two one-sided paired t-tests (TOST, Schuirmann 1987) of |a − b| < bound. It holds where the "
            "corrected p, the greater of the two, is below 0.05; fails where twice the smaller p of |a − b| > bound "
            "is, corrected too; else we cannot tell."
        )
    if "different" in tests:
        lines.append(
            "different: two-sided paired t-test. It holds where the corrected p is below 0.05; fails where the claim "
            "has a bound and TOST finds the two equivalent within it; else we cannot tell."
        )
    if sizes:
        method = {"holm": "Holm (1979)", "bonferroni": "Bonferroni"}[result.correction]
        families = ", ".join(f"{test} in {measure}: {size}" for test, measure, size in sizes)
        lines.append(f"Corrected by {method} over families, the comparisons of one test in one measure ({families}).")
        lines.append(
            "Beside the t-test: p of 9,999 random flips of sign, not corrected; d_z, the mean difference over the "
            "standard deviation of the differences; the ratio of the means with Fieller's (1954) interval; the power "
            "of the t-test by the noncentral t distribution, of TOST by Phillips (1990), at 0.05 over the family's "
            "size."
        )
        lines.append(
            "The questions that would decide are those with which 80 % of experiments would, were the true difference "
            "the one that is observed here; this is a guide to the next experiment, not a finding of this one."
        )
    if result.effects:
        lines.append(
            "Effects of the grid: per question, least squares on log2 of each axis's number (or its levels), with "
            "questions as blocks and no interactions; 95 % percentile intervals of 10,000 bootstrap samples of "
            "questions."
        )
    return lines
