"""The step *start*: the student before its first step, made on CPUs before accelerators are asked for.

Inputs: ``data``, by the name of the data set: ``queries``, ``docs`` by language, and, where questions are asked in
several languages, the others as ``translated_queries``; or ``docs`` alone, sentence pairs by language. Left out for a
student that reads no corpus (``student.reads_corpus``). ``models``: the training of the recipe whose student is the
base.

The artifact: ``start/``, the untrained student, and ``warm/`` after its warm-up, for a student that has one; both are
sentence-transformers directories. A training begins from ``warm/`` where it exists.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from cluster.artifact import Artifact
from cluster.component import Component
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.models import locate
from pipelines.students import AnyStudent
from pipelines.students.base import Corpus, WarmUp

START, WARM = "start", "warm"


class StartConfig(Component):
    """The student, and the seed of its weights."""

    student: AnyStudent
    seed: int = Field(12345, ge=0, lt=2**63)


def build_start(config: StartConfig, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """Build the student in a worker of the cluster. Returns ``{"warm_up": facts}`` of a student that has a warm-up."""
    arguments = {"config": locate(config, inputs), "data": inputs.get("data", {}), "out": out}
    (facts,) = fan_out("student", BuildStudent, arguments, ["student"])
    return facts


class BuildStudent:
    """Builds the student and warms it up; see ``cluster.step.UnitWork``. There is one unit."""

    def __init__(self, config: StartConfig, data: Mapping[str, Mapping[str, Any]], out: Place):
        self.config, self.data, self.out = config, data, out

    def __call__(self, unit: Any) -> dict[str, Any]:
        """Write ``start/`` and ``warm/``; returns the facts of the warm-up."""
        student, seed = self.config.student, self.config.seed
        corpus = Corpus.open(self.data if student.reads_corpus else {})
        encoder = student.build(corpus, seed)
        _save(encoder, self.out / START)
        if not isinstance(student, WarmUp):
            return {}
        facts = student.warm_up(encoder, corpus, seed)
        _save(encoder, self.out / WARM)
        return {"warm_up": facts}


def open_start(start: Artifact, first: str) -> Path:
    """The directory of the student that takes the first step: of a *start* artifact the warmed-up student where there
    is one, or the ``best`` of another training."""
    if first == START and (start.place / WARM).list():
        return (start.place / WARM).fetch()
    return (start.place / first).fetch()


def _save(encoder: Any, place: Place) -> None:
    with tempfile.TemporaryDirectory() as directory:
        encoder.save(Path(directory))
        place.put(Path(directory))
