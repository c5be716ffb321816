"""The file of an experiment: a base recipe, its variants, folds and seeds, and the claims that are tested.

An experiment is a name in ``pipelines/experiments/`` or the path of a TOML file. Everything that differs between two
trials is an override of the base recipe (``key = value``, as ``--set`` takes it), so a trial can also be run by itself.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from cluster.component import Component
from cluster.errors import RecipeError
from pipelines import recipe
from pipelines.experiment.claims import Axis, AxisClaim, Claim, Correction, Grid, GridPoint
from pipelines.recipe import STUDENT
from pipelines.recipe.explain import explain
from pipelines.recipe.loading import find_file, read_toml

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


class Variant(Component):
    """One of the things compared: overrides of the base recipe (``set``), or another recipe; and which of its systems
    is measured. A variant of the system ``bm25`` or ``untrained`` trains nothing. ``set`` stands above the values of
    folds and seeds: one that names a seed is the same trial for every seed, and is made once."""

    set: dict[str, Any] = {}
    recipe: str = ""  # instead of the base
    system: str = STUDENT


class GridAxis(Component):
    """One axis of a grid: a key of the recipe, and its values."""

    key: str
    values: tuple[Any, ...] = Field(min_length=2)


class CorrectionTable(Component):
    """How p-values are corrected for the number of comparisons."""

    method: Correction = "holm"


class Experiment(Component):
    """One experiment: every variant is run on every fold with every seed.

    ``folds`` and ``seeds`` hold values for keys of the recipe. The questions of all folds are put together; over seeds
    a question's value is the mean. With several keys in one table the first values of all make the first fold. A fold
    (or seed) is named by the value of its first key, and by all its values where those of the first key repeat.
    """

    name: str
    about: str = ""
    base: str = Field(min_length=1)
    sets: tuple[str, ...] = ()  # evaluation sets of the base; none named: all
    measures: tuple[str, ...] = ("nDCG@20",)
    set: dict[str, Any] = {}  # overrides of the base, for all variants
    folds: dict[str, tuple[Any, ...]] = {}
    seeds: dict[str, tuple[Any, ...]] = {}
    variants: dict[str, Variant] = {}
    grid: dict[str, GridAxis] = {}
    effects: AxisClaim | None = None
    compare: dict[str, Claim] = {}
    correction: CorrectionTable = CorrectionTable()
    limits: tuple[str, ...] = ()  # what these data cannot show, in words, for the page

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.variants) == bool(self.grid):
            raise ValueError("expected variants ([variants.NAME]) or a grid ([grid.NAME]): give one of the two")
        for table, values in (("folds", self.folds), ("seeds", self.seeds)):
            if len({len(of_key) for of_key in values.values()}) > 1 or any(not of_key for of_key in values.values()):
                raise ValueError(f"[{table}]: expected values, and as many for each key, got {_lengths(values)}")
            labels = [label for label, _ in _list_settings(values)]
            if repeated := [label for label in labels if labels.count(label) > 1]:
                raise ValueError(f"[{table}]: expected each of them once, got {repeated[0]} {len(repeated)} times")
        for axis in (self.effects.larger, self.effects.than) if self.effects else ():
            if axis not in self.grid:
                raise ValueError(f"[effects] names {axis!r}, which is no axis; expected one of {sorted(self.grid)}")
        known = list(self.all_variants())
        for name, claim in self.compare.items():
            claim.check_variants(known)
            for key, measures in (("measures", claim.measures), ("at_least", claim.at_least)):
                if unknown := sorted(set(measures) - set(self.measures)):
                    raise ValueError(
                        f"compare.{name}.{key} names {unknown[0]}, which is not one of measures = {list(self.measures)}"
                    )
        return self

    @field_validator("compare", mode="before")
    @classmethod
    def _name_claims(cls, claims: Any) -> Any:
        """A claim's name is its key."""
        is_tables = isinstance(claims, Mapping) and all(isinstance(claim, Mapping) for claim in claims.values())
        return {name: {**claim, "name": name} for name, claim in claims.items()} if is_tables else claims

    def all_variants(self) -> dict[str, Variant]:
        """The variants by name; of a grid one for each element of the product of its axes."""
        if self.variants:
            return dict(self.variants)
        keys = [values.key for values in self.grid.values()]
        chosen = itertools.product(*(values.values for values in self.grid.values()))
        points = zip(self.describe_grid().points, chosen, strict=True)
        return {point.variant: Variant(set=dict(zip(keys, values, strict=True))) for point, values in points}

    def describe_grid(self) -> Grid:
        """The axes of the grid with the labels of their values, and where each variant lies."""
        axes = tuple(Axis.of(name, values.values) for name, values in self.grid.items())
        products = itertools.product(*(axis.levels for axis in axes))
        levels = [dict(zip(self.grid, labels, strict=True)) for labels in products]
        points = (GridPoint(variant=", ".join(f"{a} = {b}" for a, b in at.items()), levels=at) for at in levels)
        return Grid(axes=axes, points=tuple(points))

    def trials(self) -> "Iterator[Trial]":
        """Every variant on every fold with every seed."""
        for name, variant in self.all_variants().items():
            both = itertools.product(_list_settings(self.folds), _list_settings(self.seeds))
            for (fold, of_fold), (seed, of_seed) in both:
                values = {**self.set, **of_fold, **of_seed, **variant.set}
                yield Trial(name, fold, seed, variant.recipe or self.base, variant.system, values)


