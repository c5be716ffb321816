"""The recipe's table ``[gates]``, and what a step of gates knows. Loading it imports no detector of languages."""

from importlib.util import find_spec

from pydantic import Field, field_validator, model_validator

from cluster.component import Component
from cluster.errors import RecipeError
from pipelines import languages

# ISO 639-1 codes of lingua 2.1, each in its usual script
_LINGUA = """
af ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gu he hi hr hu hy id is it ja ka kk ko la lg lt lv
mi mk mn mr ms nb nl nn pa pl pt ro ru sk sl sn so sq sr st sv sw ta te th tl tn tr ts uk ur vi xh yo zh zu
"""
_AGAINST = "ar de en es fa fr hi it ja ko nl pl pt ru tr uk vi zh"  # what translation models fall into, and neighbours
LINGUA = frozenset(_LINGUA.split())
_NAMES = {"fil": "tl", "no": "nb", "zh-Hant": "zh"}  # this project's spelling → lingua's; it has one Chinese


def find_lingua_code(lang: str) -> str | None:
    """Lingua's code for a language; None where it does not know it, or knows it in another script."""
    code = _NAMES.get(lang, lang)
    return code if code in LINGUA else None


def require_lingua(table: str) -> None:
    """Raise RecipeError where lingua, with which this table of a recipe checks languages, is not installed."""
    if find_spec("lingua") is None:
        raise RecipeError(f"{table} checks languages with lingua: pip install 'babelray[gates]', on every node")


class Gates(Component):
    """What a translation must pass; each gate can be switched off. The shares are between 0 and 1."""

    empty: bool = True  # a letter or a digit
    language: float = Field(0.1, ge=0, lt=1)  # lingua's least confidence that it is the target; 0 is off
    # what else it may be, beside the source. Not the recipe's languages: each would then gate the others anew
    against: tuple[str, ...] = tuple(_AGAINST.split())
    length: float = Field(4.0, ge=0)  # standard deviations of log(target / source characters); 0 is off
    # the same for a translation that is too short and lacks the mark with which its source ends a sentence: it was cut
    ending: float = Field(1.5, ge=0)
    repetition: float = Field(0.3, ge=0, le=1)  # share that repeated text may take, beyond the source's; 1 is off
    copied: float = Field(0.8, ge=0, le=1)  # share of the source that may come out unchanged; 1 is off
    numbers: float = Field(0.5, ge=0, le=1)  # share of its numbers that must arrive; 0 is off
    markup: float = Field(0.8, ge=0, le=1)  # share of its tags, placeholders and URLs that must arrive; 0 is off

    @field_validator("against")
    @classmethod
    def _are_known(cls, against: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [lang for lang in against if find_lingua_code(lang) is None]:
            raise ValueError(f"lingua knows no {', '.join(unknown)}; it knows {' '.join(sorted(LINGUA))}")
        return against


class GateConfig(Component):
    """The gates between two languages.

    Raises:
        RecipeError: the language gate is on and lingua does not know one of them, or is not installed.
    """

    source_lang: str
    target_lang: str
    gates: Gates = Gates()

    @model_validator(mode="after")
    def _are_known(self) -> "GateConfig":
        if self.gates.language > 0:
            require_lingua("[gates]")
            for lang in (self.source_lang, self.target_lang):
                if find_lingua_code(lang) is None:
                    raise RecipeError(
                        f"gates.language = {self.gates.language:g}: lingua does not know {languages.name(lang)} "
                        f"({lang!r}); it knows {' '.join(sorted(LINGUA))}. Set gates.language=0 to do without"
                    )
        return self
