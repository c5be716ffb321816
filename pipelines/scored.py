"""Scores that are there already: pairs that finished steps of the same teacher have scored are copied.

A step counts where its directory stands beside those of this step's inputs, is named ``score@…`` or ``score-…@…``, has
a manifest, and was made by the same work from the same teacher, languages, queries and documents. Its fingerprint is
computed again from its manifest by the code that runs now: where a version was raised since, it is another, and nothing
is copied.

What is copied is no part of any fingerprint: copied and new scores agree as two batches of one model do (about 1e-5),
not to the bit. A step that is being deleted, or has lost a part, is left out with a warning.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from cluster.artifact import MANIFEST, Artifact
from cluster.component import Component, canonical
from cluster.errors import BabelrayError
from cluster.step import fingerprint_step, flatten
from cluster.storage import Place
from pipelines.docstore import RowStore

STEP, ROWS = "score", "rankings"  # the name of scoring steps, and the role of the table that they map

log = logging.getLogger("babelray")


class ScoredPairs:
    """The rankings of finished steps, by name, to look up pairs in."""

    def __init__(self, rankings: Mapping[str, RowStore]) -> None:
        self._rankings = rankings

    @classmethod
    def find(cls, work: Any, config: Component, inputs: Mapping[str, Any]) -> "ScoredPairs":
        """Open all finished steps that have scored what a step with this config and these inputs scores."""
        rankings = {}
        for place in _parent(inputs["docs"].place).list():
            name, _, fingerprint = place.name.partition("@")
            if fingerprint and (name == STEP or name.startswith(f"{STEP}-")):
                artifact = Artifact(place)
                try:
                    if _is_same_teacher(artifact, work, config, inputs):
                        rankings[artifact.name] = RowStore.open(artifact)
                except (BabelrayError, ValueError, OSError) as error:  # ValueError: pydantic's and Arrow's too
                    log.warning("scores of %s are not copied: %s", artifact.name, str(error).partition("\n")[0])
        return cls(rankings)

    def look_up(self, query_ids: Sequence[str], doc_ids: Sequence[Sequence[str]]) -> tuple[np.ndarray, dict[str, int]]:
        """The scores of each query with its documents, one query after another, float32 [P]; NaN where there is none.
        And how many are from which step."""
        scores_P = np.full(sum(map(len, doc_ids)), np.nan, np.float32)
        counts = {}
        for name, store in self._rankings.items():
            before, start = int(np.isnan(scores_P).sum()), 0
            for position, ids in zip(store.positions(query_ids).tolist(), doc_ids, strict=True):
                if position >= 0:
                    row = store.row_at(position)
                    found = dict(zip(row["doc_ids"], row["scores"], strict=True))
                    old_K = scores_P[start : start + len(ids)]
                    new_K = np.array([found.get(doc_id, np.nan) for doc_id in ids], np.float32)
                    scores_P[start : start + len(ids)] = np.where(np.isnan(old_K), new_K, old_K)
                start += len(ids)
            if copied := before - int(np.isnan(scores_P).sum()):
                counts[name] = copied
        return scores_P, counts


def _is_same_teacher(artifact: Artifact, work: Any, config: Component, inputs: Mapping[str, Any]) -> bool:
    """Whether the artifact is complete and holds scores of the same teacher for the same texts."""
    if not (artifact.place / MANIFEST).exists():
        return False
    manifest = artifact.manifest
    same = {role: other.name for role, other in flatten(inputs).items()}
    if {role: name for role, name in manifest.inputs.items() if role != ROWS} != same:
        return False
    try:
        theirs = type(config).model_validate(manifest.config)
    except ValidationError:  # made by another work, or before a key was renamed
        return False
    if canonical(theirs.model_copy(update={"depth": None})) != canonical(config.model_copy(update={"depth": None})):
        return False
    made_from = {role: name.partition("@")[2] for role, name in manifest.inputs.items()}
    return manifest.fingerprint == fingerprint_step(work, theirs, made_from, [ROWS], manifest.table)


def _parent(place: Place) -> Place:
    """The directory that holds this one."""
    return Place(place.uri.replace(place.redacted, place.redacted.rstrip("/").rpartition("/")[0], 1))
