"""Translations that exist already, joined by id, as neuMARCO and mMARCO are. Costs one look-up per row."""

from typing import Literal

from cluster.component import Component, Resources


class Parallel(Component):
    """Take the translations from the source itself: the same doc_id in the target language. ``resources`` are of this
    stage's actors, None is ``resources.translate``."""

    kind: Literal["parallel"] = "parallel"
    resources: Resources | None = None
