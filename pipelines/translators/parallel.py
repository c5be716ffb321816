"""Translations that exist already, joined by id, as neuMARCO and mMARCO are. Costs one look-up per row."""

from typing import Literal

from cluster.component import Component, Resources
from pipelines.translators.damage import Damage


class Parallel(Component):
    """Take the translations from the source itself: the same doc_id in the target language. ``damage`` makes them
    worse, wherever the recipe reads a translation; documents of an evaluation set are read as they are. ``resources``
    are of this stage's actors, None is ``resources.translate``."""

    kind: Literal["parallel"] = "parallel"
    damage: Damage = Damage()
    resources: Resources | None = None
