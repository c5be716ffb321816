"""The data of one language: prepositions and articles of names, and the phrasings of each kind of fact.

A phrasing has slots (``{T}``, see `facts`) and choices ``[singular|plural]``, which follow the grammatical number of
the territory's name. A slot at the start of a sentence is capitalised. There are two derived slots: ``{inT}``, the
territory with its preposition ("in the Netherlands", "aux Pays-Bas"), and ``{leL}``, the language with its article
("l’arabe").
"""

from typing import NamedTuple


class Phrasebook(NamedTuple):
    """The data of one language. ``phrases`` maps a kind of fact to its phrasings, in a fixed order."""

    place: str  # the usual pattern for "in T": "in {}"
    places: dict[str, str]  # territory to pattern, where preposition, article or case differ
    definite: frozenset[str]  # territories whose name always has the article "the"
    plural: frozenset[str]  # territories whose name is plural
    articles: tuple[str, str]  # of language names: before a consonant, before a vowel
    values: dict[str, str]  # words of V references, and patterns of degrees
    phrases: dict[str, tuple[str, ...]]


def expand_patterns(default: str, groups: dict[str, str]) -> dict[str, str]:
    """Expand ``{"au {}": "JP BR"}`` to ``{"JP": "au {}", "BR": "au {}"}``, without the default pattern."""
    return {code: pattern for pattern, codes in groups.items() for code in codes.split() if pattern != default}
