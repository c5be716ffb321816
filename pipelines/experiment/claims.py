"""What is asked of an experiment: claims about its variants, and about the axes of its grid."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.component import Component
from cluster.errors import RecipeError

Test = Literal["superior", "equivalent", "different"]
Correction = Literal["holm", "bonferroni"]


class Record(BaseModel):
    """Base class of what is asked, measured and found: frozen and closed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Claim(Component):
    """A claim about two variants, or about all pairs of several; in a TOML file ``[compare.NAME]``.

    Attributes:
        name: of the claim; the key in the file.
        claim: in words.
        test: superior: ``a`` is above ``b``. equivalent: all pairs of ``of`` differ by less than ``bound``.
            different: ``a`` is not ``b``; with ``bound`` it can fail too, where the two are equivalent.
        a, b: variants, for superior and different.
        of: variants, for equivalent.
        bound: of a difference that does not matter, in the measure's units.
        at_least: how much ``a`` must be above ``b``, by measure, as a share of ``b``: {"nDCG@20": 0.10}. A measure that
            is not named has 0.
        measures: in which it is tested; empty: in all of the experiment.
        languages: in which it is tested; empty: in all that the variants share.
    """

    name: str = Field(min_length=1)
    claim: str = ""
    test: Test = "superior"
    a: str = ""
    b: str = ""
    of: tuple[str, ...] = ()
    bound: float | None = Field(None, gt=0)
    at_least: dict[str, float] = {}
    measures: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_shape(self) -> "Claim":
        key = f"compare.{self.name}"
        if self.test == "equivalent":
            if self.a or self.b or len(set(self.of)) < 2 or len(set(self.of)) < len(self.of):
                raise RecipeError(f"{key}: expected of = [two or more different variants], got {list(self.of)}")
            if self.bound is None:
                raise RecipeError(f"{key}.bound: expected a bound, as 0.05, within which a difference does not matter")
        elif self.of or not self.a or not self.b or self.a == self.b:
            raise RecipeError(f"{key}: expected two different variants a and b, got {self.a!r} and {self.b!r}")
        if self.test == "superior" and self.bound is not None:
            raise RecipeError(f"{key}.bound: a claim of superiority has no bound; say at_least = {{ MEASURE = 0.10 }}")
        if self.test != "superior" and self.at_least:
            raise RecipeError(f'{key}.at_least: expected with test = "superior" alone, this is {self.test!r}')
        for measure, share in self.at_least.items():
            if not math.isfinite(share) or share <= -1:
                raise RecipeError(f"{key}.at_least.{measure}: expected a share above -1, as 0.10, got {share}")
        return self

    @property
    def variants(self) -> tuple[str, ...]:
        """All variants that the claim names."""
        return self.of or (self.a, self.b)

    def check_variants(self, known: Collection[str]) -> None:
        """Raise a RecipeError that names the key where the claim names a variant that the experiment does not have."""
        for key, names in {"a": (self.a,), "b": (self.b,)}.items() if not self.of else [("of", self.of)]:
            if unknown := [name for name in names if name not in known]:
                raise RecipeError(
                    f"compare.{self.name}.{key}: expected variants of the experiment ({', '.join(known)}), got "
                    f"{', '.join(map(repr, unknown))}"
                )


class Axis(Record):
    """An axis of a grid: its levels by label, and the number that each stands for; None where they are no numbers."""

    name: str
    levels: tuple[str, ...]
    numbers: tuple[float, ...] | None = None

    @classmethod
    def of(cls, name: str, values: Sequence[Any]) -> "Axis":
        """Make the axis of a grid's values: a list stands for its length, a positive number for itself."""
        if values and all(isinstance(value, (list, tuple)) and value for value in values):
            labels, numbers = [" ".join(map(str, value)) for value in values], [float(len(value)) for value in values]
        else:
            labels = [str(value) for value in values]
            is_number = [isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0 for v in values]
            numbers = [float(value) for value in values] if all(is_number) else []
        if len(set(labels)) < max(2, len(labels)):
            raise RecipeError(f"grid.{name}.values: expected at least two different values, got {labels}")
        distinct = len(set(numbers)) > 1
        return cls(name=name, levels=tuple(labels), numbers=tuple(numbers) if distinct else None)


class GridPoint(Record):
    """Where a variant lies in the grid: its level (by label) on each axis."""

    variant: str
    levels: Mapping[str, str]


class Grid(Record):
    """The axes of a grid and its variants."""

    axes: tuple[Axis, ...]
    points: tuple[GridPoint, ...]


class AxisClaim(Component):
    """The claim that one axis of a grid matters more than another; in a TOML file ``[effects]``."""

    claim: str = ""
    larger: str
    than: str

    @property
    def title(self) -> str:
        """The claim in words."""
        return self.claim or f"{self.larger} matters more than {self.than}"