@dataclass(frozen=True)
class Trial:
    """One variant on one fold with one seed, and the overrides of the base recipe that make it. ``fold`` and ``seed``
    are empty where the experiment has none."""

    variant: str
    fold: str
    seed: str
    recipe: str
    system: str
    values: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What names this trial among all: mix-passages, fold 0, seed 1."""
        fold = f", fold {self.fold}" if self.fold else ""
        seed = f", seed {self.seed}" if self.seed else ""
        return self.variant + fold + seed


def names() -> list[str]:
    """The experiments that come with the package."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.toml"))


def is_experiment(name: str) -> bool:
    """Whether a name or a path is that of an experiment's file, which names a ``base``, and not of a recipe's. A name
    that both have is the recipe's; the experiment is then named by its path."""
    if name in recipe.names():
        return False
    if name in names():
        return True
    return Path(name).is_file() and "base" in read_toml(Path(name))


def load_experiment(name: str) -> Experiment:
    """Load an experiment by name or path.

    Raises:
        RecipeError: no such experiment, an unknown key, a comparison that names no variant; the message names the key.
    """
    path = find_file(name, EXPERIMENTS, "experiment")
    tree = read_toml(path)
    tree.setdefault("name", path.stem)
    if str(tree.get("base", "")).endswith(".toml"):
        tree["base"] = str((path.parent / tree["base"]).absolute())  # it stands beside the experiment's file
    variants = tree.get("variants")
    for variant in variants.values() if isinstance(variants, dict) else ():
        if isinstance(variant, dict) and str(variant.get("recipe", "")).endswith(".toml"):
            variant["recipe"] = str((path.parent / variant["recipe"]).absolute())
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(explain(f"experiment {name}", tree, error, Experiment)) from error


def _list_settings(table: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the overrides of each fold (or seed); one without name and overrides where there are none."""
    if not table:
        yield "", {}
        return
    rows = list(zip(*table.values(), strict=True))
    repeats = len({str(values[0]) for values in rows}) < len(rows)
    for values in rows:
        label = ", ".join(map(str, values)) if repeats else str(values[0])
        yield label, dict(zip(table, values, strict=True))


def _lengths(values: Mapping[str, Sequence[Any]]) -> str:
    return ", ".join(f"{key}: {len(of_key)}" for key, of_key in values.items())
