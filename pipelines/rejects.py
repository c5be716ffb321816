"""What a step rejected, for people: how many rows for which reason, and a few of them.

Of what a gate rejects the manifest holds the texts, source beside translation (``pipelines.gates.work``); of other
reasons the keys of some rows.
"""

from collections.abc import Mapping
from typing import Any

from cluster.artifact import MANIFEST, Manifest, Rejected
from cluster.storage import Place
from pipelines.gates import GateConfig
from pipelines.plan import Plan

GATE = "gate: "  # how the reasons of gates begin
SAMPLES = "samples"  # among a step's facts: reason → rows of id, source, translation
COLUMNS = ("id", "source", "translation")


def split_samples(
    facts: Mapping[str, Any], rejects: Mapping[str, Rejected]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The facts without samples, and the rejects by reason, the most frequent first, each with its samples:
    ``{"gate: length": {"count": 78, "examples": […], "samples": [{"id": …, "source": …, "translation": …}]}}``."""
    samples = facts.get(SAMPLES, {})
    rejected = {}
    for reason, found in sorted(rejects.items(), key=lambda item: -item[1].count):
        texts = [dict(zip(COLUMNS, row, strict=True)) for row in samples.get(reason, [])]
        rejected[reason] = found.model_dump(mode="json") | ({SAMPLES: texts} if texts else {})
    return {name: value for name, value in facts.items() if name != SAMPLES}, rejected


def count_gated(plan: Plan, root: Place) -> dict[str, tuple[int, int]]:
    """How many rows each gate of a plan rejected, and of how many, by the step's name. A gate whose artifact was
    deleted is left out."""
    gates = [step for step in plan.steps if isinstance(step.config, GateConfig)]
    made = {step.name: step.artifact(root).manifest for step in gates if (root / step.id / MANIFEST).exists()}
    return {name: (count_rejects(manifest, GATE), manifest.rows) for name, manifest in made.items()}


def count_rejects(manifest: Manifest, beginning: str) -> int:
    """How many rows were rejected for a reason that begins so."""
    return sum(found.count for reason, found in manifest.rejects.items() if reason.startswith(beginning))
