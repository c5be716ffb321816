"""Recipes: one TOML file names everything about one experiment.

    languages which languages questions and passages are in, and read in
    tables    the tables of a file: selection, teacher, mixture, systems, evaluation sets
    schema    the recipe, and what must fit together in it
    loading   from a file, with overrides, or as a variant that another recipe names
    explain   messages for what does not validate

Importing this loads neither torch, transformers nor ray.
"""

from pipelines.recipe.languages import EVERY_LANGUAGE
from pipelines.recipe.loading import RECIPES, find_members, load, names, variant
from pipelines.recipe.schema import BM25, STUDENT, UNTRAINED, Recipe
from pipelines.recipe.tables import EvaluationSet, ReadyStudent, Score, Select, SystemSpec

__all__ = [
    "BM25",
    "EVERY_LANGUAGE",
    "RECIPES",
    "STUDENT",
    "UNTRAINED",
    "EvaluationSet",
    "ReadyStudent",
    "Recipe",
    "Score",
    "Select",
    "SystemSpec",
    "find_members",
    "load",
    "names",
    "variant",
]
