"""What one language brings: how its names are placed in a sentence, and its phrasings. Data only.

A phrasing holds slots (``{T}``, see `facts`) and choices ``[singular|plural]`` that follow the number of the
territory's name. A slot that opens a sentence is written with a capital. Two derived slots exist: ``{inT}``, the
territory with its preposition ("in the Netherlands", "aux Pays-Bas"), and ``{leL}``, the language with its article
("l’arabe").
"""

from typing import NamedTuple


class Phrasebook(NamedTuple):
    """The data of one language. ``phrases`` maps a kind of fact to its phrasings, in a fixed order."""

    place: str  # how "in T" is written by default: "in {}"
    places: dict[str, str]  # territories that need another preposition, article or case: code -> the whole phrase
    the: frozenset[str]  # territories that take an article wherever they stand
    plural: frozenset[str]  # territories whose name is a plural
    articles: tuple[str, str]  # of language names: before a consonant, before a vowel
    values: dict[str, str]  # words for V, and patterns for degrees
    phrases: dict[str, tuple[str, ...]]


def spell(default: str, groups: dict[str, str]) -> dict[str, str]:
    """Unfold ``{"au {}": "JP BR"}`` to ``{"JP": "au {}", "BR": "au {}"}``, leaving out the default."""
    return {code: form for form, codes in groups.items() for code in codes.split() if form != default}
