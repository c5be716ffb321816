"""Damaged translations: what each kind does to the words, at which rate, and that nothing else depends on it."""

from collections import Counter
from pathlib import Path

import pytest

from artifacts import table_artifact
from cluster.component import fingerprint
from pipelines.plan import plan
from pipelines.recipe import load
from pipelines.tables import DOCS
from pipelines.translate import JoinTranslations, TranslateConfig
from pipelines.translators import Parallel
from pipelines.translators.damage import Damage
from tests.test_recipe import parallel

WORDS = [f"w{n}" for n in range(4000)]
OTHERS = [f"x{n}" for n in range(500)]
TEXT, OTHER = " ".join(WORDS), " ".join(OTHERS)
DEVIATIONS = 5  # from the expected count: a chance of less than one in a million


def apply(damage: Damage, row_id: str = "d0", text: str = TEXT, lang: str = "de") -> list[str]:
    return damage.draw(row_id, lang).apply(text, OTHER).split()


def check_count(found: int, rate: float, of: int) -> None:
    assert abs(found - rate * of) < DEVIATIONS * (of * rate * (1 - rate)) ** 0.5


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.9])
def test_each_kind_damages_its_share_of_the_words_and_no_other(rate: float) -> None:
    dropped = apply(Damage(drop=rate))
    check_count(len(WORDS) - len(dropped), rate, len(WORDS))
    assert [word for word in WORDS if word in set(dropped)] == dropped  # the others stand in their order

    replaced = apply(Damage(replace=rate))
    changed = [new for old, new in zip(WORDS, replaced, strict=True) if old != new]
    check_count(len(changed), rate, len(WORDS))
    assert set(changed) <= set(OTHERS)
    assert len(set(changed)) > 200  # of many places of the other text

    shuffled = apply(Damage(shuffle=rate))
    assert Counter(shuffled) == Counter(WORDS)
    check_count(sum(old != new for old, new in zip(WORDS, shuffled, strict=True)), rate, len(WORDS))


def test_a_rate_of_1_leaves_no_word_but_the_one_that_a_text_keeps() -> None:
    assert set(apply(Damage(replace=1.0))) <= set(OTHERS)
    assert apply(Damage(drop=1.0)) == ["w0"]
    assert apply(Damage(drop=1.0, replace=1.0))[0] in OTHERS
    assert Damage(drop=1.0).draw("d0", "de").apply("", OTHER) == ""
    assert apply(Damage(shuffle=1.0)) != WORDS


def test_a_higher_rate_damages_what_a_lower_one_does() -> None:
    low, high = set(apply(Damage(drop=0.2))), set(apply(Damage(drop=0.5)))
    assert high < low
    low, high = apply(Damage(replace=0.2)), apply(Damage(replace=0.5))
    assert all(h == one for one, h in zip(low, high, strict=True) if one in OTHERS)


def test_kinds_choose_their_words_apart() -> None:
    both = apply(Damage(drop=0.5, replace=0.5))
    check_count(sum(word in OTHERS for word in both), 0.25, len(WORDS))


def test_damage_is_a_function_of_id_language_and_seed() -> None:
    one = apply(Damage(drop=0.5))
    assert one == apply(Damage(drop=0.5))
    for other in (apply(Damage(drop=0.5), "d1"), apply(Damage(drop=0.5), lang="ru"), apply(Damage(drop=0.5, seed=1))):
        check_count(len(set(one) & set(other)), 0.25, len(WORDS))


def test_a_script_without_spaces_is_damaged_by_characters() -> None:
    text = "".join(chr(0x4E00 + n) for n in range(1000))
    out = Damage(drop=0.3).draw("d0", "zh").apply(text, "")
    check_count(len(text) - len(out), 0.3, len(text))
    assert " " not in out
    assert [character for character in text if character in out] == list(out)


def test_the_text_of_other_words_is_another_one() -> None:
    drawn = Damage(replace=1.0).draw("d0", "de")
    assert {drawn.choose_other(1, 3) for _ in range(50)} == {0, 2}
    assert drawn.choose_other(0, 1) == 0


def test_joined_translations_are_damaged_with_words_of_one_another(tmp_path: Path) -> None:
    texts = {f"d{n}": " ".join(f"{n}-{word}" for word in range(200)) for n in range(5)}
    german = [{"doc_id": i, "lang": "de", "title": f"t{i} {i}", "text": text} for i, text in texts.items()]
    made = table_artifact(tmp_path / "docs-de@0", DOCS, german)
    rows = DOCS.of([{"doc_id": i, "lang": "en", "title": "", "text": i} for i in [*texts, "gone"]])

    def join(damage: Damage, of: list[int]) -> list[dict]:
        config = TranslateConfig(source_lang="en", target_lang="de", translator=Parallel(damage=damage))
        return JoinTranslations(config, {"translations": made})(rows.take(of)).to_pylist()

    whole = join(Damage(), list(range(6)))
    assert [row["text"] for row in whole] == [*texts.values(), None]
    damaged = join(Damage(replace=0.5), list(range(6)))
    for number, row in enumerate(damaged[:5]):
        words = row["text"].split()
        own = sum(word.startswith(f"{number}-") for word in words)
        check_count(own, 0.5, 200)
        assert len({word.partition("-")[0] for word in words}) == 2  # its own, and those of one other
        assert row["title"] is not None
    assert damaged[5]["reject"] == "no translation"
    assert [join(Damage(replace=0.5), [n])[0] for n in (3, 1)] == [damaged[3], damaged[1]]  # whatever else is in a part


def test_only_translations_that_training_reads_are_damaged(tmp_path: Path) -> None:
    sets = parallel(tmp_path)
    whole, damaged = (plan(load("xquad", [*sets, *more])) for more in ([], ["translate.damage.drop=0.2"]))
    changed = {step.name for step in damaged.steps} - {
        s.name for s in damaged.steps if s.id in {t.id for t in whole.steps}
    }
    assert {name for name in changed if name.startswith(("translate", "docs", "score", "select"))} == {
        f"translate-{lang}" for lang in ("ar", "de", "es", "hi", "ru", "zh")
    }
    assert "train" in changed


def test_no_damage_is_the_translator_of_before() -> None:
    assert fingerprint(Parallel(damage=Damage(drop=0.0))) == fingerprint(Parallel())
    assert fingerprint(Parallel(damage=Damage(drop=0.1))) != fingerprint(Parallel())
