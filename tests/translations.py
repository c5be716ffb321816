"""Human translations of ``shared/data`` in two halves that share no text, and ways to damage a translation."""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.gates.judge import measure_kept_markup
from pipelines.gates.numbers import find_numbers

Pairs = list[tuple[str, str]]
TATOEBA = ("ar", "de", "es", "fa", "fr", "ru", "zh")
TICO = ("ar", "es", "fa", "fr", "ru", "zh")
HELP = ("de", "es", "fr", "ru", "tr", "zh")
XQUAD = ("ar", "de", "el", "es", "hi", "ru", "th", "tr", "vi", "zh")
REACT = ("fa", "ru", "zh")
LEARNT = sorted({*TATOEBA, *TICO, *HELP, "el", "pt"})
REPORTED = sorted({*XQUAD, *REACT, *HELP})
PER_SET = 6000  # sentence pairs of one set: none outweighs the others
MARKUP = " <b>{name}</b> https://example.org/a?b=1"


def read_learning_half(data: Path, lang: str) -> Pairs:
    """(English, translation) from Tatoeba, TICO-19 and the training part of LibreOffice's help."""
    pairs: Pairs = []
    for name, langs in (("tatoeba", TATOEBA), ("tico19", TICO), ("libreoffice-help/bitext", HELP)):
        if lang in langs:
            pairs += _rows(data / name / f"en-{lang}.tsv")[:PER_SET]
    return pairs or _training_sections(data / "libreoffice-help", lang)


def read_reporting_half(data: Path, lang: str) -> Pairs:
    """(English, translation) from XQuAD, React's documentation, the test parts of Tatoeba and LibreOffice's help."""
    pairs: Pairs = _rows(data / "tatoeba" / f"en-{lang}.test.tsv") if lang in TATOEBA else []
    folders = [data / "xquad"] * (lang in XQUAD) + [data / "react" / f"en-{lang}"] * (lang in REACT)
    for folder in folders:
        for table in ("collection", "queries"):
            pairs += read_collection(folder, table, lang)
    if lang in HELP:
        pairs += _rows(data / "libreoffice-help" / "bitext" / f"en-{lang}.test.tsv")
    return _leave_out_untranslated(pairs)


def read_collection(folder: Path, table: str, lang: str) -> Pairs:
    """(English, translation) of the same id in a parallel collection."""
    others = dict(_rows(folder / f"{table}.{lang}.tsv"))
    return [(text, others[key]) for key, text in _rows(folder / f"{table}.en.tsv")]


def _rows(file: Path) -> Pairs:
    rows = (line.split("\t") for line in file.read_text("utf-8").split("\n") if line)
    return [(row[0], row[1]) for row in rows]


def _leave_out_untranslated(pairs: Pairs) -> Pairs:
    """Without whole sentences that are English on both sides: XQuAD has three in Greek. Names and terms stay."""
    return [(source, target) for source, target in pairs if source != target or len(source) < 40]


def _training_sections(folder: Path, lang: str) -> Pairs:
    groups, splits = dict(_rows(folder / "groups.tsv")), dict(_rows(folder / "splits" / "fold0.tsv"))
    held_out = {groups[query] for query, split in splits.items() if split != "train"}
    kept = {text for key, text in _rows(folder / "collection.en.tsv") if groups[key] not in held_out}
    return [(text, other) for text, other in read_collection(folder, "collection", lang) if text in kept]


def translations_by_source(halves: dict[str, Pairs]) -> dict[str, dict[str, str]]:
    """English text → language → translation."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for lang, pairs in halves.items():
        for source, target in pairs:
            found[source][lang] = target
    return found


class Damage:
    """Damages translations, each time the same. ``KINDS`` yield damaged copies of a pair, or nothing where the pair is
    too short to be damaged in this way, or has nothing to lose."""

    KINDS = (
        "empty",
        "copied",
        "language",
        "cut to 1/3",
        "cut to 1/2",
        "loop",
        "numbers changed",
        "numbers lost",
        "markup",
    )

    def __init__(self, lang: str, others: dict[str, dict[str, str]]) -> None:
        self._lang, self._others, self._random = lang, others, random.Random(0)

    def plant(self, kind: str, pairs: Pairs) -> Iterator[tuple[str, str]]:
        """Damaged copies of what can be damaged in this way."""
        damage: dict[str, Callable[[str, str], tuple[str, str] | None]] = {
            "empty": lambda s, t: (s, self._random.choice(["", " ", ".....", "。", "- - -"])),
            "copied": lambda s, t: (s, s) if len(s) >= 20 else None,
            "language": self._take_another_language,
            "cut to 1/3": lambda s, t: (s, t[: len(t) // 3]) if len(s) >= 100 else None,
            "cut to 1/2": lambda s, t: (s, t[: len(t) // 2]) if len(s) >= 300 else None,
            "loop": self._loop,
            "numbers changed": lambda s, t: self._in_numbers(s, t, self._change),
            "numbers lost": lambda s, t: self._in_numbers(s, t, lambda _: ""),
            "markup": lambda s, t: (s + MARKUP, t) if measure_kept_markup(s, "") == 1 else None,
        }
        for source, target in pairs:
            if damaged := damage[kind](source, target):
                yield damaged

    def _take_another_language(self, source: str, target: str) -> tuple[str, str] | None:
        others = [text for lang, text in sorted(self._others[source].items()) if lang != self._lang]
        others = [text for text in others if text not in (source, target)]
        return (source, self._random.choice(others)) if others and len(source) >= 20 else None

    def _loop(self, source: str, target: str) -> tuple[str, str] | None:
        """The first third, then a phrase of it again and again, in all as long as before."""
        if len(source) < 100:
            return None
        start = target[: len(target) // 3]
        phrase = start[-self._random.randint(2, max(3, min(30, len(start) // 2))) :]
        return source, (start + phrase * len(target))[: len(target)]

    def _in_numbers(self, source: str, target: str, change: Callable[[re.Match[str]], str]) -> tuple[str, str] | None:
        if len(find_numbers(source)) < 2:
            return None
        damaged = re.sub(r"\d", change, target)
        return (source, damaged) if damaged != target else None

    def _change(self, digit: re.Match[str]) -> str:
        return str((int(digit.group()) + self._random.randint(1, 9)) % 10)
