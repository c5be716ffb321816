"""Which languages a meta-task is about: the grammar of its specification, and the seven modes of MAML-Align.

    el_el-el_ar-el_ar,el,hi       support - query - query2, each: language of the questions _ languages of the passages

The support set of this task has Greek questions with Greek answers, the first query set Greek questions with Arabic
answers, the second Greek questions with answers in three languages. Several tasks are joined by "|" or are a list.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pipelines import languages

Mode = Literal["mono_mono", "mono_bil", "mono_multi", "bil_multi", "mixt", "trans", "mono_bil_multi"]
FORM = "expected support-query or support-query-query2, each as question_passages: el_el-el_ar-el_ar,el,hi"


@dataclass(frozen=True)
class Part:
    """The languages of one set: in which its questions are asked, and in which its passages are written."""

    query: str
    docs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.query}_{','.join(self.docs)}"


@dataclass(frozen=True)
class Spec:
    """The languages of a meta-task: of its support set, and of its one or two query sets."""

    support: Part
    queries: tuple[Part, ...]

    def __str__(self) -> str:
        return "-".join(map(str, self.parts))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The support set's, then the query sets'."""
        return self.support, *self.queries


def split_tasks(value: object) -> object:
    """A list of specifications of a string, or of a list whose items may join several with "|"."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        return value
    return tuple(spec.strip() for item in items for spec in item.split("|"))


def parse(text: str) -> Spec:
    """Read a specification. Raises ValueError, or RecipeError for an unknown language, which says what is wrong."""
    parts = [_parse_part(part, text) for part in re.split(r"-(?![A-Z])", text)]  # a capital begins a script: zh-Hant
    if len(parts) not in (2, 3):
        raise ValueError(f"{text!r} has {len(parts)} of the two or three sets: {FORM}")
    return Spec(parts[0], tuple(parts[1:]))


def _parse_part(part: str, text: str) -> Part:
    query, underscore, docs = part.strip().partition("_")
    codes = tuple(code.strip() for code in docs.split(","))
    if not (query and underscore and all(codes)):
        raise ValueError(f"{part!r} in {text!r}: {FORM}")
    if len(set(codes)) != len(codes):
        raise ValueError(f"{part!r} in {text!r} names a language of passages twice")
    return Part(languages.check(query), tuple(map(languages.check, codes)))


def list_tasks(mode: Mode, codes: Sequence[str]) -> tuple[str, ...]:
    """The tasks that are learnt in a mode, in these languages, by a rule that gives the table of MAML-Align's code as
    released.

    Of n languages each of the first ⌊n/2⌋ asks questions; its partner is the language ⌊n/2⌋ places on, and its third
    language is the one next in the list, in a circle, that is neither. The table's languages are el, hi, ar, de: el has
    the partner ar and the third language hi, hi has de and ar. With q, p, t for the three:

        mono_mono       q_q-p_p        mono_multi      q_q-q_p,q        mono_bil_multi   q_q-q_p-q_p,q,t
        mono_bil        q_q-q_p        bil_multi       q_p-q_p,q
        mixt            the four of two sets together
        trans           those of mono_bil (the paper validates with bil_multi, and tests with both)

    Raises:
        ValueError: there are fewer than 2 languages, or 3 for mono_bil_multi.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"expected a mode of {', '.join(get_args(Mode))}, got {mode!r}")
    least = 3 if mode == "mono_bil_multi" else 2
    if len(codes) < least:
        raise ValueError(f"mode = {mode} is about {least} languages or more, got {', '.join(codes) or 'none'}")
    if mode == "trans":
        return list_tasks("mono_bil", codes)
    if mode == "mixt":
        of_two: tuple[Mode, ...] = ("mono_mono", "mono_bil", "mono_multi", "bil_multi")
        return tuple(task for part in of_two for task in list_tasks(part, codes))
    return tuple(_spell(mode, *trio) for trio in _choose_languages(codes))


def _choose_languages(codes: Sequence[str]) -> list[tuple[str, str, str]]:
    """(asking, partner, third) languages; the third is "" where there are two languages."""
    half, found = len(codes) // 2, []
    for at in range(half):
        own, partner = codes[at], codes[at + half]
        circle = [codes[(at + step) % len(codes)] for step in range(1, len(codes))]
        found.append((own, partner, next((code for code in circle if code != partner), "")))
    return found


def _spell(mode: str, q: str, p: str, t: str) -> str:
    return {
        "mono_mono": f"{q}_{q}-{p}_{p}",
        "mono_bil": f"{q}_{q}-{q}_{p}",
        "mono_multi": f"{q}_{q}-{q}_{p},{q}",
        "bil_multi": f"{q}_{p}-{q}_{p},{q}",
        "mono_bil_multi": f"{q}_{q}-{q}_{p}-{q}_{p},{q},{t}",
    }[mode]
